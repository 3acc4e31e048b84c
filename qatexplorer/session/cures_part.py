"""The part of a session that wins accuracy back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, get_args

import torch
from torch import Tensor, nn

from qatexplorer.cures import (
    CURES,
    Cost,
    Cured,
    Ground,
    Judged,
    LayerChange,
    Look,
    NewSettings,
    Offer,
    Work,
    WorkDone,
    offers,
)
from qatexplorer.data import call_model
from qatexplorer.errors import InputError, NoDataError, StoppedError
from qatexplorer.evaluate.metric import MetricValue, evaluation_mode
from qatexplorer.flows.qconfig_rules import QConfigRule
from qatexplorer.forward.preserve import preserved_rng
from qatexplorer.session.assess import PTQ_BATCHES, Assessor
from qatexplorer.session.editing import changed
from qatexplorer.session.models import Models
from qatexplorer.session.part import Part
from qatexplorer.session.settings import Settings
from qatexplorer.snapshot.records import Snapshot

Report = Callable[[str, float], Any]
ShouldStop = Callable[[], bool]


@dataclass(frozen=True)
class _Begun:
    """What a cure that changed the settings leads back to, and what it left."""

    settings: Settings
    base: nn.Module
    after: Settings


@dataclass(frozen=True)
class _Worked:
    """The tensors of the working model as they were, and what a cure has noted in its walk."""

    model: nn.Module
    tensors: Mapping[str, Tensor]
    done: WorkDone


class CuresPart(Part):
    """Actions that win accuracy back, each measured on the same data before and after."""

    _cured: tuple[tuple[Cured, _Begun | _Worked], ...] = ()
    _offered: tuple[tuple[Any, ...], tuple[Any, ...], tuple[Offer, ...]] | None = None

    def _start_again(self, settings: Settings | None, *events: Any, base: Any = None) -> Snapshot:
        raise NotImplementedError

    def _describe_again(self) -> None:
        raise NotImplementedError

    def _refuse_what_has_no_kernel(self, rules: tuple[QConfigRule, ...]) -> None:
        raise NotImplementedError

    def use_qconfig_rules(self, rules: Iterable[QConfigRule]) -> Snapshot:
        """Put these in place of the rules in force."""
        raise NotImplementedError

    @property
    def cures(self) -> tuple[Offer, ...]:
        """All cures, each with what it would do to this model as it is now and what that costs, or
        with why it does not apply. Looking copies the float model; what was found is kept until
        the model, its settings or what is measured of it is another."""
        with self._lock:
            ground = self._ground()
            objects = (ground.base, ground.options, ground.work, self.data)
            known = [self._assessor.is_known(what) for what in ("float", *get_args(Judged))]
            facts = (ground.observed, ground.trained, ground.worked, *known)
            last = self._offered
            if last is None or last[1] != facts or not _all_same(last[0], objects):
                self._offered = last = (objects, facts, tuple(offers(ground, self._cost)))
            return last[2]

    @property
    def before_training(self) -> Cured | Offer | None:
        """What speaks for something else than training as the first thing to try with this model:
        a cure in force that has brought int8 back after calibration alone, else a cure that
        something measured of this model speaks for (``signs``), else None. None once the model has
        been trained."""
        with self._lock:
            if self._models.trained or self.running:
                return None
            brought = [one for one in self.cured if one.brings_int8_back]
            if brought:
                return brought[-1]
            return next((one for one in self.cures if one.signs), None)

    @property
    def cured(self) -> tuple[Cured, ...]:
        """The cures that :meth:`undo_cure` can take back, in the order in which they were applied:
        none of them has been followed by training, calibration or other settings."""
        return tuple(record for record, back in self._in_force())

    def cure(
        self,
        name: str,
        *,
        progress: Report | None = None,
        should_stop: ShouldStop | None = None,
        **settings: Any,
    ) -> Cured:
        """Apply the cure ``name`` to the session's own model; :meth:`undo_cure` takes it back.

        ``"equalization"`` (no settings) and ``"ranges"`` (``activation``, ``weight``: a name of
        :data:`qatexplorer.cures.ranges.OBSERVERS`; ``percentile``) begin the walk again from the
        float stage, and are judged by int8 after calibration alone. ``"biases"`` and
        ``"batch_norms"`` (``batches`` of the training data) work on the prepared model as it is,
        after calibration or training, and are judged by the metric with fake quants. The user's
        model stays as it is.

        Args:
            progress: called with what is being done and the share done, 0 to 1.
            should_stop: asked between batches; True ends it, and all is as it was.

        Raises InputError for a cure that there is not, that does not apply or that does not take
        the settings (QConfigError), NoDataError, BusyError, StoppedError, and what converting and
        running the models raise; nothing has changed then.
        """
        if name not in CURES:
            raise InputError(
                f"there is no cure {name!r}.", fix=f"The cures are {', '.join(CURES)}."
            )
        self._require_data("a cure")
        watch = _Watch(progress, should_stop)
        with self._lock:
            self._require_idle("apply a cure")
            ground = self._ground()
            why = CURES[name].why_not(ground)
            if why:
                raise InputError(f"the cure {name!r} does not apply here.", why=why)
            try:
                plan = CURES[name].plan(ground, **settings)
            except TypeError as error:
                raise InputError(
                    f"the cure {name!r} cannot be planned with these settings.", why=str(error)
                ) from error
            before = self._in_force()
            found = (
                self._work(name, settings, plan, watch)
                if isinstance(plan, Work)
                else self._begin(name, settings, plan, watch)
            )
            self._cured = (*before, found)
        self._emit("stage", self.stage)
        return found[0]

    def undo_cure(self) -> Snapshot:
        """Take back the last of :attr:`cured`. One that began the walk again leads to the float
        stage as it was before. Raises BusyError, InputError where there is none."""
        with self._lock:
            self._require_idle("take back a cure")
            in_force = self._in_force()
            if not in_force:
                raise InputError(
                    "there is no cure to take back.",
                    why="None was applied, or something else has changed the model since.",
                )
            *rest, (_, back) = in_force
            if isinstance(back, _Begun):
                self._start_again(back.settings, "config", base=back.base)
            else:
                self.goto(self.flow.train_stage)
                self._stages.forget_converted()
                self._put_back(back)
                self._models.done.pop()
                self._describe_again()
            self._cured = tuple(rest)
        self._emit("stage", self.stage)
        return self.snapshot

    # -- inside ---------------------------------------------------------------------------------

    def _cost(self, judged: Judged, look: Look) -> Cost | None:
        if self.data is None:
            return None
        known = [self._assessor.is_known(what) for what in ("float", judged)]
        times = 1 + known.count(False)
        batches = _length(self.data.eval)
        training = _at_most(look.batches, self.data.train) * look.passes
        if judged == "ptq":
            calibrated = 1 + (not known[1])
            training += _at_most(PTQ_BATCHES, self.data.train) * calibrated
        return Cost(training, None if batches is None else batches * times)

    def _ground(self) -> Ground:
        models, names = self._models, self.flow.stage_names
        there = names.index(models.work_stage) >= names.index(self.flow.prepared_stage)
        base, plan = models.base, models.options.qconfig
        return Ground(
            self.flow,
            models.options,
            models.settings.edits,
            base,
            plan.effective(base, "", self.flow.by_graph),
            models.work if there else None,
            there and models.observed,
            models.trained,
            tuple(one.recipe for one in models.done if isinstance(one, WorkDone)),
            self.data is not None,
        )

    def _in_force(self) -> tuple[tuple[Cured, _Begun | _Worked], ...]:
        """Those cures that nothing else has come after that they could not be taken back from."""
        found: list[tuple[Cured, _Begun | _Worked]] = []
        done, settings = list(self._models.done), self._models.settings
        for record, back in reversed(self._cured):
            if isinstance(back, _Worked):
                if back.model is not self._models.work or not done or done.pop() is not back.done:
                    continue
            elif back.after is not settings:
                continue
            else:
                settings, done = back.settings, []
            found.insert(0, (record, back))
        return tuple(found)

    def _begin(
        self, name: str, given: Mapping[str, Any], plan: NewSettings, watch: _Watch
    ) -> tuple[Cured, _Begun]:
        old = self._models.settings, self._models.base
        watch.report("float model", 0.0)
        whole = self._judge(self._assessor, "float", watch)
        watch.report("int8 before it", 0.1)
        before = self._judge(self._assessor, "ptq", watch)
        watch.report(CURES[name].title, 0.4)
        started = time.perf_counter()
        base, settings = changed(self._models, plan.given)
        if plan.rules is not None:
            self._refuse_what_has_no_kernel(plan.rules)
        seconds = time.perf_counter() - started
        watch.report("int8 after it", 0.6)
        # Of models of their own: until all is known the session stays what it is.
        trial = Assessor(Models(base, settings), self.data, self.metric)
        after = self._judge(trial, "ptq", watch)
        if plan.rules is not None:
            self.use_qconfig_rules(plan.rules)
        else:
            self._start_again(settings, "config", base=base)
        watch.report("done", 1.0)
        record = Cured(
            name,
            dict(given),
            "ptq",
            before,
            after,
            seconds,
            plan.changes,
            whole,
            _layers(plan, old[1], base),
            self.flow.result,
        )
        return record, _Begun(*old, self._models.settings)

    def _work(
        self, name: str, given: Mapping[str, Any], plan: Work, watch: _Watch
    ) -> tuple[Cured, _Worked]:
        self.goto(self.flow.train_stage)
        watch.report("float model", 0.0)
        whole = self._judge(self._assessor, "float", watch)
        watch.report("fake quant before it", 0.1)
        before = self._judge(self._assessor, "fake_quant", watch)
        model = self._models.own_work()
        done = WorkDone(plan.recipe, plan.batches)
        back = _Worked(model, _tensors(model, plan.tensors), done)
        started = time.perf_counter()
        try:
            done = self._run_recipe(model, plan, watch, CURES[name].title)
            back = _Worked(model, back.tensors, done)
            seconds = time.perf_counter() - started
            self._describe_again()
            watch.report("fake quant after it", 0.9)
            after = self._judge(self._assessor, "fake_quant", watch)
        except BaseException:
            self._put_back(back)
            self._describe_again()
            raise
        self._stages.forget_converted()
        self._models.done.append(done)
        watch.report("done", 1.0)
        changes = _moved(back.tensors, _tensors(model, plan.tensors))
        given = dict(given)
        return Cured(name, given, "fake_quant", before, after, seconds, changes, whole), back

    def _run_recipe(self, model: nn.Module, plan: Work, watch: _Watch, title: str) -> WorkDone:
        # As the script does it, whose random numbers must be the same.
        with preserved_rng(), evaluation_mode(model):
            torch.manual_seed(0)
            batches = list(islice(iter(self._require_data("a cure").train), plan.batches))
            if not batches:
                raise NoDataError("a cure needs at least one training batch; there is none.")
            watched = _Watched(batches, len(batches) * plan.passes, watch, title)
            plan.recipe(model, watched, call_model)
        return WorkDone(plan.recipe, len(batches))

    def _put_back(self, back: _Worked) -> None:
        now = back.model.state_dict(keep_vars=True)
        with torch.no_grad():
            for name, tensor in back.tensors.items():
                now[name].copy_(tensor)

    def _judge(self, assessor: Assessor, what: str, watch: _Watch) -> MetricValue:
        value = assessor.judged(what, watch.should_stop)
        if not value.complete:
            raise StoppedError("the cure was stopped; the model is as it was.")
        return value


class _Watch:
    """Reports, and asks whether to stop."""

    def __init__(self, progress: Report | None, should_stop: ShouldStop | None) -> None:
        self.report = progress or (lambda what, share: None)
        self.should_stop = should_stop

    def go_on(self) -> None:
        if self.should_stop is not None and self.should_stop():
            raise StoppedError("the cure was stopped; the model is as it was.")


class _Watched:
    """Batches that report how far a recipe is each time one of them is taken."""

    def __init__(self, batches: list[Any], total: int, watch: _Watch, title: str) -> None:
        self._batches, self._total, self._watch, self._title = batches, total, watch, title
        self._taken = 0

    def __iter__(self) -> Iterator[Any]:
        for batch in self._batches:
            self._watch.go_on()
            self._watch.report(self._title, 0.2 + 0.7 * self._taken / self._total)
            self._taken += 1
            yield batch


def _all_same(one: Iterable[Any], other: Iterable[Any]) -> bool:
    return all(a is b for a, b in zip(one, other, strict=True))


def _length(batches: Any) -> int | None:
    try:
        return len(batches)
    except TypeError:
        return None


def _at_most(batches: int, data: Any) -> int:
    there = _length(data)
    return batches if there is None else min(batches, there)


def _layers(plan: NewSettings, old: nn.Module, new: nn.Module) -> tuple[LayerChange, ...]:
    if plan.figure is None:
        return ()
    before, after = plan.figure.of(old), plan.figure.of(new)
    return tuple(LayerChange(p, plan.figure.name, before[p], after[p]) for p in before)


def _tensors(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    state = model.state_dict()
    return {name: state[name].detach().clone() for name in names}


def _moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> tuple[str, ...]:
    """A line for each tensor that is another now, with how far its values have moved at most."""
    return tuple(
        f"{name}: values moved by up to {float((after[name] - old).abs().max()):.3g}"
        for name, old in before.items()
        if old.is_floating_point() and not torch.equal(old, after[name])
    )
