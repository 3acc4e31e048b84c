"""What telemetry records: sites, states, the metrics of one look. No torch tensor is kept."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from qatexplorer.snapshot.records import SiteKind

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
    "dead_channels",
    "channels_seen",
    "grad_rms",
    "grad_max",
    "grad_zero_share",
    "grad_nonfinite",
)
"""Names of the numbers of one look at one site, see :class:`SiteLook`."""

METRIC_INDEX = {name: index for index, name in enumerate(METRICS)}

MIXED = "fake quant off while its observer still moves"
BN_MOVES = "observer frozen while batch-norm statistics still scale the weight"


def dkw_bound(sampled: int, total: int, confidence: float = CONFIDENCE) -> float:
    """Largest error of the cumulative share at any value (0 to 1), with ``confidence``.

    The Dvoretzky-Kiefer-Wolfowitz inequality with Massart's constant, for independent draws with
    replacement: ``sqrt(ln(2 / (1 - confidence)) / (2 * sampled))``. Zero if all were looked at. A
    share between two values (a clipped tail, a bin) is off by at most twice this, a tail by once.
    """
    if sampled >= total:
        return 0.0
    if sampled <= 0:
        return 1.0
    return min(1.0, math.sqrt(math.log(2.0 / (1.0 - confidence)) / (2.0 * sampled)))


@dataclass(frozen=True, slots=True)
class SiteInfo:
    """What does not change about a watched fake quant.

    Attributes:
        path: of the fake quant module; ``owner`` is the module that it serves.
        kind: weight, input or output.
        quant_min, quant_max: smallest and largest code.
        dtype: quantized dtype, torch's own spelling.
        ch_axis: channel axis if the grid differs by channel, else None.
        unseen: why the values at this site cannot be seen; empty if they can. Its scale, zero
            point, range and states are recorded all the same.
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

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class StateChange:
    """From step ``step`` on a site was in this state, until its next change.

    ``bn_frozen`` is None where no batch norm is fused into the site's module.
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
class SiteLook:
    """The numbers of one look at one site in step ``step``; NaN where there is none.

    ``values`` are by the names of :data:`METRICS`, each also an attribute:

    - sampled, total: elements looked at, and of the tensor;
    - clipped_low, clipped_high: shares (0 to 1) rounded to codes outside the grid;
    - codes_used: share of the codes that at least one value is rounded to (a lower bound above
      4,096 codes); zero_share: values that are exactly 0; nonfinite: share of NaN and infinities;
    - sqnr_db: power of the values over the power of what quantization changes, in dB;
    - scale_min, scale_median, scale_max over the channels; zero_point (NaN if it differs);
    - min_val, max_val: the observer's range over all channels; batch_min, batch_max: of this very
      tensor, all of it where a moving average lets us read it back, else of the sample;
    - drift: how far the batch's range lies from the moving average, as a share of its width;
    - flipped: share of the watched weights whose code is another than at the last look;
      oscillating: those that went back to the code before within the last 8 looks;
    - dead_channels of channels_seen: all their sampled values fall on the code of zero;
    - grad_rms, grad_max, grad_zero_share, grad_nonfinite: of the gradient behind the fake quant.
    """

    step: int
    path: str
    values: tuple[float, ...]

    def __getattr__(self, name: str) -> float:
        index = METRIC_INDEX.get(name)
        if index is None:
            raise AttributeError(name)
        return self.values[index]

    @property
    def clipped(self) -> float:
        """Share of the values outside the grid, both sides."""
        return self.clipped_low + self.clipped_high

    @property
    def bound(self) -> float:
        """:func:`dkw_bound` of the histogram."""
        return dkw_bound(int(self.sampled), int(self.total)) if self.sampled > 0 else 1.0


@dataclass(frozen=True, slots=True)
class ChannelLook:
    """Per-channel numbers of a site in step ``step``, one entry per channel."""

    step: int
    scale: tuple[float, ...]
    zero_point: tuple[float, ...]
    min_val: tuple[float, ...]
    max_val: tuple[float, ...]


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
    """What the looking has cost so far, as measured.

    Attributes:
        steps: training steps; ``looks`` of them were looked at.
        train_s, spent_s: seconds of training without, and of the looking.
        budget: share of the step time that it may cost.
        every: present distance of the looks in steps (the mean of the last ones).
        sampled, total: elements of all sites together at the last look.
        pace: ``"steady"`` if the reader chose the steps, ``"auto"`` if the budget does.
    """

    steps: int
    looks: int
    train_s: float
    spent_s: float
    budget: float
    every: float
    sampled: int
    total: int
    largest_sample: int
    largest_total: int
    pace: Pace = "auto"

    @property
    def share(self) -> float:
        """Looking over training (0.01 is one percent); 0 before the first step."""
        return self.spent_s / self.train_s if self.train_s > 0 else 0.0

    @property
    def bound(self) -> float:
        """Error bound of the histogram of the largest tensor."""
        return dkw_bound(self.largest_sample, self.largest_total)

    def words(self) -> str:
        """In one line, such as "1.4 % of step time, 1 step in 8, 65,536 of 802,816 values, ±
        0.8 %"."""
        if not self.looks:
            return "no look yet"
        every = f"{self.every:.0f}" if self.every >= 9.95 else f"{self.every:.2g}"
        often = "every step" if self.every < 1.05 else f"1 step in {every}"
        share = f"{100 * self.share:.2g} % of step time" if self.train_s > 0 else "not timed yet"
        values = f"{self.largest_sample:,} of {self.largest_total:,} values"
        text = f"{share}, {often}, {values}, ± {100 * self.bound:.1g} %"
        if self.train_s > 0 and self.share > self.budget:
            text += f" (above the budget of {100 * self.budget:.2g} %)"
        return text
