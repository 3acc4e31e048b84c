"""A panel of HTML whose links select."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

from qatexplorer.widgets.common.assets import css, esm


class HtmlPanel(anywidget.AnyWidget):
    """HTML whose ``[data-select]`` buttons set ``selected``, and whose ``[data-ask]`` buttons ask
    the page for something (:meth:`on_ask`).

    ``html`` is put into the page as it is: it must come from a view, which escapes what users
    wrote. ``dark`` is True or False to force a theme, None to follow the page.
    """

    _esm = esm("panel")
    _css = css("common/panel.css")

    html: Any = traitlets.Unicode("").tag(sync=True)
    selected: Any = traitlets.Unicode("").tag(sync=True)
    dark: Any = traitlets.Bool(None, allow_none=True).tag(sync=True)

    def on_ask(self, callback: Callable[[str], Any]) -> None:
        """Call ``callback`` with what a clicked ``[data-ask]`` button asks for."""

        def receive(_widget: Any, content: Any, _buffers: Any) -> None:
            if isinstance(content, dict) and isinstance(content.get("ask"), str):
                callback(content["ask"])

        self.on_msg(receive)
