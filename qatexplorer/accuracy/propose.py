"""Which modules to leave in float, or to give more bits, so that a wished metric is reached.

The search is greedy. Modules are taken one after another in the order of a ranking of fake quants;
each set on the way is prepared by torch to see which fake quants it has no more, and the metric is
measured on the model as it is with those off. From the first set that reaches the wish every module
is then taken back that it does not need, the cheapest first, until each is needed. A smaller set of
other modules may reach it too: that is not looked for, as it would take all sets.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import nn
from torch.ao.quantization import QConfig

from qatexplorer.accuracy.places import Place, places_of, without
from qatexplorer.accuracy.records import Proposal, ProposalPoint, Sensitivity, reaches
from qatexplorer.accuracy.sensitivity.rank import MetricMode
from qatexplorer.accuracy.swapped import swapped
from qatexplorer.data import Batch
from qatexplorer.evaluate.metric import Metric, evaluate, metric_name
from qatexplorer.flows import FLOWS
from qatexplorer.flows.exceptions import bits_of, with_exceptions, with_weight_bits
from qatexplorer.flows.qconfig import QConfigPlan
from qatexplorer.forward.preserve import preserved_rng
from qatexplorer.quantizers.facts import kinds_of, quant_range
from qatexplorer.snapshot.records import FakeQuantSite, Snapshot

Treatment = Literal["float"] | int
Progress = Callable[[str, float], Any]


class _Stopped(Exception):
    """The user has stopped it."""


@dataclass(frozen=True)
class Ground:
    """What is measured on.

    Attributes:
        model: prepared and trained or calibrated, all fake quants on; it is run, and its flags are
            put back.
        snapshot: of the stage with all fake quants. base: the float model that it was made of.
        plan: qconfigs in force. prepare: makes the model of another plan, as torch does.
        batches: (input, target) pairs, the same ones each time. metric: None is accuracy.
        macs: multiply-adds by path of the float model.
    """

    model: nn.Module
    snapshot: Snapshot
    base: nn.Module
    plan: QConfigPlan
    prepare: Callable[[QConfigPlan], nn.Module]
    batches: Iterable[Batch]
    metric: Metric | None
    macs: Mapping[str, int]


@dataclass(frozen=True)
class _Trial:
    """What torch makes of a set of modules: fake quants that are gone, weights on other codes."""

    gone: frozenset[Place]
    codes: Mapping[str, tuple[int, int]]  # of each weight that has a fake quant, by its path
    made: Mapping[str, nn.Module] = field(compare=False)  # the fake quants of those on other codes

    @property
    def key(self) -> tuple[Any, ...]:
        return self.gone, tuple(sorted(self.codes.items()))


@dataclass(frozen=True)
class Candidate:
    """A module of the ranking. ``qconfig`` is what it would get, ``score`` the sum of the scores of
    its fake quants."""

    path: str
    score: float
    qconfig: QConfig | None


class Trials:
    """Measures sets of modules, each once; kept as long as the model stays what it is."""

    def __init__(self, ground: Ground, treatment: Treatment) -> None:
        self.ground, self.treatment = ground, treatment
        self.evaluations = self.samples = 0
        self.notes: dict[str, str] = {}
        self._places = places_of(ground.model)
        self._codes = _weight_codes(ground.model)
        self._metrics: dict[tuple[Any, ...], float] = {}
        self._points: dict[frozenset[str], ProposalPoint | None] = {}
        self._counted = False

    def candidates(self, ranking: Sensitivity) -> list[Candidate]:
        """The modules of the ranking that can have a qconfig of their own, the worst first."""
        sites = self.ground.snapshot.site_by_path
        known = dict(self.ground.base.named_modules())
        scores: dict[str, float] = {}
        left: set[str] = set()
        for row in ranking.rows:
            site = sites.get(row.path)
            path = None if site is None else self._float_path(site)
            # What rounds the input of a layer that torchao swaps goes with the layer.
            alone = site is not None and site.kind == "input" and not site.blocks
            if site is None or path is None or path not in known or alone:
                left.add(row.path)
            elif self.treatment == "float" or self._is_narrow(site):
                scores[path] = scores.get(path, 0.0) + row.score
        if left and self.treatment == "float":
            flow = FLOWS.get(self.ground.snapshot.flow)
            by_module = flow is None or flow.offers_qconfig
            self.notes["left"] = _left_words(sorted(left), by_module)
        worst = sorted(scores, key=lambda path: -_sortable(scores[path]))
        made = [Candidate(path, scores[path], self._qconfig_of(path)) for path in worst]
        if self.treatment == "float":
            return made
        for one in made:
            if one.qconfig is None:
                self.notes[one.path] = (
                    f"{one.path} is not tried: its weight factory takes no range."
                )
        return [one for one in made if one.qconfig is not None]

    def float_metric(self, should_stop: Callable[[], bool] | None) -> float:
        """Metric with all fake quants off. Raises _Stopped."""
        trial = _Trial(frozenset(self._places), {}, {})
        if trial.key not in self._metrics:
            self._metrics[trial.key] = self._metric(trial, should_stop)
        return self._metrics[trial.key]

    def point(
        self, chosen: Sequence[Candidate], should_stop: Callable[[], bool] | None
    ) -> ProposalPoint | None:
        """These modules measured; None if torch cannot prepare that, or what it prepares has a
        fake quant where the model has none. Raises _Stopped."""
        key = frozenset(one.path for one in chosen)
        if key not in self._points:
            trial = self._trial(chosen)
            measured = None if trial is None else self._measured(chosen, trial, should_stop)
            self._points[key] = measured
        found = self._points[key]
        return None if found is None else replace(found, modules=tuple(c.path for c in chosen))

    # -- inside ---------------------------------------------------------------------------------

    def _float_path(self, site: FakeQuantSite) -> str | None:
        record = self.ground.snapshot.by_path.get(site.owner)
        if record is None or not site.owner:
            return None
        return record.origin or None

    def _is_narrow(self, site: FakeQuantSite) -> bool:
        bits = self.treatment
        narrow = isinstance(bits, int) and bits_of(site.quant_min, site.quant_max) < bits
        return site.kind == "weight" and narrow

    def _qconfig_of(self, path: str) -> QConfig | None:
        if not isinstance(self.treatment, int):
            return None
        return widened(path, self.ground.model, self.ground.snapshot, self.treatment)

    def _trial(self, chosen: Sequence[Candidate]) -> _Trial | None:
        plan = with_exceptions(self.ground.plan, {one.path: one.qconfig for one in chosen})
        last = chosen[-1].path if chosen else ""
        if not chosen:
            return _Trial(frozenset(), self._codes, {})
        try:
            prepared = self.ground.prepare(plan)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            self.notes[last] = f"{last} is not tried: torch cannot prepare that ({why})."
            return None
        there = places_of(prepared)
        if not there.keys() <= self._places.keys():
            self.notes[last] = (
                f"{last} is not tried: without it torch quantizes a tensor that is not quantized "
                "now, and nothing is known of its range."
            )
            return None
        named = dict(prepared.named_modules())
        # A graph numbers its fake quants: without some of them the others have other names.
        here = {path: self._places[place] for place, path in there.items()}
        renamed = {here[path]: path for path in _weight_codes(prepared)}
        codes = {mine: quant_range(named[path]) for mine, path in renamed.items()}
        other = {p: named[renamed[p]] for p, c in codes.items() if c != self._codes.get(p)}
        return _Trial(frozenset(self._places.keys() - there.keys()), codes, other)

    def _measured(
        self, chosen: Sequence[Candidate], trial: _Trial, should_stop: Callable[[], bool] | None
    ) -> ProposalPoint:
        metric = self._metrics.get(trial.key)
        if metric is None:
            metric = self._metrics[trial.key] = self._metric(trial, should_stop)
        return ProposalPoint(
            tuple(one.path for one in chosen),
            metric,
            self._size(trial.codes),
            self._share(trial.codes),
            str(self.treatment),
        )

    def _metric(self, trial: _Trial, should_stop: Callable[[], bool] | None) -> float:
        ground = self.ground
        with ExitStack() as stack:
            stack.enter_context(preserved_rng())
            if trial.made:
                stack.enter_context(swapped(ground.model, trial.made, ground.batches))
            model = stack.enter_context(without(ground.model, trial.gone))
            value = evaluate(model, ground.batches, ground.metric, should_stop)
        if not value.complete:
            raise _Stopped
        self.evaluations, self.samples = self.evaluations + 1, value.samples
        return value.value

    def _size(self, codes: Mapping[str, tuple[int, int]]) -> int:
        model, sites = self.ground.model, self.ground.snapshot.site_by_path
        bits = {id(p): 8 * p.element_size() for p in model.parameters()}
        total = sum(p.numel() * p.element_size() for p in model.parameters())
        named = dict(model.named_modules())
        done: set[int] = set()
        for path, (low, high) in codes.items():
            weight = getattr(named.get(path.rpartition(".")[0]), "weight", None)
            site = sites.get(path)
            if isinstance(weight, nn.Parameter):
                if id(weight) in done:
                    continue
                done.add(id(weight))
                numel, wide = weight.numel(), bits.get(id(weight), 32)
            elif site is not None and site.tensor_shape:
                numel, wide = math.prod(site.tensor_shape), 32
            else:
                continue
            total -= numel * wide // 8 - math.ceil(numel * bits_of(low, high) / 8)
        return total

    def _share(self, codes: Mapping[str, tuple[int, int]]) -> float:
        sites, macs = self.ground.snapshot.site_by_path, self.ground.macs
        whole = macs.get("", 0)
        owners = {self._float_path(sites[path]) for path in codes if path in sites}
        return sum(macs.get(p, 0) for p in owners if p) / whole if whole else 0.0


@dataclass(frozen=True)
class Wish:
    """The metric to reach: ``metric`` itself, or one by ``drop`` worse than the float model's.
    ``mode`` says whether more of it is better."""

    metric: float | None = None
    drop: float = 0.0
    mode: MetricMode = "max"

    def wished(self, float_metric: float) -> float:
        if self.metric is not None:
            return self.metric
        return float_metric - self.drop if self.mode == "max" else float_metric + self.drop


def propose(
    trials: Trials,
    ranking: Sensitivity,
    wish: Wish,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Proposal:
    """The curve over the ranking, and the smallest set found that reaches the wish.

    Stopped, it returns the points that were measured (``complete`` is False).
    """
    begun, before = time.perf_counter(), trials.evaluations
    search = _Search(trials, trials.candidates(ranking), wish, progress, should_stop)
    complete = True
    try:
        search.run()
    except _Stopped:
        complete = False
    return search.answer(complete, trials.evaluations - before, time.perf_counter() - begun)


class _Search:
    """One search: forward along the ranking, then back from the first set that reaches the wish."""

    def __init__(
        self,
        trials: Trials,
        found: Sequence[Candidate],
        wish: Wish,
        progress: Progress | None,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self._trials, self._found, self._wish = trials, found, wish
        self._progress, self._should_stop = progress, should_stop
        self._done, self._at_most = 0, 2 * len(found) + 2
        self._points: dict[frozenset[str], ProposalPoint] = {}
        self._float: float | None = None
        self._wished = math.nan

    def run(self) -> None:
        self._say("all in float")
        self._float = self._trials.float_metric(self._should_stop)
        self._wished = self._wish.wished(self._float)
        taken: list[Candidate] = []
        first: list[Candidate] | None = None
        for now in ([], *([one] for one in self._found)):
            point = self._measure([*taken, *now])
            if point is not None:
                taken = [*taken, *now]
                self._points[frozenset(point.modules)] = point
                if first is None and self._reaches(point):
                    first = taken
        if first is not None:
            self._take_back(first)

    def _take_back(self, chosen: list[Candidate]) -> None:
        """Without the modules that it does not need, those of the least score first, until every
        one of them is needed."""
        point: ProposalPoint | None = None
        while True:
            for one in sorted(chosen, key=lambda c: _sortable(c.score)):
                tried = self._measure([other for other in chosen if other is not one])
                if tried is not None and self._reaches(tried):
                    chosen, point = [other for other in chosen if other is not one], tried
                    break
            else:
                break
        if point is not None:
            self._points[frozenset(point.modules)] = point

    def answer(self, complete: bool, evaluations: int, seconds: float) -> Proposal:
        """What was found, as a record."""
        points = tuple(sorted(self._points.values(), key=lambda p: len(p.modules)))
        trials = self._trials
        made = Proposal(
            points=points,
            wished=self._wished,
            treatment=str(trials.treatment),
            metric_name=metric_name(trials.ground.metric),
            metric_mode=self._wish.mode,
            float_metric=self._float,
            complete=complete,
            evaluations=evaluations,
            samples=trials.samples,
            seconds=seconds,
            notes=tuple(trials.notes.values()),
        )
        return replace(made, chosen=made.first_that_reaches(self._wished))

    def _measure(self, chosen: Sequence[Candidate]) -> ProposalPoint | None:
        self._say(_doing(len(chosen), self._trials.treatment))
        return self._trials.point(chosen, self._should_stop)

    def _reaches(self, point: ProposalPoint) -> bool:
        return reaches(point.metric, self._wished, self._wish.mode)

    def _say(self, what: str) -> None:
        if self._progress is not None:
            self._progress(what, min(1.0, self._done / self._at_most))
        self._done += 1


def widened(path: str, model: nn.Module, snapshot: Snapshot, bits: int) -> QConfig | None:
    """The qconfig of the module that is at ``path`` in the float model, with ``bits`` bits for its
    weight; None where it has none, or its factory takes no range. ``model`` is prepared."""
    named = dict(model.named_modules())
    for record in snapshot.modules:
        module = named.get(record.path)
        if record.origin == path and hasattr(module, "weight_fake_quant"):
            qconfig = getattr(module, "qconfig", None)
            return None if qconfig is None else with_weight_bits(qconfig, bits)
    return None


def _weight_codes(model: nn.Module) -> dict[str, tuple[int, int]]:
    named = dict(model.named_modules())
    kinds = kinds_of(model)
    fake = set(places_of(model).values())
    return {
        path: quant_range(named[path])
        for path, kind in kinds.items()
        if kind == "weight" and path in fake and path in named
    }


def _sortable(score: float) -> float:
    return math.inf if math.isnan(score) else score


def _doing(count: int, treatment: Treatment) -> str:
    if not count:
        return "all quantized"
    modules = f"{count:,} module{'s' if count > 1 else ''}"
    return f"{modules} in float" if treatment == "float" else f"{modules} at {treatment} bits"


def _left_words(paths: Sequence[str], by_qconfig: bool) -> str:
    shown = ", ".join(paths[:4]) + (f" and {len(paths) - 4:,} more" if len(paths) > 4 else "")
    why = "no qconfig of a module decides about them" if by_qconfig else "no module holds them"
    return f"Not among what can be left in float, since {why}: {shown}."
