"""What only a page has to know: what is selected on it."""

from __future__ import annotations

from qatexplorer.signals import Signal
from qatexplorer.snapshot.follow import moved_selection
from qatexplorer.snapshot.records import Snapshot


class PageState:
    """The selection that the views of one page share.

    ``selection`` is "module:…", "site:…", "node:…", "edge:…" or "". ``signal`` emits it when it
    changes, on the thread that changed it.
    """

    def __init__(self) -> None:
        self.selection = ""
        self.signal: Signal[str] = Signal()
        self._shown: Snapshot | None = None

    def select(self, selection: str) -> None:
        """Select a module, fake quant, graph node or edge; the views follow."""
        if selection != self.selection:
            self.selection = selection
            self.signal.emit(selection)

    def start_over(self) -> None:
        """Another session is shown: nothing is selected."""
        self.selection, self._shown = "", None

    def moved_to(self, snapshot: Snapshot) -> str:
        """The selection as it is at another stage: it may have another path there, or be gone."""
        if self._shown is None or self._shown is snapshot:
            return self.selection
        return moved_selection(self.selection, self._shown, snapshot)

    def follow(self, snapshot: Snapshot) -> None:
        """Another stage is shown."""
        self.selection, self._shown = self.moved_to(snapshot), snapshot
