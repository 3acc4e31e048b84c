"""The choice of the modules that a rule is for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import ipywidgets as widgets

from qatexplorer.session.session import Session
from qatexplorer.views.common.html import text
from qatexplorer.views.qconfig.scopes import (
    Scope,
    chosen_paths,
    matched_words,
    pattern_scope,
    scopes_of,
)
from qatexplorer.widgets.common.controls import Html, labelled, row

_PATTERN = "pattern"


class ScopeFields(widgets.VBox):
    """What is selected, all of one of its types, or a pattern; below it which modules these are.

    ``on_change`` is called when :attr:`scope` is another one.
    """

    def __init__(self, on_change: Callable[[], Any]) -> None:
        self._on_change = on_change
        self._session: Session | None = None
        self._offered: dict[str, Scope] = {}
        self._following = False
        self.scope: Scope | None = None
        self.choice = labelled(
            widgets.Dropdown(options=[("a pattern of paths", _PATTERN)]),
            "For",
            "Which modules the rule is for; select them in the tree, several with Ctrl or Shift",
            width="min(400px, 100%)",
        )
        self.pattern = labelled(
            widgets.Text("", placeholder=r"layer1\..*conv"),
            "Pattern",
            "A regular expression that the paths of the modules match from their begin on",
            width="min(320px, 100%)",
        )
        self.words = Html(kind="qx-muted", role="status")
        self.choice.observe(lambda _change: self._changed(), "value")
        self.pattern.observe(lambda _change: self._changed(), "value")
        super().__init__([row(self.choice, self.pattern), self.words])

    def use(self, session: Session | None) -> None:
        """Choose among the modules of ``session``."""
        self._session = session
        self.pattern.value = ""
        self.follow(())

    def follow(self, chosen: Iterable[str]) -> None:
        """These are selected in the tree. A kind of scope that was chosen stays so."""
        session = self._session
        if session is None:
            return
        first = session.snapshots[session.stages[0]]
        scopes = scopes_of(chosen_paths(chosen, session.snapshot, first), first)
        before = self.choice.value
        self._offered = {_key(i, scope): scope for i, scope in enumerate(scopes)}
        options = [(scope.label, key) for key, scope in self._offered.items()]
        options.append(("a pattern of paths", _PATTERN))
        if tuple(options) != tuple(self.choice.options):
            self._following = True
            self.choice.options = options
            stays = before in self._offered or (before == _PATTERN and self.pattern.value)
            self.choice.value = before if stays else options[0][1]
            self._following = False
        self._changed()

    def _changed(self) -> None:
        if self._following:
            return
        by_pattern = self.choice.value == _PATTERN
        self.pattern.layout.display = "" if by_pattern else "none"
        scope, words = self._read(by_pattern)
        self.words.html = text(words)
        if scope != self.scope:
            self.scope = scope
            self._on_change()

    def _read(self, by_pattern: bool) -> tuple[Scope | None, str]:
        session = self._session
        if session is None:
            return None, ""
        first = session.snapshots[session.stages[0]]
        if not by_pattern:
            scope = self._offered.get(self.choice.value)
            return scope, matched_words(scope, first) if scope is not None else ""
        if not self.pattern.value:
            return None, "Select modules in the tree, or write a pattern."
        try:
            scope = pattern_scope(self.pattern.value, first)
        except re.error as error:
            return None, f"This is no regular expression: {error}."
        return scope if scope.paths else None, matched_words(scope, first)


def _key(index: int, scope: Scope) -> str:
    return scope.kind if scope.kind == "modules" else f"{index}:{scope.text}"
