"""Models whose fake quants and observers are not as they should be.

A model names in ``recipe`` what is done to it once it is prepared, by torch's calls: the very same
function in a session and in torch alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import (
    DeQuantStub,
    FakeQuantizeBase,
    FusedMovingAvgObsFakeQuantize,
    MovingAverageMinMaxObserver,
    QConfig,
    QConfigMapping,
    QuantStub,
    convert,
    disable_fake_quant,
    disable_observer,
    enable_fake_quant,
    get_default_qat_qconfig,
    prepare,
    prepare_qat,
)
from torch.ao.quantization.quantize_fx import convert_fx, prepare_qat_fx

import qatexplorer as qx
from tests.checks.examples import Made, example

Recipe = Callable[[nn.Module, Tensor], Any]
RECIPES: dict[str, Recipe] = {}


def recipe(function: Recipe) -> Recipe:
    RECIPES[function.__name__] = function
    return function


class Layers(nn.Module):
    """Two linear layers. ``recipe`` is what is done to it once it is prepared."""

    def __init__(self, recipe: str, qconfig: QConfig | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.a, self.relu, self.b = nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8)
        self.recipe = recipe
        self.qconfig = qconfig or get_default_qat_qconfig("onednn", version=0)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dequant(self.b(self.relu(self.a(self.quant(x)))))
        return y


def layers(recipe: str, qconfig: QConfig | None = None) -> Callable[[], Made]:
    return lambda: (
        Layers(recipe, qconfig).train(),
        torch.randn(64, 16, generator=torch.Generator().manual_seed(1)),
    )


def walk(session: qx.Session) -> None:
    """To the train stage, where the recipe is carried out."""
    session.goto(session.flow.train_stage)
    name = str(session.copy_model(session.stages[0]).recipe)
    RECIPES[name](session.model, session.options.example_inputs)


def prepared(model: Any, inputs: Tensor, flow: str) -> Any:
    """Prepared by torch alone, and what its recipe makes of it."""
    made: Any
    if flow == "fx":
        mapping = QConfigMapping().set_global(model.qconfig)
        made = prepare_qat_fx(model, mapping, (inputs,))
    else:
        made = prepare_qat(model)
    RECIPES[model.recipe](made, inputs)
    return made


def converted(made: Any) -> Any:
    return convert_fx(made.eval()) if hasattr(made, "graph") else convert(made.eval())


def flows(
    rule: str, name: str, broken: Callable[[], Made], fixed: Callable[[], Made],
    misbehaves: Callable[[Any, Tensor], bool], only: tuple[str, ...] = ("eager", "fx"), **more: Any,
) -> None:  # fmt: skip
    """The situation in each flow; ``misbehaves`` is given what torch alone has prepared."""
    for flow in only:
        example(
            rule,
            f"{name}-{flow}",
            broken,
            fixed,
            lambda model, inputs, flow=flow: misbehaves(prepared(model, inputs, flow), inputs),
            settings={"flow": flow},
            walk=walk,
            **more,
        )


@recipe
def observed(model: nn.Module, inputs: Tensor) -> None:
    for _ in range(3):
        model(inputs)


# -- QX505 -------------------------------------------------------------------------------------


def codes_change(made: Any, inputs: Tensor) -> bool:
    """Int8 weights are not those that the frozen fake quant gives, but for the largest."""
    made.apply(disable_observer)
    weight, fake_quant = made.a.weight.detach(), made.a.weight_fake_quant
    scale = fake_quant.scale.reshape([-1, 1] if fake_quant.is_per_channel else [1, 1])
    codes = torch.clamp(torch.round(weight / scale), fake_quant.quant_min, fake_quant.quant_max)
    # The largest weight lies between two codes, and rounds to either.
    changed = codes != converted(made).a.weight().int_repr()
    return bool(changed.float().mean() > 1 / weight.shape[1])


def four_bits(fused: bool) -> QConfig:
    base = get_default_qat_qconfig("onednn", version=0)
    kind = FusedMovingAvgObsFakeQuantize if fused else base.weight.p.func
    weight = kind.with_args(
        observer=MovingAverageMinMaxObserver,
        quant_min=-8,
        quant_max=7,
        dtype=torch.qint8,
        qscheme=torch.per_tensor_symmetric,
    )
    return QConfig(base.activation, weight)


flows("QX505", "version-1", layers("observed", get_default_qat_qconfig("onednn")),
      layers("observed"), codes_change)  # fmt: skip
flows("QX505", "per-tensor", layers("observed", get_default_qat_qconfig("qnnpack")),
      layers("observed"), codes_change)  # fmt: skip
flows("QX505", "4-bit", layers("observed", four_bits(True)), layers("observed", four_bits(False)),
      codes_change)  # fmt: skip


def one_sided(qconfig: QConfig) -> Callable[[], Made]:
    def make() -> Made:
        model, inputs = layers("observed", qconfig)()
        with torch.no_grad():
            model.a.weight.abs_()
        return model, inputs

    return make


def finer_in_training(made: Any, inputs: Tensor) -> bool:
    """A weight of one sign is rounded on a grid twice as fine as that of int8."""
    made.apply(disable_observer)
    trained = made.a.weight_fake_quant.scale.clone()
    int8 = converted(made).a.weight().q_per_channel_scales()
    return bool((trained < 0.6 * int8).all())


flows("QX505", "one-sign", one_sided(get_default_qat_qconfig("onednn")),
      one_sided(get_default_qat_qconfig("onednn", version=0)), finer_in_training)  # fmt: skip

# -- QX402 -------------------------------------------------------------------------------------


@recipe
def outgrown(model: Any, inputs: Tensor) -> None:
    observed(model, inputs)
    with torch.no_grad():
        model.a.weight.mul_(3)


@recipe
def shrunk(model: Any, inputs: Tensor) -> None:
    observed(model, inputs)
    with torch.no_grad():
        model.a.weight.mul_(0.1)


@recipe
def frozen_and_outgrown(model: Any, inputs: Tensor) -> None:
    observed(model, inputs)
    model.apply(disable_observer)
    with torch.no_grad():
        model.a.weight.mul_(3)


@recipe
def outgrown_and_reset(model: Any, inputs: Tensor) -> None:
    outgrown(model, inputs)
    model.get_submodule("a.weight_fake_quant").activation_post_process.reset_min_max_vals()
    model(inputs)


def weight_is_lost(made: Any, inputs: Tensor) -> bool:
    """Int8 has another weight than training, by more than a step of the right scale."""
    weight = made.a.weight.detach().clone()
    int8 = converted(made).a.weight().dequantize()
    return bool((int8 - weight).abs().max() > 1.5 * weight.abs().amax() / 127.5)


for name in ("outgrown", "shrunk", "frozen_and_outgrown"):
    flows("QX402", name, layers(name), layers("outgrown_and_reset"), weight_is_lost,
          paths=("a",))  # fmt: skip

# -- QX403 -------------------------------------------------------------------------------------


@recipe
def evaluated(model: nn.Module, inputs: Tensor) -> None:
    observed(model, inputs)
    model.eval()


@recipe
def evaluated_frozen(model: nn.Module, inputs: Tensor) -> None:
    evaluated(model, inputs)
    model.apply(disable_observer)


def eval_moves_ranges(made: Any, inputs: Tensor) -> bool:
    def ranges() -> dict[str, Tensor]:
        state: dict[str, Tensor] = made.state_dict()
        return {n: v.clone() for n, v in state.items() if n.endswith("max_val")}

    before = ranges()
    made(3 * inputs)
    return any(not torch.equal(before[name], value) for name, value in ranges().items())


flows("QX403", "eval", layers("evaluated"), layers("evaluated_frozen"), eval_moves_ranges)

# -- QX404 -------------------------------------------------------------------------------------


@recipe
def off(model: nn.Module, inputs: Tensor) -> None:
    observed(model, inputs)
    model.apply(disable_fake_quant)
    model(inputs)


@recipe
def off_and_frozen(model: nn.Module, inputs: Tensor) -> None:
    off(model, inputs)
    model.apply(disable_observer)


@recipe
def off_and_on(model: nn.Module, inputs: Tensor) -> None:
    off(model, inputs)
    model.apply(enable_fake_quant)
    model(inputs)


def nothing_is_rounded(made: Any, inputs: Tensor) -> bool:
    """The prepared model computes what it does without fake quants; int8 does not."""
    made.apply(disable_observer).eval()
    with torch.no_grad():
        output = made(inputs)
        made_float = made.apply(disable_fake_quant)(inputs)
    return bool(torch.equal(output, made_float))


flows("QX404", "observer-on", layers("off"), layers("off_and_on"), nothing_is_rounded)
flows("QX404", "observer-off", layers("off_and_frozen"), layers("off_and_on"), nothing_is_rounded)

# -- QX405 -------------------------------------------------------------------------------------


def with_bad_value(bad: float, place: str) -> Made:
    torch.manual_seed(0)
    model = nn.Sequential(QuantStub(), nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), DeQuantStub())
    with torch.no_grad():
        model.state_dict()[place].view(-1)[0] = bad
    return model.train(), torch.randn(4, 1, 6, 6)


def output_is_lost(model: Any, inputs: Tensor) -> bool:
    return not bool(model.eval()(inputs).isfinite().all())


for flow in ("eager", "fx"):
    for number, place in (("nan", "1.weight"), ("inf", "2.running_var"), ("nan", "2.weight")):
        if (number, place) == ("inf", "2.running_var"):
            number = "nan"
        example(
            "QX405",
            f"{number}-{place}-{flow}",
            lambda number=number, place=place: with_bad_value(float(number), place),
            lambda place=place: with_bad_value(0.5, place),
            output_is_lost,
            settings={"flow": flow},
            paths=(place.partition(".")[0],),
        )

# -- QX406 -------------------------------------------------------------------------------------


@recipe
def again(model: nn.Module, inputs: Tensor) -> None:
    prepare(model, inplace=True)


@recipe
def qat_again(model: nn.Module, inputs: Tensor) -> None:
    prepare_qat(model, inplace=True)


def runs_twice(made: Any, inputs: Tensor) -> bool:
    calls: list[int] = []
    site = made.b.activation_post_process
    assert isinstance(site, FakeQuantizeBase)
    site.register_forward_hook(lambda *_: calls.append(1))
    made(inputs)
    return len(calls) > 1


flows("QX406", "prepare", layers("again"), layers("observed"), runs_twice, ("eager",))
flows("QX406", "prepare_qat", layers("qat_again"), layers("observed"), runs_twice, ("eager",))

# -- QX407 -------------------------------------------------------------------------------------


def dead_channel(zero: bool) -> Made:
    model, inputs = layers("observed")()
    if zero:
        with torch.no_grad():
            model.a.weight[3] = 0.0
    return model, inputs


def smallest_scale(made: Any, inputs: Tensor) -> bool:
    scales = converted(made).a.weight().q_per_channel_scales()
    return bool(scales[3] < 1.2e-7)


flows("QX407", "row", lambda: dead_channel(True), lambda: dead_channel(False), smallest_scale,
      paths=("a",))  # fmt: skip

# -- QX408 -------------------------------------------------------------------------------------


@recipe
def partly_reset(model: Any, inputs: Tensor) -> None:
    observed(model, inputs)
    model.apply(disable_observer)
    observer = model.a.weight_fake_quant.activation_post_process
    observer.min_val[2], observer.max_val[2] = float("inf"), float("-inf")


@recipe
def partly_reset_then_whole(model: Any, inputs: Tensor) -> None:
    partly_reset(model, inputs)
    model.get_submodule("a.weight_fake_quant").activation_post_process.reset_min_max_vals()
    model.a.weight_fake_quant.enable_observer()
    model(inputs)


def channel_is_lost(made: Any, inputs: Tensor) -> bool:
    """torch takes a scale from a range that has no ends, or none for the others either."""
    weight = made.a.weight.detach().clone()
    try:
        int8 = converted(made).a.weight().dequantize()
    except (RuntimeError, AssertionError):
        return True
    return bool((int8 - weight)[2].abs().max() > 0.1 * weight[2].abs().max())


flows("QX408", "row", layers("partly_reset"), layers("partly_reset_then_whole"), channel_is_lost,
      paths=("a.weight_fake_quant",))  # fmt: skip
