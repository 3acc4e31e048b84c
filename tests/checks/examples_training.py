"""Models that are trained or calibrated as they should not be, or lose something on the way.

A model carries in ``plan`` how it is trained; the same plan is carried out in a session and by
torch alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.nn.intrinsic.qat import freeze_bn_stats
from torch.ao.quantization import (
    DeQuantStub,
    FakeQuantize,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    QConfig,
    QConfigMapping,
    QuantStub,
    convert,
    disable_observer,
    get_default_qat_qconfig,
    get_default_qat_qconfig_mapping,
    prepare_qat,
)
from torch.ao.quantization.quantize_fx import convert_fx, prepare_qat_fx

import qatexplorer as qx
from tests.checks.examples import Made, example
from tests.support.training_models import batches

TRAIN, EVAL = batches(20), batches(8, seed=2)
DATA = {"train": TRAIN, "eval": EVAL}
FLOWS = ("eager", "fx")


@dataclass(frozen=True)
class Plan:
    """How a model is trained: epochs over ``TRAIN``, what is frozen from which epoch on, the
    optimizer's parameters, what a hook does after each step."""

    epochs: int = 1
    lr: float = 1e-3
    freeze_observer_epoch: int | None = None
    freeze_bn_epoch: int | None = None
    optimizer: str = "own"
    calibrate: int = 0
    keep_zeros: bool = False


class Net(nn.Module):
    """Convolution, batch norm, linear; the class is the brightest quadrant of an 8 by 8 image."""

    def __init__(self, plan: Plan, constant: float = 0.01, norm: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv = nn.Conv2d(1, 6, 3)
        self.bn = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.fc = nn.Linear(6 * 36, 4)
        self.plan = plan
        base = get_default_qat_qconfig("onednn")
        activation = base.activation.with_args(averaging_constant=constant)
        self.qconfig = QConfig(activation, base.weight)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dequant(self.fc(self.bn(self.conv(self.quant(x))).flatten(1)))
        return y


def net(plan: Plan, **more: Any) -> Callable[[], Made]:
    return lambda: (Net(plan, **more).train(), TRAIN[0][0])


STRANGERS = [nn.Parameter(torch.zeros(3))]


def optimizer_of(plan: Plan, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    chosen = {"own": parameters, "other": STRANGERS, "last": parameters[-1:]}[plan.optimizer]
    return torch.optim.Adam(chosen, lr=plan.lr)


def walk(session: qx.Session) -> None:
    plan: Any = session.copy_model(session.stages[0]).plan
    if plan.calibrate:
        session.calibrate(plan.calibrate)
        return
    if plan.keep_zeros:
        session.goto(session.flow.train_stage)
        keep_zeros(session.model)
    session.train(
        plan.epochs,
        lr=plan.lr,
        optimizer=lambda parameters: optimizer_of(plan, list(parameters)),
        freeze_observer_epoch=plan.freeze_observer_epoch,
        freeze_bn_epoch=plan.freeze_bn_epoch,
        telemetry_every=1,
        progress=False,
    )


def prepared(model: Any, inputs: Tensor, flow: str) -> Any:
    if flow == "eager":
        return prepare_qat(model)
    return prepare_qat_fx(model, QConfigMapping().set_global(model.qconfig), (inputs,))


def trained(model: Any, inputs: Tensor, flow: str) -> Any:
    """Prepared and trained by torch alone, as its plan says."""
    plan, made = model.plan, prepared(model, inputs, flow)
    if plan.calibrate:
        made.eval()
        for x, _ in TRAIN[: plan.calibrate]:
            made(x)
        return made
    if plan.keep_zeros:
        keep_zeros(made)
    optimizer = optimizer_of(plan, list(made.parameters()))
    for epoch in range(plan.epochs):
        if plan.freeze_observer_epoch == epoch:
            made.apply(disable_observer)
        if plan.freeze_bn_epoch == epoch:
            made.apply(freeze_bn_stats)
            for module in made.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        for x, y in TRAIN:
            optimizer.zero_grad()
            F.cross_entropy(made(x), y).backward()
            optimizer.step()
    return made


def flows(
    rule: str, name: str, broken: Callable[[], Made], fixed: Callable[[], Made],
    misbehaves: Callable[[Any, Any], bool], **more: Any,
) -> None:  # fmt: skip
    """The situation in each flow; ``misbehaves`` is given what torch alone has trained."""
    for flow in FLOWS:
        example(
            rule,
            f"{name}-{flow}",
            broken,
            fixed,
            lambda model, inputs, flow=flow: misbehaves(trained(model, inputs, flow), inputs),
            settings={"flow": flow, "data": DATA},
            walk=walk,
            **more,
        )


def stop_and_look(made: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in made.state_dict().items()}


# -- QX431 -------------------------------------------------------------------------------------


def from_nothing() -> Made:
    return net(Plan())()


def trained_in_float() -> Made:
    model, inputs = net(Plan())()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(5):
        for x, y in TRAIN:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    return model, inputs


def is_a_guess(model: nn.Module, inputs: Tensor) -> bool:
    """No better than the most frequent class, with some room for luck."""
    model.eval()
    with torch.no_grad():
        right = [model(x).argmax(1).eq(y) for x, y in EVAL]
    most = torch.cat([y for _, y in EVAL]).bincount().max() / (8 * len(EVAL))
    return float(torch.cat(right).float().mean()) <= float(most) + 0.12


for flow in FLOWS:
    example(
        "QX431", flow, from_nothing, trained_in_float, is_a_guess,
        settings={"flow": flow, "data": DATA}, walk=walk, paths=("",),
    )  # fmt: skip

# -- QX432 -------------------------------------------------------------------------------------


def last_site(made: Any) -> Any:
    """The fake quant of the last layer's output."""
    if hasattr(made, "graph"):
        return [m for name, m in made.named_children() if name.startswith("activation_post")][-1]
    return made.fc.activation_post_process


def outputs_and_range(made: Any) -> tuple[list[Tensor], float, float]:
    """What the last layer gives to the batches, not rounded, and the range that it is given."""
    site = last_site(made)
    low, high = (float(getattr(site.activation_post_process, f"{e}_val")) for e in ("min", "max"))
    made.apply(disable_observer)
    site.disable_fake_quant()
    with torch.no_grad():
        return [made(x) for x, _ in TRAIN], low, high


def far_from_a_batch(made: Any, inputs: Tensor) -> bool:
    """The range of the last layer's output is not that of any of the last batches."""
    outputs, low, high = outputs_and_range(made)
    away = [max(float(o.max()) - high, low - float(o.min())) / (high - low) for o in outputs[-5:]]
    return min(away) > 0.5


flows("QX432", "short", net(Plan(lr=2e-2)), net(Plan(lr=2e-2), constant=0.5), far_from_a_batch)

# -- QX433 -------------------------------------------------------------------------------------


def ranges_move(made: Any, inputs: Tensor) -> bool:
    """One more batch moves a range by more than a hundredth of itself."""
    made.train()
    before = stop_and_look(made)
    for x, _ in TRAIN[:5]:
        made(x * 1.5)
    after = made.state_dict()
    names = [name for name in before if name.endswith("max_val") and "weight" not in name]
    return any(bool(((after[n] - before[n]).abs() > 0.01 * before[n].abs()).any()) for n in names)


flows("QX433", "never-frozen", net(Plan(epochs=4, lr=1e-2), constant=0.3),
      net(Plan(epochs=4, lr=1e-2, freeze_observer_epoch=3), constant=0.3), ranges_move)  # fmt: skip

# -- QX434 -------------------------------------------------------------------------------------


def much_is_clipped(made: Any, inputs: Tensor) -> bool:
    """More than a twentieth of what comes out of the last layer lies past its range."""
    outputs, low, high = outputs_and_range(made)
    output = torch.cat(outputs)
    return bool(((output < low) | (output > high)).float().mean() > 0.05)


flows("QX434", "first-epoch", net(Plan(epochs=6, lr=1e-2, freeze_observer_epoch=1), constant=0.1),
      net(Plan(epochs=6, lr=1e-2, freeze_observer_epoch=5), constant=0.1),
      much_is_clipped)  # fmt: skip

# -- QX435 -------------------------------------------------------------------------------------


def statistics_move(made: Any, inputs: Tensor) -> bool:
    before = stop_and_look(made)
    with torch.no_grad():
        made(3 * inputs)
    after = made.state_dict()
    return any(not torch.equal(after[n], v) for n, v in before.items() if "running_mean" in n)


flows("QX435", "never-frozen", net(Plan(epochs=2)), net(Plan(epochs=2, freeze_bn_epoch=1)),
      statistics_move)  # fmt: skip

# -- QX436 -------------------------------------------------------------------------------------


def nothing_is_trained(made: Any, inputs: Tensor) -> bool:
    """At least one weight is the one that was there before."""
    start = Net(made_plan()).state_dict()
    now = {name: p for name, p in made.named_parameters() if name.endswith("weight")}
    return any(torch.equal(start[name], p) for name, p in now.items() if name in start)


def made_plan() -> Plan:
    return Plan()


flows("QX436", "another-model", net(Plan(optimizer="other")), net(Plan()), nothing_is_trained,
      paths=("",))  # fmt: skip
flows("QX436", "last-one-only", net(Plan(optimizer="last")), net(Plan()), nothing_is_trained)

# -- QX437 -------------------------------------------------------------------------------------


def other_samples_other_scale(model: Any, inputs: Tensor, flow: str) -> bool:
    """Calibrated on other samples, the last scale differs by more than a twentieth."""
    scales = []
    for data in (TRAIN, batches(20, seed=7)):
        made = prepared(copy.deepcopy(model), inputs, flow).eval()
        for x, _ in data[: model.plan.calibrate]:
            made(x)
        scales.append(float(last_site(made).scale))
    return abs(scales[0] - scales[1]) > 0.05 * scales[0]


for flow in FLOWS:
    example(
        "QX437",
        f"one-batch-{flow}",
        net(Plan(calibrate=1), constant=0.1),
        net(Plan(calibrate=20), constant=0.1),
        lambda model, inputs, flow=flow: other_samples_other_scale(model, inputs, flow),
        settings={"flow": flow, "data": DATA},
        walk=walk,
        paths=("",),
    )

# -- QX441 -------------------------------------------------------------------------------------


class Activated(nn.Module):
    """A convolution and an activation."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv = nn.Conv2d(2, 2, 1)
        self.act = activation

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dequant(self.act(self.conv(self.quant(x))))
        return y


def activated(activation: nn.Module) -> Made:
    torch.manual_seed(0)
    return Activated(activation).train(), torch.randn(4, 2, 4, 4)


def in_int8(model: Any, inputs: Tensor, flow: str) -> Any:
    made: Any
    if flow == "fx":
        made = prepare_qat_fx(model, get_default_qat_qconfig_mapping("onednn"), (inputs,))
        made(inputs)
        return convert_fx(made.eval())
    model.qconfig = get_default_qat_qconfig("onednn")
    made = prepare_qat(model)
    made(inputs)
    return convert(made.eval())


def another_after_loading(model: Any, inputs: Tensor, flow: str) -> bool:
    """A fresh int8 model, calibrated on other data, loads the state dict and differs."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "onednn"
    try:
        twin = copy.deepcopy(model)
        int8, fresh = in_int8(model, inputs, flow), in_int8(twin, 10 * inputs, flow)
        fresh.load_state_dict(int8.state_dict())
        return not torch.equal(int8(inputs), fresh(inputs))
    finally:
        torch.backends.quantized.engine = before


for flow, kind in (("eager", nn.ELU), ("fx", nn.ELU), ("fx", nn.PReLU)):
    example(
        "QX441",
        f"{kind.__name__}-{flow}",
        lambda kind=kind: activated(kind()),
        lambda: activated(nn.LeakyReLU()),
        lambda model, inputs, flow=flow: another_after_loading(model, inputs, flow),
        settings={"flow": flow},
        paths=("act",),
    )

# -- QX443 -------------------------------------------------------------------------------------

for flow, kind in (("eager", nn.ELU), ("fx", nn.PReLU)):
    example(
        "QX443",
        f"{kind.__name__}-{flow}",
        lambda kind=kind: activated(kind()),
        lambda: activated(nn.LeakyReLU()),
        lambda model, inputs, flow=flow: another_after_loading(model, inputs, flow),
        settings={"flow": flow, "qconfig": "onednn"},
        paths=("",),
        thorough=True,
    )

# -- QX444 -------------------------------------------------------------------------------------


def per_sample() -> QConfig:
    """One scale for each sample of the batch."""
    return QConfig(
        activation=FakeQuantize.with_args(
            observer=MovingAveragePerChannelMinMaxObserver, ch_axis=0, quant_min=0, quant_max=255,
            dtype=torch.quint8, qscheme=torch.per_channel_affine,
        ),
        weight=get_default_qat_qconfig("onednn").weight,
    )  # fmt: skip


def stops_at_another_size(model: Any, inputs: Tensor, qconfig: QConfig) -> bool:
    model.qconfig = qconfig
    made = prepare_qat(model)
    made(inputs)
    try:
        made.eval()(inputs[:-1])
    except (RuntimeError, IndexError):
        return True
    return False


def with_own(qconfig: QConfig) -> Made:
    model, inputs = activated(nn.ReLU())
    model.qconfig = qconfig
    return model, inputs


example(
    "QX444",
    "per-sample",
    lambda: with_own(per_sample()),
    lambda: with_own(get_default_qat_qconfig("onednn")),
    lambda model, inputs: stops_at_another_size(model, inputs, model.qconfig),
    thorough=True,
)

# -- QX442 -------------------------------------------------------------------------------------


class Remembering(MovingAverageMinMaxObserver):
    """Keeps the largest value of each batch in a buffer that grows."""

    seen: Tensor

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.register_buffer("seen", torch.zeros(0))

    def forward(self, x: Tensor) -> Tensor:
        self.seen = torch.cat([self.seen, x.detach().amax().reshape(1)])
        return super().forward(x)


class Resizing(Remembering):
    """The same, with a buffer that takes the shape of what it loads."""

    def _load_from_state_dict(self, state: Any, prefix: str, *more: Any) -> None:
        self.seen = torch.empty_like(state[f"{prefix}seen"])
        super()._load_from_state_dict(state, prefix, *more)


class Forgetting(MovingAverageMinMaxObserver):
    """Loads its state dict and keeps its own range."""

    def _load_from_state_dict(self, state: Any, prefix: str, *more: Any) -> None:
        own = {f"{prefix}{name}": value for name, value in self.state_dict().items()}
        super()._load_from_state_dict({**state, **own}, prefix, *more)


def observed_by(observer: type[nn.Module]) -> Callable[[], Made]:
    def make() -> Made:
        model, inputs = net(Plan(calibrate=2))()
        activation = FakeQuantize.with_args(observer=observer, quant_min=0, quant_max=255)
        model.qconfig = QConfig(activation, get_default_qat_qconfig("onednn").weight)
        return model, inputs

    return make


def does_not_come_back(model: Any, inputs: Tensor, flow: str) -> bool:
    made = trained(copy.deepcopy(model), inputs, flow)
    fresh = prepared(copy.deepcopy(model), inputs, flow)
    try:
        fresh.load_state_dict(made.state_dict())
    except RuntimeError:
        return True
    back = fresh.state_dict()
    return not all(torch.equal(value, back[name]) for name, value in made.state_dict().items())


for flow in FLOWS:
    for name, observer in (("grows", Remembering), ("forgets", Forgetting)):
        example(
            "QX442",
            f"{name}-{flow}",
            observed_by(observer),
            observed_by(Resizing),
            lambda model, inputs, flow=flow: does_not_come_back(model, inputs, flow),
            settings={"flow": flow, "data": DATA},
            walk=walk,
            thorough=True,
        )

# -- QX431, measured ----------------------------------------------------------------------------

for flow in FLOWS:
    example(
        "QX431", f"thorough-{flow}", from_nothing, trained_in_float, is_a_guess,
        settings={"flow": flow, "data": DATA}, paths=("",), thorough=True,
    )  # fmt: skip

# -- QX451 -------------------------------------------------------------------------------------


def keep_zeros(model: Any) -> None:
    """After each step the mask is laid on again: before each forward is as good."""
    for module in (model.conv, model.fc):
        mask = (module.weight != 0).float()

        def lay_on(layer: Any, _inputs: Any, mask: Tensor = mask) -> None:
            with torch.no_grad():
                layer.weight.mul_(mask)

        module.register_forward_pre_hook(lay_on)


def pruned(keep: bool) -> Callable[[], Made]:
    def make() -> Made:
        model, inputs = net(Plan(keep_zeros=keep), norm=False)()
        with torch.no_grad():
            for layer in (model.conv, model.fc):
                layer.weight[layer.weight.abs() < layer.weight.abs().median()] = 0.0
        return model, inputs

    return make


def is_dense(made: Any, inputs: Tensor) -> bool:
    made(inputs)
    return bool((made.fc.weight == 0).float().mean() < 0.4)


flows("QX451", "pruned", pruned(False), pruned(True), is_dense, paths=("conv", "fc"))
