"""Which share of the lost accuracy training won back."""

from __future__ import annotations

from dataclasses import dataclass

from qatexplorer.evaluate.metric import MetricValue


@dataclass(frozen=True, slots=True)
class WonBack:
    """One metric of four forms of a model.

    Attributes:
        name: of the metric. mode: ``"max"`` if more of it is better, ``"min"`` if less.
        floating: of the float model.
        untrained: of the model that was converted without training.
        fake_quant: of the trained model with its fake quants, None where that was not measured.
        trained: of the model that was converted after training.
    """

    name: str
    mode: str
    floating: float
    untrained: float
    fake_quant: float | None
    trained: float

    @classmethod
    def of(
        cls,
        floating: MetricValue | None,
        untrained: MetricValue | None,
        fake_quant: MetricValue | None,
        trained: MetricValue | None,
    ) -> WonBack | None:
        """None where one is missing or not complete, where it is not known which way is better,
        and where converting without training loses nothing."""
        if floating is None or untrained is None or trained is None:
            return None
        if not all(one.complete and one.mode for one in (floating, untrained, trained)):
            return None
        measured = fake_quant.value if fake_quant is not None else None
        name, mode = floating.name, floating.mode
        found = cls(name, mode, floating.value, untrained.value, measured, trained.value)
        return found if found.lost > 0 else None

    @property
    def lost(self) -> float:
        """What converting without training loses, 0 or more where it loses."""
        change = self.floating - self.untrained
        return change if self.mode == "max" else -change

    @property
    def share(self) -> float:
        """Of that, what training won back: 1 is all of it, below 0 it lost more."""
        return (self.trained - self.untrained) / (self.floating - self.untrained)

    def summary(self) -> str:
        """In one sentence."""
        before = f"{self.name} {self._text(self.floating)} in float, {self._text(self.untrained)} "
        numbers = f"{before}converted without training, {self._text(self.trained)} after it"
        if self.share <= 0:
            return f"Training won back nothing of what converting loses: {numbers}."
        if self.share >= 1:
            return f"Training won back all that converting without it loses: {numbers}."
        return (
            f"Training won back {100 * self.share:.0f} % of what converting without it loses: "
            f"{numbers}."
        )

    def _text(self, value: float) -> str:
        return f"{value:.1%}" if self.name == "accuracy" else f"{value:.4g}"
