"""Colouring the graphs of a page: which overlay is chosen, and measuring it off the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from qatexplorer.errors import QatExplorerError, StoppedError
from qatexplorer.session.overlays import NAMES, SLOW, titles_of
from qatexplorer.session.session import Session
from qatexplorer.snapshot.overlay import Overlay
from qatexplorer.views.graph.overlays import overlay_picture
from qatexplorer.widgets.common.bridge import Bridge
from qatexplorer.widgets.common.packed import Packed
from qatexplorer.widgets.graph.graph import GraphWidget

OWN = "own"
"""The choice that stands for numbers that the user has given."""

_FROM_SAMPLES = frozenset({"clipped", "sqnr", "scale_drift"})
_SAMPLES_S = 2.0
_PICKER = "overlay"


@dataclass(frozen=True)
class Painted:
    """A graph on the page, and what is drawn in it."""

    graph: GraphWidget
    session: Session
    stage: str


class OverlayControl:
    """Paints the graphs that ``shown`` gives; the select is in the tool bar of ``graph``.

    ``wanted`` says whether something waits for the session: a measurement then gives way to it.
    Everything is to be called on the loop.
    """

    def __init__(
        self,
        bridge: Bridge,
        graph: GraphWidget,
        shown: Callable[[], tuple[Painted, ...]],
        wanted: Callable[[], bool],
    ) -> None:
        self._bridge, self._graph, self._shown, self._wanted = bridge, graph, shown, wanted
        self._titles: Mapping[str, str] = NAMES
        self._own: Overlay | None = None
        self._turn = 0
        self._painted = 0
        self._said: dict[int, str] = {}  # title of what each graph shows or waits for
        self._scenes: dict[int, tuple[Packed, Any]] = {}  # unpacked, for the next samples
        self.name = ""
        graph.observe(lambda change: self._on_picked(change["new"]), "picked")
        self._offer()

    def forget(self) -> None:
        """Another session is shown: the user's numbers were for the one before."""
        self._own = None
        if self.name == OWN:
            self.choose("")
        self._offer()

    def call(self, result: str) -> None:
        """Call the converted model as the session's flow does."""
        titles = titles_of(result)
        if titles != self._titles:
            self._titles = titles
            self._offer()

    def choose(self, name: str) -> None:
        """Colour by a built-in overlay, ``""`` for none."""
        self.name = name
        self._graph.picked = {**self._graph.picked, _PICKER: name}
        self.refresh()

    def show(self, overlay: Overlay) -> None:
        """Colour by numbers of the user's."""
        self._own = overlay
        self._offer()
        self.choose(OWN)

    def refresh(self) -> None:
        """Measure and paint anew: another stage, other samples or another choice."""
        self._turn += 1
        turn, name = self._turn, self.name
        for index, painted in enumerate(self._shown()):
            if not name:
                painted.graph.overlay = {}
                self._said.pop(index, None)
                continue
            title = self._titles.get(name, self._own.title if self._own is not None else "")
            key = f"{title} at {painted.stage}"
            if name in SLOW or self._said.get(index) != key:
                painted.graph.overlay = {"title": title, "busy": "measuring …"}
                self._said[index] = key
            self._bridge.make(
                f"overlay-{index}",
                lambda p=painted: self._made(p, name, turn),  # type: ignore[misc]
                lambda made, p=painted: self._paint(p, made, turn),  # type: ignore[misc]
            )

    def on_training(self) -> None:
        """A run has moved on: what comes from its samples is painted anew, at its own pace."""
        if self.name in _FROM_SAMPLES:
            self._bridge.post("overlay-live", self.refresh, every_s=_SAMPLES_S)

    # -- made off the loop ------------------------------------------------------------------------

    def _made(self, painted: Painted, name: str, turn: int) -> Packed:
        try:
            overlay = self._measured(painted, name, turn)
        except StoppedError:
            return Packed(
                {"title": self._titles[name], "error": "Stopped: choose it again to measure."}
            )
        except QatExplorerError as error:
            text = " ".join(filter(None, (error.message, error.fix)))
            return Packed({"title": self._titles.get(name, ""), "error": text})
        except Exception as error:  # the model's own forward may raise anything
            text = f"The model's forward raised {type(error).__name__}: {error}"
            return Packed({"title": self._titles.get(name, ""), "error": text[:400]})
        return Packed(overlay_picture(overlay, self._scene(painted)))

    def _scene(self, painted: Painted) -> Any:
        packed, key = painted.graph.scene, id(painted.graph)
        known = self._scenes.get(key)
        if known is None or known[0] is not packed:
            known = self._scenes[key] = (packed, packed.value)
        return known[1]

    def _measured(self, painted: Painted, name: str, turn: int) -> Overlay:
        if name == OWN and self._own is not None:
            return self._own

        def progress(share: float) -> None:
            busy = {"title": self._titles[name], "busy": f"measuring: {share:.0%}"}
            self._bridge.post("overlay-progress", lambda: self._say(painted, busy, turn))

        def should_stop() -> bool:
            return turn != self._turn or self._wanted()

        return painted.session.overlay(
            name, painted.stage, progress=progress, should_stop=should_stop
        )

    # -- on the loop ------------------------------------------------------------------------------

    def _say(self, painted: Painted, busy: Mapping[str, Any], turn: int) -> None:
        if turn == self._turn and turn != self._painted:
            painted.graph.overlay = busy

    def _paint(self, painted: Painted, made: Packed, turn: int) -> None:
        if turn == self._turn:
            self._painted = turn
            painted.graph.overlay = made

    def _on_picked(self, picked: Mapping[str, str]) -> None:
        name = picked.get(_PICKER, "")
        if name != self.name and (name in NAMES or name == "" or (name == OWN and self._own)):
            self.name = name
            self.refresh()

    def _offer(self) -> None:
        options = [["", "nothing"], *([name, title] for name, title in self._titles.items())]
        if self._own is not None:
            options.append([OWN, self._own.title])
        picker = {
            "id": _PICKER,
            "label": "Colour by",
            "title": "Colour the graph by a number of each part",
            "options": options,
        }
        others = [p for p in self._graph.pickers if p["id"] != _PICKER]
        self._graph.pickers = [picker, *others]
