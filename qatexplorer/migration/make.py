"""Take one float model through several flows, with the same data in the same order."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from qatexplorer.checks.evidence.float_gap import tolerated
from qatexplorer.data import Batch, Data, as_data
from qatexplorer.errors import InputError, QatExplorerError, QatExplorerWarning, StoppedError
from qatexplorer.evaluate.metric import Metric, MetricValue, evaluate
from qatexplorer.flows import FLOWS, get_flow
from qatexplorer.flows.base import Flow, StubMode
from qatexplorer.flows.stubs import has_stubs
from qatexplorer.forward.preserve import preserved_rng
from qatexplorer.migration.outputs import output_gaps
from qatexplorer.migration.places import FloatModel, Reading, read
from qatexplorer.migration.reasons import why_not
from qatexplorer.migration.records import FLOAT, Cell, FlowColumn, Migration, OutputGap, Place
from qatexplorer.migration.unrounded import (
    Unrounded,
    departure,
    float_outputs,
    other_tensors,
    unrounded,
)
from qatexplorer.quantizers.engine import quantized_engine
from qatexplorer.session.session import Session
from qatexplorer.shown import error_line

CALIBRATE = 8
"""Batches of training data that the observers see."""
DEFAULT_FLOWS = ("eager", "fx", "pt2e")
COMPARED = 4
"""Batches of evaluation data that outputs are compared on."""

Progress = Callable[[str, float], Any]


def migrate(
    model: nn.Module | Session,
    example_inputs: Any = None,
    *,
    flows: Iterable[str] | None = None,
    data: Any = None,
    qconfig: Any = None,
    quantizer: Any = None,
    metric: Metric | None = None,
    stubs: StubMode | None = None,
    calibrate: int = CALIBRATE,
    int8: bool = True,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Migration:
    """One float model through several flows: which tensors each of them rounds, how, and what that
    does to what the model returns.

    For each flow a session of its own takes a copy of the model to its fake quants and shows its
    observers the same batches in the same order; nothing is trained. Your model is not changed.

    Args:
        model: your float module. Or a :class:`Session`: then its float model with the edits in
            force, its example inputs, data, qconfig, quantizer and metric are taken, where none
            are given.
        example_inputs: as for :class:`Session`.
        flows: names, at least one; None takes eager, FX and PT2E. One that refuses the model (or
            does not run here) is a column with its message.
        data: as for :class:`Session`; without any, observers are shown the example input.
        qconfig: for eager and FX. quantizer: for PT2E. Both as for :class:`Session`.
        metric: ``(output, target) -> float``, default top-1 accuracy.
        stubs: of eager mode. None: ``"none"`` for a model that has stubs, else ``"model"``.
        calibrate: batches of training data that the observers see, 1 or more.
        int8: convert in every flow, for the metric of int8 and its agreement with the fake quants.
        progress: called with what is being done and the share done, 0 to 1.
        should_stop: asked between the steps; True ends it with StoppedError.

    Raises the InputError types for what cannot be used in any flow, and StoppedError.
    """
    if isinstance(model, Session):
        known = model
        model = known.copy_model(known.stages[0])
        example_inputs = known.options.example_inputs if example_inputs is None else example_inputs
        data = known.data if data is None else data
        qconfig = known.options.qconfig if qconfig is None else qconfig
        quantizer = known.options.quantizer if quantizer is None else quantizer
        metric = known.metric if metric is None else metric
    names = tuple(dict.fromkeys(DEFAULT_FLOWS if flows is None else flows))
    for name in names:
        get_flow(name)
    if not names or calibrate < 1:
        raise InputError(
            "no flow was named." if not names else f"calibrate is {calibrate}.",
            why="A place is known by the flow that rounds it, and a scale by what an observer saw.",
            fix=f"Name flows of {', '.join(FLOWS)}, and 1 batch or more to calibrate with.",
        )
    work = _Work(
        model, example_inputs, as_data(data), qconfig, quantizer, metric, stubs, calibrate, int8,
        _Asker(progress, should_stop, len(names) * (4 if int8 else 3) + 1),
    )  # fmt: skip
    return work.migration(names)


@dataclass
class _Asker:
    """Says what is being done, and raises StoppedError where it was stopped."""

    progress: Progress | None
    should_stop: Callable[[], bool] | None
    steps: int
    done: int = 0

    def step(self, what: str) -> None:
        self.ask()
        if self.progress is not None:
            self.progress(what, min(1.0, self.done / self.steps))
        self.done += 1

    def ask(self) -> None:
        if self.should_stop is not None and self.should_stop():
            raise StoppedError("the migration was stopped.")


@dataclass
class _Taken:
    """A flow's session, what it rounds, and its column."""

    session: Session
    reading: Reading
    column: FlowColumn
    unrounded: Unrounded


@dataclass
class _Work:
    model: nn.Module
    example_inputs: Any
    data: Data | None
    qconfig: Any
    quantizer: Any
    metric: Metric | None
    stubs: StubMode | None
    calibrate: int
    int8: bool
    asker: _Asker
    shown: list[Batch] = field(default_factory=list)
    floats: FloatModel | None = None
    wanted: list[Tensor] | None = None

    def migration(self, names: Sequence[str]) -> Migration:
        taken: dict[str, _Taken | FlowColumn] = {name: self._flow(name) for name in names}
        good = [one for one in taken.values() if isinstance(one, _Taken)]
        outputs = self._outputs(good)
        metric = self._float_metric(good)
        for one in good:
            self._assess(one)
        places, nodes = self._places(good)
        return Migration(
            model=type(self.model).__name__,
            flows=tuple(t.column if isinstance(t, _Taken) else t for t in taken.values()),
            places=places,
            cells=other_tensors(
                [self._cell(p, nodes.get(p.key), one) for p in places for one in good],
                {one.column.flow: one.unrounded for one in good},
                {one.column.flow: one.reading.turns for one in good},
                tolerated(self.model),
            ),
            outputs=outputs,
            metric=metric,
            batches=len(self.shown),
            on=self._on(),
            notes=self._notes(),
        )

    # -- a flow ---------------------------------------------------------------------------------

    def _flow(self, name: str) -> _Taken | FlowColumn:
        """With stubs that nobody asked for it may not run: then without them."""
        first: _Taken | FlowColumn | None = None
        for stubs in self._stub_modes(get_flow(name)):
            made = self._with_stubs(name, stubs)
            if isinstance(made, FlowColumn):
                first = first or made
                continue
            if isinstance(first, FlowColumn):
                made.column = replace(made.column, without_stubs=first.error)
            return made
        assert first is not None
        return first

    def _stub_modes(self, flow: Flow) -> tuple[StubMode, ...]:
        if not flow.offers_stubs:
            return ("none",)
        if self.stubs is not None:
            return (self.stubs,)
        return ("none",) if has_stubs(self.model) else ("model", "none")

    def _with_stubs(self, name: str, stubs: StubMode) -> _Taken | FlowColumn:
        flow = get_flow(name)
        call = flow.stage(flow.prepared_stage).call
        column = FlowColumn(name, flow.title, call, stubs=stubs)
        self.asker.step(f"{name}: preparing")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", QatExplorerWarning)  # they are notes of the column
                session = self._session(name, stubs)
                session.goto(flow.prepared_stage)
                without = self._without_rounding(session)
                self.asker.step(f"{name}: showing it the data")
                session.calibrate(len(self.shown))
        except StoppedError:
            raise
        except Exception as error:  # ours, of the model, or of a library below it
            if isinstance(error, InputError) and self.floats is None:
                raise  # it cannot be used in any flow
            where = getattr(error, "where", None) or ""
            return replace(column, error=_in_words(error), where=where)
        assert self.floats is not None
        reading = read(flow, session.snapshots, session.fusion, self.floats)
        found = [note for shot in session.snapshots.values() for note in shot.notes]
        column = replace(
            column,
            fake_quants=len(session.snapshot.sites),
            places=len(reading.roundings),
            notes=tuple(dict.fromkeys(found)),
            unrounded=None if math.isnan(without.gap) else without.gap,
            departs=departure(without, tolerated(self.model)),
        )
        return _Taken(session, reading, column, without)

    def _session(self, name: str, stubs: StubMode) -> Session:
        session = Session(
            self.model,
            self.example_inputs,
            flow=name,
            qconfig=self.qconfig,
            quantizer=self.quantizer,
            data=self._same_data(),
            metric=self.metric,
            stubs=stubs,
        )
        session.warns = False
        if not session.snapshot.modules[0].training:
            session.use_train_mode()
        if self.floats is None:
            self.floats = FloatModel(session.snapshots[session.stages[0]])
        if not self.shown:
            self.shown.append((session.options.example_inputs, None))
            session.data = self._same_data()
        return session

    def _same_data(self) -> Data:
        """The very same batches for every flow: a loader may shuffle anew each time."""
        if self.data is not None and not self.shown:
            with preserved_rng():
                torch.manual_seed(0)
                self.shown += islice(self.data.train, self.calibrate)
        return Data(self.shown, [] if self.data is None else self.data.eval)

    # -- what the flows round -------------------------------------------------------------------

    def _places(self, taken: Sequence[_Taken]) -> tuple[tuple[Place, ...], dict[str, str]]:
        found: dict[str, Place] = {}
        nodes: dict[str, str] = {}
        for one in taken:
            for key, place in one.reading.places.items():
                found.setdefault(key, place)
            nodes = {**one.reading.nodes, **nodes}
        floats = self.floats
        if floats is None:
            return (), nodes
        order = sorted(found.values(), key=lambda place: floats.order(place, nodes.get(place.key)))
        return tuple(order), nodes

    def _cell(self, place: Place, node: str | None, one: _Taken) -> Cell:
        rounding = one.reading.roundings.get(place.key)
        if rounding is not None:
            return Cell(place, one.column.flow, rounding)
        assert self.floats is not None
        return Cell(place, one.column.flow, None, why_not(place, node, one.reading, self.floats))

    # -- what they are worth --------------------------------------------------------------------

    def _outputs(self, taken: Sequence[_Taken]) -> tuple[OutputGap, ...]:
        self.asker.step("comparing what the models return")
        if not taken:
            return ()
        models = {FLOAT: taken[0].session.copy_model(taken[0].session.stages[0])}
        models |= {one.column.flow: one.session.model for one in taken}
        inputs = self._compared_on(taken[0].session)
        return output_gaps(models, inputs, self.asker.ask)

    def _without_rounding(self, session: Session) -> Unrounded:
        """What the model computes with its fake quants off, before any batch has moved it."""
        inputs = self._compared_on(session)[0]
        if self.wanted is None:
            self.wanted = float_outputs(session.copy_model(session.stages[0]), inputs)
        return unrounded(session.model, inputs, self.wanted)

    def _compared_on(self, session: Session) -> list[Any]:
        batches: list[Any] = []
        if self.data is not None:
            batches = [batch[0] for batch in islice(self.data.eval, COMPARED)]
        return batches or [session.options.example_inputs]

    def _float_metric(self, taken: Sequence[_Taken]) -> MetricValue | None:
        if self.data is None or not taken:
            return None
        session = taken[0].session
        try:
            return self._metric_of(session.copy_model(session.stages[0]))
        except QatExplorerError:
            return None  # the columns say why

    def _metric_of(self, model: nn.Module) -> MetricValue:
        assert self.data is not None
        with preserved_rng():
            value = evaluate(model, self.data.eval, self.metric, self.asker.should_stop)
        self.asker.ask()
        return value

    def _assess(self, one: _Taken) -> None:
        """Metric of fake quant and of int8, and how far these two are apart."""
        flow, session = one.column.flow, one.session
        missing: dict[str, str] = {}
        self.asker.step(f"{flow}: what the fake quants are worth")
        metric = self._measured("metric", missing, lambda: self._metric_of(session.model))
        metric_int8, parity = None, None
        if self.int8:
            self.asker.step(f"{flow}: int8")
            try:
                session.goto(session.flow.int8_stage)
            except StoppedError:
                raise
            except Exception as error:
                missing["metric_int8"] = missing["parity"] = f"no int8 model: {_in_words(error)}"
            else:
                with quantized_engine(session.options.qconfig.backend):
                    metric_int8 = self._measured(
                        "metric_int8", missing, lambda: self._metric_of(session.int8)
                    )
                parity = session.parity
                if parity is None:
                    missing["parity"] = "the probe found nothing to compare int8 with."
        else:
            missing["metric_int8"] = missing["parity"] = "int8 was not asked for."
        one.column = replace(
            one.column, metric=metric, metric_int8=metric_int8, parity=parity, not_measured=missing
        )

    def _measured(
        self, name: str, missing: dict[str, str], measure: Callable[[], MetricValue]
    ) -> MetricValue | None:
        if self.data is None:
            missing[name] = "there is no evaluation data."
            return None
        try:
            return measure()
        except StoppedError:
            raise
        except Exception as error:  # of the model or of the metric
            missing[name] = _in_words(error)
        return None

    def _on(self) -> str:
        if self.data is None:
            return "the example input"
        return f"{len(self.shown):,} of the training batches of {self.data.name}"

    def _notes(self) -> tuple[str, ...]:
        if self.floats is not None and self.floats.snapshot.graph is None:
            return ("The float model has no graph: places are found by their modules alone.",)
        return ()


def _in_words(error: Exception) -> str:
    if isinstance(error, QatExplorerError):
        return error.message
    return error_line(error, 300)
