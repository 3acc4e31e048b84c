"""The part of a session that writes down the walk, to take it home."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from torch import fx

from qatexplorer.errors import ExportError
from qatexplorer.session.part import Part
from qatexplorer.session.stages import NEVER_OBSERVED
from qatexplorer.session.stopping import unless_stopped
from qatexplorer.takehome.export import (
    Exported,
    check_free,
    check_free_file,
    export,
    export_pte,
    is_pte,
)
from qatexplorer.takehome.pte import require_pte
from qatexplorer.takehome.records import Walk
from qatexplorer.takehome.script import script_of


class TakehomePart(Part):
    """What is taken home from a session."""

    def script(self, model: str = "", data: str = "") -> str:
        """The walk so far as a plain PyTorch script: edits, fuse list, qconfig, calibration,
        training and convert, with the same schedule and seeds, in torch's own calls.

        Run in a fresh process on the same float model and data it gives the same weights, bit for
        bit on the same kind of CPU. It needs torch and NumPy only (in flow pt2e torchao too).

        Args:
            model: ``"package.module:factory"`` that gives the float model, data: one that gives a
                dict of ``"train"`` and ``"eval"`` batches. With both, ``python script.py`` runs;
                without, import the script and call its ``run``.

        Returns the text. What cannot be written as code (a loss that is a lambda, an optimizer of
        your own) is an argument of ``run``, which its docstring names. Raises InputError for a name
        of another form and for a run of several processes, whose weights one process does not give,
        BusyError while a run trains the model.
        """
        with self._lock:
            self._require_idle("write the script")
            return script_of(self._walk(), model, data)

    def export(
        self,
        folder: str | os.PathLike[str],
        *,
        evaluate: bool = True,
        progress: Callable[[str], Any] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Exported:
        """Write the int8 model and what is needed to use it elsewhere to a new folder.

        ``int8.safetensors`` (codes, scales, zero points), ``walk.py`` (:meth:`script`, with a
        ``load`` that rebuilds the model without unpickling), ``example.safetensors``,
        ``model.onnx`` with QuantizeLinear and DequantizeLinear nodes (compared with torch in ONNX
        Runtime; needs ``onnx`` and ``onnxruntime``), ``exported.pt2`` where ``torch.export`` takes
        the model, and ``README.md``, a model card. In flow pt2e the int8 model cannot be saved: it
        is ``reference.pt2``, the program that it is lowered from, in place of the first and the
        last two.

        Or, for a name that ends in ``.pte``, one file for ExecuTorch's runtime: the program of the
        reference model, lowered to XNNPACK, run there and compared with it. For models that were
        rounded by XNNPACKQuantizer in flow pt2e; needs ``executorch``.

        Args:
            folder: must not be there, or be empty; a ``.pte`` must not be there.
            evaluate: the card has accuracy and size of every form, where there is data.
            progress: called with what is being done.
            should_stop: asked before each file, and between batches while it evaluates.

        Goes to the int8 stage if need be. Raises ExportError and StoppedError (then nothing is left
        behind), BusyError, and what :meth:`goto` raises.
        """
        if is_pte(folder):
            return self._export_pte(folder, progress, should_stop)
        if not self.flow.exports:
            raise ExportError(
                f"what flow {self.flow.name!r} makes cannot be exported here: its weights are "
                "torchao's own tensors.",
                fix="torch.save(session.int8.state_dict(), path) keeps them.",
            )
        say = unless_stopped("the export", progress, should_stop)
        check_free(folder)  # before anything long
        with self._lock:
            self._require_idle("export")
            self.goto(self.flow.int8_stage)
            int8 = self._models.int8
            assert int8 is not None
            walk = self._walk()
            known = (NEVER_OBSERVED,) if self._models.never_observed else ()
            reference = None
            if self.flow.lowers_to_packed:
                stage = self.flow.stage_with("reference")
                assert stage is not None
                reference = self._models.view(stage.name)
        evaluation = None
        if evaluate and self.data is not None:
            say("accuracy of each form")
            evaluation = self._assessor.evaluate(
                prepared=True,
                observed=not self._models.never_observed,
                latency=False,
                should_stop=should_stop,
            )
        batches = self.data.eval if self.data is not None else ()
        return export(folder, walk, int8, evaluation, batches, known, say, reference)

    def _export_pte(
        self,
        file: str | os.PathLike[str],
        progress: Callable[[str], Any] | None,
        should_stop: Callable[[], bool] | None,
    ) -> Exported:
        require_pte(self.flow, self._models.options.quantizer)
        check_free_file(file)
        say = unless_stopped("the export", progress, should_stop)
        with self._lock:
            self._require_idle("export")
            stage = self.flow.stage_with("reference")
            assert stage is not None
            self.goto(stage.name)
            reference = self._models.view(stage.name)
            assert isinstance(reference, fx.GraphModule)
            if self._models.never_observed:
                raise ExportError(
                    f"no .pte can be written: {NEVER_OBSERVED}",
                    fix="Let the observers see data with session.calibrate() or session.train().",
                )
        batches = (pair[0] for pair in self.data.eval) if self.data is not None else ()
        return export_pte(file, reference, self._models.options.example_inputs, batches, say)

    def _walk(self) -> Walk:
        models = self._models
        return Walk(
            models.base,
            models.flow,
            models.options,
            models.edits,
            self._stages.reached,
            tuple(models.done),
            self.loss,
            self.metric,
            handed_out=models.handed_out,
        )
