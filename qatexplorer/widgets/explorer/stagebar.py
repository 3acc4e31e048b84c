"""The stepper over the stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

from qatexplorer.widgets.common.assets import css, esm


class StageBar(anywidget.AnyWidget):
    """One button a stage, Back, Next, Reset and Stop.

    Attributes:
        stages: what :func:`qatexplorer.views.common.story.stage_entries` returns.
        busy: what is running, ``""`` for nothing; while it is set no stage can be asked for.
        can_stop: whether Stop is shown.

    A click sends ``{"action": "goto" | "back" | "next" | "reset" | "stop", "stage": name}`` to the
    callbacks of :meth:`on_action`.
    """

    _esm = esm("stagebar")
    _css = css("explorer/stagebar.css")

    stages: Any = traitlets.List().tag(sync=True)
    busy: Any = traitlets.Unicode("").tag(sync=True)
    can_stop: Any = traitlets.Bool(False).tag(sync=True)

    def on_action(self, callback: Callable[[str, str], Any]) -> None:
        """Call ``callback(action, stage)`` for every click."""

        def receive(_widget: Any, content: Any, _buffers: Any) -> None:
            if isinstance(content, dict) and isinstance(content.get("action"), str):
                callback(content["action"], str(content.get("stage", "")))

        self.on_msg(receive)
