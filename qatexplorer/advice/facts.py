"""What is known of a session's model, in the form in which recipes ask for it. Nothing of it runs
the model: it was measured before, or is read off weights and settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from torch import nn

from qatexplorer.accuracy.records import Comparison, Method, ProposalPoint, Sensitivity
from qatexplorer.accuracy.records import Proposal as MixedPrecision
from qatexplorer.advice.records import Cost, Gain, Reason
from qatexplorer.checks.records import Finding, Findings
from qatexplorer.cures.base import CURES, Cured, Ground
from qatexplorer.data import Data
from qatexplorer.evaluate.evaluation import format_metric
from qatexplorer.evaluate.metric import MetricValue
from qatexplorer.flows.qconfig_rules import QConfigRule, Resolver
from qatexplorer.forward.histograms import GridHistogram
from qatexplorer.quantizers.engine_choice import EngineConcern
from qatexplorer.runs.config import TrainingConfig
from qatexplorer.runs.records import History
from qatexplorer.snapshot.records import Snapshot

Form = Literal["float", "ptq", "fake_quant", "int8"]

TOLERATED = 0.01
"""Share of the float model's metric that int8 may lose; tools that tune until a criterion is met
take as much (Intel Neural Compressor: 1 % relative)."""
CALIBRATION = 8
"""Training batches that calibrating takes."""
STEP = 3
"""Forward passes that a training step is counted as: one forward, and a backward of twice that."""

_WORDS: dict[str, str] = {
    "float": "float",
    "ptq": "int8 after calibration only",
    "fake_quant": "fake quant",
    "int8": "int8",
}


@dataclass(frozen=True)
class Facts:
    """All that recipes may look at, and leave as it is.

    Attributes:
        ground: what cures look at: flow, settings, edits, the float and the prepared model.
        stage: in view. prepared: name of the stage with all fake quants. model: name of the class.
        snapshots: of the stages reached.
        findings: all that is known to be wrong. checked: the newest check, None where there is none
            that is still true.
        metrics: of each form of the model, as it is now; what was not measured is not there.
        mode: whether a high (``"max"``) or a low metric is good. tolerated: share of the float
            metric that may be lost.
        sensitivities: by method. mixed: the newest search for mixed precision, ``applied``: its
            point in force. comparison, histograms (by path): as they were made last; ``seen_in``
            says what the histograms are of.
        cured: the cures in force. history, config: of the newest run of training.
        concern: what is wrong with the engine on this CPU. data: the session's.
        running: a run is going on. evaluated: all forms were evaluated as the model is now.
        make_prepared: a prepared model. refused: why a layer does not take these rules. resolver:
            works out what the qconfig comes to for the modules of the float model.
    """

    ground: Ground
    stage: str
    prepared: str
    model: str
    make_prepared: Callable[[], nn.Module]
    refused: Callable[[tuple[QConfigRule, ...]], str]
    resolver: Callable[[], Resolver]
    data: Data | None = None
    snapshots: Mapping[str, Snapshot] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    checked: Findings | None = None
    metrics: Mapping[str, MetricValue] = field(default_factory=dict)
    mode: Literal["max", "min"] = "max"
    tolerated: float = TOLERATED
    sensitivities: Mapping[Method, Sensitivity] = field(default_factory=dict)
    mixed: MixedPrecision | None = None
    applied: ProposalPoint | None = None
    comparison: Comparison | None = None
    histograms: Mapping[str, GridHistogram] = field(default_factory=dict)
    seen_in: str = ""
    cured: tuple[Cured, ...] = ()
    history: History | None = None
    config: TrainingConfig | None = None
    concern: EngineConcern | None = None
    running: bool = False
    evaluated: bool = False

    # -- accuracy -------------------------------------------------------------------------------

    @property
    def of_float(self) -> MetricValue | None:
        """Metric of the float model, None where it is not known or not a number."""
        found = self.metrics.get("float")
        return found if found is not None and math.isfinite(found.value) else None

    @property
    def form(self) -> Form | None:
        """The form that stands for the quantized model as it is: int8, else what comes nearest. A
        model that was trained or worked on is not judged by calibration alone."""
        ready = self.ground.trained or bool(self.ground.worked)
        order: tuple[Form, ...] = ("int8", "fake_quant") if ready else ("int8", "ptq", "fake_quant")
        return next((name for name in order if name in self.metrics), None)

    @property
    def limit(self) -> float | None:
        """What may be lost, in units of the metric."""
        return None if self.of_float is None else self.tolerated * abs(self.of_float.value)

    def lost(self, form: str) -> float | None:
        """What a form has lost against float, below 0 where it is better; None where one of them is
        not known."""
        whole, part = self.of_float, self.metrics.get(form)
        if whole is None or part is None:
            return None
        return whole.value - part.value if self.mode == "max" else part.value - whole.value

    @property
    def loss(self) -> float | None:
        """What the quantized model has lost."""
        return None if self.form is None else self.lost(self.form)

    @property
    def loses(self) -> bool:
        """Whether more is lost than is tolerated; where nothing is known it is not said to be."""
        loss, limit = self.loss, self.limit
        return loss is not None and limit is not None and not loss <= limit

    @property
    def loss_words(self) -> str:
        """What is lost, and how much of it would be tolerated."""
        return self.words_of(self.form)

    def word(self, form: str) -> str:
        """What a form of the model is called."""
        result = self.ground.flow.result
        if result == _WORDS["int8"] or form not in ("ptq", "int8"):
            return _WORDS[form]
        return result if form == "int8" else f"{result} without training"

    def words_of(self, form: str | None) -> str:
        """The same for any form; ``""`` where it is not known."""
        whole, limit = self.of_float, self.limit
        lost = None if form is None else self.lost(form)
        if whole is None or form is None or lost is None or limit is None:
            return ""
        found = self.metrics[form]
        against = "more" if not lost <= limit else "no more"
        what = f"{self.amount(abs(lost))} {'won' if lost < 0 else 'lost'}"
        return (
            f"{self.word(form)} has {found.name} {format_metric(found)}, "
            f"float {format_metric(whole)} ({found.samples:,} samples): {what}, {against} than the "
            f"{self.amount(limit)} that are tolerated ({100 * self.tolerated:.3g} % of float)."
        )

    def gain(self, share: float) -> Gain:
        """That share of what is lost."""
        loss = self.loss
        known = loss is not None and math.isfinite(loss)
        return Gain(share, loss * share if loss is not None and known else None)

    def won(self, amount: float) -> Gain:
        """That amount of the metric; where less is known to be lost, it is all of that."""
        loss = self.loss
        known = loss is not None and math.isfinite(loss) and loss > 0
        return Gain(min(1.0, amount / loss) if loss is not None and known else 1.0, amount)

    @property
    def state(self) -> str:
        """What is known of the accuracy, in a sentence; ``""`` for nothing."""
        known = [
            f"{self.word(name)} {format_metric(self.metrics[name])}"
            for name in _WORDS
            if name in self.metrics
        ]
        if not known:
            return ""
        first = next(iter(self.metrics.values()))
        limit = "" if self.limit is None else f"; tolerated loss {self.amount(self.limit)}"
        return f"{first.name} on {first.samples:,} samples: {', '.join(known)}{limit}"

    def amount(self, value: float) -> str:
        """A difference of the metric in words: points of accuracy, else a number."""
        name = next((one.name for one in self.metrics.values()), "")
        return f"{100 * value:.3g} points" if name == "accuracy" else f"{value:.3g}"

    def value(self, value: float) -> str:
        """A value of the metric in words."""
        name = next((one.name for one in self.metrics.values()), "")
        return f"{value:.1%}" if name == "accuracy" else f"{value:.4g}"

    # -- the models -----------------------------------------------------------------------------

    @cached_property
    def quantized(self) -> nn.Module | None:
        """The prepared model, made anew where the walk has not come there; None where torch cannot
        prepare it."""
        if self.ground.work is not None:
            return self.ground.work
        try:
            return self.make_prepared()
        except Exception:  # the findings say why
            return None

    @cached_property
    def qconfigs(self) -> Resolver:
        """What the qconfig comes to: ``.at(path)`` of the float model."""
        return self.resolver()

    @property
    def starts_again(self) -> tuple[Reason, ...]:
        """What is lost by beginning again from the float model; nothing if it was not trained."""
        if not self.ground.trained:
            return ()
        epochs = len(self.history.epochs) if self.history is not None else 0
        stage = self.ground.flow.stage_names[0]
        what = f"the {epochs:,} epochs trained" if epochs else "what was trained"
        return (Reason(f"It begins again at stage {stage!r}, without {what}."),)

    @property
    def reached(self) -> bool:
        """Whether the walk has come to the stage with all fake quants."""
        return self.prepared in self.snapshots

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest with all fake quants in, before it is converted."""
        flow = self.ground.flow
        return self.snapshots.get(flow.train_stage) or self.snapshots.get(self.prepared)

    def origin(self, path: str) -> str | None:
        """Path in the float model of a module of the prepared one; None where it has none."""
        known = self.base_paths
        if path in known:
            return path
        inner = path.removeprefix("module.")  # a QuantWrapper around the whole
        return inner if inner in known else None

    @cached_property
    def base_paths(self) -> frozenset[str]:
        return frozenset(path for path, _ in self.ground.base.named_modules())

    @cached_property
    def weight_sites(self) -> tuple[tuple[str, Any], ...]:
        """(path in the float model, module) of the layers of the prepared model with a weight fake
        quant."""
        if self.quantized is None:
            return ()
        return tuple(
            (origin, module)
            for path, module in self.quantized.named_modules()
            if isinstance(getattr(module, "weight_fake_quant", None), nn.Module)
            and (origin := self.origin(path)) is not None
        )

    def why_not(self, cure: str) -> str:
        """Why a cure does not apply to the model as it is now, ``""`` where it does."""
        return CURES[cure].why_not(self.ground)

    def named(self, name: str) -> tuple[Finding, ...]:
        """The findings of one rule."""
        return tuple(one for one in self.findings if one.name == name)

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(one for one in self.findings if one.severity == "error")

    # -- what things cost -----------------------------------------------------------------------

    @cached_property
    def train_batches(self) -> int | None:
        """Batches of an epoch; None where the data has no length."""
        return None if self.data is None else _length(self.data.train)

    @cached_property
    def eval_batches(self) -> int | None:
        """Batches of the evaluation data; None where it has no length."""
        return None if self.data is None else _length(self.data.eval)

    def judging(self) -> Cost:
        """Of int8 after calibration, after a change and, where that is not known, before it; of a
        trained model, of training anew."""
        if self.ground.trained and self.config is not None:
            return self.cost(evaluations=1, calibrations=1, epochs=self.config.epochs)
        times = 1 if self.form is not None else 2
        return self.cost(evaluations=times, calibrations=times)

    def cost(
        self, *, evaluations: int = 0, calibrations: int = 0, batches: int = 0, epochs: int = 0
    ) -> Cost:
        """Of so many passes over the evaluation data, calibrations, other forward passes of a
        batch, and epochs of training, each with an evaluation after it."""
        held, steps = self.eval_batches, self.train_batches
        if (held is None and evaluations + epochs) or (steps is None and epochs):
            return Cost(batches, epochs, None)
        one = CALIBRATION if steps is None else min(CALIBRATION, steps)
        forwards = evaluations * (held or 0) + calibrations * one + batches
        passes = float(forwards + epochs * (STEP * (steps or 0) + (held or 0)))
        seconds, basis = self._seconds(passes, epochs)
        return Cost(forwards, epochs, passes, seconds, basis)

    def _seconds(self, passes: float, epochs: int) -> tuple[float | None, str]:
        known = self.history.epochs if epochs and self.history is not None else ()
        if known:
            mean = sum(one.seconds for one in known) / len(known)
            return mean * epochs, f"{_s(mean)} for each of the {len(known):,} epochs trained"
        timed = {
            name: one.seconds
            for name, one in self.metrics.items()
            if math.isfinite(one.seconds) and one.seconds > 0
        }
        if not timed or not self.eval_batches or not passes:
            return None, ""
        slowest = max(timed, key=lambda name: timed[name])
        basis = f"{_s(timed[slowest])} for {self.eval_batches:,} batches of {_WORDS[slowest]}"
        return passes * timed[slowest] / self.eval_batches, basis


def _length(part: Iterable[Any]) -> int | None:
    try:
        return len(part)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        return None


def _s(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds >= 0.1 else f"{1000 * seconds:.2g} ms"
