"""What a model is worth before and after quantization: accuracy, size, latency, and will it run."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.ao.nn.quantized import DeQuantize

from qatexplorer.data import Data, call_model, cloned, device_of
from qatexplorer.errors import NoDataError, QatExplorerError
from qatexplorer.evaluate.evaluation import INT8_NAMES, LABELS, Evaluation, ModelResult
from qatexplorer.evaluate.measure import compare_latency, size_on_disk
from qatexplorer.evaluate.metric import Metric, MetricValue, batch_size, evaluate
from qatexplorer.evaluate.parity import Parity
from qatexplorer.flows.base import (
    FlowOptions,
    StubMode,
    copy_sharing_parameters,
    moved_to_cpu,
)
from qatexplorer.forward.preserve import preserved_rng
from qatexplorer.forward.record import recorded_graph
from qatexplorer.quantizers.facts import is_fake_quant, kinds_of
from qatexplorer.quantizers.types import is_torchao_tensor
from qatexplorer.session.models import Models
from qatexplorer.snapshot.records import Graph

PTQ_BATCHES = 8
_NO_COMPUTE = (DeQuantize, nn.Identity, nn.Dropout)


@dataclass(frozen=True)
class Preflight:
    """Whether a copy converted right now runs in int8; ``error`` says what stops it.

    ``float_islands`` is the number of connected groups of operations that the int8 model computes
    in float, None if it does not run or they were not counted. ``notes`` name the calls that run
    and compute something else than the fake quants simulate: a plain ``torch.cat`` of int8 tensors
    of unlike scales. ``weights`` is the number of weights with a fake quant or observer in the
    prepared copy, ``float_weights`` the paths of torch's layers that hold a float weight in the
    int8 one.
    """

    ok: bool
    error: QatExplorerError | None = None
    int8_modules: int = 0
    float_islands: int | None = None
    notes: tuple[str, ...] = ()
    weights: int = 0
    float_weights: tuple[str, ...] = ()


@dataclass(frozen=True)
class StubOption:
    """One way of quantizing the input, with what it costs.

    ``fake_quants`` counts modules in the prepared model; the rest as in :class:`Preflight`.
    """

    mode: StubMode
    title: str
    fake_quants: int
    preflight: Preflight


_TITLES: dict[StubMode, str] = {
    "none": "The model as it is",
    "model": "Stubs around the whole model",
    "layers": "add_quant_dequant around each layer",
}


class Assessor:
    """Evaluates the models of a session, on copies, and remembers what cannot change."""

    def __init__(self, models: Models, data: Data | None, metric: Metric | None) -> None:
        self._models, self._data, self._metric = models, data, metric
        self._float: MetricValue | None = None
        self._ptq: tuple[nn.Module, MetricValue] | QatExplorerError | None = None
        self._trained: dict[str, MetricValue] = {}
        self._should_stop: Callable[[], bool] | None = None

    def forget_trained(self) -> None:
        """The working model has changed: its metrics are no longer true."""
        self._trained.clear()

    # -- will it run ----------------------------------------------------------------------------

    def preflight(self, *, islands: bool = True) -> Preflight:
        """Prepare, show one batch, convert and run a copy. ``islands`` counts the float islands, in
        one more forward. Raises only if preparing does."""
        return self._try(self._models.rebuild(self._models.flow.prepared_stage), islands)

    def preflight_of(self, options: FlowOptions) -> Preflight:
        """The same with other options, without counting islands."""
        prepared = self._models.rebuild(self._models.flow.prepared_stage, options=options)
        return self._try(prepared, islands=False)

    def _try(self, prepared: nn.Module, islands: bool = True) -> Preflight:
        inputs = self._models.options.example_inputs
        weights = count_weights(prepared)
        try:
            with preserved_rng(), torch.no_grad():
                call_model(prepared.eval(), cloned(inputs))
                built = self._models.convert_copy(prepared)
                int8 = built.result.model
                graph = recorded_graph(int8, inputs) if islands else None
        except QatExplorerError as error:
            return Preflight(False, error, weights=weights)
        except Exception as error:
            explained = self._models.translated(error, prepared)
            return Preflight(False, explained, weights=weights)
        borders = {p for p, m in int8.named_modules() if isinstance(m, _NO_COMPUTE)}
        found = count_float_islands(graph, borders) if graph is not None else None
        left = float_weights(int8)
        return Preflight(True, None, count_int8(int8), found, built.joins, weights, left)

    def stub_options(self) -> tuple[StubOption, ...]:
        """Try every stub mode on a copy that shares the parameters."""
        options = []
        for mode, title in _TITLES.items():
            chosen = replace(self._models.options, stubs=mode)
            try:
                prepared = self._models.rebuild(self._models.flow.prepared_stage, options=chosen)
            except Exception as error:
                failure = self._models.translated(error, self._models.base)
                options.append(StubOption(mode, title, 0, Preflight(False, failure)))
                continue
            count = sum(is_fake_quant(m) for m in prepared.modules())
            options.append(StubOption(mode, title, count, self._try(prepared)))
        return tuple(options)

    # -- how good is it -------------------------------------------------------------------------

    @property
    def known(self) -> dict[str, MetricValue]:
        """The metrics on all evaluation data that were measured of the models as they are now, by
        name of the form."""
        found = dict(self._trained)
        if isinstance(self._ptq, tuple):
            found["ptq"] = self._ptq[1]
        if self._float is not None:
            found["float"] = self._float
        return {name: value for name, value in found.items() if value.complete}

    def float_metric(self) -> MetricValue:
        """Metric of the float model, evaluated once."""
        if self._float is None or not self._float.complete:
            self._float = self._evaluate(self._models.base)
        return self._float

    def calibrate(self, model: nn.Module, batches: int = PTQ_BATCHES) -> int:
        """Observers on, weights and batch norms fixed: run ``batches`` training batches through.

        Returns the number of batches. Raises NoDataError if there is none.
        """
        modes = [(m, m.training) for m in model.modules()]
        count = 0
        try:
            model.eval()
            with preserved_rng(), torch.no_grad():
                torch.manual_seed(0)
                for inputs, target in self._require_data().train:
                    if count == batches:
                        break
                    call_model(model, inputs)
                    count += 1
                    if model is self._models.work:
                        self._models.calibrated += batch_size((inputs, target))
        finally:
            for module, training in modes:
                module.training = training
        if count == 0:
            raise NoDataError("calibration needs at least one training batch; the data is empty.")
        return count

    def evaluate(
        self,
        *,
        prepared: bool,
        observed: bool,
        latency: bool,
        should_stop: Callable[[], bool] | None = None,
        progress: Callable[[str, float], Any] | None = None,
    ) -> Evaluation:
        """Rows float, ptq, fake_quant, int8; a row that cannot be had says why in its note.

        ``should_stop`` is asked between batches: what is measured by then is returned.
        ``progress`` gets what is being done and the share of the work before it, 0 to 1.
        """
        self._should_stop = should_stop
        report = progress or (lambda _what, _share: None)
        report("float model", 0.0)
        results: dict[str, ModelResult] = {}
        models: dict[str, nn.Module] = {"float": self._models.base}
        results["float"] = self._row("float", self._models.base, self.float_metric())
        if not prepared:
            note = f"Go to stage {self._models.flow.prepared_stage!r} first."
            for name in ("ptq", "fake_quant", "int8"):
                results[name] = ModelResult(name, None, None, None, note)
            return self._with_latency(results, models, latency, should_stop)
        report(self._label("ptq") or LABELS["ptq"], 0.15)
        results["ptq"] = self._ptq_row(models)
        if observed:
            report(f"fake-quant and {self._models.flow.result} model", 0.4)
            work = self._models.work
            results["fake_quant"] = self._row(
                "fake_quant", work, self._metric_of("fake_quant", work)
            )
            models["fake_quant"] = work
            results["int8"] = self._int8_row(models)
        else:
            note = "The observers have seen no data yet: train or calibrate first."
            for name in ("fake_quant", "int8"):
                results[name] = ModelResult(name, None, None, None, note)
        report("latency", 0.7)
        return self._with_latency(results, models, latency, should_stop)

    def judged(self, what: str, should_stop: Callable[[], bool] | None = None) -> MetricValue:
        """Metric of ``"float"``, ``"ptq"`` (int8 after calibration alone) or ``"fake_quant"`` (the
        working model), on all evaluation data; not complete if it was stopped. Raises what
        converting and running raise."""
        self._should_stop = should_stop
        try:
            if what == "float":
                return self.float_metric()
            if what == "fake_quant":
                return self._metric_of(what, self._models.work)
            self._ptq_row({})
        finally:
            self._should_stop = None
        if isinstance(self._ptq, QatExplorerError):
            raise self._ptq
        assert self._ptq is not None
        value = self._ptq[1]
        if not value.complete:
            self._ptq = None
        return value

    def is_known(self, what: str) -> bool:
        """Whether :meth:`judged` has the metric of ``what`` without running anything."""
        value = self._float if what == "float" else self._trained.get(what)
        if what == "ptq":
            value = self._ptq[1] if isinstance(self._ptq, tuple) else None
        return value is not None and value.complete

    def _ptq_row(self, models: dict[str, nn.Module]) -> ModelResult:
        if self._ptq is None:
            try:
                prepared = self._models.rebuild(self._models.flow.prepared_stage)
                if self._models.flow.calibrates:
                    self.calibrate(prepared)
                built = self._models.convert_copy(prepared)
                int8 = built.result.model
                self._ptq = (int8, self._evaluate(int8))
            except QatExplorerError as error:
                self._ptq = error
        if isinstance(self._ptq, QatExplorerError):
            return ModelResult("ptq", None, None, None, self._ptq.full_text())
        model, value = self._ptq
        models["ptq"] = model
        note = f"int8 without training: observers calibrated on {PTQ_BATCHES} batches"
        if not self._models.flow.calibrates:
            note = "there is no observer to calibrate"
        return self._row("ptq", model, value, note)

    def _int8_row(self, models: dict[str, nn.Module]) -> ModelResult:
        try:
            int8, parity, note = self._int8_model()
        except QatExplorerError as error:
            return ModelResult("int8", None, None, None, error.full_text())
        models["int8"] = int8
        row = self._row("int8", int8, self._metric_of("int8", int8), note)
        if parity is not None and not parity.rows and self._models.flow.result != LABELS["int8"]:
            parity = None  # it has no codes that could be compared
        return replace(row, parity=parity)

    def _int8_model(self) -> tuple[nn.Module, Parity | None, str]:
        """The session's int8 model, else a copy of the trained one converted for this; how far it
        is from fake quant, and what is to be said of it. Raises what converting raises."""
        if self._models.int8 is not None:
            return self._models.int8, self._models.parity, ""
        compared = self._models.comparison()
        watching = compared.watching if compared is not None else None
        candidate = copy_sharing_parameters(self._models.work)
        int8 = self._models.convert_copy(candidate, watching=watching).result.model
        parity = compared.parity if compared is not None else None
        note = (
            f"of a copy converted for this; the session has no {self._models.flow.result} model yet"
        )
        return int8, parity, note

    def models_to_time(self) -> tuple[dict[str, nn.Module], dict[str, str]]:
        """Float and int8 model on the CPU, and what is to be said of them. An int8 model is made of
        whatever there is: how long it takes does not depend on what it has learned."""
        base = self._models.base
        # A copy: timing hooks it and changes its mode.
        models = {"float": moved_to_cpu(copy_sharing_parameters(base))}
        notes: dict[str, str] = {}
        try:
            if self._prepared() and not self._models.never_observed:
                models["int8"], _, said = self._int8_model()
                notes |= {"int8": f"{said[:1].upper()}{said[1:]}."} if said else {}
            elif self._models.int8 is not None:
                models["int8"] = self._models.int8
            else:
                models["int8"] = self._int8_of_the_example()
                notes["int8"] = (
                    "Of a copy whose observers saw the example input only: its time holds, what it "
                    "computes does not."
                )
        except Exception as error:
            notes["int8"] = self._models.translated(error, base).full_text()
        return models, notes

    def _prepared(self) -> bool:
        names = self._models.flow.stage_names
        prepared = names.index(self._models.flow.prepared_stage)
        return names.index(self._models.work_stage) >= prepared

    def _int8_of_the_example(self) -> nn.Module:
        prepared = self._models.rebuild(self._models.flow.prepared_stage)
        with preserved_rng(), torch.no_grad():
            call_model(prepared.eval(), cloned(self._models.options.example_inputs))
        return self._models.convert_copy(prepared).result.model

    def _metric_of(self, name: str, model: nn.Module) -> MetricValue:
        if name not in self._trained or not self._trained[name].complete:
            self._trained[name] = self._evaluate(model)
        return self._trained[name]

    def _row(self, name: str, model: nn.Module, value: MetricValue, note: str = "") -> ModelResult:
        on_engine = name in INT8_NAMES and self._models.flow.runs_on_engine
        concern = self._models.options.qconfig.concern if on_engine else None
        warning = "" if concern is None else str(concern)
        label = self._label(name)
        return ModelResult(name, value, size_on_disk(model), None, note, warning, label=label)

    def _label(self, name: str) -> str:
        """What a form is called, "" where the usual word is right."""
        flow = self._models.flow
        if name not in INT8_NAMES or flow.result == LABELS["int8"]:
            return ""
        return (
            flow.form(self._models.options) if name == "int8" else f"{flow.result} without training"
        )

    def _evaluate(self, model: nn.Module) -> MetricValue:
        with preserved_rng(), self._models.engine():
            stop = self._should_stop
            return evaluate(model, self._require_data().eval, self._metric, should_stop=stop)

    def _with_latency(
        self,
        results: dict[str, ModelResult],
        models: dict[str, nn.Module],
        wanted: bool,
        should_stop: Callable[[], bool] | None,
    ) -> Evaluation:
        if wanted:
            options = self._models.options
            backend = options.qconfig.backend
            # What is compared runs on one device, and int8 runs on the CPU only.
            there = {
                name: model
                if device_of(model).type == "cpu"
                else moved_to_cpu(copy_sharing_parameters(model))
                for name, model in models.items()
            }
            timed = compare_latency(
                there, options.example_inputs, engine=backend, should_stop=should_stop
            )
            runs_on_it = self._models.flow.runs_on_engine
            for name, value in timed.items():
                value = value if runs_on_it else replace(value, engine="")
                results[name] = replace(results[name], latency=value)
        return Evaluation(results)

    def _require_data(self) -> Data:
        if self._data is None:
            raise NoDataError(
                "there is no data.", fix="Pass data={'train': loader, 'eval': loader}."
            )
        return self._data


def count_int8(model: nn.Module) -> int:
    """Number of modules that hold int8 weights or compute on int8 tensors with qparams."""
    names = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")
    # The packed parameters are a module inside of each Linear and Embedding.
    skipped = (
        "Quantize",
        "DeQuantize",
        "Dropout",
        "LinearPackedParams",
        "EmbeddingPackedParams",
    )
    return sum(
        type(m).__module__.startswith(names) and type(m).__name__ not in skipped
        for m in model.modules()
    )


def count_weights(prepared: nn.Module) -> int:
    """Number of fake quants (or bare observers) of weights in ``prepared``, each object once."""
    named = dict(prepared.named_modules(remove_duplicate=False))
    kinds = kinds_of(prepared)
    return len({id(named[path]) for path, kind in kinds.items() if kind == "weight"})


def float_weights(int8: nn.Module) -> tuple[str, ...]:
    """Paths of torch's own layers that hold a float weight, a parameter of two or more dimensions,
    in a converted model."""
    return tuple(
        path
        for path, module in int8.named_modules()
        if type(module).__module__.startswith(("torch.nn.", "torch.ao.nn.intrinsic.modules"))
        and any(
            p is not None and p.dim() > 1 and not is_torchao_tensor(p)
            for p in module._parameters.values()
        )
    )


def count_float_islands(graph: Graph, borders: Collection[str]) -> int:
    """Connected groups of operations whose result is float, in a recorded int8 forward.

    ``borders`` are the paths that only dequantize or pass a tensor on: no operation of an island.
    """
    floating = {
        n.id
        for n in graph.nodes
        if n.op.startswith("call")
        and n.dtype in ("torch.float32", "torch.float16")
        and n.path not in borders
    }
    return len(set(graph.connected(floating).values()))
