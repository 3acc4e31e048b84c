"""The part of a session that compares float, fake quant and int8."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qatexplorer.accuracy.records import Comparison
from qatexplorer.session.compared import Compared
from qatexplorer.session.part import Part


class ComparePart(Part):
    """Where accuracy is lost, and whether int8 does what the fake quants promised."""

    _compared: Compared

    def compare(
        self,
        batches: int = 4,
        *,
        lost: bool = True,
        progress: Callable[[str, float], Any] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Comparison:
        """Float, fake quant and int8 on the same inputs, in one forward of each a batch.

        Args:
            batches: of the evaluation data, from its start; without data the example input.
            lost: afterwards go through all evaluation data, for the samples that float gets right
                and int8 does not (classification only).
            progress: called with what is being done and the share done, 0 to 1.
            should_stop: asked between forwards; what whole batches have given is returned then.

        All sums are over all values of those batches; histograms are of a sample of 16,384 values
        of each tensor and batch. The model is not changed. Without an int8 model a copy is
        converted; where that fails, int8's columns are None and a note says why. Raises StageError
        before there are fake quants, BusyError while a run is going on, StoppedError when it was
        stopped before the first batch was done, and what the models raise.
        """
        with self._lock:
            self._require_idle("compare")
            return self._compared.make(batches, lost, progress, should_stop)

    @property
    def last_comparison(self) -> Comparison | None:
        """What :meth:`compare` found last; None before the first and after a change of the
        model."""
        return self._compared.last
