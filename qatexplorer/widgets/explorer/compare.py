"""The graph's pane: one graph, or two side by side with one selection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import ipywidgets as widgets

from qatexplorer.errors import QatExplorerError
from qatexplorer.flows import other_kind
from qatexplorer.migration.pairs import paired
from qatexplorer.session.session import Session
from qatexplorer.views.graph.compare import Comparison, Side, compared_picture, not_there
from qatexplorer.views.graph.scene import build_scene
from qatexplorer.widgets.common.bridge import Bridge
from qatexplorer.widgets.common.packed import Packed
from qatexplorer.widgets.common.page import PageState
from qatexplorer.widgets.explorer.overlays import Painted
from qatexplorer.widgets.graph.graph import GraphWidget

_PICKER = "compare"
_FLOW = "flow"


class ComparePane(widgets.Box):
    """``graph``, and beside it a second one when a stage or the other flow is chosen to compare.

    The earlier stage stands on the left, and another flow on the right. ``on_change`` is called
    when a graph has come or gone. Everything is to be called on the loop.
    """

    def __init__(
        self, bridge: Bridge, page: PageState, graph: GraphWidget, on_change: Callable[[], Any]
    ) -> None:
        self._bridge, self._page, self._on_change = bridge, page, on_change
        self.graph = graph
        self._session: Session | None = None
        self._in_other_flow: Session | None = None
        self._choice = ""
        self._comparison: Comparison | None = None
        self._other_is_right = True
        self._following = False
        graph.observe(lambda change: self._on_picked(change["new"]), "picked")
        page.signal.subscribe(lambda _: bridge.post("compare-selection", self._follow))
        self._two = False
        shown: tuple[widgets.Widget, ...] = (graph,)
        super().__init__(shown)
        self.add_class("qx-compare")

    @cached_property
    def other(self) -> GraphWidget:
        """The second graph, made when it is first needed: a page without it is ready sooner."""
        made = GraphWidget()
        made.observe(lambda change: self._on_other(change["new"]), "selected")
        return made

    @property
    def shown(self) -> tuple[Painted, ...]:
        """The graphs on the page and what is drawn in them."""
        session = self._session
        if session is None:
            return ()
        mine = Painted(self.graph, session, session.stage)
        if self._comparison is None:
            return (mine,)
        if self._choice == _FLOW and self._in_other_flow is not None:
            other = self._in_other_flow
            return mine, Painted(self.other, other, other.stage)
        return mine, Painted(self.other, session, self._choice.partition(":")[2])

    def use(self, session: Session) -> None:
        """Show another session: nothing is compared any more."""
        self._session = session
        self.start_over()

    def start_over(self) -> None:
        """The settings are others, or the session: the other flow is to be made anew."""
        self._in_other_flow = None
        self._end()

    def on_stage(self) -> None:
        """The stage in view is another, or described anew."""
        session = self._session
        if session is None:
            return
        stage = self._choice.partition(":")[2]
        if stage and (stage == session.stage or stage not in session.snapshots):
            self._end()
        self._offer()
        if self._choice:
            self._make()
        else:
            self.graph.compared = {}  # why a comparison failed was of the stage before

    # -- choosing ---------------------------------------------------------------------------------

    def _offer(self) -> None:
        session = self._session
        if session is None:
            return
        options = [["", "nothing"]]
        for stage in session.flow.stages:
            if stage.name in session.snapshots and stage.name != session.stage:
                options.append([f"stage:{stage.name}", stage.title])
        try:
            other = other_kind(session.flow)
        except QatExplorerError:
            pass  # a flow of the user's own that has no other
        else:
            title = other.stage(other.prepared_stage).title
            options.append([_FLOW, f"{other.title}: {title}"])
        picker = {
            "id": _PICKER,
            "label": "Compare with",
            "title": "Show another stage, or the other flow, beside this graph",
            "options": options,
        }
        others = [p for p in self.graph.pickers if p["id"] != _PICKER]
        self.graph.pickers = [*others, picker]

    def _on_picked(self, picked: Mapping[str, str]) -> None:
        choice = picked.get(_PICKER, "")
        if choice == self._choice:
            return
        if not choice:
            self._end()
            return
        self._choice = choice
        self._make()

    def _end(self) -> None:
        self._choice, self._comparison = "", None
        self.graph.picked = {**self.graph.picked, _PICKER: ""}
        self.graph.compared = {}
        if self._two:
            self._two = False
            self.children = [self.graph]
            self.remove_class("qx-two")
            self.other.scene, self.other.opened = {}, []
        self._offer()
        self._on_change()

    # -- made off the loop ------------------------------------------------------------------------

    def _make(self) -> None:
        session, choice = self._session, self._choice
        if session is None:
            return
        if choice == _FLOW and self._in_other_flow is None:
            self.graph.compared = {"caption": "", "said": "making the other flow's model …"}
        scene = self.graph.scene

        def work() -> tuple[Comparison, bool, Packed] | Exception:
            try:
                return self._compared(session, choice, scene)
            except Exception as error:  # torch's own, of a model that the other flow cannot take
                return error

        self._bridge.make("compare", work, lambda made: self._show(choice, made))

    def _compared(
        self, session: Session, choice: str, scene: Packed
    ) -> tuple[Comparison, bool, Packed]:
        stage = session.stage
        mine = Side(session.snapshot, scene.value, _title(session, stage, choice == _FLOW))
        if choice == _FLOW:
            other = self._in_other_flow = self._in_other_flow or session.in_other_flow()
            drawn = _scene(other, other.stage)
            theirs = Side(other.snapshot, drawn, _title(other, other.stage, True))
            sites = paired(session, other) if session.snapshot.sites else ()
            return Comparison(mine, theirs, sites), True, Packed(drawn)
        name = choice.partition(":")[2]
        drawn = _scene(session, name)
        theirs = Side(session.snapshots[name], drawn, _title(session, name, False))
        later = session.stages.index(name) > session.stages.index(stage)
        sides = (mine, theirs) if later else (theirs, mine)
        return Comparison(*sides), later, Packed(drawn)

    # -- on the loop ------------------------------------------------------------------------------

    def _show(self, choice: str, made: tuple[Comparison, bool, Packed] | Exception) -> None:
        if choice != self._choice:
            return
        if isinstance(made, Exception):
            self._end()
            text = made.message if isinstance(made, QatExplorerError) else str(made)
            self.graph.compared = {"caption": "Cannot be compared", "said": text[:300]}
            return
        self._comparison, self._other_is_right, scene = made
        self.other.scene = scene
        self._say("", "")
        if not self._two:
            self._two = True
            self.children = [self.graph, self.other]
            self.add_class("qx-two")
        if self._other_is_right:
            self.remove_class("qx-two-back")
        else:
            self.add_class("qx-two-back")
        self._follow()
        self._on_change()

    def _say(self, mine: str, theirs: str) -> None:
        """Captions and marks of both graphs, with what the last selection met."""
        if self._comparison is not None:
            right = self._other_is_right
            self.graph.compared = compared_picture(self._comparison, not right, mine)
            self.other.compared = compared_picture(self._comparison, right, theirs)

    def _follow(self) -> None:
        """Select in the second graph what is selected on the page."""
        comparison = self._comparison
        if comparison is None:
            return
        selection = self._page.selection
        found = comparison.counterpart(selection, right=not self._other_is_right)
        side = comparison.right if self._other_is_right else comparison.left
        if self._following:  # it was selected there
            self._following = False
            return
        self._set_other(found)
        self._say("", not_there(selection, side) if selection and not found else "")

    def _set_other(self, selection: str) -> None:
        if self.other.selected != selection:
            self._following = True
            self.other.selected = selection
            self._following = False

    def _on_other(self, selection: str) -> None:
        """Something was selected in the second graph: the page selects what stands for it."""
        comparison = self._comparison
        if comparison is None or self._following:
            return
        found = comparison.counterpart(selection, right=self._other_is_right)
        side = comparison.left if self._other_is_right else comparison.right
        self._say(not_there(selection, side) if selection and not found else "", "")
        if (found or not selection) and found != self._page.selection:
            self._following = True
            self._page.select(found)


def _title(session: Session, stage: str, with_flow: bool) -> str:
    title = session.flow.stage(stage).title
    return f"{session.flow.title}: {title}" if with_flow else title


def _scene(session: Session, stage: str) -> dict[str, Any]:
    change = session.diff_at(stage)
    paths = change.paths if change is not None else frozenset()
    first = session.snapshots.get(session.stages[0])
    return build_scene(session.snapshots[stage], paths, before=first)
