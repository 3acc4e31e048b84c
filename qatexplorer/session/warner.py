"""What a script must hear of a session, since nobody shows it the notes: as warnings."""

from __future__ import annotations

from collections.abc import Iterable

from qatexplorer.errors import PostTrainingQConfigWarning, warn
from qatexplorer.flows.qconfig import QConfigPlan
from qatexplorer.session.stages import AMISS
from qatexplorer.snapshot.records import Snapshot


class Warner:
    """Warns of each thing that is amiss once, at the line of the user's that came to it."""

    def __init__(self) -> None:
        self._warned: set[str] = set()

    def of_settings(self, plan: QConfigPlan) -> None:
        """Warn of the engine, and of observers that stand where fake quants belong."""
        plan.warn()
        for text in plan.loud:
            warn(text, PostTrainingQConfigWarning)

    def of_stages(self, snapshots: Iterable[Snapshot], plan: QConfigPlan, aloud: bool) -> None:
        """Warn of what is amiss at the stages reached; not ``aloud`` only takes note of it."""
        for snapshot in snapshots:
            for note in snapshot.notes:
                if note in AMISS and note not in self._warned:
                    self._warned.add(note)
                    if aloud:
                        warn(f"stage {snapshot.stage!r}: {note}")
            if snapshot.role == "int8" and "engine" not in self._warned:
                self._warned.add("engine")
                plan.warn()
