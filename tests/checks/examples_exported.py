"""Models that PT2E leaves float or changes without a word: QX701 to QX709, and QX409, QX410."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
import torch.ao.quantization as tq
from torch import nn
from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver, QConfig

import qatexplorer as qx
from qatexplorer.checks.records import Findings
from qatexplorer.flows.pt2e import Pt2eFlow
from tests.checks.examples import EXAMPLES, Example
from tests.checks.pt2e_subject import findings, subject_of


class Exported(Example):
    """Asks the rule alone, of the flow pt2e; what a model holds as ``asked`` makes its quantizer,
    and ``then`` is done to the prepared model."""

    def check(self, *, broken: bool) -> Findings:
        model, inputs = self.broken() if broken else self.fixed()
        asked, then = getattr(model, "asked", None), getattr(model, "then", None)
        quantizer = asked() if asked is not None else None
        lower = self.rule == "QX709"
        return findings(self.rule, subject_of(model, inputs, quantizer, then, lower))


class Hidden(nn.Module):
    """Two linear layers, the first under ``torch.no_grad`` or not."""

    def __init__(self, hidden: bool = True) -> None:
        super().__init__()
        self.hidden = hidden
        self.body, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.hidden:
            return self.head(torch.relu(self.body(x)))
        with torch.no_grad():
            x = torch.relu(self.body(x))
        return self.head(x)


class Two(nn.Module):
    """linear → ``between`` → linear."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.a, self.between, self.b = nn.Linear(8, 8), between, nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.between(self.a(x)))


def two(between: Callable[[], nn.Module], asked: Any = None, then: Any = None) -> Any:
    def make() -> Any:
        torch.manual_seed(0)
        model: Any = Two(between()).train()
        model.asked, model.then = asked, then
        return model, (torch.randn(16, 8),)

    return make


def hidden(hides: bool) -> Any:
    return lambda: (Hidden(hides).train(), (torch.randn(4, 8),))


class OneSpec:
    """Makes a quantizer that writes on linear layers, and on ``more``; torchao's class is loaded
    when it is called."""

    def __init__(
        self, fake_quant: str, bits: int = 8, more: tuple[Any, ...] = (), activation: Any = None
    ) -> None:
        self.fake_quant, self.bits, self.more = fake_quant, bits, more
        self.activation = activation

    def __call__(self) -> Any:
        from torchao.quantization.pt2e import fake_quantize, observer
        from torchao.quantization.pt2e.quantizer import (
            QuantizationAnnotation,
            QuantizationSpec,
            Quantizer,
        )

        made = getattr(fake_quantize, self.fake_quant).with_args(
            observer=observer.MovingAverageMinMaxObserver
        )
        operations = (torch.ops.aten.linear.default, *self.more)
        activation, high = self.activation or made, 2 ** (self.bits - 1)

        class Written(Quantizer):
            def annotate(self, model: Any) -> Any:
                for node in model.graph.nodes:
                    if node.target in operations:
                        node.meta["quantization_annotation"] = QuantizationAnnotation(
                            input_qspec_map=dict(zip(node.args, specs, strict=False)),
                            _annotated=True,
                        )
                return model

            def validate(self, model: Any) -> None:
                pass

        specs = (
            QuantizationSpec(
                torch.uint8, activation, 0, 255, torch.per_tensor_affine, is_dynamic=False
            ),
            QuantizationSpec(torch.int8, made, -high, high - 1, torch.per_tensor_symmetric),
        )
        return Written()


def empty_quantizer() -> Any:
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import X86InductorQuantizer

    return X86InductorQuantizer()


def rounding_off(model: Any, inputs: Any) -> None:
    """Train on, as if nothing were rounded."""
    from torchao.quantization.pt2e import disable_fake_quant

    model.apply(disable_fake_quant)
    model(*inputs)


def move_to_train(model: Any, inputs: Any) -> None:
    """As a loop does that knows torchao's switches only: the model was in eval mode."""
    from torchao.quantization.pt2e import move_exported_model_to_train

    model.eval()
    move_exported_model_to_train(model)


# -- what torchao alone does -----------------------------------------------------------------------


def prepared_alone(model: Any, inputs: Any) -> Any:
    """``prepare_qat_pt2e`` of torchao, after one forward and what is done then."""
    from torchao.quantization.pt2e import quantize_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    asked, then = getattr(model, "asked", None), getattr(model, "then", None)
    if asked is None:
        config = x86.get_default_x86_inductor_quantization_config(is_qat=True)
        quantizer = x86.X86InductorQuantizer().set_global(config)
    else:
        quantizer = asked()
    graph = torch.export.export(model, inputs).module()
    prepared = quantize_pt2e.prepare_qat_pt2e(graph, quantizer)
    prepared(*inputs)
    if then is not None:
        then(prepared, inputs)
    return prepared


def moved(prepared: Any, training: bool) -> Any:
    from torchao.quantization import pt2e

    if not any(word in prepared.code for word in ("dropout", "norm")):
        return prepared  # nothing to switch, and looking takes half a second
    twin = copy.deepcopy(prepared)
    move = pt2e.move_exported_model_to_train if training else pt2e.move_exported_model_to_eval
    move(twin)
    return twin


def converted_alone(model: Any, inputs: Any) -> Any:
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    return convert_pt2e(moved(prepared_alone(model, inputs), False))


def float_weights(model: Any, inputs: Any) -> list[str]:
    """Names of the float weights of two dimensions and more that the converted model takes."""
    found = []
    for name in reads_of(converted := converted_alone(model, inputs)):
        value = attrgetter(name)(converted)
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.dim() > 1:
            found.append(name)
    return found


def reads_of(graph: Any) -> list[str]:
    return [str(node.target) for node in graph.graph.nodes if node.op == "get_attr"]


@torch.no_grad()
def noise(model: Any, inputs: Any) -> float:
    """The share of noise that convert adds to the output."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    prepared = prepared_alone(model, inputs)
    before = prepared(*inputs)
    after = convert_pt2e(prepared)(*inputs)
    print("NOISE", float((before - after).norm() / before.norm()))
    return float((before - after).norm() / before.norm())


def constants(prepared: Any, name: str) -> list[tuple[Any, ...]]:
    """The numbers that operations of that name are called with."""
    return [
        tuple(a for a in node.args if isinstance(a, (int, float)))
        for node in prepared.graph.nodes
        if node.op == "call_function" and str(node.target) == f"aten.{name}.default"
    ]


@torch.no_grad()
def differs_in_eval(model: Any, inputs: Any) -> bool:
    from torchao.quantization.pt2e import disable_observer

    graph = moved(prepared_alone(model, inputs), False).apply(disable_observer)
    return not torch.equal(graph(*inputs), graph(*inputs))


def differs_in_eval_of_its_flag(model: Any, inputs: Any) -> bool:
    """Whether a graph exported in train mode drops out when its flag says eval."""
    graph = torch.export.export(model, inputs).module()
    if model.then is move_to_train:
        for one in graph.modules():
            one.training = False
    else:
        graph = moved(graph, False)
    with torch.no_grad():
        return not torch.equal(graph(*inputs), graph(*inputs))


@torch.no_grad()
def lowered_code(model: Any, inputs: Any) -> str:
    from torchao.quantization.pt2e.lowering import lower_pt2e_quantized_to_x86

    return str(lower_pt2e_quantized_to_x86(converted_alone(model, inputs), inputs).code)


# -- QX701 to QX709 --------------------------------------------------------------------------------


def exported(*arguments: Any, **named: Any) -> None:
    if not Pt2eFlow().unavailable():
        EXAMPLES.append(Exported(*arguments, **named))


FUSED = "FusedMovingAvgObsFakeQuantize"

exported(
    "QX701",
    "no_grad",
    hidden(True),
    hidden(False),
    lambda model, x: "body.weight" in float_weights(model, x),
    paths=("body",),
)
exported(
    "QX702",
    "no_settings",
    two(nn.Identity, asked=empty_quantizer),
    two(nn.Identity),
    lambda model, x: len(float_weights(model, x)) == 2,
    paths=("",),
)
exported(
    "QX703",
    "layer_norm",
    two(lambda: nn.LayerNorm(8)),
    two(nn.Identity),
    lambda model, x: "aten.layer_norm" in converted_alone(model, x).code,
    paths=("between",),
)
exported(
    "QX704",
    "eps",
    two(lambda: nn.BatchNorm1d(8, eps=1e-2)),
    two(nn.Identity),
    lambda model, x: any(
        numbers[-2] != model.between.eps
        for numbers in constants(moved(torch.export.export(model, x).module(), False), "batch_norm")
    ),
    paths=("between",),
)
exported(
    "QX705",
    "dropout",
    two(lambda: nn.Dropout(0.1)),
    two(lambda: nn.Dropout(0.5)),
    lambda model, x: (
        constants(moved(prepared_alone(model, x), True), "dropout") != [(model.between.p, True)]
    ),
    paths=("between",),
)
exported(
    "QX706",
    "alpha_dropout",
    two(lambda: nn.AlphaDropout(0.2)),
    two(lambda: nn.Dropout(0.2)),
    differs_in_eval,
    paths=("between",),
)
exported(
    "QX707",
    "fused_at_4_bits",
    two(nn.Sigmoid, asked=OneSpec(FUSED, 4)),
    two(nn.Sigmoid, asked=OneSpec("FakeQuantize", 4)),
    lambda model, x: noise(model, x) > 0.05,
)
exported(
    "QX708",
    "fused_at_3_bits",
    two(nn.Sigmoid, asked=OneSpec(FUSED, 3)),
    two(nn.Sigmoid, asked=OneSpec("FakeQuantize", 3)),
    lambda model, x: noise(model, x) > 0.05,
    paths=("a",),
)
exported(
    "QX708",
    "rounding_off",
    two(nn.Sigmoid, asked=OneSpec("FakeQuantize", 3), then=rounding_off),
    two(nn.Sigmoid, asked=OneSpec("FakeQuantize", 3)),
    lambda model, x: noise(model, x) > 0.05,
    paths=("a",),
)
exported(
    "QX709",
    "sigmoid",
    two(nn.Sigmoid, asked=OneSpec("FakeQuantize", more=(torch.ops.aten.sigmoid.default,))),
    two(nn.Sigmoid),
    lambda model, x: "dequantize_per_tensor" in lowered_code(model, x),
)
exported(
    "QX710",
    "switch_of_torchao",
    two(lambda: nn.Dropout(0.5), then=move_to_train),
    two(lambda: nn.Dropout(0.5), then=lambda model, inputs: model.eval()),
    differs_in_eval_of_its_flag,
)
exported(
    "QX404",
    "pt2e",
    two(nn.Sigmoid, then=rounding_off),
    two(nn.Sigmoid, then=lambda model, inputs: None),
    lambda model, x: any(
        not int(one.fake_quant_enabled)
        for one in prepared_alone(model, x).modules()
        if hasattr(one, "fake_quant_enabled")
    ),
)

# -- QX409, QX410 ----------------------------------------------------------------------------------


def left_in_place(model: Any, inputs: Any) -> bool:
    """Whether convert leaves fake quants in the model."""
    converted = converted_alone(model, inputs)
    return any(isinstance(one, FakeQuantize) for one in converted.modules())


exported(
    "QX409",
    "pt2e",
    two(nn.Sigmoid, asked=OneSpec("FakeQuantize", activation=FakeQuantize), then=lambda *_: None),
    two(nn.Sigmoid, asked=OneSpec("FakeQuantize"), then=lambda *_: None),
    left_in_place,
)


class Stubborn(FakeQuantize):
    """Rounds, whatever its flag says."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.fake_quant_enabled[0] = 1
        return super().forward(x)


def with_class(kind: Any) -> Any:
    def make() -> Any:
        fake = kind.with_args(observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255)
        torch.manual_seed(0)
        model: Any = nn.Sequential(nn.Linear(8, 8), nn.ReLU()).train()
        model.chosen = QConfig(fake, tq.default_weight_fake_quant)
        return model, (torch.randn(16, 8),)

    return make


@dataclass(frozen=True)
class WithQConfig(Example):
    """The model holds the qconfig of its session, and its observers have seen data."""

    def check(self, *, broken: bool) -> Findings:
        model, inputs = self.broken() if broken else self.fixed()
        session = qx.Session(model, inputs, flow="eager", stubs="model", qconfig=model.chosen)
        session.warns = False
        session.goto("train")
        session.model(*inputs)
        return session.check()


def off_changes_nothing(model: Any, inputs: Any) -> bool:
    model.qconfig = model.chosen
    prepared = tq.prepare_qat(copy.deepcopy(model), inplace=True)
    prepared(*inputs)
    on = prepared.apply(tq.disable_observer)(*inputs)
    prepared[0].activation_post_process.disable_fake_quant()
    return torch.equal(on, prepared(*inputs))


EXAMPLES.append(
    WithQConfig(
        "QX410",
        "own_class",
        with_class(Stubborn),
        with_class(FakeQuantize),
        off_changes_nothing,
    )
)
