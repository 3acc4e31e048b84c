"""Which fake quants of a model are watched, and what of them can be seen."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, fx, nn

from qatexplorer.errors import InputError, NotAModuleError
from qatexplorer.forward.either_mode import EitherMode
from qatexplorer.forward.exported import exported_graph, is_exported
from qatexplorer.forward.graph import Placement
from qatexplorer.quantizers.facts import (
    LEARNED,
    PT2E,
    TORCH_AO,
    averaging_constant,
    family_of,
    find_quantizers,
    flags_of,
    has_codes,
    is_fake_quant,
    kinds_of,
    quant_range,
)
from qatexplorer.quantizers.torchao_grids import is_torchao, scheme_of
from qatexplorer.quantizers.types import SiteKind
from qatexplorer.runs.samples import FakeQuantInfo

COMPILED = (
    "it runs inside a torch.compile'd module, where no hook is called: scale, range and state are "
    "recorded, its values are not"
)


NO_CODES = (
    "it rounds to {dtype}, whose values do not lie at even distances: there are no codes to count; "
    "whether it is on is recorded, its values are not"
)


@dataclass(frozen=True, eq=False)
class WatchedFakeQuant:
    """One fake quant to watch; shared instances appear once, by their first path.

    ``weight`` is the tensor to sample instead of the call, for a weight fake quant in a compiled
    module whose weight reaches it as it is.
    """

    info: FakeQuantInfo
    module: nn.Module
    owner: nn.Module | None
    batch_norm: nn.Module | None
    weight: bool = False

    @property
    def averaging_constant(self) -> float | None:
        """Of a moving-average observer, else None: from it a batch's range can be read back."""
        return averaging_constant(self.module)

    def flags(self) -> tuple[Tensor | None, Tensor | None]:
        """(observer_enabled, fake_quant_enabled) as the buffers that they are."""
        return (family_of(self.module) or TORCH_AO).flag_buffers(self.module)

    def plain_flags(self) -> tuple[bool, bool] | None:
        """The same of a family that keeps them as plain attributes, as they are now; else None."""
        if not is_torchao(self.module):
            return None
        now = flags_of(self.module)
        return now.observer, now.fake_quant


def find_watched(model: nn.Module, paths: Sequence[str] | None) -> list[WatchedFakeQuant]:
    """The fake quants of ``model``, weights first, then by their grids.

    Raises NotAModuleError, and InputError if there is none (at one of ``paths``).
    """
    if not isinstance(model, nn.Module):
        raise NotAModuleError(f"model is a {type(model).__name__}, not a torch.nn.Module.")
    named = dict(model.named_modules(remove_duplicate=False))
    found = {p: m for p, m in find_quantizers(model).items() if is_fake_quant(m)}
    if paths is None:
        chosen = list(found)
    else:
        chosen = list(paths)
        for path in chosen:
            if path not in found:
                raise InputError(
                    f"paths names {path!r}, where there is no fake quant.",
                    where=path,
                    fix="Take the paths from the sites of a snapshot of the prepared model.",
                )
    if not chosen:
        raise InputError(
            "the model has no fake quant to watch.",
            why="It is not prepared for quantization-aware training, or is converted already.",
            fix="Watch the model that prepare_qat (or prepare_qat_fx) returns.",
        )
    compiled, kinds = _compiled_paths(named), kinds_of(model)
    placed = _placements(model)
    once: dict[int, WatchedFakeQuant] = {}
    for path in chosen:
        if id(found[path]) not in once:
            once[id(found[path])] = _watched_fake_quant(
                path, kinds[path], found[path], named, compiled, placed.get(path)
            )
    # Rows of one grid lie side by side, so that a whole slice is clamped at once.
    return sorted(
        once.values(),
        key=lambda t: (t.info.kind != "weight", t.info.quant_min, t.info.quant_max),
    )


def _placements(model: nn.Module) -> dict[str, Placement]:
    """Whose tensor each fake quant rounds, where the nodes of an exported graph say so."""
    if not is_exported(model):
        return {}
    assert isinstance(model, fx.GraphModule)
    return exported_graph(model, {})[1]


def _is_scaled(model: nn.Module, path: str) -> bool:
    """Whether the graph of an exported model computes what the fake quant of a weight is given:
    torchao scales the weight by the batch norm behind it."""
    assert isinstance(model, fx.GraphModule)
    nodes = (node for node in model.graph.nodes if node.op == "call_module")
    return any(n.all_input_nodes[0].op != "get_attr" for n in nodes if str(n.target) == path)


def followed_paths(model: nn.Module) -> tuple[str, ...]:
    """Paths of the fake quants of weights, each once, whose codes can be followed: those that hold
    their scale."""
    once: dict[int, str] = {}
    found = find_quantizers(model)
    for path, kind in kinds_of(model).items():
        module = found[path]
        if (
            kind == "weight"
            and is_fake_quant(module)
            and family_of(module) in (TORCH_AO, LEARNED, PT2E)
        ):
            once.setdefault(id(module), path)
    return tuple(once.values())


def _compiled_paths(named: dict[str, nn.Module]) -> tuple[str, ...]:
    """Paths below which modules may run as compiled code."""
    dynamo = sys.modules.get("torch._dynamo")
    wrapper = getattr(dynamo, "OptimizedModule", None)
    if wrapper is None:
        return ()
    # torch.compile(model) wraps the model, which does not know of its wrapper; an object refers to
    # its class, and looking for that is much quicker than looking through all objects.
    wrapped = {id(o._orig_mod) for o in gc.get_referrers(wrapper) if type(o) is wrapper}
    return tuple(
        path
        for path, module in named.items()
        if isinstance(module, wrapper)
        or id(module) in wrapped
        or getattr(module, "_compiled_call_impl", None) is not None
    )


def anything_compiled() -> bool:
    """Whether torch.compile has compiled anything in this process."""
    counters = getattr(sys.modules.get("torch._dynamo.utils"), "counters", {})
    return bool(counters.get("frames", {}).get("total", 0))


def _watched_fake_quant(
    path: str,
    kind: SiteKind,
    module: nn.Module,
    named: dict[str, nn.Module],
    compiled: tuple[str, ...],
    place: Placement | None,
) -> WatchedFakeQuant:
    owner_path = path.rpartition(".")[0] if place is None else place.owner
    owner = named.get(owner_path)
    is_weight = kind == "weight"
    inside = any(not c or path.startswith(f"{c}.") for c in compiled)
    # A conv fused with a batch norm hands over its weight scaled by it, which no attribute holds.
    batch_norm = getattr(owner, "bn", None) if is_weight else None
    plain = is_weight and batch_norm is None and isinstance(getattr(owner, "weight", None), Tensor)
    if place is not None and is_weight and _is_scaled(named[""], path):
        # Of an exported model, whose own flag says whether its batch norms are frozen.
        owner, plain = named[""], False
        batch_norm = owner if isinstance(owner, EitherMode) else None
    kind_of_owner = type(owner).__name__ if owner is not None else ""
    per_channel = bool(getattr(module, "is_per_channel", False))
    low, high = quant_range(module)
    axis = int(module.ch_axis) if per_channel else None  # type: ignore[arg-type]
    dtype, unseen = str(getattr(module, "dtype", "")), COMPILED if inside and not plain else ""
    if is_torchao(module):
        # Its scale is that of the forward just made: only a hook sees it.
        axis, dtype, inside = 0, scheme_of(module).dtype, False
        unseen = unseen if has_codes(module) else NO_CODES.format(dtype=dtype[len("torch.") :])
    info = FakeQuantInfo(
        path=path,
        kind=kind,
        owner=owner_path,
        owner_type=kind_of_owner if place is None else place.owner_type,
        quant_min=low,
        quant_max=high,
        dtype=dtype,
        ch_axis=axis,
        unseen=unseen,
        observes=not is_torchao(module),
    )
    return WatchedFakeQuant(info, module, owner, batch_norm, weight=inside and plain)


def channel_axis(watched: WatchedFakeQuant, ndim: int) -> int | None:
    """The axis whose slices are channels, None if there is none."""
    if watched.info.ch_axis is not None:
        return watched.info.ch_axis % ndim if ndim else None
    if ndim < 2:
        return None
    kind = watched.info.owner_type
    if watched.info.kind == "weight":
        return 1 if "Transpose" in kind else 0
    return 1 if ndim >= 4 or "Conv" in kind else ndim - 1
