"""The part of a session that trains and calibrates."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from qatexplorer.runs.checkpoint import CheckpointInfo
from qatexplorer.runs.config import UNSET, TrainingConfig, given_settings
from qatexplorer.runs.model_state import load_model
from qatexplorer.runs.opened import open_run
from qatexplorer.runs.records import Progress
from qatexplorer.runs.run_writer import Saved
from qatexplorer.session import running as registry
from qatexplorer.session.measured import Measured
from qatexplorer.session.part import Part
from qatexplorer.session.sensitivity_part import Sensitivities
from qatexplorer.snapshot.records import Snapshot
from qatexplorer.takehome.records import Calibrated, Trained
from qatexplorer.telemetry.watched import followed_paths
from qatexplorer.training.control import FINAL
from qatexplorer.training.progress import run_in_front
from qatexplorer.training.run import TrainingRun
from qatexplorer.training.team import current

_DESCRIBE_EVERY_S = 1.0


class TrainingPart(Part):
    """Runs of QAT on the session's own copy; :attr:`run` is the newest."""

    _next_description: float
    _sensitivities: Sensitivities
    _last: Measured

    def _change(self, given: Mapping[str, Any]) -> Snapshot:
        raise NotImplementedError

    @property
    def run(self) -> TrainingRun | None:
        """The newest training run, None before the first."""
        return self._run

    def start_training(
        self,
        epochs: int = UNSET,
        *,
        config: TrainingConfig | None = None,
        run_dir: str | os.PathLike[str] | None = None,
        lr: float = UNSET,
        optimizer: str | Callable[[Iterable[Parameter]], Optimizer] | None = UNSET,
        scheduler: str | Callable[[Optimizer], LRScheduler] | None = UNSET,
        scheduler_interval: Literal["step", "epoch"] = UNSET,
        warmup_steps: int = UNSET,
        freeze_observer_epoch: int | None = UNSET,
        freeze_bn_epoch: int | None = UNSET,
        fake_quant_start_epoch: int = UNSET,
        label_smoothing: float = UNSET,
        clip_grad_norm: float | None = UNSET,
        ema_decay: float | None = UNSET,
        dampen_weights: float = UNSET,
        freeze_weights: float | None = UNSET,
        freeze_weights_from: float | None = UNSET,
        oscillation: Literal["sampled", "every step"] = UNSET,
        oscillation_momentum: float = UNSET,
        checkpoint_every: int = UNSET,
        keep_checkpoints: int = UNSET,
        metric_mode: Literal["max", "min"] = UNSET,
        seed: int = UNSET,
        telemetry_every: int = UNSET,
        max_samples: int = UNSET,
        telemetry_paths: tuple[str, ...] | None = UNSET,
    ) -> TrainingRun:
        """Train in the background, going to the train stage first if need be.

        Args:
            config: all settings in one; what is given beside it comes before it.
            run_dir: new folder to keep curves and checkpoints in, for :meth:`resume`; None keeps
                nothing on disk.

        All others are the fields of :class:`~qatexplorer.TrainingConfig`, with its defaults.

        Raises NoDataError, BusyError, InputError (RunFolderError), and what :meth:`goto` raises.
        """
        return self._new_run(config, run_dir, given_settings(locals())).start()

    def train(
        self,
        epochs: int = UNSET,
        *,
        config: TrainingConfig | None = None,
        run_dir: str | os.PathLike[str] | None = None,
        progress: bool = True,
        lr: float = UNSET,
        optimizer: str | Callable[[Iterable[Parameter]], Optimizer] | None = UNSET,
        scheduler: str | Callable[[Optimizer], LRScheduler] | None = UNSET,
        scheduler_interval: Literal["step", "epoch"] = UNSET,
        warmup_steps: int = UNSET,
        freeze_observer_epoch: int | None = UNSET,
        freeze_bn_epoch: int | None = UNSET,
        fake_quant_start_epoch: int = UNSET,
        label_smoothing: float = UNSET,
        clip_grad_norm: float | None = UNSET,
        ema_decay: float | None = UNSET,
        dampen_weights: float = UNSET,
        freeze_weights: float | None = UNSET,
        freeze_weights_from: float | None = UNSET,
        oscillation: Literal["sampled", "every step"] = UNSET,
        oscillation_momentum: float = UNSET,
        checkpoint_every: int = UNSET,
        keep_checkpoints: int = UNSET,
        metric_mode: Literal["max", "min"] = UNSET,
        seed: int = UNSET,
        telemetry_every: int = UNSET,
        max_samples: int = UNSET,
        telemetry_paths: tuple[str, ...] | None = UNSET,
    ) -> TrainingRun:
        """Train in the foreground, for scripts, with a progress bar unless ``progress`` is False.

        All other arguments are those of :meth:`start_training`.

        Raises the run's error if it fails, and what :meth:`start_training` raises.
        """
        return run_in_front(self._new_run(config, run_dir, given_settings(locals())), progress)

    def resume(
        self,
        path: str | os.PathLike[str],
        *,
        checkpoint: CheckpointInfo | None = None,
        background: bool = True,
        progress: bool = False,
        epochs: int = UNSET,
        lr: float = UNSET,
        optimizer: str | Callable[[Iterable[Parameter]], Optimizer] | None = UNSET,
        scheduler: str | Callable[[Optimizer], LRScheduler] | None = UNSET,
        scheduler_interval: Literal["step", "epoch"] = UNSET,
        warmup_steps: int = UNSET,
        freeze_observer_epoch: int | None = UNSET,
        freeze_bn_epoch: int | None = UNSET,
        fake_quant_start_epoch: int = UNSET,
        label_smoothing: float = UNSET,
        clip_grad_norm: float | None = UNSET,
        ema_decay: float | None = UNSET,
        dampen_weights: float = UNSET,
        freeze_weights: float | None = UNSET,
        freeze_weights_from: float | None = UNSET,
        oscillation: Literal["sampled", "every step"] = UNSET,
        oscillation_momentum: float = UNSET,
        checkpoint_every: int = UNSET,
        keep_checkpoints: int = UNSET,
        metric_mode: Literal["max", "min"] = UNSET,
        seed: int = UNSET,
        telemetry_every: int = UNSET,
        max_samples: int = UNSET,
        telemetry_paths: tuple[str, ...] | None = UNSET,
    ) -> TrainingRun:
        """Go on with the run kept in folder ``path``, from its last checkpoint.

        With the same model and data the losses are those of an unbroken run, bit for bit on the
        CPU. Stubs, fusion and a qconfig by name are set to what the run had, which starts again
        from the float stage if they differ.

        Args:
            path: the ``run_dir`` of the run, of this process or of one that is gone.
            checkpoint: another one of ``open_run(path).checkpoints``.
            background: False trains here and now, and raises the run's error if it fails.
            progress: show a progress bar then.

        The others are settings to change, such as more ``epochs``; an ``optimizer`` or
        ``scheduler`` of your own must be passed again, since no code is kept on disk.

        Raises RunFolderError, CheckpointError, BusyError, InputError, NoDataError.
        """
        run = self._resumed(path, checkpoint, given_settings(locals()))
        return run.start() if background else run_in_front(run, progress)

    def _resumed(
        self, path: str | os.PathLike[str], checkpoint: CheckpointInfo | None, changes: Any
    ) -> TrainingRun:
        self._require_data("training")
        opened = open_run(path)
        config = opened.config(**changes)
        with self._lock:
            self._require_idle("resume a run")
            saved = opened.read(checkpoint)
            wanted = self._models.settings.from_json(opened.about.get("session", {}))
            if wanted:
                self._change(wanted)
            run = self._make_run(config, opened.path, saved)
            self._describe_again()
        self._emit("run", run)
        return run

    def load_run(
        self, path: str | os.PathLike[str], *, checkpoint: CheckpointInfo | None = None
    ) -> Snapshot:
        """Take over what the run kept in folder ``path`` has trained, without training: weights,
        ranges and batch-norm statistics of its last ``checkpoint``, or of another one. Needs no
        data.

        Stubs, fusion and a qconfig by name are set to what the run had, as in :meth:`resume`. Ends
        at the train stage. :meth:`script` cannot repeat what was trained elsewhere, and says so.
        Raises RunFolderError, BusyError, and for another model CheckpointError or what
        :meth:`configure` raises.
        """
        opened = open_run(path)
        with self._lock:
            self._require_idle("load a run")
            saved = opened.read(checkpoint)
            wanted = self._models.settings.from_json(opened.about.get("session", {}))
            if wanted:
                self._change(wanted)
            self.goto(self.flow.train_stage)
            self._stages.forget_converted()
            load_model(self._models.own_work(), saved.tree["model"], saved.tensors)
            self._models.trained = self._models.handed_out = True
            self._describe_again()
        self._emit("stage", self.stage)
        return self.snapshot

    def _new_run(
        self,
        config: TrainingConfig | None,
        run_dir: str | os.PathLike[str] | None,
        settings: Mapping[str, Any],
    ) -> TrainingRun:
        self._require_data("training")
        chosen = (config or TrainingConfig()).but(**settings)
        with self._lock:
            self._require_idle("start another run")
            run = self._make_run(chosen, run_dir, None)
        self._emit("run", run)
        return run

    def _make_run(
        self,
        config: TrainingConfig,
        run_dir: str | os.PathLike[str] | None,
        saved: Saved | None,
    ) -> TrainingRun:
        self.goto(self.flow.train_stage)
        self._stages.forget_converted()
        run = TrainingRun(
            self._models.own_work(),
            self._require_data("training"),
            config,
            loss=self.loss,
            metric=self.metric,
            baseline=self._assessor.float_metric() if not saved and current().writes else None,
            run_dir=run_dir,
            saved=saved,
            about={
                "model": type(self._models.base).__name__,  # an exported one says nothing
                "flow": self.flow.name,
                "session": self._models.settings.to_json(),
            },
        )
        if saved is not None:  # it stands on what was done in the run, and on nothing else
            self._models.done.clear()
        self._models.trained = True
        weights, processes = followed_paths(self._models.work), current().size
        self._models.done.append(Trained(config, weights=weights, processes=processes))
        self._run, self._next_description = run, 0.0
        run.signal.subscribe(self._on_progress)
        registry.remember(self)
        return run

    def _on_progress(self, progress: Progress) -> None:
        """On the run's thread, between two steps: nothing else touches the model now."""
        now = time.perf_counter()
        if progress.state in FINAL:
            self._note_steps(progress)
            self._describe_again()
            self._emit("trained", progress)
        elif now >= self._next_description:
            self._describe_again()
            # Describing a large model takes long; it may take one per cent of the time.
            cost = time.perf_counter() - now
            self._next_description = now + max(_DESCRIBE_EVERY_S, 100 * cost)
        self._emit("progress", progress)

    def _note_steps(self, progress: Progress) -> None:
        """A run that ended before its last epoch is repeated as far as it went."""
        last = self._models.done[-1] if self._models.done else None
        if isinstance(last, Trained) and progress.state != "finished":
            self._models.done[-1] = replace(last, steps=progress.step)

    def _describe_again(self) -> None:
        self._checks.forget()
        self._sensitivities.forget()
        self._last.forget()
        self._assessor.forget_trained()
        self._stages.describe_again()

    def calibrate(self, batches: int = 8) -> Snapshot:
        """Let the observers see ``batches`` training batches, weights and batch norms unchanged.

        This is post-training calibration on the prepared model. Raises NoDataError, BusyError.
        """
        self._require_data("calibration")
        with self._lock:
            self._require_idle("calibrate")
            self.goto(self.flow.train_stage)
            self._stages.forget_converted()
            count = self._assessor.calibrate(self._models.work, batches)
            self._models.done.append(Calibrated(count))
            self._describe_again()
        self._emit("stage", self.stage)
        return self.snapshot
