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


class Note(anywidget.AnyWidget):
    """One line, and behind its button a text that opens over the page and pushes nothing aside.

    Attributes:
        html: the text; put into the page as it is, so it must come from a view. ``""`` for none.
        line: HTML of the line; ``""`` takes the first line of the text. Without both it is hidden.
        kind: extra CSS classes.
        role: ARIA role, such as ``"alert"``; ``""`` for none.
        label: what the button says.
        opens: open by itself whenever there is a new text, and close only by a click or Esc.
    """

    _esm = esm("note")
    _css = css("common/html.css", "common/note.css")

    html: Any = traitlets.Unicode("").tag(sync=True)
    line: Any = traitlets.Unicode("").tag(sync=True)
    kind: Any = traitlets.Unicode("").tag(sync=True)
    role: Any = traitlets.Unicode("").tag(sync=True)
    label: Any = traitlets.Unicode("more").tag(sync=True)
    opens: Any = traitlets.Bool(False).tag(sync=True)


class Message(Note):
    """The place where errors and hints are shown; empty it takes no room."""

    def __init__(self) -> None:
        super().__init__(kind="qx-message", role="alert", label="What to do", opens=True)

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
