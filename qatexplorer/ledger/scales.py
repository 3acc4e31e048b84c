"""A fake quant's scale three ways: stored, computed again, and as this one tensor would ask for.

``calculate_qparams`` is always torch's own. Where the results differ, the reason is proved from
the numbers: that the stored scale equals the fused kernel's formula on the observer's own range
is a fact; that a class has "Fused" in its name is none.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qatexplorer.ledger.records import Cause
from qatexplorer.quantizers.facts import flags_of, is_quantizer, observer_of, quant_range, seen_data

_EQUAL = 1e-6  # float32 rounding of one division
_LAG = 1e-3
SMALLEST_KERNEL_SCALE = 6.1e-5

_TEXTS: dict[Cause, str] = {
    "none": "The stored scale is what calculate_qparams() gives.",
    "never_observed": "The observer has seen no data: the scale is still its initial value.",
    "fused_formula": "The fused kernel gives each side of a symmetric range its own number of "
    "codes, as max(|min|/128, max/127) for 8 bits; calculate_qparams(), which convert uses, takes "
    "max(|min|, max)/127.5.",
    "moving_average": "The observer holds earlier data too; this tensor alone asks for another "
    "range.",
    "stale": "The observer is disabled: the range is an old one.",
    "fixed": "The scale is fixed by the operation's output range, not observed.",
    "unexplained": "The stored scale was set by something other than the observer.",
}

_DERIVED = "The scale is computed of those of other fake quants, not observed."

_PARTLY = "The observer has seen no data in some of its channels: their scale is no measured one."


@dataclass(frozen=True)
class ScaleAccount:
    """Scales of one fake quant or observer, and how they differ; see ``LedgerRow``."""

    stored: tuple[float, ...]
    recomputed: tuple[float, ...] = ()
    difference: float | None = None
    cause: Cause = "none"
    cause_text: str = ""
    fresh: tuple[float, ...] = ()
    fresh_difference: float | None = None
    fresh_cause: Cause = "none"


def recomputed_scale(quantizer: nn.Module) -> Tensor | None:
    """Scale that the module's own ``calculate_qparams()`` returns; its state stays as it is.

    None where torch cannot compute one (a placeholder observer).
    """
    module: Any = quantizer
    before = [(t, t.detach().clone()) for t in (*module.parameters(), *module.buffers())]
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            result = module.calculate_qparams()
        scale = result[0] if isinstance(result, (tuple, list)) else result
        return scale.detach().clone().flatten() if isinstance(scale, Tensor) else None
    except Exception:  # the observer's word that it has no qparams, in many types
        return None
    finally:
        with torch.no_grad():
            for tensor, content in before:
                if tensor.shape != content.shape or not torch.equal(tensor, content):
                    tensor.set_(content)


class FreshScales:
    """What each observer would compute from the tensor of one forward alone, by path.

    Empty copies of the observers are made first; each is shown the first tensor that its fake quant
    gets. Those that do not run, and observers that cannot be emptied, are left out of ``found``.
    """

    def __init__(self, sites: Mapping[str, nn.Module]) -> None:
        self.found: dict[str, Tensor] = {}
        self._empty: dict[str, Any] = {}
        for path, module in sites.items():
            observer = observer_of(module) or module
            if hasattr(observer, "reset_min_max_vals") and is_quantizer(observer):
                empty: Any = copy.deepcopy(observer)
                empty._forward_pre_hooks.clear()
                empty._forward_hooks.clear()
                try:
                    empty.reset_min_max_vals()
                except NotImplementedError:
                    continue  # a histogram observer
                self._empty[path] = empty

    def __call__(self, path: str, _module: nn.Module, tensor: Tensor) -> None:
        """The fake quant at ``path`` gets ``tensor``."""
        empty = self._empty.pop(path, None)
        if empty is not None:
            empty(tensor.detach())
            scale = recomputed_scale(empty)
            if scale is not None:
                self.found[path] = scale


def account(quantizer: nn.Module, fresh: Tensor | None = None) -> ScaleAccount:
    """Compare the scales of ``quantizer``; ``fresh`` from :class:`FreshScales`."""
    module: Any = quantizer
    stored = (
        module.scale.detach().flatten()
        if isinstance(getattr(module, "scale", None), Tensor)
        else None
    )
    again = recomputed_scale(quantizer)
    stored_numbers = () if stored is None else tuple(stored.tolist())
    seen = seen_data(quantizer)
    if seen in ("fixed", "derived"):
        numbers = () if again is None else tuple(again.tolist())
        text = _DERIVED if seen == "derived" else _TEXTS["fixed"]
        return ScaleAccount(stored_numbers, numbers, _largest(again, stored), "fixed", text)
    if seen in ("nothing", "partly"):
        text = _TEXTS["never_observed"] if seen == "nothing" else _PARTLY
        return ScaleAccount(stored_numbers, cause="never_observed", cause_text=text)
    if again is None:
        return ScaleAccount(stored_numbers)
    difference = _largest(again, stored)
    cause = _cause(quantizer, stored, difference)
    lag = None if fresh is None else _largest(fresh, again)
    enabled = flags_of(quantizer).observer
    text = _TEXTS[cause]
    if cause == "fused_formula" and stored is not None:
        text = _fused_text(quantizer, stored, again)
    lagging: Cause = "moving_average" if enabled else "stale"
    return ScaleAccount(
        stored_numbers,
        tuple(again.tolist()),
        difference,
        cause,
        text,
        () if fresh is None else tuple(fresh.tolist()),
        lag,
        lagging if lag is not None and abs(lag) > _LAG else "none",
    )


def _largest(after: Tensor | None, before: Tensor | None) -> float | None:
    """``after / before - 1`` of the channel where it is largest, sign kept."""
    if after is None or before is None or after.shape != before.shape or not after.numel():
        return None
    relative = after.double() / before.double() - 1
    return float(relative[relative.abs().argmax()])


def _cause(quantizer: nn.Module, stored: Tensor | None, difference: float | None) -> Cause:
    if stored is None or difference is None or abs(difference) <= _EQUAL:
        return "none"
    if _is_kernel_scale(quantizer, stored):
        return "fused_formula"
    return "stale" if not flags_of(quantizer).observer else "unexplained"


def kernel_scale(quantizer: nn.Module) -> Tensor | None:
    """What torch's fused kernel makes of the range that the observer holds now, None if unknown.

    Its ``ChooseQuantizationParams``: symmetric only where the range has both signs, and never a
    scale below 6.1e-5.
    """
    observer: Any = observer_of(quantizer) or quantizer
    symmetric = (torch.per_tensor_symmetric, torch.per_channel_symmetric)
    if getattr(observer, "qscheme", None) not in symmetric:
        return None
    quant_min, quant_max = quant_range(quantizer)
    levels = quant_max - quant_min
    low, high = observer.min_val.clamp(max=0).flatten(), observer.max_val.clamp(min=0).flatten()
    reach = torch.maximum(-low / (levels // 2 + 1), high / (levels // 2))
    two_sided = reach * (levels // 2 + 1 + levels // 2) / levels
    scale = torch.where((low < 0) & (high > 0), two_sided, (high - low) / levels)
    scale = torch.where(scale == 0, 0.1, scale)
    return scale.clamp(min=SMALLEST_KERNEL_SCALE)


def _is_kernel_scale(quantizer: nn.Module, stored: Tensor) -> bool:
    expected = kernel_scale(quantizer)
    return (
        expected is not None
        and expected.shape == stored.shape
        and bool(torch.allclose(expected, stored, rtol=1e-5, atol=1e-12))
    )


def _fused_text(quantizer: nn.Module, stored: Tensor, again: Tensor) -> str:
    """Which part of the kernel's formula makes the largest difference."""
    observer: Any = observer_of(quantizer) or quantizer
    worst = int((again.double() / stored.double() - 1).abs().argmax())
    low, high = (float(t.flatten()[worst]) for t in (observer.min_val, observer.max_val))
    channel = f" (channel {worst})" if stored.numel() > 1 else ""
    if float(stored[worst]) <= SMALLEST_KERNEL_SCALE * 1.0001:
        return (
            f"The fused kernel stores no scale below {SMALLEST_KERNEL_SCALE:g}{channel}; "
            "calculate_qparams(), which convert uses, goes lower."
        )
    if low >= 0 or high <= 0:
        return (
            f"All values have one sign{channel}: there the fused kernel spends the whole grid on "
            "that side, while calculate_qparams(), which convert uses, keeps it symmetric."
        )
    quant_min, quant_max = quant_range(quantizer)
    levels = quant_max - quant_min
    below, above = levels // 2 + 1, levels // 2
    return (
        f"The fused kernel divides a symmetric range as max(|min|/{below}, max/{above}); "
        f"calculate_qparams(), which convert uses, as max(|min|, max)/{levels / 2:g}."
    )
