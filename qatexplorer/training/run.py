"""A training run that can be watched, paused and stopped, in the background or in front."""

from __future__ import annotations

import atexit
import logging
import os
import signal as signals
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn import Module
from torch.optim import Optimizer

from qatexplorer.data import as_data
from qatexplorer.errors import (
    CheckpointError,
    NoDataError,
    NotAModuleError,
    QatExplorerError,
    TrainingError,
)
from qatexplorer.evaluate.metric import Metric, MetricValue, metric_name
from qatexplorer.runs.folder import RunFolder
from qatexplorer.runs.records import History, Progress, RunState, TrainingConfig, history_lines
from qatexplorer.runs.run_writer import RunWriter, Saved, config_as_data
from qatexplorer.runs.store import Telemetry
from qatexplorer.shown import Shown, at_most
from qatexplorer.signals import Signal
from qatexplorer.training.control import FINAL, Control
from qatexplorer.training.loop import Loop, Loss
from qatexplorer.training.modes import restored_modes
from qatexplorer.training.team import current

log = logging.getLogger(__name__)

EMIT_EVERY_S = 0.2
REACT_S = 1.0
LEAVE_S = 5.0


class TrainingRun(Shown):
    """Quantization-aware training of ``model``, **in place**: hand over a copy of your own.

    The same seed gives the same weights bit for bit, in the background as in front, with
    telemetry or without, whatever the user's random state; that state is left alone, and so are
    torch's number of threads and the training flags (put back at the end). Observers that a run
    has frozen stay frozen, since ``convert`` would otherwise move the ranges once more.

    Args:
        model: a prepared model (any module trains).
        data: anything :func:`~qatexplorer.data.as_data` takes.
        config: settings; the default is :class:`TrainingConfig()`.
        loss: ``(output, target) -> 0-dim Tensor``; the default is cross entropy.
        metric: ``(output, target) -> float``; the default is top-1 accuracy.
        baseline: metric of the float model, for the curves.
        run_dir: folder to keep the run in: curves as they grow, and checkpoints at the end of each
            epoch, every ``config.checkpoint_every`` steps, at a pause, a stop and a failure. None
            keeps nothing on disk. :func:`~qatexplorer.open_run` opens it again.
        saved: go on from this checkpoint of the run in ``run_dir`` (``open_run(...).read()``):
            the model is set to it, and the losses are those of an unbroken run, bit for bit on
            the CPU, if data and settings are the same. The batches that were trained on are drawn
            again and thrown away. A sampler or a data set that draws from torch's, Python's or
            NumPy's global generator for every single batch, and DataLoader workers that persist
            from epoch to epoch, can go another way.
        about: more for run.json, any JSON.

    Inside :func:`~qatexplorer.training.team.together` this is one of the processes of a run: each
    of them makes it with the same arguments, ``data`` being all of it, and one of them keeps it.

    ``signal`` emits :class:`Progress` on the run's thread, at every change of state and about five
    times a second; a subscriber that raises is logged and does not harm the run. ``error`` is None
    or the typed error that ended the run; nothing is raised by :meth:`run` and :meth:`wait`.
    ``trouble`` is None or why the run folder cannot be written now (a full disk); training goes on.

    Raises NotAModuleError, NoDataError, InputError and TrainingError for what cannot be trained.
    """

    def __init__(
        self,
        model: Module,
        data: Any,
        config: TrainingConfig | None = None,
        *,
        loss: Loss | None = None,
        metric: Metric | None = None,
        baseline: MetricValue | float | None = None,
        run_dir: str | os.PathLike[str] | None = None,
        saved: Saved | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(model, Module):
            raise NotAModuleError(f"model is a {type(model).__name__}, not a torch.nn.Module.")
        brought = as_data(data)
        if brought is None:
            raise NoDataError(
                "Training needs data and none was given.",
                fix="Pass data={'train': loader, 'eval': loader}.",
            )
        self._team = current()
        self.model, self.config = model, config or TrainingConfig()
        if not self._team.writes:  # of what nobody would see
            self.config = self.config.but(telemetry_every=0)
        self.data = self._team.share(brought, self.config.seed)
        value = baseline.value if isinstance(baseline, MetricValue) else baseline
        self.baseline = baseline
        self.history = saved.history if saved else History(metric_name(metric), value)
        self.signal: Signal[Progress] = Signal()
        self.error: TrainingError | None = None
        self._control = Control(lambda state: self._changed())
        self._writer: RunWriter | None = None
        if run_dir is not None and self._team.writes:
            self._writer = self._open_folder(run_dir, saved, self._about(about or {}))
        try:
            self._loop = self._make_loop(loss, metric, saved)
            if self._writer is not None and saved is not None:
                self._writer.folder.note(**self._about(about or {}))
        except BaseException:
            if self._writer is not None:
                self._writer.close()
                if saved is None:
                    self._writer.folder.discard()
            raise
        self._thread: threading.Thread | None = None
        self._done = threading.Event()
        self._emitted = 0.0
        self._complained = False
        if self._writer is not None:
            self._writer.attach(self.history, saved)

    def _about(self, more: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "model": type(self.model).__name__,
            **more,
            "data": self.data.name,
            "processes": self._team.size,
            "metric": self.history.metric_name,
            "baseline": self.history.baseline,
            "config": config_as_data(self.config),
        }

    def _open_folder(
        self, run_dir: str | os.PathLike[str], saved: Saved | None, about: dict[str, Any]
    ) -> RunWriter:
        folder = RunFolder.reopen(run_dir) if saved else RunFolder.create(run_dir, about)
        return RunWriter(folder, self.config, on_trouble=lambda trouble: self._emit())

    def _make_loop(self, loss: Loss | None, metric: Metric | None, saved: Saved | None) -> Loop:
        return Loop(
            self.model,
            self.data,
            self.config,
            loss,
            metric,
            self.history,
            should_stop=lambda: self._control.should_stop(
                self._loop.pausing, lambda: self._loop.save("paused"), self._idle
            ),
            report=self._report,
            writer=self._writer,
            saved=saved,
            team=self._team,
        )

    @property
    def run_dir(self) -> Path | None:
        """The folder that the run is kept in, None if it is not kept."""
        return self._writer.folder.path if self._writer is not None else None

    @property
    def trouble(self) -> CheckpointError | None:
        """Why the run folder cannot be written at the moment, None if all is well."""
        return self._writer.trouble if self._writer is not None else None

    @property
    def state(self) -> RunState:
        """``ready``, ``running``, ``paused``, ``stopped``, ``finished`` or ``failed``."""
        return self._control.state

    @property
    def telemetry(self) -> Telemetry | None:
        """All that was seen of the fake quants; None if the model has none."""
        return self.history.telemetry

    @property
    def optimizer(self) -> Optimizer:
        """What trains the model, made when it is first asked for. Raises TrainingError if one of
        the user's cannot be made."""
        return self._loop.parts.optimizer

    @property
    def progress(self) -> Progress:
        """Where the run is now."""
        loop, config = self._loop, self.config
        left = 0.0 if self.state in FINAL else loop.eta_s()
        return Progress(
            state=self.state,
            step=loop.step,
            total_steps=loop.steps_per_epoch * config.epochs,
            epoch=loop.epoch,
            epochs=config.epochs,
            elapsed_s=self._control.elapsed_s,
            eta_s=left,
            loss=loop.last_loss,
        )

    def __repr__(self) -> str:
        now = self.progress
        total = f" of {now.total_steps:,}" if now.total_steps else ""
        head = f"TrainingRun of {type(self.model).__name__}: {now.state}, step {now.step:,}{total}"
        lines = [head, *history_lines(self.history, 12)]
        if self.run_dir is not None:
            lines.append(f"kept in {self.run_dir}")
        lines += [f"error: {problem.message}" for problem in (self.error, self.trouble) if problem]
        return at_most(lines)

    def start(self) -> TrainingRun:
        """Train on a thread of its own. Raises TrainingError if the run was started before."""
        self._claim()
        self._thread = threading.Thread(target=self._run, name="qatexplorer-training", daemon=True)
        self._thread.start()
        return self

    def run(self) -> TrainingRun:
        """Train here and now; Ctrl-C ends it after the step in hand (twice: at once).

        Raises TrainingError if the run was started before; see ``error`` for what ended it.
        """
        self._claim()
        with self._stop_on_interrupt():
            self._run()
        return self

    def pause(self, timeout: float = REACT_S) -> None:
        """Stand still after the step in hand; returns when it does, or after ``timeout`` s."""
        self._control.request("pause", timeout)

    def resume(self, timeout: float = REACT_S) -> None:
        """Go on after :meth:`pause`."""
        self._control.request("run", timeout)

    def stop(self, timeout: float = REACT_S) -> None:
        """End after the step in hand, with the weights of that step; returns when it has ended,
        or after ``timeout`` s. A run that was stopped before it began never begins."""
        end = time.monotonic() + timeout
        self._control.request("stop", timeout)
        # The state is known a moment before the folder is given up.
        if self.state in FINAL and not self._control.is_own_thread:
            self._done.wait(max(0.0, end - time.monotonic()))

    def wait(self, timeout: float | None = None) -> TrainingRun:
        """Wait until the run has ended, ``timeout`` seconds at most. Ctrl-C stops the run."""
        if self.state == "ready" and self._thread is None:
            return self
        try:
            self._done.wait(timeout)
        except KeyboardInterrupt:
            self.stop()
            self._done.wait(timeout)
        return self

    def _claim(self) -> None:
        if self._writer is not None:
            atexit.register(self._leave)
        if not self._control.begin():
            raise TrainingError(
                f"This run was started before and is {self.state}.",
                fix="Make a new TrainingRun; it goes on from the weights that the model has.",
            )

    def _leave(self) -> None:
        """The process ends in good order (a kernel that is restarted): leave a checkpoint."""
        self.stop(timeout=LEAVE_S)
        # The state is written before the folder is closed, and the process would end in between.
        self._done.wait(LEAVE_S)

    def _run(self) -> None:
        final: RunState = "failed"
        try:
            # A caller may be in no_grad or inference_mode; those hold per thread.
            with torch.inference_mode(False), torch.enable_grad(), restored_modes(self.model):
                self._control.running()
                final = "stopped" if self._loop.run() else "finished"
        except TrainingError as error:
            self.error = error
        except KeyboardInterrupt:
            final = "stopped"
        except QatExplorerError as error:
            self.error = TrainingError(
                error.message, where=error.where, why=error.why, fix=error.fix
            )
            self.error.__cause__ = error
        except BaseException as error:
            self.error = TrainingError(
                "Training ended unexpectedly.", why=f"{type(error).__name__}: {error}"
            )
            self.error.__cause__ = error
            if not isinstance(error, Exception):
                raise
        finally:
            if final == "stopped":
                self._loop.mark("stopped")
            self._control.become(final)
            if self._writer is not None:
                self._writer.close()
            atexit.unregister(self._leave)
            self._done.set()

    @contextmanager
    def _stop_on_interrupt(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signals.getsignal(signals.SIGINT)
        if before is None:  # installed from C; it could not be put back
            yield
            return

        def interrupted(number: int, frame: Any) -> None:
            # An exception in the middle of an optimizer step would leave half a step behind. A
            # second Ctrl-C is for a step that hangs.
            signals.signal(signals.SIGINT, signals.default_int_handler)
            self._control.request("stop")

        signals.signal(signals.SIGINT, interrupted)
        try:
            yield
        finally:
            signals.signal(signals.SIGINT, before)

    def _report(self) -> None:
        if self._writer is not None:
            self._writer.report(self.progress, None, now=False)
            self._listen()
        if time.perf_counter() - self._emitted >= EMIT_EVERY_S:
            self._emit()
        if self._thread is not None:
            # The page's clicks are handled on the main thread: it gets the interpreter once a step.
            time.sleep(0)

    def _listen(self) -> None:
        """Do what another process requests in the run folder."""
        what = self._writer.request() if self._writer is not None else None
        if what is not None:
            self._control.request(what)

    def _idle(self) -> None:
        self._listen()
        if self._team.idle():
            self._control.request("stop")

    def _changed(self) -> None:
        if self._writer is not None:
            self._writer.report(self.progress, self.error, now=True)
        self._emit()

    def _emit(self) -> None:
        self._emitted = time.perf_counter()
        try:
            with self._loop.outside():
                self.signal.emit(self.progress)
        except Exception:
            if not self._complained:
                self._complained = True
                log.exception("a subscriber of a training run raised; the run goes on")
