"""The part of a session that switches fake quants off, and on again, to see what that changes."""

from __future__ import annotations

from qatexplorer.errors import StageError
from qatexplorer.evaluate.switching import Switching, switching
from qatexplorer.session.measured import Measured
from qatexplorer.session.part import Part


class SwitchPart(Part):
    """Whether the fake quants' switch works."""

    _last: Measured

    def switching(self) -> Switching:
        """What switching all fake quants off changes in the output for the example input, and
        those of them that round though they are off.

        Two forwards of the working model in eval mode; it is put back. Raises StageError where
        there is no fake quant yet, BusyError while a run is going on.
        """
        with self._lock:
            stage = self._models.work_stage
            if not self._stages.snapshots[stage].sites:
                raise StageError(
                    f"there are no fake quants to switch at stage {stage!r}.",
                    fix=f"Call session.goto({self.flow.prepared_stage!r}) first.",
                )
            self._require_still(self._models.work)
            found = switching(self._models.work, self._models.options.example_inputs)
            self._last.keep(self._last.now, switching=found)
            return found

    @property
    def last_switching(self) -> Switching | None:
        """What :meth:`switching` found last; None before the first and after a change of the
        model."""
        return self._last.switching
