"""Float and quantized results of every module on the same inputs, in one forward.

A forward with all fake quants off. Each fake quant of an activation is shown what it would round;
each module with a fake quant of its weight runs once more with only that one on. What they give is
handed on to nobody: every module sees float inputs.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from qatexplorer.accuracy.sensitivity.exact import ACTIVATIONS, FLOAT, QUANTIZED, WEIGHTS
from qatexplorer.accuracy.sensitivity.job import Job
from qatexplorer.accuracy.sensitivity.kept import BatchResult
from qatexplorer.accuracy.sensitivity.replay import Run, seed
from qatexplorer.accuracy.sensitivity.sites import Site, Subject, copies_when_off
from qatexplorer.data import Batch, call_model, cloned, device_of
from qatexplorer.errors import InputError
from qatexplorer.forward.scripted import python_modules
from qatexplorer.quantizers.facts import find_quantizers

Tap = Callable[[Site, Tensor, Tensor], Tensor]
"""``(site, y, y_q) -> y``: looks at the float and the quantized tensor, hands on the float one."""
_LISTED = 4
_OF_THE_WEIGHT = (
    "These weights go to an operation of the graph, and to no module that could be run alone, so "
    "that their own values were compared, not an output: those of {names}."
)


class Local:
    """Shows ``tap`` the two tensors of each fake quant of the subject.

    Attributes:
        computed: module calls so far. order: index of the first call of each fake quant, by path.
        of_weights: paths of the fake quants of weights that are looked at without a module's
            output, as it holds other fake quants too: functional weights of an FX graph.
    """

    def __init__(self, subject: Subject, tap: Tap) -> None:
        self.computed, self.order, self._tap = 0, dict[str, int](), tap
        self.of_weights: list[str] = []
        self._on: Collection[int] = frozenset()
        self._plain, self._again, self._extra, self._passed = True, False, 0, 0
        self._at_fake_quant: dict[int, Site] = {}
        self._at_module: dict[int, list[Site]] = {}
        self._device = device_of(subject.model)
        quantizers = find_quantizers(subject.model)
        self._quantizers = {id(module) for module in quantizers.values()}
        weights = {id(s.module) for s in subject.sites if s.kind == "weight"}
        self._copying = {id(m) for m in quantizers.values() if copies_when_off(m)} - weights
        others = [s.path.rpartition(".")[0] for s in subject.sites if s.kind == "activation"]
        for site in subject.sites:
            path = site.path.rpartition(".")[0]
            holder = subject.model.get_submodule(path)
            whole = isinstance(holder, fx.GraphModule) or any(
                other != path and f"{other}.".startswith(f"{path}." if path else "")
                for other in others
            )
            if site.kind == "weight" and not whole:
                self._at_module.setdefault(id(holder), []).append(site)
                continue
            if site.kind == "weight":
                self.of_weights.append(site.path)
            self._at_fake_quant[id(site.module)] = site
        inside = {id(part) for module in quantizers.values() for part in module.children()}
        for module in python_modules(subject.model):
            if id(module) not in inside:
                self._wrap(module)

    def forward(self, run: Run) -> tuple[Any, float]:
        """The float output of a forward, and what it cost: in forwards of the whole model."""
        self._plain, self._on, before = False, frozenset(), self.computed
        self._extra = self._passed = 0
        try:
            seed(self._device)
            out = run()
        finally:
            self._plain = True
        # A forward with all fake quants on makes the calls that were made without looking at any,
        # and those of the fake quants.
        spent = self.computed - before
        whole = spent - self._extra + self._passed
        return out, spent / max(whole, 1)

    def plain(self, run: Run, on: Collection[int]) -> Any:
        """A forward with the fake quants of these ids on, and nothing looked at."""
        self._plain, self._on = True, on
        seed(self._device)
        return run()

    def _wrap(self, module: nn.Module) -> None:
        usual, key = module.forward, id(module)

        @functools.wraps(usual)
        def forward(*args: Any, **kwargs: Any) -> Any:
            if key in self._quantizers:
                return self._fake_quant(key, usual, args, kwargs)
            sites = self._at_module.get(key)
            self.computed += 1
            if sites is None or self._plain or self._again:
                return usual(*args, **kwargs)
            return self._module(sites, usual, args, kwargs)

        module.forward = forward

    def _fake_quant(self, key: int, usual: Any, args: Any, kwargs: Any) -> Any:
        site = self._at_fake_quant.get(key)
        if self._plain or self._again or site is None:
            if key not in self._on:
                self._passed += int(not self._again)
                return self._handed_on(key, args[0])
            self.computed += 1
            self._extra += int(self._again)
            return usual(*args, **kwargs)
        self.order.setdefault(site.path, len(self.order))
        self._passed += 1
        with self._aside({key}):
            rounded = usual(args[0].detach(), *args[1:], **kwargs)
            self.computed += 1
            self._extra += 1
        return self._tap(site, self._handed_on(key, args[0]), rounded)

    def _handed_on(self, key: int, x: Tensor) -> Tensor:
        return x.clone() if key in self._copying else x

    def _module(self, sites: list[Site], usual: Any, args: Any, kwargs: Any) -> Any:
        rounded = []
        for site in sites:
            self.order.setdefault(site.path, len(self.order))
            before = self.computed
            with self._aside({id(site.module)}):
                extra = self._extra
                # A forward may write to its inputs.
                rounded.append(usual(*cloned(args), **cloned(kwargs)))
                self.computed += 1
                self._extra = extra + self.computed - before
        out = usual(*args, **kwargs)
        for site, other in zip(sites, rounded, strict=True):
            out = self._tapped(site, out, other)
        return out

    @contextmanager
    def _aside(self, on: Collection[int]) -> Iterator[None]:
        """What runs inside leaves no trace in the forward around it."""
        state, before = torch.get_rng_state(), self._on
        self._on, self._again = on, True
        try:
            with torch.no_grad():
                yield
        finally:
            self._on, self._again = before, False
            torch.set_rng_state(state)

    def _tapped(self, site: Site, out: Any, rounded: Any) -> Any:
        leaves, spec = tree_flatten(out)
        others, _ = tree_flatten(rounded)
        taps = [
            self._tap(site, y, y_q) if isinstance(y, Tensor) and y.is_floating_point() else y
            for y, y_q in zip(leaves, others, strict=True)
        ]
        return tree_unflatten(taps, spec)


class Approximate:
    """Measures ``"shadow"`` or ``"gradient"``, batch after batch.

    Args:
        gradient: weigh the error by the loss's gradient, which takes a backward pass.
        totals: also run forwards with all, the weights' and the activations' fake quants on.
    """

    def __init__(self, subject: Subject, job: Job, *, gradient: bool, totals: bool) -> None:
        self._subject, self._job = subject, job
        self._gradient, self._totals = gradient, totals
        self._local = Local(subject, self._weighed if gradient else self._compared)
        self._sums: dict[str, list[float]] = {}
        self._anchor = torch.zeros((), requires_grad=True)

    def measure(self, data: Iterable[Batch]) -> None:
        """Fill the job's ``kept``; returns early when it is asked to stop."""
        expected, job = self._job.expected(data), self._job
        for index, inputs, target in job.of(data, self._subject.model):
            result = job.result(index, inputs, target)
            expected = max(expected, index + 1)
            if result.complete and (not self._totals or QUANTIZED in result.values):
                continue
            if job.asked_to_stop():
                return
            job.report(f"batch {index + 1} of {expected}", index / expected)
            self._batch(result, inputs, target)
        if self._local.of_weights:
            owners = {site.path: site.owner for site in self._subject.sites}
            found = dict.fromkeys(owners.get(path) or path for path in self._local.of_weights)
            names = ", ".join([*found][:_LISTED])
            more = len(found) - _LISTED
            names += f" and {more:,} more" if more > 0 else ""
            job.kept.note(_OF_THE_WEIGHT.format(names=names))

    def _batch(self, result: BatchResult, inputs: Any, target: Any) -> None:
        def run() -> Any:
            return call_model(self._subject.model, cloned(inputs))

        job = self._job
        if not result.complete:
            self._sums = {}
            output, cost = self._pass(run, target)
            result.values[FLOAT] = job.judge(output, target)
            result.values |= {f"only {path}": (a, b) for path, (a, b) in self._sums.items()}
            result.order |= self._local.order
            result.complete = True
            job.spend(result, cost)
        if not self._totals:
            return
        every = frozenset(id(s.module) for s in self._subject.sites)
        weights = frozenset(id(s.module) for s in self._subject.sites if s.kind == "weight")
        for name, on in ((WEIGHTS, weights), (ACTIVATIONS, every - weights), (QUANTIZED, every)):
            if not job.asked_to_stop():
                result.values[name] = job.judge(self._local.plain(run, on), target)
                job.spend(result, 1.0)

    def _pass(self, run: Run, target: Any) -> tuple[Any, float]:
        if not self._gradient:
            return self._local.forward(run)
        began = time.perf_counter()
        with torch.enable_grad():
            output, cost = self._local.forward(run)
            loss = self._job.judge.loss_with_gradient(output, target)
        half = time.perf_counter()
        if not loss.requires_grad:
            raise InputError(
                "the loss has no gradient.",
                why="torch cannot follow it back to what the modules return.",
                fix="Pass a loss=function(output, target) of torch operations to the session.",
            )
        torch.autograd.grad(loss, self._anchor)
        # A backward pass has no calls to count: its time, in forwards of this model.
        cost *= 1 + (time.perf_counter() - half) / max(half - began, 1e-9)
        return output, cost

    def _compared(self, site: Site, y: Tensor, rounded: Tensor) -> Tensor:
        sums = self._sums.setdefault(site.path, [0.0, 0.0])
        sums[0] += float((rounded - y).float().square().sum())
        sums[1] += float(y.float().square().sum())
        return y

    def _weighed(self, site: Site, y: Tensor, rounded: Tensor) -> Tensor:
        sums = self._sums.setdefault(site.path, [0.0, 0.0])
        error = (rounded - y.detach()).float().square()
        anchor = self._anchor.to(y.device)
        tapped: Tensor = _Weigh.apply(y, anchor, error, sums)  # type: ignore[no-untyped-call]
        return tapped


class _Weigh(torch.autograd.Function):
    """Hands ``y`` on; the backward pass adds ``sum(gradient² · error)`` to ``sums[0]``."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, anchor: Tensor, error: Tensor, sums: list[float]) -> Tensor:
        ctx.error, ctx.sums = error, sums
        return y.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (gradient,) = gradients
        ctx.sums[0] += float((gradient.float().square() * ctx.error).sum())
        return gradient, gradient.new_zeros(()), None, None
