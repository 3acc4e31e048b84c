"""The part of a session that writes down the walk, to take it home."""

from __future__ import annotations

from qatexplorer.session.part import Part
from qatexplorer.takehome.records import Walk
from qatexplorer.takehome.script import script_of


class TakehomePart(Part):
    """What is taken home from a session."""

    def script(self, model: str = "", data: str = "") -> str:
        """The walk so far as a plain PyTorch script: edits, fuse list, qconfig, calibration,
        training and convert, with the same schedule and seeds, in torch's own calls.

        Run in a fresh process on the same float model and data it gives the same weights, bit for
        bit on the same kind of CPU. It needs torch and NumPy only.

        Args:
            model: ``"package.module:factory"`` that gives the float model, data: one that gives a
                dict of ``"train"`` and ``"eval"`` batches. With both, ``python script.py`` runs;
                without, import the script and call its ``run``.

        Returns the text. What cannot be written as code (a loss that is a lambda, an optimizer of
        your own) is an argument of ``run``, which its docstring names. Raises InputError for a name
        of another form, BusyError while a run trains the model.
        """
        with self._lock:
            self._require_idle("write the script")
            models = self._models
            walk = Walk(
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
            return script_of(walk, model, data)
