"""A comparison of float, fake quant and int8, and a ranking of fake quants, as records."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from qatexplorer.shown import MAX_LINES, Shown, at_most, columns, first, listed
from qatexplorer.tables import table

APART_STEPS = 1.5
"""More steps of the int8 grid than this between int8 and fake quant are no rounding of a tie."""

RowKind = Literal["module", "operation", "fake quant", "weight", "output"]
Method = Literal["exact", "shadow", "gradient"]


@dataclass(frozen=True, slots=True)
class CompareRow:
    """One place of the model in its three forms. None where a form has no such tensor there.

    Attributes:
        path: of the module or fake quant, name of the node for an operation of an FX graph, place
            in the structure for an output (``"output['boxes']"``).
        kind: what it is. type: class of the module, or the operation.
        owner: path of the module whose output, input or weight a fake quant quantizes.
        index: position in the float forward, from 0. call: calls of it before in that forward.
        values: numbers compared, over all batches.
        sqnr_fake_quant_db, sqnr_int8_db: signal-to-quantization-noise ratio against float, dB:
            ``20 * log10(|x| / |x - y|)``; infinite where equal. All fake quants are on, so this is
            the accumulated error.
        isolated_sqnr_db: the same with only this fake quant on.
        cosine_fake_quant, cosine_int8: cosine similarity to float, -1 to 1.
        mean_error_steps, max_error_steps: of the fake-quant values against float, in steps.
        mean_steps, max_steps: int8 against fake quant, in steps of the int8 grid.
        agreement: share of int8 codes that equal the fake-quant codes, 0 to 1.
        kl: Kullback-Leibler divergence of the histograms, float to fake quant, nats.
        clipped: share of float values outside of the grid.
        clipping_error, rounding_error: parts of the mean squared error of this fake quant alone.
        step: of the fake quant's grid (mean over channels).
        channels: SQNR of each channel in dB. Of a weight that of its fake quant alone; of an
            activation (N, C, H, W), (N, C, D, H, W) or (N, C) that of fake quant against float, of
            the first sample of each batch where it has more than two dimensions.
        cause: why fake quant and int8 part here, ``""`` where they do not or nothing is known.
    """

    path: str
    kind: RowKind
    type: str = ""
    owner: str = ""
    index: int = 0
    call: int = 0
    values: int = 0
    sqnr_fake_quant_db: float | None = None
    sqnr_int8_db: float | None = None
    isolated_sqnr_db: float | None = None
    cosine_fake_quant: float | None = None
    cosine_int8: float | None = None
    mean_error_steps: float | None = None
    max_error_steps: float | None = None
    mean_steps: float | None = None
    max_steps: float | None = None
    agreement: float | None = None
    kl: float | None = None
    clipped: float | None = None
    clipping_error: float | None = None
    rounding_error: float | None = None
    step: float | None = None
    channels: tuple[float, ...] = ()
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Scatter:
    """Values of one place in two forms, a sample of them; equal lengths."""

    float_values: tuple[float, ...]
    int8_values: tuple[float, ...]
    fake_quant_values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Lost:
    """An evaluation sample that float gets right and int8 does not.

    ``number`` counts the samples of the evaluation data from 0; ``input`` is what the model was
    given for it (a NumPy array without the batch dimension), None where it cannot be split.
    """

    number: int
    target: int
    float_answer: int
    int8_answer: int
    input: Any = None


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """Float, fake quant and int8 on the same inputs.

    Attributes:
        rows: in the order of the float forward; weights after their module.
        batches: inputs used. seconds: it took. passes: forwards, by form.
        scatter: samples of values, by (path, call) of the row.
        lost: samples that int8 gets wrong; lost_total: how many there are of ``evaluated``.
        notes: what could not be compared, in sentences.
        form: what the converted model is called, where it does not compute in int8.
    """

    rows: tuple[CompareRow, ...] = ()
    batches: int = 0
    seconds: float = 0.0
    passes: dict[str, int] = field(default_factory=dict)
    scatter: dict[tuple[str, int], Scatter] = field(default_factory=dict)
    lost: tuple[Lost, ...] = ()
    lost_total: int = 0
    evaluated: int = 0
    notes: tuple[str, ...] = ()
    form: str = "int8"

    @property
    def first(self) -> CompareRow | None:
        """The first place where int8 and fake quant are more than 1.5 steps apart."""
        return next((row for row in self.rows if (row.max_steps or 0.0) > APART_STEPS), None)

    def words(self, form: str) -> str:
        """What a form of :attr:`passes` is called."""
        return self.form if form == "int8" else form

    def __iter__(self) -> Iterator[CompareRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame``, a row a place. Raises InputError without pandas."""
        return table(CompareRow, self.rows)

    def __repr__(self) -> str:
        batches = "1 batch" if self.batches == 1 else f"{self.batches:,} batches"
        forms = [self.words(form) for form in self.passes]
        head = f"Comparison of {listed(forms, 3)} on {batches}: {len(self.rows):,} places"
        lines = [head]
        lines += [
            f"{row.path}: {_db(row.sqnr_fake_quant_db)} fake quant, "
            f"{_db(row.sqnr_int8_db)} {self.form}"
            for row in [row for row in self.rows if row.kind == "output"][:3]
        ]
        if self.first is not None:
            why = f": {self.first.cause}" if self.first.cause else ""
            lines.append(
                f"{self.form} parts from fake quant at {self.first.path} first "
                f"({self.first.max_steps:.3g} steps){why}"
            )
        if self.evaluated:
            lines.append(
                f"{self.form} loses {self.lost_total:,} of {self.evaluated:,} evaluation samples"
            )
        lines += [f"note: {note}" for note in self.notes[:3]]
        return at_most([*lines, *self._worst(MAX_LINES - 1 - len(lines))])

    def _worst(self, most: int) -> list[str]:
        known = [(sqnr, row) for row in self.rows if (sqnr := _sorted_by(row)) is not None]
        known.sort(key=lambda one: one[0])
        body = [
            (
                row.path,
                _db(row.sqnr_fake_quant_db),
                _db(row.sqnr_int8_db),
                "–" if row.agreement is None else f"{100 * row.agreement:.1f} %",
                "–" if row.max_steps is None else f"{row.max_steps:.3g}",
                row.cause,
            )
            for _, row in known[:most]
        ]
        head = ("the worst", "fake quant", self.form, "same code", "most steps", "cause")
        return columns([head, *body], right=(1, 2, 3, 4)) if body else []


def _sorted_by(row: CompareRow) -> float | None:
    """SQNR of int8, else of the fake quant, of what is listed as worst."""
    if row.kind not in ("module", "operation"):
        return None
    return row.sqnr_fake_quant_db if row.sqnr_int8_db is None else row.sqnr_int8_db


def _db(value: float | None) -> str:
    return "–" if value is None else "equal" if value == math.inf else f"{value:.1f} dB"


@dataclass(frozen=True, slots=True)
class SensitivityRow:
    """What one fake quant costs.

    Attributes:
        path: of the fake quant. owner: module whose output, input or weight it quantizes.
        kind: ``"activation"`` or ``"weight"``.
        score: what the ranking sorts by; more means that it costs more. Its unit is the method's:
            loss of the metric with only this one on (exact), noise over signal at the module's
            output (shadow), the sum of (dL/dy)^2 (y_q - y)^2 (gradient).
        only: metric with only this fake quant on. without: metric with all but this one on. None
            where the method does not give it.
        loss_only, loss_without: the same for the loss.
        index: place in the order of the forward, from 0.
        loss_increase: ``loss_only`` minus the loss with all fake quants off.
    """

    path: str
    owner: str
    kind: Literal["activation", "weight"]
    score: float
    only: float | None = None
    without: float | None = None
    loss_only: float | None = None
    loss_without: float | None = None
    index: int = 0
    loss_increase: float | None = None


_HEAD = ("fake quant", "kind", "score", "only this", "all but this")


def number(value: float | None) -> str:
    """Four digits, a dash for None."""
    return "–" if value is None else f"{value:.4g}"


@dataclass(frozen=True, repr=False)
class Sensitivity(Shown):
    """A ranking of the fake quants of a model by what they cost.

    Attributes:
        method: how it was made. rows: the most costly first.
        complete: False where it was stopped; ``rows`` are those that were done.
        forwards: cost in forwards of the whole quantized model on the same samples: module calls
            that were computed, as a share of those of one; the time of a backward pass, as a
            share of the forward before it. seconds: it took.
        metric_name, loss_name: of what was measured. float_metric: all fake quants off.
        quantized_metric: all on. weights_only, activations_only: only fake quants of that kind on.
        spearman: rank correlation with ``"exact"``, where that was run too; None otherwise.
        samples: of the evaluation data that were used, in ``batches``.
        notes: what is not as one would think, in sentences.
        loss_name, float_loss, quantized_loss: as for the metric; ``"none"`` and None where there is
            no loss that fits the target.
        metric_mode: whether a high (``"max"``) or a low metric is good.
        spearman_loss: rank correlation with the increase of the loss that ``"exact"`` found, which
            has fewer equal values than a metric of few samples.
    """

    method: Method
    rows: tuple[SensitivityRow, ...] = ()
    complete: bool = True
    forwards: float = 0.0
    seconds: float = 0.0
    metric_name: str = ""
    float_metric: float | None = None
    quantized_metric: float | None = None
    weights_only: float | None = None
    activations_only: float | None = None
    spearman: float | None = None
    samples: int = 0
    notes: tuple[str, ...] = ()
    loss_name: str = ""
    float_loss: float | None = None
    quantized_loss: float | None = None
    metric_mode: Literal["max", "min"] = "max"
    batches: int = 0
    spearman_loss: float | None = None

    def __repr__(self) -> str:
        state = "" if self.complete else ", stopped before the end"
        cost = f"{self.samples:,} samples, {self.forwards:.1f} forwards, {self.seconds:.1f} s"
        head = f"Sensitivity of {len(self.rows):,} fake quants, method {self.method}"
        lines = [f"{head}: {cost}{state}"]
        metrics = (
            ("float", self.float_metric),
            ("quantized", self.quantized_metric),
            ("weights only", self.weights_only),
            ("activations only", self.activations_only),
        )
        known = [f"{name} {value:.4g}" for name, value in metrics if value is not None]
        lines += [f"{self.metric_name}: {', '.join(known)}"] if known else []
        ranks = (("metric", self.spearman), ("loss", self.spearman_loss))
        found = [f"{name} {value:.2f}" for name, value in ranks if value is not None]
        lines += [f"Spearman with exact: {', '.join(found)}"] if found else []
        lines += self.notes[:2]
        shown, more = first(self.rows, 19 - len(lines) - 1)
        cells = [
            (r.path, r.kind, number(r.score), number(r.only), number(r.without)) for r in shown
        ]
        return at_most([*lines, *columns([_HEAD, *cells], right={2, 3, 4}), *more])

    def __iter__(self) -> Iterator[SensitivityRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame``, a row a fake quant. Raises InputError without pandas."""
        return table(SensitivityRow, self.rows)


@dataclass(frozen=True, slots=True)
class ProposalPoint:
    """A mixed-precision model: these modules are left in float (or have more bits).

    ``modules`` are paths in the float model. ``metric`` was measured on the fake-quant model as it
    is, without training it again. ``size_bytes`` is that of all parameters: those with a fake quant
    at the bits of its codes, the others as they are; scales and zero points are not counted.
    ``share_int8`` is the share of the multiply-adds in modules whose weight is fake-quantized.
    ``treatment`` as in :class:`Proposal`.
    """

    modules: tuple[str, ...]
    metric: float
    size_bytes: int
    share_int8: float
    treatment: str = "float"


def reaches(metric: float, wished: float, mode: Literal["max", "min"] = "max") -> bool:
    """Whether ``metric`` is at least as good as ``wished``; NaN never is."""
    return metric >= wished if mode == "max" else metric <= wished


@dataclass(frozen=True, repr=False)
class Proposal(Shown):
    """Which modules to leave in float, so that a wished metric is reached.

    The search is greedy: modules are taken in the order of a ranking, and from the first set that
    reaches the wish each one is taken back again that is not needed. What it finds is the smallest
    set found, which need not be the smallest there is.

    Attributes:
        points: by the number of modules, from all quantized to all of the ranking in float.
        wished: metric asked for. chosen: the first of ``points`` that reaches it, None for none.
        treatment: what is done with the modules, ``"float"`` or a number of bits in words.
        metric_mode: whether more of the metric is better (``"max"``) or less.
        float_metric: of the model with all fake quants off.
        complete: False where it was stopped: not all points were measured.
        evaluations: of the model on the data, ``samples`` each time. seconds: it took.
        notes: what could not be taken, in sentences.
        int8_error: why the int8 model of the chosen point does not run as the model is now, ``""``
            where it does, or there is none.
    """

    points: tuple[ProposalPoint, ...] = ()
    wished: float = 0.0
    chosen: ProposalPoint | None = None
    treatment: str = "float"
    metric_name: str = ""
    metric_mode: Literal["max", "min"] = "max"
    float_metric: float | None = None
    complete: bool = True
    evaluations: int = 0
    samples: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    int8_error: str = ""

    def reaches(self, point: ProposalPoint, wished: float | None = None) -> bool:
        """Whether the metric of ``point`` is as good as ``wished`` (None: as was asked for)."""
        goal = self.wished if wished is None else wished
        return reaches(point.metric, goal, self.metric_mode)

    def first_that_reaches(self, wished: float) -> ProposalPoint | None:
        """The point with the fewest modules that reaches ``wished``; None for none."""
        return next((point for point in self.points if self.reaches(point, wished)), None)

    def __repr__(self) -> str:
        what = "left in float" if self.treatment == "float" else f"at {self.treatment} bits"
        found = "No point reaches it."
        if self.chosen is not None:
            found = f"Smallest set found: {', '.join(self.chosen.modules) or 'none'}."
        if not self.complete:
            found += " Stopped before all points were measured."
        if self.int8_error:
            found += " Its int8 model does not run."
        head = f"Proposal: modules {what} for {self.metric_name} {self.wished:.4g}"
        rows = [("modules", self.metric_name, "bytes", "int8")]
        rows += [
            (
                f"{'→ ' if point is self.chosen else ''}{len(point.modules):,}",
                f"{point.metric:.4g}",
                f"{point.size_bytes:,}",
                f"{point.share_int8:.1%}",
            )
            for point in self.points
        ]
        return at_most([head, found, *columns(rows, right=(0, 1, 2, 3))])

    def __iter__(self) -> Iterator[ProposalPoint]:
        return iter(self.points)

    def __len__(self) -> int:
        return len(self.points)

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame``, a row a point. Raises InputError without pandas."""
        return table(ProposalPoint, self.points)
