"""``qatexplorer.watch``: look at the fake quants of a model while it trains, at a known price."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from qatexplorer.telemetry.collect import Collector, RawLook
from qatexplorer.telemetry.controller import Controller
from qatexplorer.telemetry.folder import RunWriter
from qatexplorer.telemetry.frames import Frame
from qatexplorer.telemetry.gradients import GradientProbe, count_gradients
from qatexplorer.telemetry.host import DeviceTimer
from qatexplorer.telemetry.pending import PendingLook
from qatexplorer.telemetry.probes import Clock, Probe, remember_ranges
from qatexplorer.telemetry.records import Overhead
from qatexplorer.telemetry.settings import check_settings
from qatexplorer.telemetry.store import Telemetry
from qatexplorer.telemetry.targets import anything_compiled, find_targets
from qatexplorer.telemetry.timeline import Timeline
from qatexplorer.telemetry.warm import warm_up

if TYPE_CHECKING:
    from os import PathLike

log = logging.getLogger(__name__)

NEVER_CALLED = "no forward has called it in the steps that were looked at"
MAYBE_COMPILED = (
    "no forward has called it in the step that was looked at: it does not run, or it runs inside "
    "code that torch.compile has compiled; its scale, range and state are recorded"
)
_MISSES = 3


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
        on_look: Callable[[Telemetry], Any] | None = None,
    ) -> None:
        check_settings(every, bins, budget, max_samples)
        self.model = model
        self._targets = find_targets(model, paths)
        infos = [t.info for t in self._targets]
        self.telemetry = Telemetry(infos, bins)
        self.telemetry.set_overhead(self._overhead)
        self._clock = Clock()
        self._probes = [Probe(t, self._clock) for t in self._targets]
        self._gradients = [GradientProbe(p, self._clock) for p in self._probes] if gradients else []
        self._collectors: dict[torch.device, Collector] = {}
        self._timeline = Timeline(self._targets)
        self._controller = Controller(every, budget, max_samples)
        self._pending: list[PendingLook] = []
        self._misses = dict.fromkeys((i.path for i in infos if not i.unseen), 0)
        self._folder = folder
        self._writer: RunWriter | None = None
        self._on_look = on_look
        self._armed = self._running = False
        self.look_s = 0.0
        self.arrived: list[Frame] = []
        self._carried_s = 0.0
        self._since = 0.0
        self._sizes = (0, 0, 0, 0)

    # -- in a training loop ---------------------------------------------------------------------

    def start(self) -> Watch:
        """Begin; :meth:`step` then ends each training step. ``with`` does this and the closing."""
        if self._running:
            return self
        warm_up(Watch)
        started = perf_counter()
        self._running = True
        if self._folder is not None and self._writer is None:
            self._writer = RunWriter(Path(self._folder), self.telemetry)
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
        looked = self._armed
        hooks_s, self._clock.spent_s = self._clock.spent_s, 0.0
        step = self._controller.steps
        if looked:
            self._disarm()
            self._take(step)
        self._follow_states(step)
        if self._pending:
            self._resolve()
        end = perf_counter()
        spent = hooks_s + (end - now) + self._carried_s
        self._controller.step_done(max(0.0, now - self._since - hooks_s), spent, looked)
        self._arm_if_wanted()
        self._since = perf_counter()
        self._carried_s = self._since - end

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """The same as :meth:`step`, for loops that take a callback; arguments are not looked at."""
        self.step()

    def close(self) -> None:
        """Take all hooks off and write what is left. Never raises; may be called twice."""
        self._disarm()
        self._running = False
        self._resolve(wait=True)
        self.telemetry.set_states(self._changes(wait=True))
        if self._writer is not None:
            self._writer.close(self.telemetry)
            self._writer = None

    def __enter__(self) -> Watch:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def transformers_callback(self) -> Any:
        """A ``transformers.TrainerCallback`` that steps and closes this watch."""
        from qatexplorer.telemetry.integrations.trainers import transformers_callback

        return transformers_callback(self)

    def lightning_callback(self) -> Any:
        """A Lightning ``Callback`` that steps and closes this watch."""
        from qatexplorer.telemetry.integrations.trainers import lightning_callback

        return lightning_callback(self)

    # -- one look -------------------------------------------------------------------------------

    @contextmanager
    def look_at(self, step: int) -> Iterator[None]:
        """Look at the forward inside ``with watch.look_at(step):``, and count it at once.

        For a loop that knows where its forward begins and which steps to look at; it calls this
        instead of :meth:`step`, and :meth:`account` for what the steps cost. Nothing is recorded
        if the forward raises. ``look_s`` is the time that the looking took.
        """
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
                self.arrived += self._resolve()
            self.look_s = armed - started + perf_counter() - ended + self._clock.spent_s

    def account(self, steps: int, train_s: float, look_s: float) -> None:
        """Of the last ``steps`` steps, which took ``train_s`` seconds together, the first was
        looked at, for ``look_s`` seconds on top."""
        self._controller.every = max(1, steps)
        for index in range(steps):
            self._controller.step_done(train_s / steps, look_s if not index else 0.0, not index)

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
            # A look must never end a training.
            log.exception("telemetry failed at step %d; this look is left out", step)
        self._timeline.find_flags()

    def _counted(self, step: int) -> PendingLook:
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
            raws.append(RawLook.of_grids(step, [p for p in others if p.device == device]))
        gradients = [g for g in self._gradients if g.taken]
        counted = [
            count_gradients([g for g in gradients if g.values.device == device])
            for device in dict.fromkeys(g.values.device for g in gradients)
        ]
        self._note_sizes(taken)
        return PendingLook(step, raws, counted, timers)

    def _note_sizes(self, taken: list[Probe]) -> None:
        if taken:
            largest = max(taken, key=lambda p: p.draw.numel).draw
            sampled, total = sum(p.draw.count for p in taken), sum(p.draw.numel for p in taken)
            self._sizes = (sampled, total, largest.count, largest.numel)

    def _count_misses(self, others: list[Probe]) -> None:
        for probe in others:
            path = probe.target.info.path
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
        missed = {probe.target.info.path for probe in others}
        for path in [p for p in self._misses if p not in missed]:
            del self._misses[path]

    def _resolve(self, wait: bool = False) -> list[Frame]:
        """Record the looks whose numbers have arrived."""
        arrived = []
        while self._pending and (wait or self._pending[0].ready):
            pending = self._pending.pop(0)
            try:
                frame = pending.frame(self.telemetry, self._timeline.observing)
            except Exception:
                log.exception("telemetry failed; the look at step %d is left out", pending.step)
                continue
            self._controller.extra(pending.device_s)
            self.telemetry.add(frame)
            if self._writer is not None:
                self._writer.write(frame)
            self._call_back()
            arrived.append(frame)
        return arrived

    def _call_back(self) -> None:
        if self._on_look is None:
            return
        try:
            self._on_look(self.telemetry)
        except Exception:
            self._on_look = None
            log.exception("on_look raised and is not called again; the training goes on")

    def _follow_states(self, step: int) -> None:
        found = self._timeline.update(step)
        if found:
            self.telemetry.set_states(self._timeline.changes)
            if self._writer is not None:
                self._writer.write_states(found)

    def _changes(self, wait: bool) -> list[Any]:
        found = self._timeline.collect(wait)
        if found and self._writer is not None:
            self._writer.write_states(found)
        return self._timeline.changes

    def _overhead(self) -> Overhead:
        c = self._controller
        sampled, total, largest, of = self._sizes
        return Overhead(
            steps=c.steps,
            looks=c.looks,
            train_s=c.train_s,
            spent_s=c.spent_s,
            budget=c.budget,
            every=c.distance,
            sampled=sampled,
            total=total,
            largest_sample=largest,
            largest_total=of,
            pace="auto" if c.every == "auto" else "steady",
        )


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
    on_look: Callable[[Telemetry], Any] | None = None,
) -> Watch:
    """Watch the fake quants of a prepared ``model`` inside your own training loop.

    >>> with qx.watch(model) as w:
    ...     for x, y in loader:
    ...         loss = criterion(model(x), y)
    ...         loss.backward()
    ...         optimizer.step()
    ...         optimizer.zero_grad()
    ...         w.step()
    >>> w.telemetry.look("fc.weight_fake_quant").sqnr_db

    Losses and weights are the same bit for bit with and without it. Of several micro-batches of a
    step the first is looked at; a forward that checkpointing runs again, and one in eval mode
    without gradients, are not. What cannot be seen is in ``telemetry.unseen`` with the reason.

    Args:
        model: with fake quants, as ``prepare_qat`` or ``prepare_qat_fx`` returns it.
        every: look at every so many steps, or ``"auto"``: as often as the budget allows.
        bins: of a histogram, about; bins are whole codes wide.
        budget: share of the training time that the looking may cost (0.02 is 2 %).
        paths: of the fake quants to watch; None is all.
        gradients: also record the sizes of the gradients behind each fake quant.
        max_samples: most elements of a tensor to look at.
        folder: write the run there, see :func:`qatexplorer.telemetry.open_run`.
        on_look: called with the telemetry after each look, on the thread that trains.

    Raises NotAModuleError and InputError for what cannot be watched.
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
        on_look=on_look,
    )
