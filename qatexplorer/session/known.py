"""What is wrong with a session's model, said at every stage, and the calls that put it right.

What can be read off the settings and snapshots is always known. Whether the int8 model will run is
found out by trying: a copy is prepared, converted and run once (:meth:`Known.try_int8`). A fix
that such a trial can check is offered only if it has passed it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from qatexplorer.checks.evidence.dry_run import DryRun
from qatexplorer.checks.records import Change, Finding, Fix, Severity, worst_first
from qatexplorer.checks.rules import Found, rule_named
from qatexplorer.data import Data
from qatexplorer.errors import QatExplorerError, TraceFailedError
from qatexplorer.flows import FLOWS, Flow, other_kind
from qatexplorer.flows.own_qconfig import with_fake_quants
from qatexplorer.flows.stubs import has_stubs
from qatexplorer.flows.user_hooks import WHY, way_out
from qatexplorer.quantizers.engine_choice import DEFAULT_QCONFIG, default_backend
from qatexplorer.session.assess import (
    Assessor,
    Preflight,
    count_int8,
    count_weights,
    float_weights,
)
from qatexplorer.session.editing import changed
from qatexplorer.session.models import Models
from qatexplorer.session.stages import Stages
from qatexplorer.snapshot.records import FakeQuantSite, Snapshot

_SHOWN = 2
_PREFIX = "The int8 model cannot run: "


@dataclass(frozen=True)
class Trial:
    """A copy taken to int8: ``flight`` says how that went; ``prepared`` is False if the copy could
    not even be prepared."""

    flight: Preflight
    prepared: bool = True

    @property
    def good(self) -> bool:
        """It runs in int8, and something of it is int8."""
        return self.flight.ok and self.flight.weights > 0


class Known:
    """Finds them for one session. Nothing but :meth:`try_int8` runs a model."""

    def __init__(self, models: Models, stages: Stages, data: Data | None) -> None:
        self._models, self._stages, self._data = models, stages, data
        self._tried_for: tuple[object, bool] | None = None
        self._trials: dict[Change, Trial] = {}

    # -- trials ---------------------------------------------------------------------------------

    def try_int8(
        self, lock: AbstractContextManager[Any], may_run: Callable[[], bool], thorough: bool = True
    ) -> None:
        """Take a copy to int8, once for these settings; where that fails, ``thorough`` tries the
        changes of settings that may help. ``lock`` is held for one trial at a time; nothing is
        tried where ``may_run()`` is False."""
        with lock:
            if not may_run() or not self._models.base.training:
                return
            now = self._trial(())
        for fix in self._ways_out() if thorough and not now.good else ():
            with lock:
                if not may_run() or self._known(()) is not now:
                    return
                self._trial(fix.arguments)

    def learn(self, run: DryRun) -> None:
        """Take over what a check's dry run has shown, where no trial has been made."""
        if self._known(()) is not None:
            return
        weights = count_weights(run.prepared) if run.prepared is not None else 0
        if run.built is None:
            flight = Preflight(False, run.error, weights=weights)
        else:
            int8 = run.built.result.model
            counts = (count_int8(int8), None, run.built.joins, weights, float_weights(int8))
            flight = Preflight(True, None, *counts)
        self._begin_trials()
        self._trials[()] = Trial(flight, prepared=run.prepared is not None)

    def _begin_trials(self) -> None:
        if not self._up_to_date():
            self._trials = {}
            self._tried_for = (self._models.settings, self._models.base.training)

    def _trial(self, change: Change) -> Trial:
        self._begin_trials()
        if change not in self._trials:
            self._trials[change] = self._run_trial(change)
        return self._trials[change]

    def _known(self, change: Change) -> Trial | None:
        return self._trials.get(change) if self._up_to_date() else None

    def _up_to_date(self) -> bool:
        tried_for = self._tried_for
        if tried_for is None:
            return False
        settings, training = tried_for
        return settings is self._models.settings and training == self._models.base.training

    def _run_trial(self, change: Change) -> Trial:
        models = self._models
        try:
            if change:
                models = Models(*changed(models, dict(change)))
            return Trial(Assessor(models, None, None).preflight(islands=False))
        except Exception as error:
            return Trial(Preflight(False, models.translated(error, models.base)), prepared=False)

    def _ways_out(self) -> tuple[Fix, ...]:
        """Changes of settings that help some models to int8, the mildest first."""
        flow, options = self._models.flow, self._models.options
        own = has_stubs(self._models.base)
        found = []
        if options.qconfig.default is None:
            found.append(_configured("Quantize the whole model", qconfig=default_backend().qconfig))
        if flow.offers_stubs:
            if not own and options.stubs != "model":
                found.append(_configured("Wrap the model in stubs", stubs="model"))
            if options.stubs != "layers":
                found.append(_configured("Wrap each layer", stubs="layers"))
        if any(isinstance(module, nn.MultiheadAttention) for module in self._models.base.modules()):
            found.append(_configured("Leave attention float", qat_mapping="attention"))
        other = other_kind(flow)
        change: dict[str, Any] = {"flow": other.name}
        if other.offers_stubs and not own and options.stubs == "none":
            change["stubs"] = "layers"
        more = ", each layer wrapped" if "stubs" in change else ""
        found.append(_configured(f"Use {_short(other)}{more}", **change))
        found += (_configured(f"Use {_short(f)}", flow=f.name) for f in self._without_tracing())
        return tuple(found)

    def _without_tracing(self) -> list[type[Flow]]:
        """The flows without qconfigs that can run here, where torch.fx cannot trace."""
        now = self._known(())
        failed = now is not None and isinstance(now.flight.error, TraceFailedError)
        if not (failed and self._models.flow.traces_with_fx):
            return []
        return [f for f in FLOWS.values() if not f.offers_qconfig and not f().unavailable()]

    def _passed(self) -> tuple[Fix, ...]:
        """The ways out that a trial has shown to lead to int8."""
        tried = ((fix, self._known(fix.arguments)) for fix in self._ways_out())
        return tuple(fix for fix, trial in tried if trial is not None and trial.good)

    # -- what is known --------------------------------------------------------------------------

    def found(self) -> tuple[Finding, ...]:
        """All that is known now, the worst first."""
        every = (
            *self._of_mode(),
            *self._of_qconfig(),
            *self._of_engine(),
            *self._of_int8(),
            *self._of_weights(),
            *self._of_hooks(),
            *self._of_observers(),
            *self._of_floats(),
        )
        return worst_first(every)

    def _of_mode(self) -> Iterator[Finding]:
        if not self._models.base.training:
            yield _finding(
                "eval-mode",
                "error",
                "",
                self._stages.names[1],
                "The model is in eval mode, and quantization-aware training needs train mode.",
                "Put the session's copy into train mode; your model stays as it is.",
                (
                    Fix(
                        "Put the copy into train mode",
                        "use_train_mode",
                        code="session.use_train_mode()",
                    ),
                ),
            )

    def _of_qconfig(self) -> Iterator[Finding]:
        plan = self._models.options.qconfig
        if not plan.watched:
            return
        places = _listed([path or "the whole model" for path, _ in plan.watched])
        code = f"session.configure(qconfig={plan.better!r})"
        change = (("qconfig", with_fake_quants(plan)),)
        yield _finding(
            "post-training-qconfig",
            "error",
            plan.watched[0][0],
            self._stage_with("qconfig"),
            f"Observers stand where fake quants belong ({places}): nothing is rounded there, and "
            "training will not feel what int8 does.",
            f"Pass qconfig={plan.better!r}.",
            (Fix("Use fake quants", "configure", change, code),),
        )

    def _of_engine(self) -> Iterator[Finding]:
        plan = self._models.options.qconfig
        concern = plan.concern
        if concern is None:
            return
        fixes: tuple[Fix, ...] = ()
        best = default_backend()
        if concern.kind == "clamps":
            if plan.default_of and not (plan.by_path or plan.by_type or plan.by_regex):
                label = "Train on all codes"
                fixes = (_configured(label, qconfig=DEFAULT_QCONFIG, engine=plan.backend),)
        elif best.engine != plan.backend:
            change = {"engine": best.engine}
            if best.qconfig != DEFAULT_QCONFIG:
                change["qconfig"] = best.qconfig
            fixes = (_configured(f"Use engine {best.engine}", **change),)
        yield _finding(
            f"engine-{concern.kind}",
            "info" if concern.kind == "clamps" else "error",
            "",
            self._models.flow.int8_stage,
            concern.message,
            concern.fix,
            fixes,
        )

    def _of_int8(self) -> Iterator[Finding]:
        """What the trial has shown."""
        trial = self._known(())
        flow = self._models.flow
        unmarked = self._needs_stub()
        if trial is None or trial.flight.ok:
            notes = trial.flight.notes if trial is not None else ()
            for note in notes:
                yield _finding("int8-differs", "warning", "", flow.int8_stage, note)
            return
        error = trial.flight.error or QatExplorerError("It does not run.")
        path, where = error.where or "", f" ({error.where})" if error.where else ""
        source = Path(getattr(error, "source", "")).name
        fixes = self._passed()
        ways = tuple(fix for fix in fixes if dict(fix.arguments).keys() & {"stubs", "flow"})
        if not trial.prepared:
            yield _finding(
                "cannot-prepare",
                "error",
                path,
                flow.prepared_stage,
                f"The model cannot be prepared: {error.message.rstrip('.')}.",
                error.fix,
                fixes,
            )
        elif unmarked:
            yield _finding(
                "no-stub",
                "error",
                path,
                flow.int8_stage,
                "No QuantStub: the int8 model will not run.",
                f"Nothing turns the float input into int8{f' before {path}' * bool(path)}. "
                "Choose " + " or ".join(fix.code for fix in ways or self._ways_out()) + ".",
                ways,
            )
        else:
            yield _finding(
                "int8-fails",
                "error",
                path,
                flow.int8_stage,
                f"The int8 model will not run{where}: {error.message.removeprefix(_PREFIX)}",
                error.fix,
                fixes,
                source,
            )

    def _needs_stub(self) -> bool:
        """Whether the model is in want of a QuantStub: it has none, and nothing yet shows that
        stubs would not help either."""
        flow, options = self._models.flow, self._models.options
        if not flow.offers_stubs or options.stubs != "none" or has_stubs(self._models.base):
            return False
        modes = [self._known((("stubs", mode),)) for mode in ("model", "layers")]
        return None in modes or any(trial is not None and trial.good for trial in modes)

    def _of_weights(self) -> Iterator[Finding]:
        """Nothing has, or will get, a fake quant for its weight."""
        trial, prepared = self._known(()), self._prepared()
        if prepared is not None:
            none = not any(site.kind == "weight" for site in prepared.sites)
        else:
            none = trial is not None and trial.prepared and trial.flight.weights == 0
        if none:
            plan = self._models.options.qconfig
            why = " The qconfig for the whole model is None." if plan.default is None else ""
            yield _finding(
                "nothing-quantized",
                "error",
                "",
                self._models.flow.prepared_stage,
                f"No weight of this model gets a fake quant: all of them stay float.{why}",
                "session.ledger() says why, module by module.",
                self._passed(),
            )

    def _of_hooks(self) -> Iterator[Finding]:
        flow, fusion = self._models.flow, self._models.options.fusion
        for stage, places in self._stages.lost_hooks.items():
            for place in places:
                message = (
                    f"Your {place} ran in a forward up to here, and does not since {stage!r}. "
                    f"{WHY[flow.by_graph]}"
                )
                fix = way_out(place, fusion, flow.by_graph)
                yield _finding("lost-hook", "warning", place.path, stage, message, fix)

    def _of_observers(self) -> Iterator[Finding]:
        """What observers have seen, from the train stage on."""
        flow, snapshots = self._models.flow, self._stages.snapshots
        trained = snapshots.get(flow.train_stage)
        if trained is None:
            return
        unseen = [site for site in trained.sites if site.seen == "nothing"]
        some = any(site.seen in ("all", "partly") for site in trained.sites)
        if unseen and not some:
            yield self._never_observed()
        elif unseen:
            yield self._unseen(unseen)
        bad = [s for s in trained.sites if any(not math.isfinite(v) or v == 0 for v in s.scale)]
        if bad:
            yield _finding(
                "bad-scale",
                "error",
                bad[0].path,
                flow.train_stage,
                f"The scale of {_named_sites(bad)} is 0, infinite or NaN: what passes is lost.",
                "One batch with NaN or infinite values is enough to spoil an observer. Look for it "
                "in the data, then reset and train again.",
            )

    def _unseen(self, sites: Sequence[FakeQuantSite]) -> Finding:
        """Of those that a forward of the example input calls the first, if there are any."""
        called = [site for site in sites if site.calls_per_forward != 0]
        named, stage = _named_sites(called or sites), self._models.flow.train_stage
        initial = "their scales are still the initial ones."
        if called:
            return _finding(
                "unseen", "warning", called[0].path, stage,
                f"No data has come to {named}, though others have seen some: {initial}",
                "If their layers run only sometimes, train or calibrate on data that reaches them.",
            )  # fmt: skip
        return _finding(
            "unseen", "info", sites[0].path, stage,
            f"No forward of the example input calls {named}: {initial}",
            "A module that never runs does no harm; take it out of the model.",
        )  # fmt: skip

    def _never_observed(self) -> Finding:
        converted = [n for n in self._models.flow.converted_stages if n in self._stages.snapshots]
        fix = "Train, or show the observers some batches: session.calibrate()."
        fixes: tuple[Fix, ...] = ()
        if self._data is not None:
            fixes = (Fix("Calibrate", "calibrate", code="session.calibrate()"),)
        else:
            fix = "Pass data={'train': loader, 'eval': loader} to the session, then train."
        if converted:
            message = "No observer has seen data: the int8 model's outputs mean nothing."
            return _finding("never-observed", "error", "", converted[0], message, fix, fixes)
        message = "No observer has seen data yet: train or calibrate before you convert."
        stage = self._models.flow.train_stage
        return _finding("never-observed", "info", "", stage, message, fix, fixes)

    def _of_floats(self) -> Iterator[Finding]:
        """Layers that keep a float weight in the int8 model."""
        trial = self._known(())
        kept = trial.flight.float_weights if trial is not None and trial.flight.ok else ()
        # Without a ledger to say why, a rule of that kind of flow does.
        if kept and trial is not None and trial.flight.weights and self._models.flow.has_ledger:
            verb = "stays" if len(kept) == 1 else "stay"
            yield _finding(
                "stays-float",
                "info",
                kept[0],
                self._models.flow.int8_stage,
                f"{_listed(kept)} {verb} float in the int8 model.",
                "The ledger says why, layer by layer: session.ledger().floats."
                if self._models.flow.has_ledger
                else "",
            )

    # -- helpers --------------------------------------------------------------------------------

    def _prepared(self) -> Snapshot | None:
        """The last snapshot with all fake quants in."""
        snapshots, flow = self._stages.snapshots, self._models.flow
        return snapshots.get(flow.train_stage) or snapshots.get(flow.prepared_stage)

    def _stage_with(self, role: Any) -> str:
        stage = self._models.flow.stage_with(role)
        return stage.name if stage is not None else self._models.flow.prepared_stage


def _finding(
    name: str,
    severity: Severity,
    path: str,
    stage: str,
    message: str,
    fix: str = "",
    fixes: tuple[Fix, ...] = (),
    source: str = "",
) -> Finding:
    found = Found(path, message, fix, fixes, source, severity)
    return rule_named(name).finding(found, stage)


def _short(flow: Flow | type[Flow]) -> str:
    return flow.title.partition(" (")[0]


def _configured(label: str, **change: Any) -> Fix:
    shown = ", ".join(f"{name}={value!r}" for name, value in change.items())
    return Fix(label, "configure", tuple(change.items()), f"session.configure({shown})")


def _listed(names: Sequence[str]) -> str:
    """Two by name, more by number."""
    shown = [name or "the model itself" for name in names[:_SHOWN]]
    more = len(names) - len(shown)
    return f"{', '.join(shown)} and {more} more" if more > 0 else " and ".join(shown)


def _named_sites(sites: Sequence[FakeQuantSite]) -> str:
    return _listed([site.path for site in sites])
