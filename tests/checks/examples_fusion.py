"""Models in which something is not fused, or should not be."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.ao.quantization as tq
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import quantize_fx

from tests.checks.examples import Made, example
from tests.checks.examples_sharing import (
    EAGER,
    ENGINE,
    FX,
    conv,
    linear,
    made,
    norm,
    pixels,
    prepared_eager,
    prepared_fx,
    rows,
)

# -- batch norms that stay apart ------------------------------------------------------------------


def norm_stays(flow: str) -> Any:
    """A batch norm computes by itself in the prepared model, as a module or as a function."""

    def misbehaves(model: nn.Module, inputs: Any) -> bool:
        if flow == "fx":
            prepared: Any = prepared_fx(model, inputs)
            called = {str(node.target) for node in prepared.graph.nodes}
            functional = any("batch_norm" in str(node) for node in prepared.graph.nodes)
            alone = [
                name
                for name, module in prepared.named_modules()
                if isinstance(module, nn.modules.batchnorm._BatchNorm) and name in called
            ]
            return bool(alone) or functional
        names = [name for name in ("conv", "norm", "relu") if hasattr(model, name)]
        try:
            fused = tq.fuse_modules_qat(model, [names])
        except Exception:  # torch raises just that for a transposed convolution
            return True
        before = copy.deepcopy(model).eval()(*inputs)
        return bool((fused.eval()(*inputs) - before).abs().max() > 1e-3)

    return misbehaves


class OwnNorm(nn.BatchNorm2d):
    """As in timm: a class derived from BatchNorm2d, whose forward calls the function."""

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, True, 0.1, 1e-5
        )


def norm1d() -> nn.Module:
    made = nn.BatchNorm1d(8)
    nn.init.uniform_(made.weight, 1, 2)
    return made


def after_conv(m: Any, x: Tensor) -> Tensor:
    return m.dequant(m.norm(m.conv(m.quant(x))))


for _flow, _settings in (("eager", EAGER), ("fx", FX)):
    example(
        "QX171", f"used-by-others-{_flow}",
        made(pixels, lambda m, x: m.norm(y := m.conv(m.quant(x))) + y, conv=conv, norm=norm),
        made(pixels, lambda m, x: m.norm(m.conv(m.quant(x))) + x, conv=conv, norm=norm),
        norm_stays(_flow), _settings, paths=("norm",),
    )  # fmt: skip
    example(
        "QX171", f"own-class-{_flow}",
        made(pixels, after_conv, conv=conv, norm=lambda: OwnNorm(3)),
        made(pixels, after_conv, conv=conv, norm=norm),
        norm_stays(_flow), _settings, paths=("norm",),
    )  # fmt: skip
    example(
        "QX171", f"linear-{_flow}",
        made(rows, lambda m, x: m.norm(y := m.conv(m.quant(x))) + y,
             conv=linear, norm=norm1d),
        made(rows, lambda m, x: m.norm(m.conv(m.quant(x))),
             conv=linear, norm=norm1d),
        norm_stays(_flow), _settings, paths=("norm",),
    )  # fmt: skip
example(
    "QX171", "not-adjacent",
    made(pixels, lambda m, x: m.norm(m.drop(m.conv(x))), conv=conv, norm=norm, drop=nn.Identity),
    made(pixels, lambda m, x: m.drop(m.norm(m.conv(x))), conv=conv, norm=norm, drop=nn.Identity),
    norm_stays("fx"), FX, paths=("norm",),
)  # fmt: skip
example(
    "QX171", "runs-several-times",
    made(pixels, lambda m, x: m.norm(m.conv(x)) + m.norm(x), conv=conv, norm=norm),
    made(pixels, lambda m, x: m.norm(m.conv(x)) + x, conv=conv, norm=norm),
    norm_stays("eager"), EAGER, paths=("norm",),
)  # fmt: skip
example(
    "QX171", "transposed",
    made(pixels, after_conv, conv=lambda: nn.ConvTranspose2d(3, 3, 1), norm=norm),
    made(pixels, after_conv, conv=conv, norm=norm),
    norm_stays("eager"), EAGER, paths=("norm",),
)  # fmt: skip


def list_leaves_it_out(model: nn.Module, inputs: Any) -> bool:
    """With the same fuse list for both, that names the first pair only."""
    fused = tq.fuse_modules_qat(model, [["conv", "norm"]])
    prepared = prepared_eager(fused)
    return any(type(m) is nn.BatchNorm2d for m in prepared.children())


example(
    "QX171", "left-out-of-the-list",
    made(pixels, lambda m, x: m.norm2(m.conv2(m.norm(m.conv(x)))),
         conv=conv, norm=norm, conv2=conv, norm2=norm),
    made(pixels, lambda m, x: m.conv2(m.norm(m.conv(x))), conv=conv, norm=norm, conv2=conv),
    list_leaves_it_out, {**EAGER, "fusion": [["conv", "norm"]]}, paths=("norm2",),
)  # fmt: skip


# -- activations ----------------------------------------------------------------------------------


def no_fuser(model: nn.Module, inputs: Any) -> bool:
    try:
        tq.fuse_modules_qat(model, [["conv", "norm", "act"]])
    except AssertionError as error:
        return "did not find fuser method" in str(error)
    return False


def with_act(act: Callable[[], nn.Module]) -> Any:
    return made(
        pixels, lambda m, x: m.dequant(m.act(m.norm(m.conv(m.quant(x))))),
        conv=conv, norm=norm, act=act,
    )  # fmt: skip


for _flow, _settings in (("eager", EAGER), ("fx", FX)):
    for _act in (nn.SiLU, nn.LeakyReLU, nn.Hardswish):
        example(
            "QX172", f"{_act.__name__}-{_flow}", with_act(_act), with_act(nn.ReLU), no_fuser,
            _settings, paths=("act",),
        )  # fmt: skip


# -- fake quants before a ReLU --------------------------------------------------------------------


def negative_codes(path: str) -> Any:
    """In eager, the fake quant of ``path`` has codes for negative values."""

    def misbehaves(model: nn.Module, inputs: Any) -> bool:
        names = [n for n in ("conv", "norm", "relu") if isinstance(getattr(model, n, 0), nn.Module)]
        calls = dict.fromkeys(names, 0)
        for name in names:
            model.get_submodule(name).register_forward_pre_hook(
                lambda *_, name=name: calls.__setitem__(name, calls[name] + 1)
            )
        copy.deepcopy(model)(*inputs)
        model.apply(lambda m: m._forward_pre_hooks.clear())
        if len(names) > 1 and set(calls.values()) == {1}:
            with contextlib.suppress(AssertionError):  # it has no fuser for them
                model = tq.fuse_modules_qat(model, [names])
        prepared: Any = prepared_eager(model, 5, inputs)
        return int(prepared.get_submodule(path).activation_post_process.zero_point) > 0

    return misbehaves


def negative_codes_in_fx(model: nn.Module, inputs: Any) -> bool:
    """A fake quant whose only user is a ReLU of some kind has codes for negative values."""
    prepared: Any = prepared_fx(model, inputs, 5)
    for node in prepared.graph.nodes:
        users = list(node.users)
        if str(node.target).startswith("activation_post_process") and len(users) == 1:
            used_by = str(users[0].target)
            module = dict(prepared.named_modules()).get(used_by)
            relu = "relu" in used_by or isinstance(module, (nn.ReLU, nn.ReLU6))
            if relu and int(prepared.get_submodule(node.target).zero_point) > 0:
                return True
    return False


def relu_after(how: Callable[[Any, Tensor], Tensor], **more: Any) -> Any:
    return made(pixels, lambda m, x: m.dequant(how(m, m.conv(m.quant(x)))), conv=conv, **more)


_relu_module = relu_after(lambda m, x: m.relu(x), relu=nn.ReLU)
example(
    "QX173", "function-in-eager", relu_after(lambda m, x: F.relu(x)), _relu_module,
    negative_codes("conv"), EAGER, paths=("conv",),
)  # fmt: skip
example(
    "QX173", "relu6-in-eager", relu_after(lambda m, x: m.relu(x), relu=nn.ReLU6), _relu_module,
    negative_codes("conv"), EAGER, paths=("relu",),
)  # fmt: skip
example(
    "QX173", "relu-reused-in-eager",
    made(pixels, lambda m, x: m.relu(m.conv(m.quant(m.relu(x)))), conv=conv, relu=nn.ReLU),
    made(pixels, lambda m, x: m.relu(m.conv(m.quant(F.relu(x)))), conv=conv, relu=nn.ReLU),
    negative_codes("conv"), EAGER, paths=("relu",),
)  # fmt: skip
example(
    "QX173", "add-then-relu",
    made(pixels, lambda m, x: m.dequant(F.relu(m.f.add(y := m.quant(x), y))), f=FloatFunctional),
    made(pixels, lambda m, x: m.dequant(m.f.add_relu(y := m.quant(x), y)), f=FloatFunctional),
    negative_codes("f"), EAGER, paths=("f",),
)  # fmt: skip
for _name, _how in (
    ("torch-relu", lambda m, x: torch.relu(x)),
    ("method", lambda m, x: x.relu()),
    ("in-place-method", lambda m, x: x.relu_()),
    ("relu6", lambda m, x: F.relu6(x)),
):
    example(
        "QX173", f"{_name}-in-fx", relu_after(_how), relu_after(lambda m, x: F.relu(x)),
        negative_codes_in_fx, FX, paths=("conv",),
    )  # fmt: skip
example(
    "QX173", "relu6-module-in-fx", relu_after(lambda m, x: m.relu(x), relu=nn.ReLU6), _relu_module,
    negative_codes_in_fx, FX, paths=("relu",),
)  # fmt: skip
example(
    "QX173", "add-then-method-in-fx",
    made(pixels, lambda m, x: (x + m.conv(x)).relu(), conv=conv),
    made(pixels, lambda m, x: torch.relu(x + m.conv(x)), conv=conv),
    negative_codes_in_fx, FX,
)  # fmt: skip


# -- modes ----------------------------------------------------------------------------------------


def mode_error(flow: str) -> Any:
    def misbehaves(model: nn.Module, inputs: Any) -> bool:
        try:
            if flow == "fx":
                quantize_fx.prepare_qat_fx(
                    model, tq.get_default_qat_qconfig_mapping(ENGINE), inputs
                )
            else:
                tq.fuse_modules_qat(model, [["conv", "norm"]])
        except AssertionError as error:
            return "must be in the same mode" in str(error)
        return False

    return misbehaves


def in_modes(**modes: bool) -> Any:
    build = made(pixels, after_conv, conv=conv, norm=norm)

    def with_modes() -> Made:
        model, inputs = build()
        for name, training in modes.items():
            model.get_submodule(name).train(training)
        return model, inputs

    return with_modes


for _flow, _settings in (("eager", EAGER), ("fx", FX)):
    for _part, _paths in (("norm", ("norm",)), ("conv", ("norm",))):
        example(
            "QX174", f"{_part}-in-eval-{_flow}", in_modes(**{_part: False}), in_modes(),
            mode_error(_flow), _settings, paths=_paths,
        )  # fmt: skip


def dropout_does_nothing(model: nn.Module, inputs: Any) -> bool:
    prepared = prepared_fx_as_it_is(model, inputs)
    return not any(m.training for m in prepared.modules() if isinstance(m, nn.Dropout))


def prepared_fx_as_it_is(model: nn.Module, inputs: Any) -> nn.Module:
    mapping = tq.get_default_qat_qconfig_mapping(ENGINE)
    prepared: nn.Module = quantize_fx.prepare_qat_fx(model, mapping, inputs)
    return prepared


def dropping(training: bool) -> Any:
    build = made(rows, lambda m, x: m.fc(m.drop(x)), fc=linear, drop=nn.Dropout)

    def with_mode() -> Made:
        model, inputs = build()
        model.drop.train(training)
        return model, inputs

    return with_mode


example(
    "QX174", "dropout-in-eval", dropping(False), dropping(True), dropout_does_nothing, FX,
    paths=("drop",),
)  # fmt: skip


# -- Linear + BatchNorm1d over tokens -------------------------------------------------------------


class Tokens(nn.Module):
    """Linear, batch norm over tokens, ReLU; all tokens have the same statistics yet."""

    def __init__(self, two_dimensions: bool) -> None:
        super().__init__()
        self.quant, self.dequant = tq.QuantStub(), tq.DeQuantStub()
        self.embed, self.head = nn.Linear(8, 12), nn.Linear(12, 3)
        self.norm = nn.BatchNorm2d(12) if two_dimensions else nn.BatchNorm1d(12)
        self.act = nn.ReLU()
        self.two_dimensions = two_dimensions

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(self.quant(x))
        x = self.norm(x.unsqueeze(-1)).squeeze(-1) if self.two_dimensions else self.norm(x)
        out: Tensor = self.dequant(self.head(self.act(x).mean(1)))
        return out


def tokens(two_dimensions: bool) -> Any:
    def build() -> Made:
        torch.manual_seed(0)
        ramp = torch.linspace(0.2, 3.0, 12)[None, :, None]  # late tokens are louder
        return Tokens(two_dimensions).train(), (torch.randn(16, 12, 8) * ramp,)

    return build


def int8_is_off(flow: str) -> Any:
    def misbehaves(model: Any, inputs: Any) -> bool:
        with torch.no_grad():  # as after training: every token has a gain and an offset
            model.norm.weight.copy_(torch.linspace(0.5, 2.0, 12))
            model.norm.bias.copy_(torch.linspace(-1.0, 1.0, 12))
        if flow == "fx":
            prepared = prepared_fx(model, inputs, 60).eval()
        else:
            if not model.two_dimensions:
                model = tq.fuse_modules_qat(model, [["embed", "norm"]])
            prepared = prepared_eager(model, 60, inputs).eval()
        convert = quantize_fx.convert_fx if flow == "fx" else tq.convert
        with torch.no_grad():
            fake, int8 = prepared(*inputs), convert(copy.deepcopy(prepared))(*inputs)
        return bool((fake - int8).abs().max() > 0.1 * (fake.max() - fake.min()))

    return misbehaves


for _flow, _settings in (("eager", EAGER), ("fx", FX)):
    example(
        "QX175", _flow, tokens(False), tokens(True), int8_is_off(_flow), _settings, paths=("embed",)
    )  # fmt: skip


# -- wrappers -------------------------------------------------------------------------------------


def small() -> Made:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 4), nn.ReLU()).train(), (rows(),)


def compiled() -> Made:
    model, inputs = small()
    # backend="eager" needs no C++ compiler; the wrapper is the same
    return torch.compile(model, backend="eager"), inputs


def names_or_tracing_break(model: nn.Module, inputs: Any) -> bool:
    if any(name.startswith(("_orig_mod.", "module.")) for name in model.state_dict()):
        return True
    quantize_fx.prepare_qat_fx(model, tq.get_default_qat_qconfig_mapping(ENGINE), inputs)
    return False


def parallel() -> Made:
    model, inputs = small()
    return nn.DataParallel(model), inputs


example("QX176", "compiled", compiled, small, names_or_tracing_break, FX, paths=("",))
example("QX176", "data-parallel", parallel, small, names_or_tracing_break, FX, paths=("",))


# -- rounded twice --------------------------------------------------------------------------------


def two_in_a_row(model: nn.Module, inputs: Any) -> bool:
    """Two fake quants, different ones, with one operation between that gives what it is given."""
    prepared: Any = prepared_fx(model, inputs)
    modules = dict(prepared.named_modules(remove_duplicate=False))
    for node in prepared.graph.nodes:
        second = modules.get(str(node.target))
        if not isinstance(second, tq.FakeQuantizeBase):
            continue
        between = node.args[0]
        before = between.all_input_nodes
        first = modules.get(str(before[0].target)) if before else None
        apart = isinstance(first, tq.FakeQuantizeBase) and first is not second
        if apart and not isinstance(modules.get(str(between.target)), (nn.Linear, nn.Conv2d)):
            return True
    return False


def flat(how: Callable[[Any, Tensor], Tensor], **more: Any) -> Any:
    return made(
        pixels,
        lambda m, x: m.fc(how(m, m.conv(x))),
        conv=conv,
        fc=lambda: nn.Linear(108, 4),
        **more,
    )


for _name, _how, _parts in (
    ("method", lambda m, x: x.flatten(1), {}),
    ("module", lambda m, x: m.flat(x), {"flat": nn.Flatten}),
    ("dropout", lambda m, x: m.drop(torch.flatten(x, 1)), {"drop": nn.Dropout}),
    ("index", lambda m, x: torch.flatten(x, 1)[:, :108], {}),
):
    example(
        "QX177", _name, flat(_how, **_parts), flat(lambda m, x: torch.flatten(x, 1)), two_in_a_row,
        FX, paths=("conv",),
    )  # fmt: skip
