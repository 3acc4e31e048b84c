"""What a cure is: a function, registered by a name with :func:`cure`, that plans a change.

There are two kinds of change. :class:`NewSettings` changes what the walk begins with (edits of the
session's copy of the float model, rules laid over the qconfig), and the walk begins again.
:class:`Work` changes tensors of the prepared model where they are. A plan changes nothing itself;
the session makes the change, measures before and after, and can take it back.

The recipe of a :class:`Work` is copied into the script of the session as it stands in its file. So
it and the functions of that file that it calls use torch only: whatever watches, stops or measures
it comes in with ``batches`` and ``run``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from qatexplorer.errors import InputError
from qatexplorer.evaluate.metric import MetricValue
from qatexplorer.flows.base import Flow, FlowOptions
from qatexplorer.flows.edits import Edit
from qatexplorer.flows.qconfig_rules import Effective, QConfigRule

Run = Callable[[nn.Module, Any], Any]
"""Runs a model on the inputs of a batch."""
Recipe = Callable[[nn.Module, Iterable[Any], Run], None]
"""Changes a prepared model in place. It is called in eval mode, without gradients, with observers
standing still; ``batches`` are (input, target) and can be gone through more than once."""
Judged = Literal["ptq", "fake_quant"]

_MATTERS = 0.01
_MOST = 0.9


@dataclass(frozen=True)
class Ground:
    """What a plan looks at, and leaves as it is.

    Attributes:
        flow, options: of the session. edits: those in force. base: the float model with them made.
        whole: the qconfig of the whole model.
        work: the prepared model, None before there is one. observed: its observers have a range.
        trained: it has been trained. worked: the recipes that were run on it. has_data: whether
            there are batches.
    """

    flow: Flow
    options: FlowOptions
    edits: tuple[Edit, ...]
    base: nn.Module
    whole: Effective
    work: nn.Module | None = None
    observed: bool = False
    trained: bool = False
    worked: tuple[Recipe, ...] = ()
    has_data: bool = False

    def why_no_work(self) -> str:
        """Why there is no prepared model that could be worked on, ``""`` where there is one."""
        if not self.has_data:
            return "The session has no data, and this needs training batches."
        if self.work is None:
            return f"There are no fake quants before stage {self.flow.prepared_stage!r}."
        if self.flow.kind() == "annotation":
            return (
                f"In flow {self.flow.name!r} there are no QAT modules that could be worked on: "
                "layers, batch norms and fake quants are operations of a graph."
            )
        if not self.observed:
            return "The observers have seen no data yet: train or calibrate first."
        return ""


@dataclass(frozen=True)
class Figure:
    """A number of each layer that a cure changes: ``of(model)`` has them by the layer's path."""

    name: str
    of: Callable[[nn.Module], Mapping[str, float]]


@dataclass(frozen=True)
class LayerChange:
    """The number ``figure`` of the layer at ``path`` before and after a cure."""

    path: str
    figure: str
    before: float
    after: float


@dataclass(frozen=True)
class NewSettings:
    """Settings to begin the walk anew with: ``edits`` or ``rules``, all that shall be in force;
    None leaves them. ``changes`` says what is another then, a line each; ``figure`` is taken of the
    float model before and after."""

    changes: tuple[str, ...]
    edits: tuple[Edit, ...] | None = None
    rules: tuple[QConfigRule, ...] | None = None
    figure: Figure | None = None

    @property
    def given(self) -> dict[str, Any]:
        """What of it is not None, by the names that a session knows."""
        both = {"edits": self.edits, "rules": self.rules}
        return {name: value for name, value in both.items() if value is not None}


@dataclass(frozen=True)
class Work:
    """``recipe`` is to be run on the prepared model.

    Attributes:
        tensors: keys of the model's state dict that it writes to. passes: how often it goes through
            the batches. batches: how many of the training data.
    """

    recipe: Recipe
    tensors: tuple[str, ...]
    batches: int
    passes: int = 1


@dataclass(frozen=True)
class WorkDone:
    """``recipe`` was run on the prepared model with the first ``batches`` training batches."""

    recipe: Recipe
    batches: int


@dataclass(frozen=True)
class Cured:
    """What a cure has done.

    Attributes:
        name: of the cure. settings: that it was called with.
        judged: the form of the model that ``before`` and ``after`` are the metric of, on all
            evaluation data: ``"ptq"`` (int8 after calibration alone) or ``"fake_quant"``.
        seconds: of the change itself, without measuring. changes: what is another now, a line each.
        float_model: the metric of the float model before it, on the same data.
        layers: a number of each layer before and after, where the cure has one.
        result: what the flow calls the model of its last stage.
    """

    name: str
    settings: Mapping[str, Any]
    judged: Judged
    before: MetricValue
    after: MetricValue
    seconds: float
    changes: tuple[str, ...] = field(default=(), repr=False)
    float_model: MetricValue | None = None
    layers: tuple[LayerChange, ...] = field(default=(), repr=False)
    result: str = "int8"

    @property
    def form(self) -> str:
        """What was judged, in words."""
        if self.judged == "fake_quant":
            return "fake quant"
        alone = "after calibration alone" if self.result == "int8" else "without training"
        return f"{self.result} {alone}"

    @property
    def gain(self) -> float:
        """``after`` less ``before``, in units of the metric."""
        return self.after.value - self.before.value

    @property
    def won_back(self) -> float | None:
        """The share that it has won back of what the model was behind the float model by, whether
        a high or a low metric is good. None where that was less than a hundredth of the float
        model's, or is not known."""
        if self.float_model is None:
            return None
        behind = self.float_model.value - self.before.value
        if not abs(behind) > _MATTERS * abs(self.float_model.value):
            return None
        return self.gain / behind

    @property
    def brings_int8_back(self) -> bool:
        """Whether int8 after calibration alone has at least nine tenths of its loss back."""
        return self.judged == "ptq" and (self.won_back or 0.0) >= _MOST


@dataclass(frozen=True)
class Look:
    """What a cure would do to a model as it is now.

    Attributes:
        does: a sentence made of facts of this model. signs: what was measured of this model that
            speaks for it, a sentence; ``""`` for nothing.
        batches, passes: how many training batches it goes through, with its usual settings, and how
            often.
    """

    does: str
    signs: str = ""
    batches: int = 0
    passes: int = 1


Plan = Callable[..., NewSettings | Work]
WhyNot = Callable[[Ground], str]
LookAt = Callable[[Ground], Look]


@dataclass(frozen=True)
class Cure:
    """``plan(ground, **settings)`` plans it. ``why_not(ground)`` says why it does not apply,
    ``""`` where it does; only then ``look(ground)`` says what it would do. ``source``: where its
    formula or recipe was read. ``judged``: see :class:`Cured`; with ``"ptq"`` it changes the float
    model or its qconfig, and the walk starts again."""

    name: str
    title: str
    source: str
    judged: Judged
    why_not: WhyNot
    look: LookAt
    plan: Plan


@dataclass(frozen=True)
class Cost:
    """Batches that run through a model until a cure has been made and measured, before and after.

    Attributes:
        training: of the training data. evaluation: of the evaluation data, None where that does
            not say how long it is. What has been measured already is not measured again.
    """

    training: int
    evaluation: int | None


@dataclass(frozen=True)
class Offer:
    """A cure, and whether it applies to a model as it is now.

    Attributes:
        why_not: why it does not apply, ``""`` where it does.
        judged: as of :class:`Cured`. does, signs: as of :class:`Look`, empty where it does not
            apply. cost: with its usual settings, None where it does not apply or the session has no
            data.
    """

    name: str
    title: str
    source: str
    judged: Judged
    why_not: str = ""
    does: str = ""
    signs: str = ""
    cost: Cost | None = None

    @property
    def applies(self) -> bool:
        return not self.why_not


CURES: dict[str, Cure] = {}
"""Every cure by name."""


def cure(
    name: str, title: str, source: str, judged: Judged, why_not: WhyNot, look: LookAt
) -> Callable[[Plan], Plan]:
    """Register a function that plans a cure; it is called only where ``why_not`` says nothing."""

    def register(plan: Plan) -> Plan:
        if name in CURES:
            raise InputError(f"there is a cure {name!r} already.")
        CURES[name] = Cure(name, title, source, judged, why_not, look, plan)
        return plan

    return register


def offers(ground: Ground, cost: Callable[[Judged, Look], Cost | None]) -> Iterator[Offer]:
    """All cures, those that apply and those that do not."""
    for one in CURES.values():
        why, about = one.why_not(ground), (one.name, one.title, one.source, one.judged)
        if why:
            yield Offer(*about, why)
        else:
            look = one.look(ground)
            yield Offer(*about, "", look.does, look.signs, cost(one.judged, look))


def counted(number: int, noun: str) -> str:
    """``"1 layer"``, ``"3 layers"``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
