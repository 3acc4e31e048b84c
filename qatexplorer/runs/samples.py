"""Samples of the fake quants of a training: what is measured of each, its histogram, its state.

No torch tensor is kept in any record.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qatexplorer.forward.histograms import GridHistogram, bin_width
from qatexplorer.snapshot.records import SiteKind

Array = NDArray[Any]

CONFIDENCE = 0.999
"""Of the error bound that each sampled histogram states."""

METRICS = (
    "sampled",
    "total",
    "clipped_low",
    "clipped_high",
    "codes_used",
    "zero_share",
    "nonfinite",
    "sqnr_db",
    "scale_min",
    "scale_median",
    "scale_max",
    "zero_point",
    "min_val",
    "max_val",
    "batch_min",
    "batch_max",
    "drift",
    "flipped",
    "oscillating",
    "reversal_rate",
    "reversing",
    "frozen",
    "dead_channels",
    "channels_seen",
    "grad_rms",
    "grad_max",
    "grad_zero_share",
    "grad_nonfinite",
)
"""Names of the numbers of one sample, see :class:`Sample`."""

REVERSING = 0.005
"""Rate of reversals, one in 200 steps, above which a weight is counted as one that goes back and
forth. Our choice: below a single reversal in the average of 100 steps, which is 0.01."""

METRIC_INDEX = {name: index for index, name in enumerate(METRICS)}
EXACT = ("sampled", "total")
"""Metrics that are whole numbers of any size; the others are float32."""

FINE_LEVELS = 4096
_TAIL = 0.5

MIXED = "fake quant off while its observer still moves"
BN_MOVES = "observer frozen while batch-norm statistics still scale the weight"


def dkw_bound(sampled: int, total: int, confidence: float = CONFIDENCE) -> float:
    """Largest error of the cumulative share at any value (0 to 1), with ``confidence``.

    The Dvoretzky-Kiefer-Wolfowitz inequality with Massart's constant, for independent draws with
    replacement: ``sqrt(ln(2 / (1 - confidence)) / (2 * sampled))``. Zero if all were taken. A
    share between two values (a clipped tail, a bin) is off by at most twice this, a tail by once.
    """
    if sampled >= total:
        return 0.0
    if sampled <= 0:
        return 1.0
    return min(1.0, math.sqrt(math.log(2.0 / (1.0 - confidence)) / (2.0 * sampled)))


@dataclass(frozen=True, slots=True)
class FakeQuantInfo:
    """What does not change about a watched fake quant.

    Attributes:
        path: of the fake quant module; ``owner`` is the module that it serves.
        kind: weight, input or output.
        quant_min, quant_max: smallest and largest code.
        dtype: quantized dtype, torch's own spelling.
        ch_axis: channel axis if the grid differs by channel, else None.
        unseen: why the values at this fake quant cannot be seen; empty if they can. Its scale,
            zero point, range and states are recorded all the same.
        observes: whether an observer makes its range, which can then be frozen.
    """

    path: str
    kind: SiteKind
    owner: str
    owner_type: str
    quant_min: int
    quant_max: int
    dtype: str
    ch_axis: int | None
    unseen: str = ""
    observes: bool = True

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class StateChange:
    """From step ``step`` on a fake quant was in this state, until its next change.

    ``bn_frozen`` is None where no batch norm is fused into its owner.
    """

    step: int
    path: str
    observer_enabled: bool
    fake_quant_enabled: bool
    bn_frozen: bool | None = None

    @property
    def mixture(self) -> str:
        """What is wrong with this combination; empty if nothing is.

        A fake quant that is off while its observer moves lets the scale drift away from what the
        weights are trained against, and ``convert`` then uses the drifted one (pytorch/ao#2138).
        As a warm-up at the very start it is meant; it must not last.
        """
        if self.observer_enabled and not self.fake_quant_enabled:
            return MIXED
        if self.bn_frozen is False and self.fake_quant_enabled and not self.observer_enabled:
            return BN_MOVES
        return ""

    @property
    def forbidden(self) -> bool:
        """Whether the mixture ruins the converted model, rather than only costing accuracy."""
        return self.mixture == MIXED


@dataclass(frozen=True, slots=True)
class Channels:
    """Per-channel numbers of a fake quant, one entry per channel; NaN where there is none."""

    scale: tuple[float, ...]
    zero_point: tuple[float, ...]
    min_val: tuple[float, ...]
    max_val: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of one fake quant, taken in the forward of step ``step``.

    ``values`` are by the names of :data:`METRICS`, each also an attribute; NaN where there is none:

    - sampled, total: elements taken, and of the tensor;
    - clipped_low, clipped_high: shares (0 to 1) rounded to codes outside the grid;
    - codes_used: share of the codes that at least one value is rounded to (a lower bound above
      4,096 codes); zero_share: values that are exactly 0; nonfinite: share of NaN and infinities;
    - sqnr_db: power of the values over the power of what quantization changes, in dB;
    - scale_min, scale_median, scale_max over the channels; zero_point (NaN if it differs);
    - min_val, max_val: the observer's range over all channels; batch_min, batch_max: of this very
      tensor, all of it where a moving average lets us read it back, else of the elements taken;
    - drift: how far the batch's range lies from the moving average, as a share of its width;
    - flipped: share of the watched weights whose code is another than in the last sample;
      oscillating: those that went back to the code before within the last 8 samples;
    - with ``oscillation="every step"``, of all weights, after the step before: reversal_rate: mean
      rate of reversals (Nagel et al. 2022), 1 is one in every step; reversing: share of the weights
      with a rate above :data:`REVERSING`; frozen: share of those that training holds;
    - dead_channels of channels_seen: all their values taken fall on the code of zero;
    - grad_rms, grad_max, grad_zero_share, grad_nonfinite: of the gradient behind the fake quant.

    Attributes:
        observer_enabled, fake_quant_enabled, bn_frozen: its state in that step, see
            :class:`StateChange`.
        channels, histogram: per-channel numbers, and the values before they are rounded; of a
            long run kept for some of the steps only, else None.
    """

    step: int
    path: str
    values: tuple[float, ...]
    observer_enabled: bool = True
    fake_quant_enabled: bool = True
    bn_frozen: bool | None = None
    channels: Channels | None = None
    histogram: GridHistogram | None = None

    def __getattr__(self, name: str) -> float:
        index = METRIC_INDEX.get(name)
        if index is None:
            raise AttributeError(name)
        return self.values[index]

    @property
    def scale(self) -> tuple[float, ...]:
        """One entry per channel, or one; empty where those of many channels are not kept."""
        if self.channels is not None:
            return self.channels.scale
        return (self.scale_median,) if self.scale_min == self.scale_max else ()

    @property
    def clipped(self) -> float:
        """Share of the values outside the grid, both sides."""
        return self.clipped_low + self.clipped_high

    @property
    def bound(self) -> float:
        """:func:`dkw_bound` of the histogram."""
        return dkw_bound(int(self.sampled), int(self.total)) if self.sampled > 0 else 1.0


@dataclass(frozen=True, slots=True)
class GradientHistogram:
    """Sizes of gradients: ``counts[i]`` have ``2**(first + i) <= abs(g) < 2**(first + i + 1)``."""

    step: int
    first: int
    counts: tuple[int, ...]
    zeros: int
    sampled: int
    total: int


Pace = Literal["steady", "auto"]


@dataclass(frozen=True, slots=True)
class Overhead:
    """What sampling has cost so far, as measured.

    Attributes:
        steps: training steps; ``sampled_steps`` of them were sampled.
        train_s, spent_s: seconds of training without, and of the sampling.
        budget: share of the step time that it may cost.
        every: present distance of the sampled steps (the mean of the last ones).
        sampled, total: elements of all fake quants together in the last sampled step.
        pace: ``"steady"`` if the user chose the steps, ``"auto"`` if the budget does.
        followed_steps, followed_s: steps in which the codes of all weights were taken, and the
            seconds that this took (on a GPU those of the host).
    """

    steps: int
    sampled_steps: int
    train_s: float
    spent_s: float
    budget: float
    every: float
    sampled: int
    total: int
    largest_sample: int
    largest_total: int
    pace: Pace = "auto"
    followed_steps: int = 0
    followed_s: float = 0.0

    @property
    def share(self) -> float:
        """Sampling over training (0.01 is one percent); 0 before the first step."""
        return self.spent_s / self.train_s if self.train_s > 0 else 0.0

    @property
    def followed_share(self) -> float:
        """Share of a step's time that following all weights takes; 0 before it is timed."""
        if not self.followed_steps or not self.steps or self.train_s <= 0:
            return 0.0
        return self.followed_s / self.followed_steps / (self.train_s / self.steps)

    @property
    def bound(self) -> float:
        """Error bound of the histogram of the largest tensor."""
        return dkw_bound(self.largest_sample, self.largest_total)

    def words(self) -> str:
        """In one line, such as "1.4 % of step time, 1 step in 8, 65,536 of 802,816 values, ±
        0.8 %"."""
        if not self.sampled_steps:
            return "no sample yet"
        every = f"{self.every:.0f}" if self.every >= 9.95 else f"{self.every:.2g}"
        often = "every step" if self.every < 1.05 else f"1 step in {every}"
        share = f"{100 * self.share:.2g} % of step time" if self.train_s > 0 else "not timed yet"
        values = f"{self.largest_sample:,} of {self.largest_total:,} values"
        text = f"{share}, {often}, {values}, ± {100 * self.bound:.1g} %"
        # Whoever chose the steps has set no budget: the share alone says what they cost.
        if self.pace == "auto" and self.train_s > 0 and self.share > self.budget:
            text += f" (above the budget of {100 * self.budget:.2g} %)"
        return text


@dataclass(frozen=True)
class Bins:
    """Bins of one grid: ``count`` of them, ``width`` codes each, the first from code ``start``.

    ``fine`` is the width that is counted in: one code each up to 4,096 codes.
    """

    quant_min: int
    quant_max: int
    start: int
    width: int
    fine: int
    count: int

    @property
    def first(self) -> int:
        """Number of the first bin: its code, where a bin is one code."""
        return self.start if self.fine == 1 else 0

    @property
    def inner(self) -> tuple[int, int]:
        """Numbers of the first fine bin on the grid and of the first one above it."""
        tail = (self.quant_min - self.start) // self.fine
        return tail, tail + -(-(self.quant_max - self.quant_min + 1) // self.fine)

    @classmethod
    def of(cls, quant_min: int, quant_max: int, bins: int) -> Bins:
        levels = quant_max - quant_min + 1
        width = bin_width(levels, levels, max(1, bins))
        fine = 1 if levels <= FINE_LEVELS else width
        tail = math.ceil(max(8, int(levels * _TAIL)) / width) * width
        inner = math.ceil(levels / width) * width
        return cls(quant_min, quant_max, quant_min - tail, width, fine, (inner + 2 * tail) // fine)


@dataclass(frozen=True)
class Counts:
    """The histogram of one fake quant as counted: ``counts[0]`` is fine bin number ``first``.

    ``counts`` is a row of the table of its step, which therefore is kept or dropped as a whole.
    """

    first: int
    counts: Array
    zeros: int
    off_grid: int
    codes_used: int


@dataclass(frozen=True)
class StepSamples:
    """The samples of all fake quants in one step, side by side in the order of their infos.

    Attributes:
        metrics: float64, fake quants × :data:`METRICS`; NaN where there is none.
        counts: by number of the fake quant; empty once it is thinned away.
        channels: by number of the fake quant, float32 4 × channels: scale, zero_point, min_val,
            max_val; empty once thinned away.
        gradients: by number of the fake quant.
    """

    step: int
    metrics: Array
    counts: Mapping[int, Counts] = field(default_factory=dict)
    channels: Mapping[int, Array] = field(default_factory=dict)
    gradients: Mapping[int, GradientHistogram] = field(default_factory=dict)

    def without_details(self) -> StepSamples:
        """The numbers alone: histograms and channels are most of the memory."""
        return StepSamples(self.step, self.metrics)

    def moved(self, numbers: Mapping[int, int], count: int) -> StepSamples:
        """The same among ``count`` fake quants; ``numbers`` gives the new number by the old."""
        metrics = np.full((count, len(METRICS)), math.nan)
        for old, new in numbers.items():
            metrics[new] = self.metrics[old]
        return StepSamples(
            self.step,
            metrics,
            {numbers[old]: item for old, item in self.counts.items()},
            {numbers[old]: item for old, item in self.channels.items()},
            {numbers[old]: item for old, item in self.gradients.items()},
        )


def rounded(metrics: Array) -> Array:
    """Metrics as float32 holds them, in place: they are written to disk with nine digits."""
    for column, name in enumerate(METRICS):
        if name not in EXACT:
            metrics[:, column] = metrics[:, column].astype(np.float32)
    return metrics


def histogram_of(info: FakeQuantInfo, bins: Bins, counts: Counts, metrics: Array) -> GridHistogram:
    """The histogram of a fake quant as the rest of the package knows it."""

    def number(name: str) -> float:
        return float(metrics[METRIC_INDEX[name]])

    merge = bins.width // bins.fine
    fine = np.zeros(bins.count, np.int64)
    fine[counts.first : counts.first + len(counts.counts)] = counts.counts
    merged = fine.reshape(-1, merge).sum(1)
    tail, last = (border // merge for border in bins.inner)
    # Empty tails are left out; the grid itself stays in view even where nothing falls on it.
    taken = np.flatnonzero(merged)
    first = min(tail, int(taken[0])) if len(taken) else tail
    stop = max(last, int(taken[-1]) + 1) if len(taken) else last
    merged = merged[first:stop]
    start = bins.start + first * bins.width - 0.5
    edges = (np.arange(len(merged) + 1) * bins.width + start).tolist()
    sampled = int(number("sampled"))
    scale, zero_point = number("scale_median"), number("zero_point")
    low, high = number("batch_min"), number("batch_max")
    one = number("scale_min") == number("scale_max") and math.isfinite(zero_point) and scale > 0
    if one and math.isfinite(low):
        edges[0] = min(edges[0], low / scale + zero_point)
    if one and math.isfinite(high):
        edges[-1] = max(edges[-1], high / scale + zero_point)
    return GridHistogram(
        edges=tuple(edges) if merged.sum() else (),
        counts=tuple(merged.tolist()) if merged.sum() else (),
        quant_min=info.quant_min,
        quant_max=info.quant_max,
        scale=scale if one else None,
        zero_point=int(zero_point) if one else None,
        total=int(number("total")),
        sampled=sampled,
        clipped_low=round(number("clipped_low") * sampled),
        clipped_high=round(number("clipped_high") * sampled),
        min=low,
        max=high,
        zeros=counts.zeros,
        nonfinite=round(number("nonfinite") * sampled),
        off_grid=counts.off_grid,
        codes_used=counts.codes_used,
    )
