"""The part of a session that trains copies with different settings, to see which is the best."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import Tensor, nn

from qatexplorer._version import __version__
from qatexplorer.data import Data
from qatexplorer.errors import DivergedError, InputError, QConfigError, StoppedError
from qatexplorer.evaluate.metric import Metric, metric_name
from qatexplorer.flows.qconfig_rules import PARTS, Effective, QConfigRule
from qatexplorer.flows.quant_spec import QuantSpec
from qatexplorer.runs.config import TrainingConfig
from qatexplorer.runs.model_state import load_model, save_model
from qatexplorer.runs.run_writer import config_as_data
from qatexplorer.session.editing import changed
from qatexplorer.session.models import Models
from qatexplorer.session.part import Part
from qatexplorer.session.settings import Settings
from qatexplorer.snapshot.records import Snapshot
from qatexplorer.takehome.parts import fingerprint
from qatexplorer.training.run import TrainingRun
from qatexplorer.training.sweep import Sweep, combinations, rows_of
from qatexplorer.training.trials import ShouldStop, TrialsProgress, trials

QUANTIZERS = ("moving average", "learned")
_NOT_SWEPT = ("seed", "telemetry_every", "max_samples", "telemetry_paths", "metric_mode")


@dataclass(frozen=True)
class _Start:
    """What a training begins with: a base model, settings, and the state of the prepared model;
    None for that of a model just prepared."""

    base: nn.Module
    settings: Settings
    tree: Mapping[str, Any] | None
    tensors: Mapping[str, Tensor]

    def model(self) -> nn.Module:
        """A model of its own, at the train stage."""
        models = Models(self.base, self.settings)
        model = models.rebuild(models.flow.train_stage, own=True)
        if self.tree is not None:
            load_model(model, self.tree, self.tensors)
        return model


@dataclass(frozen=True)
class _Training:
    """Trains a model of its own from a start. It goes to other processes as it is."""

    starts: Mapping[str, _Start]
    configs: Mapping[str, TrainingConfig]
    data: Data
    loss: Any
    metric: Metric | None

    def __call__(self, key: Mapping[str, Any], should_stop: ShouldStop) -> dict[str, Any]:
        model = self.starts[key["quantizers"]].model()
        config = self.configs[_text(key["config"])].but(seed=key["seed"])
        run = TrainingRun(model, self.data, config, loss=self.loss, metric=self.metric)
        run.signal.subscribe(lambda progress: run.stop(0.0) if should_stop() else None)
        run.run()
        if isinstance(run.error, DivergedError):
            return {"metric": None, "loss": None, "problem": run.error.message}
        if run.error is not None:
            raise run.error
        if run.state != "finished":
            raise StoppedError("the sweep was stopped.")
        last = run.history.epochs[-1]
        return {"metric": last.metric, "loss": last.train_loss, "problem": ""}


class SweepPart(Part):
    """Trainings of copies, side by side."""

    def use_qconfig_rules(self, rules: Iterable[QConfigRule]) -> Snapshot:
        """Put these in place of the rules in force."""
        raise NotImplementedError

    def _refuse_what_has_no_kernel(self, rules: tuple[QConfigRule, ...]) -> None:
        raise NotImplementedError

    def train(self, *, config: TrainingConfig | None = None, progress: bool = True) -> TrainingRun:
        """Train in the foreground."""
        raise NotImplementedError

    def sweep(
        self,
        over: Mapping[str, Iterable[Any]],
        *,
        seeds: Iterable[int] = (0, 1, 2),
        config: TrainingConfig | None = None,
        folder: str | os.PathLike[str] | None = None,
        processes: int = 1,
        progress: Callable[[str, float], Any] | None = None,
        should_stop: Callable[[], bool] | None = None,
        apply: bool = False,
        **settings: Any,
    ) -> Sweep:
        """Train copies of the prepared model, as it is now, with every combination of settings.

        >>> session.sweep({"freeze_observer_epoch": (0, 1, 3, None), "freeze_bn_epoch": (1, None)})

        Args:
            over: values by the name of a field of :class:`~qatexplorer.TrainingConfig`; by the name
                ``"quantizers"`` some of ``"moving average"`` and ``"learned"`` (step sizes that
                training learns, LSQ), for which each training begins with the float model prepared
                anew.
            seeds: each combination is trained once with each.
            config: all other settings; ``settings`` are single ones and come before it.
            folder: keeps each result as JSON; what is there for the same model and settings is not
                trained again. One folder for one data set.
            processes: so many trainings at a time, in processes of their own, to which model, data,
                loss and metric must be picklable. The last bit of a result can differ by it.
            progress: called with what is being done, with an estimate of the time left, and the
                share done (0 to 1), on this thread.
            should_stop: True ends it with what there is by then (``complete`` is False).
            apply: train the session's own model, in the end, with the best settings and the first
                seed. Without it the session stays as it is.

        Raises NoDataError, BusyError, InputError for settings that cannot work (QConfigError for
        quantizers that torch or the backend refuses), RunFolderError, and what training raises; a
        training that diverges is a row without a metric.
        """
        data = self._require_data("a sweep")
        plain = (config or TrainingConfig()).but(**settings)
        plain = plain.but(telemetry_every=0, oscillation="sampled", checkpoint_every=0)
        _check_names(over)
        chosen, numbers = combinations(over), tuple(dict.fromkeys(seeds))
        if not numbers:
            raise InputError("there is no seed to train with.", fix="Pass seeds=(0,).")
        configs = [plain.but(seed=0, **_trained(one)) for one in chosen]
        with self._lock:
            self._require_idle("sweep")
            self.goto(self.flow.train_stage)
            names = dict.fromkeys(c.get("quantizers", "") for c in chosen)
            starts = {name: self._start(name) for name in names}
            before = None
            if not self._models.never_observed:
                before = self._assessor.judged("fake_quant").value
            baseline = self._assessor.float_metric().value
            self._measured = "a sweep"
        try:
            wanted = _jobs(chosen, configs, starts, numbers, data)
            jobs = [key for _, of in wanted for _, key in of]
            by_text = {_text(config_as_data(config)): config for config in configs}
            work = _Training(starts, by_text, data, self.loss, self.metric)
            report = _reporter(progress)
            done = trials(jobs, work, folder, processes, should_stop=should_stop, progress=report)
        finally:
            self._measured = ""
        rows, complete = rows_of(wanted, done), len(done) == len(jobs)
        found = Sweep(
            rows,
            metric_name(self.metric),
            plain.metric_mode,
            baseline,
            before,
            len(jobs),
            complete,
        )
        if apply and complete:
            self._apply(found.best.settings, plain.but(seed=numbers[0]))
        return found

    def _start(self, quantizers: str) -> _Start:
        models = self._models
        if quantizers:
            rules = self._rules_for(quantizers)
            self._refuse_what_has_no_kernel(rules)
            base, settings = changed(models, {"rules": rules})
            return _Start(base, settings, None, {})
        tensors: dict[str, Tensor] = {}
        tree = save_model(models.work, tensors)
        return _Start(models.base, models.settings, tree, tensors)

    def _rules_for(self, quantizers: str) -> tuple[QConfigRule, ...]:
        plan, base = self._models.options.qconfig, self._models.base
        return rules_for(quantizers, plan.effective(base, "", self.flow.by_graph), plan.rules)

    def _apply(self, best: Mapping[str, Any], config: TrainingConfig) -> None:
        if "quantizers" in best:
            self.use_qconfig_rules(self._rules_for(best["quantizers"]))
        self.train(config=config.but(**_trained(best)), progress=False)


def rules_for(
    quantizers: str, whole: Effective, rules: tuple[QConfigRule, ...]
) -> tuple[QConfigRule, ...]:
    """``rules``, and what holds for the whole model, with fake quants that learn their step sizes,
    or that have moving averages. Raises QConfigError where no rule can say so."""
    found = {part: getattr(whole, part) for part in PARTS}
    if None in found.values():
        raise QConfigError(
            "the qconfig leaves the model in float, or has fake quants of classes of your own, "
            "which no rule can say.",
            fix="Name a backend: session.configure(qconfig='onednn').",
        )
    named = [rule for rule in rules if rule.by != "model"]
    return tuple(_changed(rule, quantizers) for rule in (QConfigRule("", "model", **found), *named))


def _changed(rule: QConfigRule, quantizers: str) -> QConfigRule:
    activation, weight = (_with(rule.of(part), quantizers) for part in PARTS)
    return replace(rule, activation=activation, weight=weight)


def _with(spec: QuantSpec | None, quantizers: str) -> QuantSpec | None:
    if spec is None:
        return None
    spec = replace(spec, observer="MovingAverageMinMaxObserver")
    if quantizers == "learned":
        return replace(spec, fake_quant="_LearnableFakeQuantize")
    return replace(spec, fake_quant="FusedMovingAvgObsFakeQuantize") if spec.learned else spec


def _check_names(over: Mapping[str, Iterable[Any]]) -> None:
    known = {field.name for field in fields(TrainingConfig)} - set(_NOT_SWEPT)
    for name, values in over.items():
        if name == "quantizers":
            wrong = [value for value in values if value not in QUANTIZERS]
            if wrong:
                raise InputError(
                    f"there are no quantizers {wrong[0]!r}.",
                    fix="They are 'moving average' and 'learned'.",
                )
        elif name not in known:
            raise InputError(
                f"{name!r} is nothing to sweep over.",
                fix="Sweep over fields of qatexplorer.TrainingConfig, or over 'quantizers'.",
            )


def _trained(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "quantizers"}


def _text(config: Mapping[str, Any]) -> str:
    return json.dumps(config, sort_keys=True)


def _jobs(
    chosen: list[dict[str, Any]],
    configs: list[TrainingConfig],
    starts: Mapping[str, _Start],
    seeds: tuple[int, ...],
    data: Data,
) -> list[tuple[dict[str, Any], list[tuple[int, dict[str, Any]]]]]:
    """The settings, each with (seed, key) of its jobs. A key names all that a result hangs on but
    the values of the data."""
    prints = {name: fingerprint(start.model()) for name, start in starts.items()}
    wanted = []
    for config, settings in zip(configs, chosen, strict=True):
        quantizers = settings.get("quantizers", "")
        about = {
            "quantizers": quantizers,
            "start": prints[quantizers],
            "data": data.name,
            "config": json.loads(_text(config_as_data(config))),
            "qatexplorer": __version__,
        }
        wanted.append((settings, [(seed, {**about, "seed": seed}) for seed in seeds]))
    return wanted


def _reporter(
    progress: Callable[[str, float], Any] | None,
) -> Callable[[TrialsProgress], Any] | None:
    if progress is None:
        return None

    def report(now: TrialsProgress) -> None:
        left = "" if now.eta_s is None else f", about {now.eta_s:,.0f} s left"
        progress(f"{now.done} of {now.total} trainings done{left}", now.done / max(1, now.total))

    return report
