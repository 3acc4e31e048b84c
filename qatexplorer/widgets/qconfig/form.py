"""The fields for one fake quant: what observes the range, and the grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets

from qatexplorer.widgets.common.controls import labelled, row

QUANTIZED, FLOAT = "a fake quant", "left in float"


class SideFields(widgets.VBox):
    """Choices for the activation or for the weight of the modules of a rule.

    Args:
        title: "Activation" or "Weight".
        on_change: called when a user has changed a field; not by :meth:`fill`.
    """

    def __init__(
        self, title: str, observers: Mapping[str, str], on_change: Callable[[], Any]
    ) -> None:
        self.title, self._on_change = title, on_change
        self._filling = False
        self.what = labelled(
            widgets.Dropdown(options=(QUANTIZED, FLOAT)), f"{title} gets", width="220px"
        )
        self.observer = labelled(
            widgets.Dropdown(options=[(said, name) for name, said in observers.items()]),
            "Observer",
            "What finds the range that the grid covers",
            width="100%",
        )
        self.bits = labelled(
            widgets.BoundedIntText(8, min=2, max=8), "Bits", "2 to 8", width="100px"
        )
        self.granularity = labelled(
            widgets.Dropdown(options=[("per tensor", False), ("per channel", True)]),
            "Grid",
            "One scale for the whole tensor, or one for each output channel",
            width="150px",
        )
        self.symmetry = labelled(
            widgets.Dropdown(options=[("affine", False), ("symmetric", True)]),
            "Scheme",
            "Affine has a zero point of its own, symmetric has it in the middle",
            width="165px",
        )
        self.reduce_range = _tick("reduce_range", "One bit less, for engines that would saturate")
        self.learned = _tick(
            "learned step size",
            "torch's _LearnableFakeQuantize: training learns scale and zero point",
        )
        self.fields = (
            self.observer, self.bits, self.granularity, self.symmetry, self.reduce_range,
            self.learned,
        )  # fmt: skip
        for control in (self.what, *self.fields):
            control.observe(lambda _change: self._changed(), "value")
        super().__init__(
            [
                self.what,
                self.observer,
                row(self.bits, self.granularity, self.symmetry),
                row(self.reduce_range, self.learned),
            ]
        )
        self.add_class("qx-qconfig-side")

    @property
    def in_float(self) -> bool:
        """Whether it is to be left in float."""
        return bool(self.what.value == FLOAT)

    def _changed(self) -> None:
        for control in self.fields:
            control.layout.display = "none" if self.in_float else ""
        if not self._filling:
            self._on_change()


def _tick(label: str, tip: str) -> Any:
    made = widgets.Checkbox(False, description=label, tooltip=tip, indent=False)
    made.layout.width = "auto"
    return made
