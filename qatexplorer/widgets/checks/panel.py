"""The panel "Checks": what is wrong with the model, where, and buttons against it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets

from qatexplorer.checks.records import Finding, Fix
from qatexplorer.session.session import Session
from qatexplorer.views.checks.card import (
    PutRight,
    below_html,
    card_html,
    failure_html,
    nothing_html,
)
from qatexplorer.views.checks.state import CheckState, state_html
from qatexplorer.views.checks.table import COLUMNS, finding_filters, finding_rows
from qatexplorer.views.common.findings import selection_of
from qatexplorer.widgets.checks.checker import Checker
from qatexplorer.widgets.common.assets import css
from qatexplorer.widgets.common.controls import Html, button
from qatexplorer.widgets.common.page import PageState
from qatexplorer.widgets.common.panel import HtmlPanel
from qatexplorer.widgets.common.table import TableWidget


class CheckHtml(HtmlPanel):
    """HTML of the checks' views."""

    _css = css("common/html.css", "common/panel.css", "checks/checks.css")


class ChecksPanel(widgets.VBox):
    """The findings of a session as a table, the chosen one in full beside it.

    Args:
        checker: makes the checks; the panel shows its state and has the buttons for it.
        page: where choosing a finding selects its place.
        on_fix: called with the key of a finding and which of its fixes a button asked for.
        on_undo: called with what was applied when a button asks to take it back.
    """

    def __init__(
        self,
        checker: Checker,
        page: PageState,
        on_fix: Callable[[str, int], Any],
        on_undo: Callable[[str], Any],
    ) -> None:
        self._checker, self._page = checker, page
        self._on_fix, self._on_undo = on_fix, on_undo
        self._session: Session | None = None
        self._found: dict[str, Finding] = {}
        self._put_right: list[PutRight] = []
        self.status = Html(kind="qx-checks-status", role="status")
        self.check = button("Check again", "Ask every rule about the model at this stage")
        self.halt = button("Stop", "Stop the check; what is known without it stays here")
        self.notice = CheckHtml()
        self.table = TableWidget(
            label="Findings", columns=list(COLUMNS), details=False, nothing="No findings."
        )
        self.card, self.below = CheckHtml(), CheckHtml()
        self.check.on_click(lambda _: checker.again())
        self.halt.on_click(lambda _: checker.stop())
        self.table.observe(lambda change: self._on_chosen(change["new"]), "selected")
        for part in (self.card, self.below):
            part.on_ask(self._on_ask)
        head = widgets.HBox([self.status, self.check, self.halt])
        head.add_class("qx-checks-head")
        self.parts = widgets.HBox([self.table, self.card])
        self.parts.add_class("qx-checks-parts")
        super().__init__([head, self.notice, self.parts, self.below])
        for name in ("qx-panel", "qx-checks"):
            self.add_class(name)
        self.draw_state()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Those that are shown."""
        return tuple(self._found.values())

    def use(self, session: Session) -> None:
        """Show another session."""
        self._session = session
        self._put_right = []
        self.table.selected = self.table.flag = self.table.query = ""
        self.show(())

    def show(self, findings: Sequence[Finding]) -> None:
        """Show these findings."""
        session = self._session
        self._found = {finding.key: finding for finding in findings}
        with self.table.hold_sync():
            self.table.filters = finding_filters(self.findings)
            if self.table.flag not in {one["flag"] for one in self.table.filters}:
                self.table.flag = ""
            self.table.rows = finding_rows(self.findings, self._title_of) if session else []
            if self.table.selected not in self._found:
                self.table.selected = ""
        self._draw_card()
        self.draw_state()

    def draw_state(self) -> None:
        """Show how far the check is."""
        state = self._checker.state
        found = self.findings
        self.status.html = state_html(state, found)
        self.halt.layout.display = "" if state.busy else "none"
        self.halt.disabled = state.kind == "stopping"
        self.check.layout.display = "none" if state.busy else ""
        self.check.description = "Check again" if state.kind in ("done", "failed") else "Check now"
        self.notice.html = failure_html(state) if found else nothing_html(state)
        self.parts.layout.display = "" if found else "none"
        self._draw_below(state)

    def applied(self, finding: Finding, fix: Fix, undo: str = "") -> None:
        """A fix was applied on the page; list it, with what takes it back."""
        self._put_right.append(PutRight(finding.id, finding.place, fix, undo))
        self._draw_below(self._checker.state)

    def taken_back(self, undo: str) -> None:
        """It was: list it no more."""
        self._put_right = [one for one in self._put_right if one.undo != undo]
        self._draw_below(self._checker.state)

    def set_enabled(self, enabled: bool) -> None:
        self.check.disabled = not enabled or self._session is None

    # -- inside ---------------------------------------------------------------------------------

    def _draw_below(self, state: CheckState) -> None:
        self.below.html = below_html(self._put_right, state.findings)

    def _draw_card(self) -> None:
        session = self._session
        chosen = self._found.get(self.table.selected) or next(iter(self._found.values()), None)
        if session is None or chosen is None:
            self.card.html = ""
            return
        self.card.html = card_html(chosen, self._place_of(chosen), self._title_of(chosen.stage))

    def _place_of(self, finding: Finding) -> str:
        session = self._session
        if session is None:
            return ""
        first = session.snapshots.get(session.stages[0])
        return selection_of(finding, session.snapshot, first)

    def _title_of(self, stage: str) -> str:
        session = self._session
        if session is None or stage not in session.stages:
            return stage
        return session.flow.stage(stage).title

    def _on_chosen(self, key: str) -> None:
        self._draw_card()
        finding = self._found.get(key)
        if finding is not None and (place := self._place_of(finding)):
            self._page.select(place)

    def _on_ask(self, wanted: str) -> None:
        what, _, rest = wanted.partition(":")
        if what == "select":
            self._page.select(rest)
        elif what == "fix":
            key, _, index = rest.rpartition(":")
            self._on_fix(key, int(index))
        elif what == "undo":
            self._on_undo(wanted)
