"""``qatexplorer.watch``: sample the fake quants of a model while it trains, at a known price."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.ao.quantization import FakeQuantize

from qatexplorer.errors import InputError
from qatexplorer.runs.folder import RunFolder
from qatexplorer.runs.sample_files import SampleWriter, about_samples
from qatexplorer.runs.samples import (
    METRIC_INDEX,
    GradientHistogram,
    Overhead,
    StepSamples,
    rounded,
)
from qatexplorer.runs.store import Telemetry
from qatexplorer.telemetry.collect import Collector, RawSamples
from qatexplorer.telemetry.controller import Controller
from qatexplorer.telemetry.frame import step_samples
from qatexplorer.telemetry.gradients import (
    FIRST,
    GradientProbe,
    RawGradients,
    count_gradients,
    gradient_numbers,
)
from qatexplorer.telemetry.host import DeviceTimer, HostCopy
from qatexplorer.telemetry.probe import Clock, Probe, remember_ranges
from qatexplorer.telemetry.reversals import reversal_metrics
from qatexplorer.telemetry.states import Timeline
from qatexplorer.telemetry.watched import anything_compiled, find_watched, followed_paths
from qatexplorer.telemetry.weights import FollowedWeights

if TYPE_CHECKING:
    from os import PathLike

log = logging.getLogger(__name__)

NEVER_CALLED = "no forward has called it in the steps that were sampled"
MAYBE_COMPILED = (
    "no forward has called it in the step that was sampled: it does not run, or it runs inside "
    "code that torch.compile has compiled; its scale, range and state are recorded"
)
_MISSES = 3


def check_settings(every: Any, bins: int, budget: float, max_samples: int) -> None:
    """Raise InputError for settings that cannot work."""
    whole = isinstance(every, int) and not isinstance(every, bool) and every >= 1
    if every != "auto" and not whole:
        raise InputError(f"every is {every!r}; it must be 'auto' or a whole number of at least 1.")
    if not isinstance(bins, int) or bins < 2:
        raise InputError(f"bins is {bins!r}; it must be a whole number of at least 2.")
    if not (isinstance(budget, (int, float)) and 0 < budget < 1 and math.isfinite(budget)):
        raise InputError(
            f"budget is {budget!r}; it must be a share of the step time between 0 and 1.",
            fix="The default of 0.02 allows 2 %.",
        )
    if not isinstance(max_samples, int) or max_samples < 1:
        raise InputError(f"max_samples is {max_samples!r}; it must be a whole number from 1 on.")


class PendingSamples:
    """The samples of a step on their way to the host; :meth:`samples` waits for them."""

    def __init__(
        self,
        step: int,
        raws: list[RawSamples],
        gradients: list[RawGradients],
        timers: list[Any],
        known: Mapping[str, Mapping[str, float]],
    ) -> None:
        self.step, self._raws, self._gradients, self._timers = step, raws, gradients, timers
        self._known = known
        self._copies = [
            HostCopy(tensors)
            for tensors in (*(r.tensors() for r in raws), *(g.tensors() for g in gradients))
        ]

    @property
    def ready(self) -> bool:
        return all(copy.ready for copy in self._copies)

    @property
    def device_s(self) -> float:
        return float(sum(timer.seconds for timer in self._timers))

    def samples(self, telemetry: Telemetry, observing: list[bool]) -> StepSamples:
        host: list[Any] = [copy.wait() for copy in self._copies]
        first = len(self._raws)
        raws = [replace(r, **t) for r, t in zip(self._raws, host[:first], strict=True)]
        infos = telemetry.infos
        made = step_samples(self.step, raws, infos, observing, telemetry.grids)
        numbers = {info.path: index for index, info in enumerate(infos)}
        found: dict[int, GradientHistogram] = {}
        for source, tensors in zip(self._gradients, host[first:], strict=True):
            raw = replace(source, **tensors)
            for index, path in enumerate(raw.paths):
                for name, value in gradient_numbers(raw, index).items():
                    made.metrics[numbers[path], METRIC_INDEX[name]] = value
                found[numbers[path]] = GradientHistogram(
                    step=self.step,
                    first=FIRST,
                    counts=tuple(raw.counts[index].tolist()),
                    zeros=int(raw.sums[0, index]),
                    sampled=raw.sampled[index],
                    total=raw.totals[index],
                )
        for path, values in self._known.items():
            for name, value in values.items():
                made.metrics[numbers[path], METRIC_INDEX[name]] = value
        return replace(made, metrics=rounded(made.metrics), gradients=found)


class Watch:
    """See :func:`watch`. ``telemetry`` is what it has recorded, from any thread."""

    def __init__(
        self,
        model: nn.Module,
        every: int | Literal["auto"] = "auto",
        bins: int = 256,
        budget: float = 0.02,
        *,
        paths: Sequence[str] | None = None,
        gradients: bool = False,
        max_samples: int = 65_536,
        folder: str | PathLike[str] | None = None,
        on_sample: Callable[[Telemetry], Any] | None = None,
        oscillation: Literal["sampled", "every step"] = "sampled",
    ) -> None:
        check_settings(every, bins, budget, max_samples)
        self.model = model
        self._all_watched = find_watched(model, paths)
        infos = [t.info for t in self._all_watched]
        self.telemetry = Telemetry(infos, bins)
        self.telemetry.set_overhead(self._overhead)
        self._clock = Clock()
        self._probes = [Probe(t, self._clock) for t in self._all_watched]
        self._gradients = [GradientProbe(p, self._clock) for p in self._probes] if gradients else []
        self._collectors: dict[torch.device, Collector] = {}
        self._timeline = Timeline(self._all_watched)
        self._controller = Controller(every, budget, max_samples)
        self._pending: list[PendingSamples] = []
        self._misses = dict.fromkeys((i.path for i in infos if not i.unseen), 0)
        self._at = folder
        self._folder: RunFolder | None = None
        self._writer: SampleWriter | None = None
        self._complained = False
        self._on_sample: Callable[[Telemetry], Any] | None = on_sample
        self._armed = self._running = False
        self.sampling_s = 0.0
        self._carried_s = 0.0
        self._since = 0.0
        self._sizes = (0, 0, 0, 0)
        self._known: Mapping[str, Mapping[str, float]] = {}
        self._followed = (0, 0.0)
        self._weights = self._weights_to_follow(oscillation)
        self._watching: AbstractContextManager[None] | None = None

    # -- in a training loop ---------------------------------------------------------------------

    def start(self) -> Watch:
        """Begin; :meth:`step` then ends each training step. ``with`` does this and the closing."""
        if self._running:
            return self
        warm_up()
        started = perf_counter()
        if self._at is not None and self._folder is None:
            self._open_folder(self._at)
        self._running = True
        if self._weights is not None:
            self._weights.begin_epoch()
            self._watching = self._weights.watching()
            self._watching.__enter__()
        self._arm_if_wanted()
        self._since = perf_counter()
        self._carried_s += self._since - started
        return self

    def step(self) -> None:
        """Call this after each training step (after ``optimizer.step()``)."""
        if not self._running:
            self.start()
            return
        now = perf_counter()
        sampled = self._armed
        hooks_s, self._clock.spent_s = self._clock.spent_s, 0.0
        step = self._controller.steps
        if sampled:
            self._disarm()
            if self._weights is not None:
                self._known = reversal_metrics(self._weights)
            self._take(step)
        self._follow_states(step)
        following_s = self._follow_weights(step)
        if self._pending:
            self._resolve()
        end = perf_counter()
        spent = hooks_s + (end - now) + self._carried_s - following_s
        self._controller.step_done(max(0.0, now - self._since - hooks_s), spent, sampled)
        self._arm_if_wanted()
        self._since = perf_counter()
        self._carried_s = self._since - end

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """The same as :meth:`step`, for loops that take a callback; arguments are not used."""
        self.step()

    def pause(self) -> None:
        """Take the hooks off until :meth:`start`, for an evaluation, say: what happens meanwhile is
        neither sampled nor timed."""
        self._disarm()
        self._stop_following()
        self._running = False

    def close(self, state: Literal["finished", "stopped", "failed"] = "finished") -> None:
        """Take all hooks off and write what is left; ``state`` is how the run ended, for its
        folder. Never raises; may be called twice."""
        self._disarm()
        self._stop_following()
        self._running = False
        self._resolve(wait=True)
        self.telemetry.add_states(self._timeline.collect(wait=True))
        if self._writer is not None and self._folder is not None:
            self._report(state, now=True)
            self.telemetry.sink = None
            self._writer.close()
            self._folder.close()
            self._writer = self._folder = None

    def __enter__(self) -> Watch:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt)
        self.close("finished" if kind is None else "stopped" if stopped else "failed")

    def transformers_callback(self) -> Any:
        """A ``transformers.TrainerCallback`` that steps and closes this watch."""
        from qatexplorer.telemetry.integrations.trainers import transformers_callback

        return transformers_callback(self)

    def lightning_callback(self) -> Any:
        """A Lightning ``Callback`` that steps and closes this watch."""
        from qatexplorer.telemetry.integrations.trainers import lightning_callback

        return lightning_callback(self)

    # -- all weights in every step --------------------------------------------------------------

    def _weights_to_follow(self, oscillation: str) -> FollowedWeights | None:
        if oscillation not in ("sampled", "every step"):
            raise InputError(
                f"oscillation is {oscillation!r}.", fix="Use 'sampled' or 'every step'."
            )
        if oscillation == "sampled":
            return None
        paths = [path for path in followed_paths(self.model) if path in self.telemetry.paths]
        return FollowedWeights(self.model, paths)

    def _follow_weights(self, step: int) -> float:
        """Take the codes of this step; returns the seconds that it took."""
        if self._weights is None:
            return 0.0
        began = perf_counter()
        self._weights.update(step)
        self._weights.hold()
        seconds = perf_counter() - began
        self.account_following(seconds)
        return seconds

    def _stop_following(self) -> None:
        if self._watching is not None:
            self._watching.__exit__(None, None, None)
            self._watching = None

    # -- its folder -----------------------------------------------------------------------------

    def _open_folder(self, at: str | PathLike[str]) -> None:
        about = {"model": type(self.model).__name__, **about_samples(self.telemetry)}
        self._folder = RunFolder.create(at, about, "watch")
        self._writer = SampleWriter(self._folder.path, self.telemetry, self._cannot_write)
        self.telemetry.sink = self._writer
        self._report("running", now=True)

    def _report(self, state: str, *, now: bool) -> None:
        if self._folder is None:
            return
        try:
            self._folder.report({"state": state, "step": self._controller.steps}, now=now)
        except OSError as error:
            self._cannot_write(error)

    def _cannot_write(self, error: OSError) -> None:
        if not self._complained and self._folder is not None:
            self._complained = True
            log.warning(
                "telemetry cannot be written to %s now and waits: %s: %s",
                self._folder.path,
                type(error).__name__,
                error,
            )

    # -- one sampled step -----------------------------------------------------------------------

    def go_on_with(self, telemetry: Telemetry) -> None:
        """Add to what an earlier part of this run has recorded."""
        self.telemetry = telemetry.joined([watched.info for watched in self._all_watched])
        self.telemetry.set_overhead(self._overhead)

    @contextmanager
    def sampling(
        self, step: int, known: Mapping[str, Mapping[str, float]] | None = None
    ) -> Iterator[None]:
        """Sample the forward inside ``with watch.sampling(step):``, and count it at once.

        For a loop that knows where its forward begins and which steps to sample; it calls this
        instead of :meth:`step`, and :meth:`account` for what the steps cost. Nothing is recorded
        if the forward raises. ``sampling_s`` is the time that it took. ``known`` are numbers of
        fake quants that the loop knows itself, by path and by metric.
        """
        self._known = known or {}
        started = perf_counter()
        self._arm()
        armed = perf_counter()
        done = False
        try:
            yield
            done = True
        finally:
            ended = perf_counter()
            self._disarm()
            if done:
                self._take(step)
                self._follow_states(step)
                self._resolve()
            self.sampling_s = armed - started + perf_counter() - ended + self._clock.spent_s

    def account(self, steps: int, train_s: float, sampling_s: float) -> None:
        """Of the last ``steps`` steps, which took ``train_s`` seconds together, the first was
        sampled, for ``sampling_s`` seconds on top."""
        self._controller.every = max(1, steps)
        for index in range(steps):
            cost = 0.0 if index else sampling_s
            self._controller.step_done(train_s / steps, cost, not index, timed=False)

    def account_following(self, seconds: float) -> None:
        """In one more step the codes of all weights were taken, in ``seconds``."""
        steps, total = self._followed
        self._followed = (steps + 1, total + seconds)

    def _arm_if_wanted(self) -> None:
        if self._controller.wants(self._controller.steps):
            self._arm()

    def _arm(self) -> None:
        self._armed = True
        self._clock.spent_s = 0.0
        count = self._controller.samples
        with torch.no_grad():
            remember_ranges([probe for probe in self._probes if probe.arm(count)])
        for gradient in self._gradients:
            gradient.arm()

    def _disarm(self) -> None:
        self._armed = False
        for probe in self._probes:
            probe.disarm()
        for gradient in self._gradients:
            gradient.disarm()

    def _take(self, step: int) -> None:
        """Count what the probes took, and start its way to the host."""
        try:
            with torch.inference_mode(False), torch.no_grad():
                self._pending.append(self._counted(step))
        except Exception:
            # A sample must never end a training.
            log.exception("telemetry failed at step %d, which is left out", step)
        self._timeline.find_flags()

    def _counted(self, step: int) -> PendingSamples:
        for probe in self._probes:
            probe.settle()
        taken = [p for p in self._probes if p.taken]
        others = [p for p in self._probes if not p.taken]
        self._count_misses(others)
        raws, timers = [], []
        devices = list(dict.fromkeys(p.values.device for p in taken))
        for device in devices:
            timer = DeviceTimer(device)
            timer.start()
            here = [p for p in taken if p.values.device == device]
            collector = self._collectors.setdefault(device, Collector(self.telemetry.bins))
            raws.append(collector.count(step, here))
            timer.stop()
            timers.append(timer)
        for device in dict.fromkeys(p.device for p in others):
            raws.append(RawSamples.of_grids(step, [p for p in others if p.device == device]))
        gradients = [g for g in self._gradients if g.taken]
        counted = [
            count_gradients([g for g in gradients if g.values.device == device])
            for device in dict.fromkeys(g.values.device for g in gradients)
        ]
        self._note_sizes(taken)
        watched = {path: self._known[path] for path in self.telemetry.paths if path in self._known}
        return PendingSamples(step, raws, counted, timers, watched)

    def _note_sizes(self, taken: list[Probe]) -> None:
        if taken:
            largest = max(taken, key=lambda p: p.draw.numel).draw
            sampled, total = sum(p.draw.count for p in taken), sum(p.draw.numel for p in taken)
            self._sizes = (sampled, total, largest.count, largest.numel)

    def _count_misses(self, others: list[Probe]) -> None:
        for probe in others:
            path = probe.watched.info.path
            if probe.failed:
                self.telemetry.set_unseen(path, probe.failed)
            elif path in self._misses:
                self._misses[path] += 1
                if anything_compiled():
                    # Hooks that come and go would make torch.compile compile again each time.
                    probe.failed = MAYBE_COMPILED
                    self.telemetry.set_unseen(path, MAYBE_COMPILED)
                elif self._misses[path] == _MISSES:
                    self.telemetry.set_unseen(path, NEVER_CALLED)
        missed = {probe.watched.info.path for probe in others}
        for path in [p for p in self._misses if p not in missed]:
            del self._misses[path]

    def _resolve(self, wait: bool = False) -> None:
        """Record the samples whose numbers have arrived."""
        while self._pending and (wait or self._pending[0].ready):
            pending = self._pending.pop(0)
            try:
                samples = pending.samples(self.telemetry, self._timeline.observing)
            except Exception:
                log.exception("telemetry failed at step %d, which is left out", pending.step)
                continue
            self._controller.extra(pending.device_s)
            self.telemetry.add(samples)
            self._report("running", now=False)
            self._call_back()

    def _call_back(self) -> None:
        if self._on_sample is None:
            return
        try:
            self._on_sample(self.telemetry)
        except Exception:
            self._on_sample = None
            log.exception("on_sample raised and is not called again; the training goes on")

    def _follow_states(self, step: int) -> None:
        found = self._timeline.update(step)
        if found:
            self.telemetry.add_states(found)
            if self._weights is not None:
                self._weights.begin_epoch()

    def _overhead(self) -> Overhead:
        c = self._controller
        sampled, total, largest, of = self._sizes
        return Overhead(
            steps=c.steps,
            sampled_steps=c.sampled_steps,
            train_s=c.train_s,
            spent_s=c.spent_s,
            budget=c.budget,
            every=c.distance,
            sampled=sampled,
            total=total,
            largest_sample=largest,
            largest_total=of,
            pace="auto" if c.every == "auto" else "steady",
            followed_steps=self._followed[0],
            followed_s=self._followed[1],
        )


_warm = False


def warm_up() -> None:
    """Run every operation of a sampled step once: the first call of each costs torch milliseconds,
    the price of many samples of a small net. Once per process, and before training."""
    global _warm
    if _warm:
        return
    _warm = True
    with warnings.catch_warnings(), torch.inference_mode(False), torch.enable_grad():
        warnings.simplefilter("ignore")
        net = nn.ModuleDict({"weight": FakeQuantize(reduce_range=False), "out": FakeQuantize()})
        trial = Watch(net, every=1, gradients=True)
        with trial:
            for size in (3000, 3000):
                x = torch.linspace(-1, 1, size).requires_grad_()
                for fake_quant in net.values():
                    fake_quant(x.view(30, 100)).sum().backward()
                trial.step()
        trial.telemetry.histogram("out")


def watch(
    model: nn.Module,
    every: int | Literal["auto"] = "auto",
    bins: int = 256,
    budget: float = 0.02,
    *,
    paths: Sequence[str] | None = None,
    gradients: bool = False,
    max_samples: int = 65_536,
    folder: str | PathLike[str] | None = None,
    on_sample: Callable[[Telemetry], Any] | None = None,
    oscillation: Literal["sampled", "every step"] = "sampled",
) -> Watch:
    """Watch the fake quants of a prepared ``model`` inside your own training loop.

    >>> with qx.watch(model) as w:
    ...     for x, y in loader:
    ...         loss = criterion(model(x), y)
    ...         loss.backward()
    ...         optimizer.step()
    ...         optimizer.zero_grad()
    ...         w.step()
    >>> w.telemetry.sample("fc.weight_fake_quant").sqnr_db

    Losses and weights are the same bit for bit with and without it. Of several micro-batches of a
    step the first is sampled; a forward that checkpointing runs again, and one in eval mode
    without gradients, are not. What cannot be seen is in ``telemetry.unseen`` with the reason.

    Args:
        model: with fake quants, as ``prepare_qat`` or ``prepare_qat_fx`` returns it.
        every: sample every so many steps, or ``"auto"``: as often as the budget allows.
        bins: of a histogram, about; bins are whole codes wide.
        budget: share of the training time that the sampling may cost (0.02 is 2 %).
        paths: of the fake quants to watch; None is all.
        gradients: also record the sizes of the gradients behind each fake quant.
        max_samples: most elements of a tensor to take; where there are more, at random.
        folder: write the run there, see :func:`qatexplorer.open_run`.
        on_sample: called with the telemetry after each sampled step, on the thread that trains.
        oscillation: ``"every step"`` also has the published rate of reversals of every weight,
            which takes the codes of all weights in each step, on top of the budget.

    Raises NotAModuleError and InputError for what cannot be watched, RunFolderError (when it
    starts) for a folder that cannot be used.
    """
    return Watch(
        model,
        every,
        bins,
        budget,
        paths=paths,
        gradients=gradients,
        max_samples=max_samples,
        folder=folder,
        on_sample=on_sample,
        oscillation=oscillation,
    )
