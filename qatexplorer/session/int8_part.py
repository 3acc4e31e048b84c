"""The part of a session that lays its int8 layers open."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx, nn

from qatexplorer.accuracy.int8_layer import Int8Layer, LayerRun
from qatexplorer.errors import StageError
from qatexplorer.session.part import Part

_INT8 = ("int8", "boundary")
_KEPT = 4


class Int8Part(Part):
    """All numbers of layers of the int8 model; the runs of the last ones are kept, for the next
    output."""

    _int8_runs: tuple[tuple[nn.Module, str, int, LayerRun], ...] = ()

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
        if not (self.flow.runs_on_engine or self.flow.lowers_to_packed):
            raise StageError(
                f"flow {self.flow.name!r} has no int8 layers to work out: its layers multiply "
                "weights that torchao puts back into float."
            )
        with self._lock:
            model = self._models.int8
            if model is None:
                fix = f"Call session.goto({self.flow.int8_stage!r}) first."
                raise StageError("there is no int8 model yet.", fix=fix)
            if self.flow.lowers_to_packed:
                raise StageError(
                    "an int8 layer of this flow cannot be worked out by hand.",
                    where=path,
                    why=f"In flow {self.flow.name!r} it is an operation of a graph, with what "
                    "follows it and with its weight packed; session.compare() says how far each is "
                    "from its fake quant.",
                )
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
                runs = (*self._int8_runs, (model, path, call, kept))
                self._int8_runs = tuple(one for one in runs if one[0] is model)[-_KEPT:]
            return kept.layer(output, sample)

    def known_int8_layer(self, path: str, call: int = 0) -> LayerRun | None:
        """The run of this layer of the present int8 model if it is kept: no forward is needed."""
        model = self._models.int8
        runs = self._int8_runs  # without the lock: a long job may hold it
        return next((r[3] for r in runs if r[0] is model and r[1:3] == (path, call)), None)

    def int8_place(self, selection: str) -> str:
        """The ``path`` to ask :meth:`int8_layer` for where ``selection`` is selected: of an int8
        module, or name of an operation's node on int8 tensors (FX); ``""`` where it is neither, or
        the stage in view is not that of the int8 model."""
        snapshot, model = self.snapshot, self._models.int8
        if snapshot.role != "int8" or model is None:
            return ""
        kind, _, rest = selection.partition(":")
        path = rest
        if kind == "node":
            nodes = snapshot.graph.nodes if snapshot.graph is not None else ()
            node = next((one for one in nodes if one.id == rest), None)
            if node is None:
                return ""
            path = node.path
            if not path and isinstance(model, fx.GraphModule) and "int" in (node.dtype or ""):
                names = {one.name for one in model.graph.nodes}
                return rest if rest in names and node.op == "call_function" else ""
        elif kind != "module":
            return ""
        record = snapshot.by_path.get(path) or next(
            (one for one in snapshot.modules if path and one.origin == path), None
        )
        return record.path if record is not None and record.compute in _INT8 else ""
