"""The fields for one fake quant: what observes the range, and the grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from qatexplorer.flows.qconfig_rules import Part
from qatexplorer.flows.quant_spec import (
    FEWEST_BITS,
    MOST_BITS,
    FakeQuantName,
    ObserverName,
    QuantSpec,
)
from qatexplorer.widgets.common.controls import labelled, row

KEEP, QUANTIZED = "as it is", "another fake quant"

_SAID: dict[ObserverName, str] = {
    "MovingAverageMinMaxObserver": "moving average of minimum and maximum",
    "MinMaxObserver": "minimum and maximum of all seen",
    "HistogramObserver": "histogram, the range with the least error",
    "PercentileObserver": "histogram, cut at the percentiles 0.01 and 99.99",
}


class SideFields(widgets.VBox):
    """Choices for the activation or for the weight of the modules of a rule.

    ``on_change`` is called when a user has changed a field.
    """

    def __init__(self, side: Part, on_change: Callable[[], Any]) -> None:
        self.side, self._on_change = side, on_change
        title = side.capitalize()
        self.what = labelled(
            widgets.Dropdown(options=(KEEP, QUANTIZED)), title, f"{title}: {KEEP}, or {QUANTIZED}",
            width="min(280px, 100%)",
        )  # fmt: skip
        self.observer = labelled(
            widgets.Dropdown(options=[(said, name) for name, said in _SAID.items()]),
            "Observer",
            f"{title}: what finds the range that the grid covers",
            width="100%",
        )
        self.bits = labelled(
            widgets.BoundedIntText(8, min=FEWEST_BITS, max=MOST_BITS),
            "Bits",
            f"{title}: {FEWEST_BITS} to {MOST_BITS} bits",
            width="90px",
        )
        self.granularity = labelled(
            widgets.Dropdown(
                options=[("per tensor", False), ("per channel", True)], value=side == "weight"
            ),
            "Grid",
            f"{title}: one scale for the whole tensor, or one for each output channel",
            width="150px",
        )
        self.symmetry = labelled(
            widgets.Dropdown(
                options=[("affine", False), ("symmetric", True)], value=side == "weight"
            ),
            "Scheme",
            f"{title}: affine has a zero point of its own, symmetric has it in the middle",
            width="165px",
        )
        self.reduce_range = widgets.Checkbox(
            False,
            description="reduce_range",
            tooltip=f"{title}: half of the codes, for engines that would saturate",
            indent=False,
        )
        self.reduce_range.layout.width = "130px"
        self.learned = widgets.Checkbox(
            False,
            description="learned step size",
            tooltip=f"{title}: the scale is a parameter that training learns",
            indent=False,
        )
        self.learned.layout.width = "150px"
        fields = (self.observer, self.bits, self.granularity, self.symmetry, self.reduce_range,
                  self.learned)  # fmt: skip
        for control in (self.what, *fields):
            control.observe(lambda _change: self._changed(), "value")
        grid = row(*fields[1:])
        self.more = widgets.VBox([self.observer, grid])
        super().__init__([self.what, self.more])
        self.add_class("qx-qconfig-side")
        self._show()

    @property
    def spec(self) -> QuantSpec | None:
        """What is chosen, None for no change. Raises QConfigError for what torch cannot make."""
        if self.what.value == KEEP:
            return None
        averaging = self.observer.value == "MovingAverageMinMaxObserver"
        # Torch's fused kernel averages by itself, and takes no other observer.
        kind: FakeQuantName = "FusedMovingAvgObsFakeQuantize" if averaging else "FakeQuantize"
        if self.learned.value:
            kind = "_LearnableFakeQuantize"
        return QuantSpec(
            bits=self.bits.value,
            signed=self.side == "weight",
            scheme="symmetric" if self.symmetry.value else "affine",
            per_channel=self.granularity.value,
            observer=self.observer.value,
            fake_quant=kind,
            reduce_range=self.reduce_range.value,
        )

    def _changed(self) -> None:
        self._show()
        self._on_change()

    def _show(self) -> None:
        self.more.layout.display = "none" if self.what.value == KEEP else ""
