"""The one state object: model, flow, stage in view, selection and run.

Everything a view shows comes from here, everything a click does goes here. No widget library is
imported, so scripts and CI use the very same object.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, cast

from qatexplorer.data import Data
from qatexplorer.errors import InputError, NoDataError, StageError
from qatexplorer.evaluate.evaluation import Evaluation
from qatexplorer.forward.histograms import GridHistogram
from qatexplorer.forward.sampling import histograms_of
from qatexplorer.ledger.records import Ledger
from qatexplorer.runs.checkpoint import CheckpointInfo
from qatexplorer.runs.opened import open_run
from qatexplorer.runs.records import Progress, TrainingConfig
from qatexplorer.runs.run_writer import Saved
from qatexplorer.session import running as registry
from qatexplorer.session.kept_settings import as_data, changes_for
from qatexplorer.session.ledgers import kept_ledger, session_ledger
from qatexplorer.session.settings import Configured
from qatexplorer.session.stages import SessionEvent
from qatexplorer.snapshot.records import Snapshot
from qatexplorer.training.control import FINAL
from qatexplorer.training.run import TrainingRun

__all__ = ["Session", "SessionEvent"]

_LOOK_EVERY_S = 1.0


class Session(Configured):
    """Walk a copy of a model through a quantization flow, train it and run it in int8.

    Args:
        model: a float ``torch.nn.Module``; it is copied, never changed and not kept.
        example_inputs: tensor, tuple of arguments or dict of keyword arguments for one forward;
            None takes the first training batch of ``data``.
        flow: name of the quantization system, ``"eager"`` or ``"fx"``.
        qconfig: backend name, ``QConfig``, dict by module path or type, ``QConfigMapping``, or
            None: a probe of this CPU chooses qconfig and engine
            (:func:`quantizers.engine_choice.default_backend`). What is given wins over ``qconfig``
            attributes of the model (yours is not changed): for the whole, over the root's and those
            equal to it; by path, over those there and below. An attribute that differs (also None)
            stays, and notes name it. Without a qconfig the model's own attributes are used.
        data: train and eval iterables of (input, target), see :func:`qatexplorer.data.as_data`.
        loss: ``(output, target) -> scalar``, default cross entropy.
        metric: ``(output, target) -> float``, default top-1 accuracy.
        stubs: ``"none"``, ``"model"`` or ``"layers"``, see :data:`flows.base.StubMode`; eager only.
        fusion: runs of module paths to fuse; None finds them; eager only.
        qat_mapping: replaces torch's default QAT module mapping, or ``"attention"`` for the default
            without what breaks ``nn.MultiheadAttention``; eager only.
        engine: quantized engine for int8; default the backend that ``qconfig`` names, else the one
            that the probe chooses. One that computes wrong on this CPU is warned of
            (:class:`~qatexplorer.errors.EngineWarning`).
        non_traceable: paths or types of modules that FX leaves as one float call.
        prepare_custom_config, convert_custom_config: torch's ``PrepareCustomConfig`` and
            ``ConvertCustomConfig``, or the dicts that they are made from (eager takes dicts too).
        backend_config: what FX knows of the backend's operators: a ``BackendConfig`` or a name of
            :data:`flows.custom.BACKEND_CONFIGS`; None is torch's default.

    Raises the :class:`~qatexplorer.errors.InputError` types for what cannot be used; warns with
    ``PostTrainingQConfigWarning`` of observers that stand where fake quants belong. ``signal``
    emits a :class:`SessionEvent` at every change, on the thread that made it.
    """

    _next_look = 0.0
    _histograms: tuple[Snapshot, Mapping[str, GridHistogram]] | None = None

    # -- selection ------------------------------------------------------------------------------

    @property
    def selection(self) -> str:
        """What is selected: "module:…", "site:…", "node:…", "edge:…" or ""."""
        return self._selection

    def select(self, selection: str) -> None:
        """Select a module, fake quant, graph node or edge; observers are told."""
        if selection != self._selection:
            self._selection = selection
            self._emit("selection", selection)

    def histogram(self, site: str) -> GridHistogram:
        """Histogram, on the quantization grid, of what fake quant ``site`` sees in one forward of
        the example input. Before it has seen data, the range of that forward is used.

        The first one at a stage makes those of all fake quants in the same forward; while a run is
        going on, its newest sample is returned. Raises StageError if the stage in view has no such
        fake quant, or if it does not run.
        """
        if self.running and self._run is not None:
            samples = [s for s in self._run.history.samples(site) if s.histogram is not None]
            if samples:
                return cast(GridHistogram, samples[-1].histogram)
        known = self.snapshot.site_by_path.get(site)
        if known is None:
            raise StageError(f"stage {self._stage!r} has no fake quant {site!r}.", where=site)
        found = self.histograms().get(known.path)
        if found is None:
            raise StageError(
                "this fake quant does not run in a forward of the example input.",
                where=site,
                why="It sits in the model, but no data reaches it.",
                remedy="If its layer runs only sometimes, choose example inputs that reach it.",
            )
        return found

    def histograms(self) -> Mapping[str, GridHistogram]:
        """The histograms of all fake quants of the stage in view that run, by path; one or two
        forwards the first time, then kept until the model changes."""
        with self._lock:
            snapshot = self.snapshot
            if self._histograms is None or self._histograms[0] is not snapshot:
                model = self._bench.view(self._stage, trained=self._trained, own=False)
                self._require_still(model)
                made = histograms_of(model, self.options.example_inputs) if snapshot.sites else {}
                self._histograms = (snapshot, made)
            return self._histograms[1]

    def has_histogram(self, site: str) -> bool:
        """Whether :meth:`histogram` will answer without running the model."""
        kept = self._histograms
        return self.running or (kept is not None and kept[0] is self.snapshot)

    def ledger(self, stage: str | None = None, *, timing: int = 0) -> Ledger:
        """Who put each fake quant there, what stays float and why, and what is one too many.

        Args:
            stage: a stage with fake quants; None is the one in view (for the converted stages, the
                prepared model that they are made from).
            timing: rounds in which the time of each redundant fake quant is measured, 0 for none.

        The model is run a few times on the example input and put back; nothing is trained. The
        result is kept until the model changes. Raises StageError where there are no fake quants,
        BusyError for the train stage while a run is going on.
        """
        return session_ledger(self, stage, timing)

    @property
    def redundant_edges(self) -> frozenset[str]:
        """Selection strings of the graph's edges with a double quantization, as far as a ledger
        of the stage in view has been made; asking makes none."""
        ledger = kept_ledger(self)
        if ledger is None:
            return frozenset()
        return frozenset(edge for found in ledger.faults for edge in found.edges)

    # -- training -------------------------------------------------------------------------------

    @property
    def run(self) -> TrainingRun | None:
        """The newest training run, None before the first."""
        return self._run

    def start_training(
        self, epochs: int = 3, *, run_dir: str | os.PathLike[str] | None = None, **settings: Any
    ) -> TrainingRun:
        """Train in the background, going to the train stage first if need be.

        Args:
            epochs: passes over the training data.
            run_dir: new folder to keep curves and checkpoints in, for :meth:`resume`; None keeps
                nothing on disk.
            settings: fields of :class:`~qatexplorer.runs.records.TrainingConfig`.

        Raises NoDataError, BusyError, InputError (RunFolderError), and what :meth:`goto` raises.
        """
        return self._new_run(epochs, run_dir, settings).start()

    def train(
        self, epochs: int = 3, *, run_dir: str | os.PathLike[str] | None = None, **settings: Any
    ) -> TrainingRun:
        """The same in the foreground, for scripts. Raises the run's error if it fails."""
        return _in_front(self._new_run(epochs, run_dir, settings))

    def resume(
        self,
        path: str | os.PathLike[str],
        *,
        checkpoint: CheckpointInfo | None = None,
        background: bool = True,
        **changes: Any,
    ) -> TrainingRun:
        """Go on with the run kept in folder ``path``, from its last checkpoint.

        With the same model and data the losses are those of an unbroken run, bit for bit on the
        CPU. Stubs, fusion and a qconfig by name are set to what the run had, which starts the
        walk again if they differ.

        Args:
            path: the ``run_dir`` of the run, of this process or of one that is gone.
            checkpoint: another one of ``open_run(path).checkpoints``.
            background: False trains here and now, and raises the run's error if it fails.
            changes: settings to change, such as more ``epochs``; an ``optimizer`` or ``scheduler``
                of your own must be passed again, since no code is kept on disk.

        Raises RunFolderError, CheckpointError, BusyError, InputError, NoDataError.
        """
        self._require_data("training")
        opened = open_run(path)
        config = opened.config(**changes)
        with self._lock:
            self._require_idle("resume a run")
            saved = opened.read(checkpoint)
            wanted = changes_for(self.options, opened.about.get("session", {}))
            if wanted:
                self.configure(**wanted)
            run = self._make_run(config, opened.path, saved)
            self._refresh_train_snapshot()
        self._emit("run", run)
        return run.start() if background else _in_front(run)

    def _new_run(
        self, epochs: int, run_dir: str | os.PathLike[str] | None, settings: dict[str, Any]
    ) -> TrainingRun:
        self._require_data("training")
        try:
            config = TrainingConfig(epochs=epochs, **settings)
        except TypeError as error:
            raise InputError(
                str(error).replace("TrainingConfig.__init__()", "start_training()"),
                remedy="Settings are the fields of qatexplorer.TrainingConfig.",
            ) from error
        with self._lock:
            self._require_idle("start another run")
            run = self._make_run(config, run_dir, None)
        self._emit("run", run)
        return run

    def _make_run(
        self,
        config: TrainingConfig,
        run_dir: str | os.PathLike[str] | None,
        saved: Saved | None,
    ) -> TrainingRun:
        self.goto(self.flow.train_stage)
        self._forget_converted()
        run = TrainingRun(
            self._bench.own_work(),
            self._require_data("training"),
            config,
            loss=self.loss,
            metric=self.metric,
            baseline=None if saved else self._assessor.float_metric(),
            run_dir=run_dir,
            saved=saved,
            about={"session": as_data(self.options)},
        )
        self._run, self._trained = run, True
        self._next_look = 0.0
        run.signal.subscribe(self._on_progress)
        registry.remember(self)
        return run

    def _on_progress(self, progress: Progress) -> None:
        """On the run's thread, between two steps: nothing else touches the model now."""
        now = time.perf_counter()
        if progress.state in FINAL:
            self._refresh_train_snapshot()
            self._emit("trained", progress)
        elif now >= self._next_look:
            self._refresh_train_snapshot()
            # A look at a large model takes long; it may take one per cent of the time.
            cost = time.perf_counter() - now
            self._next_look = now + max(_LOOK_EVERY_S, 100 * cost)
        self._emit("progress", progress)

    def _refresh_train_snapshot(self) -> None:
        stage = self.flow.train_stage
        graph = self._snapshots[stage].graph
        self._assessor.forget_trained()
        self._snapshots[stage] = self._snapshot_of(self._bench.work, stage, graph, self._probe)

    def calibrate(self, batches: int = 8) -> Snapshot:
        """Let the observers see ``batches`` training batches, weights and batch norms unchanged.

        This is post-training calibration on the prepared model. Raises NoDataError, BusyError.
        """
        self._require_data("calibration")
        with self._lock:
            self._require_idle("calibrate")
            self.goto(self.flow.train_stage)
            self._forget_converted()
            self._assessor.calibrate(self._bench.work, batches)
            self._refresh_train_snapshot()
        self._emit("stage", self._stage)
        return self.snapshot

    def evaluate(
        self, *, latency: bool = True, should_stop: Any = None, progress: Any = None
    ) -> Evaluation:
        """Metric, size and latency of float, PTQ int8, fake-quant and int8, side by side.

        Rows that do not exist yet say why. ``should_stop()`` is asked between batches;
        ``progress(what, share)`` is told how far it is. Raises NoDataError, BusyError.
        """
        self._require_data("evaluation")
        self._require_idle("evaluate")
        prepared = self.flow.prepared_stage in self._snapshots
        return self._assessor.evaluate(
            prepared=prepared,
            observed=self.observed,
            latency=latency,
            should_stop=should_stop,
            progress=progress,
        )

    def _require_data(self, purpose: str) -> Data:
        if self.data is None:
            raise NoDataError(
                f"{purpose} needs data, and the session has none.",
                remedy="Pass data={'train': loader, 'eval': loader} of (input, target) batches.",
            )
        return self.data


def _in_front(run: TrainingRun) -> TrainingRun:
    run.run()
    if run.error is not None:
        raise run.error
    return run
