"""The panel "qconfig": which fake quants the modules get that are selected in the tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from qatexplorer.errors import QConfigError
from qatexplorer.flows.qconfig_rules import PARTS, QConfigRule
from qatexplorer.flows.rules_file import form_of, parse_rules
from qatexplorer.session.session import Session
from qatexplorer.views.common.story import message_html
from qatexplorer.views.qconfig.words import RuleWords, rule_place, rules_html
from qatexplorer.widgets.common.bridge import Bridge
from qatexplorer.widgets.common.confirm import Confirm
from qatexplorer.widgets.common.controls import Html, button, row
from qatexplorer.widgets.common.download import DownloadButton
from qatexplorer.widgets.common.page import PageState
from qatexplorer.widgets.qconfig.form import SideFields
from qatexplorer.widgets.qconfig.preview import Preview, QConfigHtml
from qatexplorer.widgets.qconfig.request import Request
from qatexplorer.widgets.qconfig.scope import ScopeFields

MOST_BYTES = 1_000_000
"""A file of rules that is larger is none."""


class QConfigPanel(widgets.VBox):
    """Make, take back, save and load rules of the qconfig, and see before what they do.

    Args:
        bridge: runs callbacks on the page's loop.
        start_job: starts a long call on a worker thread, as the other panels get it.
        page: what is selected, see :class:`~qatexplorer.widgets.common.page.PageState`.

    A preview is made only while ``active`` says that the panel is in sight.
    """

    def __init__(self, bridge: Bridge, start_job: Callable[..., Any], page: PageState) -> None:
        self._start_job, self._page = start_job, page
        self._session: Session | None = None
        self._active = self._refused = False
        self._request: Request | None = None
        self._enabled = True
        self._build(bridge)
        form = widgets.VBox(
            [
                self.scope,
                self.to_float,
                self.sides,
                self.reason,
                row(self.apply, self.undo, self.redo),
                self.confirm,
                self.rules,
                row(*self.downloads, self.load),
            ]
        )
        parts = widgets.Box([form, self.preview])
        parts.add_class("qx-qconfig-parts")
        super().__init__([parts])
        for name in ("qx-panel", "qx-qconfig"):
            self.add_class(name)

    def _build(self, bridge: Bridge) -> None:
        self.activation = SideFields("activation", self._changed)
        self.weight = SideFields("weight", self._changed)
        self.sides = widgets.Box([self.weight, self.activation])
        self.sides.add_class("qx-qconfig-sides")
        self.to_float = widgets.Checkbox(
            False, description="Leave in float: no fake quants", indent=False
        )
        self.to_float.observe(lambda _change: self._changed(), "value")
        self.reason = Html(kind="qx-qconfig-refused", role="alert")
        self.apply = button("Apply", "Make the rule; starts again from the float stage",
                            primary=True)  # fmt: skip
        self.undo = button("Undo", "The rules before the last change, from the float stage")
        self.redo = button("Redo", "Take the undo back")
        self.apply.on_click(lambda _: self._apply())
        self.undo.on_click(lambda _: self._walk("undo"))
        self.redo.on_click(lambda _: self._walk("redo"))
        self.confirm = Confirm()
        self.preview = Preview(bridge, self._on_refused)
        self.rules = QConfigHtml()
        self.rules.on_ask(self._on_ask)
        self.downloads = (
            DownloadButton(label="Save as TOML", filename="qconfig.toml", type="application/toml"),
            DownloadButton(label="Save as JSON", filename="qconfig.json", type="application/json"),
        )
        self.load = widgets.FileUpload(
            accept=".toml,.json", multiple=False, description="Load …", icon="",
            tooltip="Put the rules of a TOML or JSON file in force",
        )  # fmt: skip
        self.load.layout.width = "auto"
        self.load.observe(lambda change: self._on_file(change["new"]), "value")
        self.scope = ScopeFields(self._changed)

    # -- what the explorer calls ----------------------------------------------------------------

    def use(self, session: Session | None) -> None:
        """Show another session."""
        self._session = session
        self.confirm.put_away()
        self.preview.use(session)
        self.scope.use(session)
        self.refresh()

    def refresh(self) -> None:
        """The rules in force are others, or the stage in view is."""
        session = self._session
        if session is None:
            return
        rules = session.qconfig_rules
        self.rules.html = rules_html([_words(rule) for rule in rules])
        for download, form in zip(self.downloads, ("toml", "json"), strict=True):
            download.text = session.qconfig_text(form) if rules else ""  # type: ignore[arg-type]
        self.show_selection()
        self._changed()

    def show_selection(self) -> None:
        """Others are selected in the tree."""
        self.scope.follow(self._page.chosen)

    @property
    def active(self) -> bool:
        """Whether the panel is in sight."""
        return self._active

    @active.setter
    def active(self, value: bool) -> None:
        if value != self._active:
            self._active = value
            self._changed()

    @property
    def dark(self) -> bool:
        """Whether figures are for a dark page."""
        return self.preview.dark

    @dark.setter
    def dark(self, value: bool) -> None:
        self.preview.dark = value
        self._changed()

    def set_enabled(self, enabled: bool) -> None:
        """Whether the session may be changed now."""
        self._enabled = enabled
        self._enable()

    # -- inside ---------------------------------------------------------------------------------

    @property
    def request(self) -> Request | None:
        """What the form asks for, None while that is nothing. Raises QConfigError for a fake
        quant that torch cannot make."""
        scope, to_float = self.scope.scope, bool(self.to_float.value)
        specs = (None, None) if to_float else (self.activation.spec, self.weight.spec)
        if scope is None or not (to_float or any(specs)):
            return None
        return Request(scope, *specs, to_float)

    def _changed(self) -> None:
        """The form asks for something else."""
        self.sides.layout.display = "none" if self.to_float.value else ""
        self._request = None
        try:
            self._request = self.request
        except QConfigError as error:
            self.preview.want(None)
            self._on_refused(error)
            return
        if self._active:
            self.preview.want(self._request)
        self._enable()

    def _on_refused(self, error: Exception | None) -> None:
        self._refused = error is not None
        self.reason.html = message_html(error) if error is not None else ""
        self._enable()

    def _enable(self) -> None:
        session = self._session
        on = self._enabled and session is not None
        self.apply.disabled = not on or self._refused or self._request is None
        self.undo.disabled = not (on and session is not None and session.can_undo_qconfig)
        self.redo.disabled = not (on and session is not None and session.can_redo_qconfig)
        self.load.disabled = not on

    def _apply(self) -> None:
        session, request = self._session, self._request
        if session is None or request is None:
            return
        self._change(
            lambda: session.set_qconfig(
                request.where,
                by=request.by,
                activation=request.activation,
                weight=request.weight,
                to_float=request.to_float,
            )
        )

    def _walk(self, way: str) -> None:
        session = self._session
        if session is not None:
            self._change(session.undo_qconfig if way == "undo" else session.redo_qconfig)

    def _on_ask(self, wanted: str) -> None:
        session = self._session
        what, _, at = wanted.partition(":")
        if session is None or what != "delete":
            return
        rules = session.qconfig_rules
        kept = tuple(rule for i, rule in enumerate(rules) if i != int(at))
        self._change(lambda: session.use_qconfig_rules(kept))

    def _on_file(self, files: Any) -> None:
        session = self._session
        if not files or session is None:
            return
        name, content = str(files[0]["name"]), bytes(files[0]["content"])
        self.load.value = ()  # the same file may be chosen again
        try:
            rules = parse_rules(decoded(content, name), form_of(name), name)
        except QConfigError as error:
            self.reason.html = message_html(error)
            return
        self._change(lambda: session.use_qconfig_rules(rules))

    def _change(self, call: Callable[[], Any]) -> None:
        """Do it, or ask before where a trained model would leave the stages."""
        session = self._session
        if session is None:
            return
        self.confirm.start_again(
            session, lambda: self._start_job("changing the qconfig", lambda _job: call())
        )


def decoded(content: bytes, name: str) -> str:
    """The text of a file. Raises QConfigError for one that is none."""
    if len(content) > MOST_BYTES:
        raise QConfigError(
            f"{name} has {len(content):,} bytes, which is no file of rules.",
            fix="Choose a TOML or JSON file that was saved here.",
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise QConfigError(
            f"{name} is not UTF-8 text: {error.reason}.",
            fix="Choose a TOML or JSON file that was saved here.",
        ) from error


def _words(rule: QConfigRule) -> RuleWords:
    if rule.to_float:
        return RuleWords(rule_place(rule), "left in float", "left in float")
    activation, weight = (str(rule.of(part) or "as without it") for part in PARTS)
    return RuleWords(rule_place(rule), activation, weight)
