"""The line of news: what happened at the stage in view, what is wrong, and buttons against it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

from qatexplorer.widgets.common.assets import css, esm


class NewsBar(anywidget.AnyWidget):
    """One line; its text behind "more" opens over the page.

    Attributes:
        title, news: of the stage in view, plain text.
        story: HTML of the whole story; it must come from a view, which escapes what users wrote.
        findings: what :func:`qatexplorer.views.common.findings.finding_entries` returns.
        checks: what :func:`qatexplorer.views.checks.state.header_of` returns.
        busy: no button can be pressed.

    A click on a button of a finding sends ``{"action": "fix", "key": its key, "index": which of its
    fixes}``, one on its place ``{"action": "select", "selection": …}``, one on the counts or on
    "more in Checks" ``{"action": "checks"}``.
    """

    _esm = esm("news")
    _css = css("common/html.css", "common/note.css", "explorer/news.css")

    title: Any = traitlets.Unicode("").tag(sync=True)
    news: Any = traitlets.Unicode("").tag(sync=True)
    story: Any = traitlets.Unicode("").tag(sync=True)
    findings: Any = traitlets.List().tag(sync=True)
    checks: Any = traitlets.Dict().tag(sync=True)
    busy: Any = traitlets.Bool(False).tag(sync=True)

    def show(self, title: str, news: str, story: str) -> None:
        """Show a stage."""
        with self.hold_sync():
            self.title, self.news, self.story = title, news, story

    def on_fix(self, callback: Callable[[str, int], Any]) -> None:
        """Call ``callback(key of the finding, which of its fixes)`` for every click on a fix."""

        def receive(_widget: Any, content: Any, _buffers: Any) -> None:
            if isinstance(content, dict) and content.get("action") == "fix":
                callback(str(content.get("key")), int(content.get("index", 0)))

        self.on_msg(receive)

    def on_select(self, callback: Callable[[str], Any]) -> None:
        """Call ``callback(selection)`` for every click on the place of a finding."""

        def receive(_widget: Any, content: Any, _buffers: Any) -> None:
            if isinstance(content, dict) and content.get("action") == "select":
                callback(str(content.get("selection", "")))

        self.on_msg(receive)

    def on_checks(self, callback: Callable[[], Any]) -> None:
        """Call ``callback()`` for every click that asks for all findings."""

        def receive(_widget: Any, content: Any, _buffers: Any) -> None:
            if isinstance(content, dict) and content.get("action") == "checks":
                callback()

        self.on_msg(receive)
