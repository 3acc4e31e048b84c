"""What a redundant fake quant does to the values, and what it costs in time."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qatexplorer.data import call_model, cloned, device_of, synchronize
from qatexplorer.forward.preserve import preserved_state
from qatexplorer.forward.sampling import show_once
from qatexplorer.forward.trace import tensors_in
from qatexplorer.ledger.records import RedundancyNumbers, StepCost
from qatexplorer.ledger.redundancy import Finding
from qatexplorer.ledger.scales import has_observed
from qatexplorer.snapshot.sites import find_quantizers

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

    handle = model.register_forward_pre_hook(lambda _m, _a: counts.clear(), prepend=True)
    try:
        for path in skipped:
            modules[path].__dict__["forward"] = patched(path, modules[path].forward)
        yield
    finally:
        handle.remove()
        for path in skipped:
            modules[path].__dict__.pop("forward", None)


def measure_values(
    model: nn.Module, inputs: Any, findings: Sequence[Finding]
) -> dict[int, RedundancyNumbers]:
    """Numbers of each finding that repeats work, by its place in ``findings``.

    In eval mode and with observers off, as in deployment; the model is put back. Observers that
    have seen nothing are shown the example first. Raises what the model's forward raises.
    """
    wanted = {i: f for i, f in enumerate(findings) if f.calls}
    if not wanted:
        return {}
    sites = find_quantizers(model)
    numbers: dict[int, RedundancyNumbers] = {}
    with preserved_state(model), torch.no_grad():
        unseen = not all(has_observed(sites[f.record.second]) for f in wanted.values())
        if unseen:
            show_once(model, inputs)
        model.eval()
        for module in sites.values():
            flag = getattr(module, "observer_enabled", None)
            if isinstance(flag, Tensor):
                flag.fill_(0)
        seen = _watch(model, inputs, wanted.values(), sites)
        whole = seen.pop("output")
        for index, finding in wanted.items():
            with bypassed(model, finding.calls):
                without = _flat(call_model(model, cloned(inputs)))
            key = finding.first_call
            if key not in seen:
                continue
            before, after = seen[key]
            scale = _scale_of(sites[finding.record.second])
            step = scale.reshape(-1)[0] if scale.numel() == 1 else scale.min()
            change = (after - before).abs()
            numbers[index] = RedundancyNumbers(
                values=before.numel(),
                changed=int((after != before).sum()),
                max_steps=float(change.max() / step) if change.numel() else 0.0,
                sqnr_db=sqnr(before, after),
                output_sqnr_db=sqnr(without, whole),
                scale_first=float(_scale_of(sites[finding.record.first]).reshape(-1)[0]),
                scale_second=float(scale.reshape(-1)[0]),
                observed_for_this=unseen,
            )
    return numbers


def sqnr(signal: Tensor, changed: Tensor) -> float:
    """Signal to quantization noise in dB: ``20 log10(|signal| / |signal - changed|)``; inf if
    nothing changed, NaN if there is no signal."""
    # Not every device has float64.
    signal, changed = signal.cpu().double(), changed.cpu().double()
    noise = float((signal - changed).norm())
    power = float(signal.norm())
    if noise == 0:
        return math.inf
    return 20 * math.log10(power / noise) if power else math.nan


def _watch(
    model: nn.Module, inputs: Any, findings: Any, sites: dict[str, nn.Module]
) -> dict[Any, Any]:
    """(input, output) of the last repeated call of each finding, and the model's output."""
    wanted = {f.first_call for f in findings if f.first_call is not None}
    counts: dict[str, int] = {}
    seen: dict[Any, Any] = {}

    def look(path: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            turn = counts.get(path, 0)
            counts[path] = turn + 1
            if (path, turn) in wanted:
                seen[path, turn] = (args[0].detach().clone(), out.detach().clone())

        return hook

    handles = [sites[p].register_forward_hook(look(p)) for p in dict.fromkeys(p for p, _ in wanted)]
    try:
        seen["output"] = _flat(call_model(model, cloned(inputs)))
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _flat(outputs: Any) -> Tensor:
    floats = [t.detach().flatten().float() for t in tensors_in(outputs) if t.is_floating_point()]
    return torch.cat(floats) if floats else torch.zeros(0)


def _scale_of(quantizer: nn.Module) -> Tensor:
    module: Any = quantizer
    if isinstance(getattr(module, "scale", None), Tensor):
        return module.scale.detach()  # type: ignore[no-any-return]
    return torch.ones(1)


def measure_step(model: nn.Module, inputs: Any, finding: Finding, rounds: int = 15) -> StepCost:
    """Time of forward and backward with the repeated calls and without, one after the other.

    The median over ``rounds`` pairs after two that do not count. Gradients are computed and thrown
    away: no ``.grad`` is written. The model is put back.
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
