"""What only a page has to know: what is selected on it."""

from __future__ import annotations

from collections.abc import Iterable

from qatexplorer.signals import Signal
from qatexplorer.snapshot.follow import moved_selection
from qatexplorer.snapshot.records import Snapshot


class PageState:
    """The selection that the views of one page share.

    ``selection`` is "module:…", "site:…", "node:…", "edge:…" or "". ``chosen`` has all that is
    selected together, ``selection`` among them: more than one where several rows of the tree are.
    ``signal`` emits the selection when it or ``chosen`` changes, on the thread that changed it.
    """

    def __init__(self) -> None:
        self.selection = ""
        self.chosen: tuple[str, ...] = ()
        self.signal: Signal[str] = Signal()
        self._shown: Snapshot | None = None

    def select(self, selection: str, chosen: Iterable[str] | None = None) -> None:
        """Select a module, fake quant, graph node or edge; the views follow.

        ``chosen``: all that is selected together; None is ``selection`` alone, or what is chosen
        already where that is selected now (a view that follows says so too).
        """
        if chosen is None and selection == self.selection:
            return
        together = tuple(dict.fromkeys(one for one in chosen or () if one))
        if selection not in together:
            together = (selection,) if selection else ()
        if (selection, together) != (self.selection, self.chosen):
            self.selection, self.chosen = selection, together
            self.signal.emit(selection)

    def start_over(self) -> None:
        """Another session is shown: nothing is selected."""
        self.selection, self.chosen, self._shown = "", (), None

    def moved_to(self, snapshot: Snapshot) -> str:
        """The selection as it is at another stage: it may have another path there, or be gone."""
        return self._moved(self.selection, snapshot)

    def follow(self, snapshot: Snapshot) -> None:
        """Another stage is shown."""
        selection = self.moved_to(snapshot)
        there = (self._moved(one, snapshot) for one in self.chosen)
        chosen = tuple(dict.fromkeys(one for one in there if one)) if selection else ()
        self.selection, self.chosen, self._shown = selection, chosen, snapshot

    def _moved(self, selection: str, snapshot: Snapshot) -> str:
        if self._shown is None or self._shown is snapshot:
            return selection
        return moved_selection(selection, self._shown, snapshot)
