"""The part of a session that lays its int8 layers open."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from qatexplorer.accuracy.int8_layer import Int8Layer, LayerRun
from qatexplorer.errors import StageError
from qatexplorer.session.part import Part


class Int8Part(Part):
    """All numbers of one layer of the int8 model at a time; its run is kept for the next output."""

    _int8_run: tuple[nn.Module, str, int, LayerRun] | None = None

    def int8_layer(
        self, path: str, output: Sequence[int] | None = None, *, sample: int = 0, call: int = 0
    ) -> Int8Layer:
        """All numbers of an int8 layer, and one of its outputs worked out by hand in integers.

        Args:
            path: of a module of :attr:`int8`, or name of a node of its graph (FX).
            output: channel, then the position (``(channel, y, x)`` of an image); None takes one in
                the middle that is not clamped.
            sample: of the example input's batch. call: number of the call, for a layer that runs
                several times in a forward.

        The int8 model runs once on the example input for a layer; another output of the same layer
        needs no forward. All outputs (of a large layer those of the first samples) are compared
        with the kernel's.

        Raises StageError before there is an int8 model, and where there is no such layer, where it
        holds other modules, or does not run; InputError where there is no such output.
        """
        with self._lock:
            model = self._models.int8
            if model is None:
                fix = f"Call session.goto({self.flow.int8_stage!r}) first."
                raise StageError("there is no int8 model yet.", fix=fix)
            kept = self.known_int8_layer(path, call)
            if kept is None:
                kept = LayerRun(
                    model,
                    path,
                    self._models.options.example_inputs,
                    engine=self._models.options.qconfig.backend,
                    prepared=self._models.work,
                    call=call,
                )
                self._int8_run = (model, path, call, kept)
            return kept.layer(output, sample)

    def known_int8_layer(self, path: str, call: int = 0) -> LayerRun | None:
        """The run of this layer of the present int8 model if it is kept: no forward is needed."""
        kept = self._int8_run
        if kept is None or kept[0] is not self._models.int8 or kept[1:3] != (path, call):
            return None
        return kept[3]
