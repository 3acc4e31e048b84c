"""Small helpers for panels made of ipywidgets: fields with labels, buttons, messages."""

from __future__ import annotations

from typing import Any

import anywidget
import ipywidgets as widgets
import traitlets

from qatexplorer.views.common.story import message_html
from qatexplorer.widgets.common.assets import css, esm


class Html(anywidget.AnyWidget):
    """A block of HTML from a view, in the explorer's own style.

    Attributes:
        html: put into the page as it is: it must come from a view, which escapes what users wrote.
        kind: extra CSS class, such as ``"qx-story"``.
        role: ARIA role, such as ``"alert"``; ``""`` for none.
    """

    _esm = esm("html")
    _css = css("common/html.css")

    html: Any = traitlets.Unicode("").tag(sync=True)
    kind: Any = traitlets.Unicode("").tag(sync=True)
    role: Any = traitlets.Unicode("").tag(sync=True)


class Message(Html):
    """The place where errors and hints are shown; empty it takes no room."""

    def __init__(self) -> None:
        super().__init__(kind="qx-message", role="alert")

    def error(self, error: Exception) -> None:
        """Show what happened, where, why and what to do."""
        self.kind = "qx-message qx-message-error"
        self.html = message_html(error)

    def clear(self) -> None:
        self.html = ""


def button(text: str, tip: str, *, primary: bool = False) -> widgets.Button:
    """A push button with a tooltip. No icon: Voila's stock page fetches their font."""
    made = widgets.Button(description=text, tooltip=tip)
    made.layout.width = "auto"
    made.button_style = "primary" if primary else ""
    return made


def labelled(control: widgets.Widget, label: str, tip: str = "", width: str = "190px") -> Any:
    """Give ``control`` a label before it and a tooltip; returns it."""
    control.description = label
    control.tooltip = tip or label
    control.style.description_width = "initial"
    control.layout.width = width
    return control


def row(*children: widgets.Widget) -> widgets.HBox:
    """Controls side by side that wrap on a narrow page."""
    box = widgets.HBox(list(children))
    box.layout.flex_flow = "row wrap"
    box.layout.align_items = "center"
    box.layout.grid_gap = "6px 10px"
    return box
