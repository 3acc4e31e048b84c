"""Models that break the rules of layers, by layer, flow and qconfig, and the same put right."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.ao.quantization as tq
from torch import Tensor, nn
from torch.ao.quantization import DeQuantStub, QConfig, QuantStub, quantize_fx
from torch.nn.utils import parametrize, prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm
from torch.nn.utils.parametrizations import weight_norm

from tests.checks.examples import Made, example
from tests.support.frozen_norm import FrozenBatchNorm2d

FLOWS = ("eager", "fx")
ROW, SOUND, PICTURE, BLOCK = (4, 3), (2, 3, 12), (2, 3, 8, 8), (2, 3, 5, 5, 5)
SHAPES = {
    nn.Linear: (ROW, ()),
    nn.Conv1d: (SOUND, (3,)),
    nn.Conv2d: (PICTURE, (3,)),
    nn.Conv3d: (BLOCK, (3,)),
    nn.ConvTranspose1d: (SOUND, (3,)),
    nn.ConvTranspose2d: (PICTURE, (3,)),
    nn.ConvTranspose3d: (BLOCK, (3,)),
}
NORMS = {nn.Conv1d: nn.BatchNorm1d, nn.Conv2d: nn.BatchNorm2d, nn.Conv3d: nn.BatchNorm3d}


def net(shape: Sequence[int], *layers: Callable[[], nn.Module]) -> Callable[[], Made]:
    """Made anew each time, between stubs: layer ``i`` is at path ``str(i + 1)``."""

    def make() -> Made:
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # weight_norm is deprecated
            made = [QuantStub(), *(layer() for layer in layers), DeQuantStub()]
        return nn.Sequential(*made).train(), (torch.randn(*shape),)

    return make


def torch_alone(
    model: nn.Module,
    inputs: Any,
    flow: str,
    qconfig: Any,
    fuse: Any = None,
    engine: str = "fbgemm",
) -> tuple[Tensor, Tensor]:
    """Output of the fake-quant model and of the int8 one."""
    backend = qconfig if isinstance(qconfig, str) else engine
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = backend
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if flow == "fx":
                mapping = qconfig
                if isinstance(qconfig, str):
                    mapping = tq.get_default_qat_qconfig_mapping(qconfig)
                prepared = quantize_fx.prepare_qat_fx(model, mapping, inputs)
            else:
                if fuse:
                    model = tq.fuse_modules_qat(model, fuse)
                model.qconfig = (
                    tq.get_default_qat_qconfig(qconfig) if isinstance(qconfig, str) else qconfig
                )
                prepared = tq.prepare_qat(model)
            prepared(*inputs)
            prepared.eval()
            with torch.no_grad():
                wanted = prepared(*inputs)
                convert = quantize_fx.convert_fx if flow == "fx" else tq.convert
                return wanted, convert(copy.deepcopy(prepared))(*inputs)
    finally:
        torch.backends.quantized.engine = before


def stops(flow: str, qconfig: Any = "fbgemm", fuse: Any = None) -> Callable[[Any, Any], bool]:
    """Whether torch raises somewhere between the float model and the int8 model's output."""

    def asked(model: Any, inputs: Any) -> bool:
        try:
            torch_alone(model, inputs, flow, qconfig, fuse)
        except Exception:
            return True
        return False

    return asked


def broken_numbers(flow: str, fuse: Any = None) -> Callable[[Any, Any], bool]:
    """Whether the fake-quant model gives what is not finite, or raises at it."""

    def asked(model: Any, inputs: Any) -> bool:
        try:
            wanted, _ = torch_alone(model, inputs, flow, "fbgemm", fuse)
        except RuntimeError as error:
            return "zero_point" in str(error)
        return not bool(torch.isfinite(wanted).all())

    return asked


def parts(flow: str, qconfig: Any = "fbgemm") -> Callable[[Any, Any], bool]:
    """Whether int8 is far from the fake quants, or cannot be had."""

    def asked(model: Any, inputs: Any) -> bool:
        try:
            wanted, found = torch_alone(model, inputs, flow, qconfig)
        except IndexError:
            return True
        return float((wanted - found).abs().mean()) > 0.03 * float(wanted.max() - wanted.min())

    return asked


def no_fake_quant(path: str) -> Callable[[Any, Any], bool]:
    """Whether eager mode gives the weight at ``path`` none."""

    def asked(model: Any, inputs: Any) -> bool:
        model.qconfig = tq.get_default_qat_qconfig("fbgemm")
        return not hasattr(tq.prepare_qat(model).get_submodule(path), "weight_fake_quant")

    return asked


def computes_float(path: str, flow: str) -> Callable[[Any, Any], bool]:
    """Whether the prepared model's module at ``path`` is still there, not fused into another."""

    def asked(model: Any, inputs: Any) -> bool:
        mapping = tq.get_default_qat_qconfig_mapping("fbgemm")
        prepared = quantize_fx.prepare_qat_fx(model, mapping, inputs)
        return not any(type(m).__name__.startswith("ConvBn") for m in prepared.modules())

    return asked


# -- padding ------------------------------------------------------------------------------------

for flow in FLOWS:
    for conv in NORMS:
        shape = SHAPES[conv][0]
        word = lambda c=conv: c(3, 4, 3, padding="same", dilation=2)
        number = lambda c=conv: c(3, 4, 3, padding=2, dilation=2)
        example(
            "QX101",
            f"same-{conv.__name__}-{flow}",
            net(shape, word),
            net(shape, number),
            stops(flow),
            {"flow": flow},
            paths=("1",),
        )
        norm = lambda c=conv: NORMS[c](4)
        example(
            "QX101",
            f"fused-{conv.__name__}-{flow}",
            net(shape, word, norm, nn.ReLU),
            net(shape, number, norm, nn.ReLU),
            stops(flow, fuse=[["1", "2", "3"]]),
            {"flow": flow},
            paths=("1",),
        )
    for mode in ("replicate", "circular"):
        example(
            "QX102",
            f"{mode}-{flow}",
            net(PICTURE, lambda m=mode: nn.Conv2d(3, 4, 3, padding=1, padding_mode=m)),
            net(PICTURE, lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")),
            stops(flow),
            {"flow": flow},
            paths=("1",),
        )
    example(
        "QX102",
        f"reflect-3d-{flow}",
        net(BLOCK, lambda: nn.Conv3d(3, 4, 3, padding=1, padding_mode="reflect")),
        net(BLOCK, lambda: nn.Conv3d(3, 4, 3, padding=1)),
        stops(flow),
        {"flow": flow},
    )
    example(
        "QX102",
        f"replicate-1d-{flow}",
        net(SOUND, lambda: nn.Conv1d(3, 4, 3, padding=1, padding_mode="replicate")),
        net(SOUND, lambda: nn.ReplicationPad1d(1), DeQuantStub, QuantStub, nn.Identity)
        if flow == "fx"
        else net(SOUND, DeQuantStub, lambda: nn.ReplicationPad1d(1), QuantStub),
        stops(flow),
        {"flow": flow},
    )

example(
    "QX101",
    "even-kernel",
    net(SOUND, lambda: nn.Conv1d(3, 4, 4, padding="same")),
    net(SOUND, lambda: nn.ConstantPad1d((1, 2), 0.0), lambda: nn.Conv1d(3, 4, 4)),
    stops("eager"),
    paths=("1",),
)
example(
    "QX101",
    "valid",
    net(PICTURE, lambda: nn.Conv2d(3, 4, 3, padding="valid")),
    net(PICTURE, lambda: nn.Conv2d(3, 4, 3, padding=0)),
    stops("eager"),
    paths=("1",),
)


# -- batch norms --------------------------------------------------------------------------------


def frozen_affine(norm: Any) -> nn.Module:
    for parameter in norm.parameters():
        parameter.requires_grad_(False)
    return norm  # type: ignore[no-any-return]


for flow in FLOWS:
    for conv, kind in NORMS.items():
        shape = SHAPES[conv][0]
        layer = lambda c=conv: c(3, 4, 3)
        example(
            "QX105",
            f"{conv.__name__}-{flow}",
            net(shape, layer, lambda k=kind: k(4, affine=False)),
            net(shape, layer, lambda k=kind: frozen_affine(k(4))),
            stops(flow, fuse=[["1", "2"]]),
            {"flow": flow},
            paths=("2",),
        )
        example(
            "QX106",
            f"{conv.__name__}-{flow}",
            net(shape, layer, lambda k=kind: k(4, track_running_stats=False)),
            net(shape, layer, lambda k=kind: k(4)),
            stops(flow, fuse=[["1", "2"]]),
            {"flow": flow},
            paths=("2",),
        ) if flow == "fx" or kind is not nn.BatchNorm1d else None

        def zero_norm(k: Any = kind) -> nn.Module:
            norm = k(4)
            with torch.no_grad():
                norm.weight[1:2].zero_()
            return norm  # type: ignore[no-any-return]

        example(
            "QX108",
            f"{conv.__name__}-{flow}",
            net(shape, layer, zero_norm),
            net(shape, layer, lambda k=kind: k(4)),
            broken_numbers(flow, [["1", "2"]]),
            {"flow": flow},
            paths=("2",),
        )
    example(
        "QX105",
        f"Linear-{flow}",
        net(ROW, lambda: nn.Linear(3, 4), lambda: nn.BatchNorm1d(4, affine=False)),
        net(ROW, lambda: nn.Linear(3, 4), lambda: frozen_affine(nn.BatchNorm1d(4))),
        stops(flow, fuse=[["1", "2"]]),
        {"flow": flow},
        paths=("2",),
    )
    example(
        "QX105",
        f"alone-{flow}",
        net(PICTURE, lambda: nn.BatchNorm2d(3, affine=False), lambda: nn.Conv2d(3, 4, 3)),
        net(PICTURE, lambda: frozen_affine(nn.BatchNorm2d(3)), lambda: nn.Conv2d(3, 4, 3)),
        stops(flow),
        {"flow": flow},
        paths=("1",),
    )
    for name, other in (
        ("sync", lambda: nn.SyncBatchNorm(4)),
        ("frozen", lambda: FrozenBatchNorm2d(4)),
    ):
        example(
            "QX107",
            f"{name}-{flow}",
            net(PICTURE, lambda: nn.Conv2d(3, 4, 3), other),
            net(PICTURE, lambda: nn.Conv2d(3, 4, 3), lambda: nn.BatchNorm2d(4)),
            stops(flow) if flow == "eager" else computes_float("2", flow),
            {"flow": flow},
            paths=("2",),
        )


# -- weights ------------------------------------------------------------------------------------


def pruned(layer: nn.Module) -> nn.Module:
    prune.l1_unstructured(layer, "weight", 0.3)
    return layer


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight * 2


def doubled(layer: nn.Module) -> nn.Module:
    return parametrize.register_parametrization(layer, "weight", Doubled())


for flow in FLOWS:
    for kind in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d):
        shape, size = SHAPES[kind]
        layer = lambda k=kind, s=size: k(3, 4, *s)
        for name, norm in (
            ("weight_norm", old_weight_norm),
            ("spectral_norm", old_spectral_norm),
            ("pruned", pruned),
        ):
            example(
                "QX121",
                f"{name}-{kind.__name__}-{flow}",
                net(shape, lambda c=layer, n=norm: n(c())),
                net(shape, layer),
                stops(flow),
                {"flow": flow},
                paths=("1",),
            )
        if kind is not nn.Linear:
            for name, norm in (("weight_norm", weight_norm), ("own", doubled)):
                example(
                    "QX122",
                    f"{name}-{kind.__name__}-{flow}",
                    net(shape, lambda c=layer, n=norm: n(c())),
                    # What torch takes: a Linear.
                    net(ROW, lambda n=norm: n(nn.Linear(3, 4))),
                    stops(flow),
                    {"flow": flow},
                    paths=("1",),
                )


class OwnLinear(nn.Linear):
    pass


class OwnConv(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 1


for name, shape, own, plain in (
    ("Linear", ROW, lambda: OwnLinear(3, 4), lambda: nn.Linear(3, 4)),
    ("Conv2d", PICTURE, lambda: OwnConv(3, 4, 3), lambda: nn.Conv2d(3, 4, 3)),
):
    example("QX123", name, net(shape, own), net(shape, plain), no_fake_quant("1"), paths=("1",))
for kind in (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d):
    shape, size = SHAPES[kind]
    example(
        "QX124",
        kind.__name__,
        net(shape, lambda k=kind: k(3, 4, 3)),
        net(PICTURE, lambda: nn.Conv2d(3, 4, 3)),
        no_fake_quant("1"),
        {"qconfig": "qnnpack"},
        paths=("1",),
    )
example(
    "QX124",
    "Conv1d-ReLU",
    net(SOUND, lambda: nn.Conv1d(3, 4, 3), nn.ReLU),
    net(PICTURE, lambda: nn.Conv2d(3, 4, 3), nn.ReLU),
    no_fake_quant("1"),
    paths=("1",),
)


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.Sequential(nn.Linear(3, 4)))


example(
    "QX125",
    "part",
    net(ROW, scripted),
    net(ROW, lambda: nn.Sequential(nn.Linear(3, 4))),
    stops("eager"),
    paths=("1",),
)


# -- kinds --------------------------------------------------------------------------------------

ONE_SCALE = QConfig(tq.get_default_qat_qconfig("fbgemm").activation, tq.default_weight_fake_quant)


class Words(nn.Module):
    """Whole numbers, an embedding, then int8."""

    def __init__(self, kind: Any, right: bool) -> None:
        super().__init__()
        self.table = kind(10, 8)
        self.quant, self.head, self.dequant = QuantStub(), nn.Linear(8, 2), DeQuantStub()
        if right:
            self.table.qconfig = tq.default_embedding_qat_qconfig

    def forward(self, words: Tensor) -> Tensor:
        return self.dequant(self.head(self.quant(self.table(words))))


def words(kind: Any, right: bool) -> Callable[[], Made]:
    return lambda: (Words(kind, right).train(), (torch.randint(0, 10, (2, 5)),))


class Recurrent(nn.Module):
    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.layer, self.head = kind(4, 6), nn.Linear(6, 2)
        self.several = kind in (nn.GRU, nn.RNN, nn.LSTM, nn.LSTMCell)

    def forward(self, x: Tensor) -> Tensor:
        result = self.layer(self.quant(x))
        return self.dequant(self.head(result[0] if self.several else result))


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.attend, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(x)
        return self.dequant(self.head(self.attend(x, x, x)[0]))


def recurrent(kind: Any, *shape: int) -> Callable[[], Made]:
    return lambda: (Recurrent(kind).train(), (torch.randn(*shape),))


for kind in (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d):
    shape, size = SHAPES[kind]
    layer = lambda k=kind: k(3, 4, 3)

    def with_one_scale(k: Any = kind) -> nn.Module:
        made = k(3, 4, 3)
        made.qconfig = ONE_SCALE
        return made  # type: ignore[no-any-return]

    example(
        "QX131",
        f"{kind.__name__}-eager",
        net(shape, layer),
        net(shape, with_one_scale),
        stops("eager"),
        {"qconfig": {"": "fbgemm"}},
        {"engine": "fbgemm"},
        paths=("1",),
    )
example(
    "QX131",
    "fx",
    net(PICTURE, lambda: nn.ConvTranspose2d(3, 4, 3)),
    net(PICTURE, lambda: nn.Conv2d(3, 4, 3)),
    stops("fx", "onednn"),
    {"flow": "fx", "qconfig": "onednn"},
)
for kind in (nn.Embedding, nn.EmbeddingBag):
    example(
        "QX132",
        f"{kind.__name__}-eager",
        words(kind, False),
        words(kind, True),
        stops("eager"),
        {"flow": "eager"},
        paths=("table",),
    )
    example(
        "QX132",
        f"{kind.__name__}-fx",
        words(kind, False),
        lambda: (Recurrent(nn.Linear).train(), (torch.randn(3, 4),)),
        stops("fx"),
        {"flow": "fx"},
        paths=("table",),
    )
for name, kind, shape in (
    ("GRU", nn.GRU, (3, 2, 4)),
    ("RNN", nn.RNN, (3, 2, 4)),
    ("GRUCell", nn.GRUCell, (2, 4)),
    ("RNNCell", nn.RNNCell, (2, 4)),
    ("LSTMCell", nn.LSTMCell, (2, 4)),
):
    example(
        "QX133",
        name,
        recurrent(kind, *shape),
        recurrent(nn.LSTM, 3, 2, 4),
        stops("eager", "qnnpack"),
        {"qconfig": "qnnpack"},
        paths=("layer",),
    )
example(
    "QX134",
    "attention",
    lambda: (Attends().train(), (torch.randn(2, 5, 8),)),
    lambda: (Recurrent(nn.Linear).train(), (torch.randn(2, 4),)),
    stops("eager"),
    paths=("attend",),
)
for flow in FLOWS:
    for qconfig in ("fbgemm", "qnnpack"):
        example(
            "QX135",
            f"{flow}-{qconfig}",
            net(PICTURE, lambda: nn.Conv2d(3, 4, 3), lambda: nn.PReLU(4)),
            net(PICTURE, lambda: nn.Conv2d(3, 4, 3), nn.LeakyReLU),
            parts(flow, qconfig),
            {"flow": flow, "qconfig": qconfig},
            paths=("2",),
        )
