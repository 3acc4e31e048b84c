"""What a redundant fake quant does to the values, and what it costs in time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qatexplorer.data import call_model, cloned, device_of, synchronize
from qatexplorer.forward.hooks import After, hooked
from qatexplorer.forward.noise import sqnr
from qatexplorer.forward.preserve import preserved_rng, preserved_state
from qatexplorer.forward.trace import tensors_in
from qatexplorer.ledger.forwards import Forwards
from qatexplorer.ledger.records import RedundancyNumbers, StepCost
from qatexplorer.ledger.redundancy import Finding
from qatexplorer.quantizers.facts import find_quantizers, freeze_observers

Calls = Sequence[tuple[str, int]]


@contextmanager
def bypassed(model: nn.Module, calls: Calls) -> Iterator[None]:
    """Inside, these calls (fake quant, which of its calls in a forward) return what they get.

    Other calls of the same module work as always. One forward of the model counts from 0 again.
    """
    counts: dict[str, int] = {}
    modules = dict(model.named_modules(remove_duplicate=False))
    skipped: dict[str, set[int]] = {}
    for path, ordinal in calls:
        skipped.setdefault(path, set()).add(ordinal)

    def patched(path: str, forward: Any) -> Any:
        def maybe(x: Tensor) -> Any:
            turn = counts.get(path, 0)
            counts[path] = turn + 1
            return x if turn in skipped[path] else forward(x)

        return maybe

    try:
        for path in skipped:
            modules[path].__dict__["forward"] = patched(path, modules[path].forward)
        with hooked([("", model)], begun=lambda *_call: counts.clear()):
            yield
    finally:
        for path in skipped:
            modules[path].__dict__.pop("forward", None)


@dataclass(frozen=True)
class Values:
    """What redundancies do to the values: numbers by place in the findings, and of all together."""

    numbers: Mapping[int, RedundancyNumbers]
    together_sqnr_db: float | None = None


def measure_values(
    work: nn.Module,
    inputs: Any,
    findings: Sequence[Finding],
    forwards: Forwards,
    *,
    observed: bool,
    effects: bool,
) -> Values:
    """Numbers of the findings that repeat work.

    One forward with all of them as they are gives what each does to its tensor; one that leaves all
    of their calls out gives what they do to the model's output together. ``effects`` adds a forward
    for each, for what it does to the output alone. ``work`` is a copy that nobody else runs; it is
    left in eval mode with observers off, as in deployment. ``observed``: its observers were shown
    the example for this. Raises what the model's forward raises.
    """
    wanted = {i: f for i, f in enumerate(findings) if f.calls}
    if not wanted:
        return Values({})
    alone = effects and len(wanted) > 1
    forwards.total += 2 + (len(wanted) if alone else 0)
    sites = find_quantizers(work)
    work.eval()
    freeze_observers(work)
    with preserved_rng(), torch.no_grad():
        roundings = _Roundings(wanted.values(), sites)
        with forwards.one("Looking at the redundant fake quants", work), roundings.watching():
            whole = _flat(call_model(work, cloned(inputs)))

        def without(what: str, calls: Calls) -> float:
            with forwards.one(what, work), bypassed(work, calls):
                return sqnr(_flat(call_model(work, cloned(inputs))), whole)

        every = tuple(dict.fromkeys(call for f in wanted.values() for call in f.calls))
        together = without("Running without all of them", every)
        numbers: dict[int, RedundancyNumbers] = {}
        for index, finding in wanted.items():
            effect = together if len(wanted) == 1 else None
            if alone:
                place = f"Running without one of them, {len(numbers) + 1} of {len(wanted)}"
                effect = without(place, finding.calls)
            rounding = roundings.found.get(finding.first_call)
            if rounding is not None:
                numbers[index] = rounding.numbers(finding, sites, effect, observed)
    return Values(numbers, together)


@dataclass(frozen=True)
class _Rounding:
    """What one call of a fake quant did to its tensor."""

    values: int
    changed: int
    change: float
    sqnr_db: float

    def numbers(
        self, finding: Finding, sites: Mapping[str, nn.Module], effect: float | None, observed: bool
    ) -> RedundancyNumbers:
        scale = _scale_of(sites[finding.record.second])
        step = scale.reshape(-1)[0] if scale.numel() == 1 else scale.min()
        return RedundancyNumbers(
            values=self.values,
            changed=self.changed,
            max_steps=float(self.change / step),
            sqnr_db=self.sqnr_db,
            output_sqnr_db=effect,
            scale_first=float(_scale_of(sites[finding.record.first]).reshape(-1)[0]),
            scale_second=float(scale.reshape(-1)[0]),
            observed_for_this=observed,
        )


class _Roundings:
    """Looks at the first repeated call of each finding while the model runs; keeps no tensor."""

    def __init__(self, findings: Iterable[Finding], sites: Mapping[str, nn.Module]) -> None:
        self.found: dict[Any, _Rounding] = {}
        self._wanted = {f.first_call for f in findings if f.first_call is not None}
        self._sites = {path: sites[path] for path, _ in self._wanted}
        self._counts: dict[str, int] = {}

    def _returned(self) -> After:
        def returned(
            path: str, _module: nn.Module, args: tuple[Any, ...], _kwargs: Any, after: Any
        ) -> None:
            turn = self._counts.get(path, 0)
            self._counts[path] = turn + 1
            if (path, turn) in self._wanted:
                before = args[0]
                change = (after - before).abs()
                self.found[path, turn] = _Rounding(
                    before.numel(),
                    int((after != before).sum()),
                    float(change.max()) if change.numel() else 0.0,
                    sqnr(before, after),
                )

        return returned

    @contextmanager
    def watching(self) -> Iterator[None]:
        # First of the hooks, as what comes after may do anything to the tensor.
        with hooked(self._sites.items(), returned=self._returned()):
            yield


def _flat(outputs: Any) -> Tensor:
    floats = [t.detach().flatten().float() for t in tensors_in(outputs) if t.is_floating_point()]
    return torch.cat(floats) if floats else torch.zeros(0)


def _scale_of(quantizer: nn.Module) -> Tensor:
    module: Any = quantizer
    if isinstance(getattr(module, "scale", None), Tensor):
        return module.scale.detach()  # type: ignore[no-any-return]
    return torch.ones(1)


def measure_step(
    model: nn.Module,
    inputs: Any,
    finding: Finding,
    rounds: int = 15,
    say: Callable[[str], Any] = lambda _what: None,
) -> StepCost:
    """Time of forward and backward with the repeated calls and without, one after the other.

    The median over ``rounds`` pairs after two that do not count. Gradients are computed and thrown
    away: no ``.grad`` is written. The model is put back. ``say`` is called with what is going on.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    times: dict[bool, list[float]] = {True: [], False: []}
    calls, device = finding.calls, device_of(model)

    def step() -> float:
        synchronize(device)
        started = time.perf_counter()
        outputs = [t for t in tensors_in(call_model(model, cloned(inputs))) if t.requires_grad]
        loss = sum(t.float().mean() for t in outputs)
        if outputs:
            torch.autograd.grad(loss, parameters, allow_unused=True)  # type: ignore[arg-type]
        synchronize(device)
        return time.perf_counter() - started

    with preserved_state(model), torch.enable_grad():
        for turn in range(rounds + 2):
            say(f"Measuring the time of {finding.record.second}, turn {turn + 1} of {rounds + 2}")
            both = {True: 0.0, False: 0.0}
            for whole in (True, False) if turn % 2 else (False, True):
                if whole:
                    both[whole] = step()
                else:
                    with bypassed(model, calls):
                        both[whole] = step()
            if turn >= 2:
                for whole, seconds in both.items():
                    times[whole].append(seconds)
    taken = [a - b for a, b in zip(times[True], times[False], strict=True)]
    quarters = statistics.quantiles(taken, n=4) if rounds > 1 else [taken[0]] * 3
    return StepCost(
        with_s=statistics.median(times[True]),
        taken_s=statistics.median(taken),
        spread_s=(quarters[2] - quarters[0]) / 2,
        rounds=rounds,
    )


def drift_of(first: Sequence[Any], second: Sequence[Any]) -> tuple[tuple[int, float], ...]:
    """(step, second scale / first scale - 1) where a run has sampled both in the same step."""
    known = {sample.step: sample.scale for sample in first if sample.scale}
    return tuple(
        (sample.step, sample.scale[0] / known[sample.step][0] - 1)
        for sample in second
        if sample.scale and sample.step in known and known[sample.step][0]
    )
