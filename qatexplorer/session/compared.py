"""The newest comparison of float, fake quant and int8, until the model changes."""

from __future__ import annotations

from collections.abc import Callable, Sized
from dataclasses import replace
from itertools import islice
from typing import Any

from torch import fx, nn

from qatexplorer.accuracy.compare import Forms, Progress, compare
from qatexplorer.accuracy.lost import lost_samples
from qatexplorer.accuracy.matching import ByNodes, ByPaths, Matcher, Unrounded
from qatexplorer.accuracy.records import Comparison
from qatexplorer.data import Data
from qatexplorer.errors import QatExplorerError, StageError
from qatexplorer.evaluate.pairs import by_nodes
from qatexplorer.flows.base import copy_sharing_parameters
from qatexplorer.forward.preserve import preserved_rng
from qatexplorer.forward.sampling import show_once
from qatexplorer.quantizers.facts import fake_quants, switch
from qatexplorer.session.models import Models
from qatexplorer.session.stages import Stages

_NOT_SEEN = (
    "No observer has seen data yet: ranges are those of the example input, in a copy. Train or "
    "calibrate for numbers that mean something."
)
_NO_DATA = "Compared on the example input: the session has no evaluation data."
_UNROUNDED = (
    "The model has been trained or handed out since it was prepared: float is the same model with "
    "its fake quants off."
)
_LOWERED = (
    "An int8 result is found by its scale and zero point, in the order of the graph; what lowering "
    "computes in float or within one kernel has none."
)
_LOST_SHARE = 0.7
"""Of the work that comparing is, where lost samples are looked for after it."""


class Compared:
    """Makes it and keeps it."""

    def __init__(self, models: Models, stages: Stages, data: Data | None) -> None:
        self._models, self._stages, self._data = models, stages, data
        self._kept: tuple[tuple[Any, ...], Comparison] | None = None

    @property
    def last(self) -> Comparison | None:
        """What was compared last, None before the first and when the model has changed since."""
        if self._kept is None:
            return None
        before, now = self._kept[0], self._key()
        same = all(a is b or a == b for a, b in zip(before[1:], now[1:], strict=True))
        return self._kept[1] if same and before[0] in (None, now[0]) else None

    def _key(self) -> tuple[Any, ...]:
        shots, flow = self._stages.snapshots, self._models.flow
        train = shots.get(flow.train_stage)
        prepared = shots.get(flow.prepared_stage)
        identities = (None if train is None else id(train)), (prepared and id(prepared))
        return (*identities, self._models.trained, self._models.calibrated, train is not None and 0)

    def make(
        self,
        batches: int,
        lost: bool,
        progress: Progress | None,
        should_stop: Callable[[], bool] | None,
    ) -> Comparison:
        """See :meth:`~qatexplorer.session.compare_part.ComparePart.compare`; the caller holds the
        session's lock."""
        models = self._models
        if models.work_stage not in (models.flow.prepared_stage, models.flow.train_stage):
            raise StageError(
                "there is nothing to compare: the model has no fake quants yet.",
                fix=f"Call session.goto({models.flow.prepared_stage!r}) first.",
            )
        report = progress or (lambda _what, _share: None)
        notes: list[str] = []
        prepared = self._prepared(notes)
        report(f"{models.flow.result} model", 0.0)
        int8 = self._int8(prepared, notes)
        floats, matcher = self._float_of(prepared)
        if self._models.trained or not self._models.untouched:
            notes.append(_UNROUNDED)
            floats, matcher = without_rounding(prepared), Unrounded(matcher)
        given = self._inputs(batches, notes)
        engine = models.options.qconfig.backend
        forms = Forms(floats, prepared, int8, matcher, engine)
        part = _LOST_SHARE if lost and int8 is not None and self._data is not None else 1.0
        found = compare(
            forms,
            given,
            progress=lambda what, share: report(what, part * share),
            should_stop=should_stop,
        )
        if part < 1 and int8 is not None:
            found = self._with_lost(found, floats, int8, engine, report, should_stop)
        if int8 is not None and models.flow.lowers_to_packed:
            notes.append(_LOWERED)
        found = replace(found, notes=(*notes, *found.notes), form=models.flow.result)
        self._kept = self._key(), found
        return found

    def _prepared(self, notes: list[str]) -> nn.Module:
        """The working model; a copy that has seen the example input, where it has seen nothing."""
        if not self._models.never_observed:
            return self._models.work
        notes.append(_NOT_SEEN)
        copy = copy_sharing_parameters(self._models.work)
        for module in fake_quants(copy).values():
            switch(module, observer=True, fake_quant=True)
        show_once(copy.eval(), self._models.options.example_inputs)
        return copy

    def _int8(self, prepared: nn.Module, notes: list[str]) -> nn.Module | None:
        if self._models.int8 is not None and prepared is self._models.work:
            return self._models.int8
        try:
            return self._models.convert_copy(copy_sharing_parameters(prepared)).result.model
        except QatExplorerError as error:
            result = self._models.flow.result
            notes.append(f"There is no {result} model to compare with: {error.message}")
            return None

    def _float_of(self, prepared: nn.Module) -> tuple[nn.Module, Matcher]:
        models, shots = self._models, self._stages.snapshots
        traced = models.flow.stage_with("traced")
        if traced is not None and by_nodes(prepared):
            floats = models.view(traced.name)
            assert isinstance(floats, fx.GraphModule)
            assert isinstance(prepared, fx.GraphModule)
            return floats, ByNodes(floats, prepared)
        shot = shots[models.flow.prepared_stage]
        origin = {one.path: one.origin for one in shot.modules if one.origin}
        options = models.options
        return models.base, ByPaths(models.base, options.graph, prepared, origin, options.fusion)

    def _inputs(self, batches: int, notes: list[str]) -> list[Any]:
        found: list[Any] = []
        if self._data is not None:
            with preserved_rng():
                found = [inputs for inputs, _ in islice(self._data.eval, max(1, batches))]
        if not found:
            notes.append(_NO_DATA)
            found = [self._models.options.example_inputs]
        return found

    def _with_lost(
        self,
        found: Comparison,
        floats: nn.Module,
        int8: nn.Module,
        engine: str,
        report: Progress,
        should_stop: Callable[[], bool] | None,
    ) -> Comparison:
        assert self._data is not None
        batches = self._data.eval
        total = len(batches) if isinstance(batches, Sized) else 0
        form = self._models.flow.result
        report(f"evaluation samples that {form} gets wrong", _LOST_SHARE)

        def on_batch(done: int) -> None:
            share = _LOST_SHARE + (1 - _LOST_SHARE) * (min(1.0, done / total) if total else 0.0)
            report(f"evaluation batch {done:,}", share)

        lost = lost_samples(
            floats, int8, batches, engine=engine, on_batch=on_batch,
            should_stop=should_stop,
        )  # fmt: skip
        return replace(
            found,
            lost=lost.found,
            lost_total=lost.total,
            evaluated=lost.evaluated,
            notes=(*found.notes, *filter(None, (lost.note,))),
        )


def without_rounding(prepared: nn.Module) -> nn.Module:
    """A copy that shares the parameters, all its fake quants and observers off."""
    copy = copy_sharing_parameters(prepared)
    for module in fake_quants(copy).values():
        switch(module, observer=False, fake_quant=False)
    return copy
