"""Finding the fake quants of a model and describing each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.ao.quantization import FakeQuantizeBase, QuantStub

from qatexplorer.forward.leaves import is_quantizer
from qatexplorer.forward.probe import Probe
from qatexplorer.snapshot.records import FakeQuantSite, Mechanism, Placement, SiteKind


def observer_of(quantizer: nn.Module) -> nn.Module | None:
    """The observer inside a fake quant (its child ``activation_post_process``), else None."""
    inner = getattr(quantizer, "activation_post_process", None)
    return inner if isinstance(inner, nn.Module) else None


def find_quantizers(model: nn.Module) -> dict[str, nn.Module]:
    """Fake quants and bare observers by path, aliases too; not observers in a fake quant."""
    found: dict[str, nn.Module] = {}
    inner: set[int] = set()
    for path, module in model.named_modules(remove_duplicate=False):
        if not is_quantizer(module):
            continue
        found[path] = module
        observer = observer_of(module)
        if observer is not None:
            inner.add(id(observer))
    return {path: module for path, module in found.items() if id(module) not in inner}


def find_sites(
    model: nn.Module,
    *,
    stage: str,
    call: str,
    earlier: Mapping[str, FakeQuantSite],
    probed: Probe | None,
    placed: Mapping[str, Placement] | None = None,
) -> tuple[FakeQuantSite, ...]:
    """Describe every fake quant of ``model``; one that ``earlier`` has keeps its stage and call.

    ``placed`` has those that are nodes of an FX graph, by path.
    """
    aliases: dict[int, list[str]] = {}
    quantizers = find_quantizers(model)
    for path, module in quantizers.items():
        aliases.setdefault(id(module), []).append(path)
    modules = dict(model.named_modules(remove_duplicate=False))
    sites = []
    for paths in aliases.values():
        path = paths[0]
        owner = path.rpartition(".")[0]
        site = _describe(path, quantizers[path], owner, modules.get(owner), probed)
        known = earlier.get(path)
        made = (known.stage, known.call) if known is not None else (stage, call)
        site = replace(site, stage=made[0], call=made[1], aliases=tuple(paths[1:]))
        places = [placed[p] for p in paths if p in placed] if placed else []
        if places:
            site = _at_nodes(site, places)
        elif known is not None and known.nodes:
            old = Placement(known.kind, known.owner, known.owner_type, known.nodes)
            site = _at_nodes(site, [replace(old, call=known.call, shared_by=known.shared_by)])
        sites.append(site)
    return tuple(sites)


def _at_nodes(site: FakeQuantSite, places: Sequence[Placement]) -> FakeQuantSite:
    """``site`` as a node of an FX graph; one object may stand at several places."""
    first = places[0]
    return replace(
        site,
        kind=first.kind,
        owner=first.owner,
        owner_type=first.owner_type,
        call=first.call or site.call,
        mechanism="unused" if site.calls_per_forward == 0 else "node",
        nodes=tuple(dict.fromkeys(node for place in places for node in place.nodes)),
        # An observer that torch shared and then replaced by another is shared no longer.
        shared_by=tuple(dict.fromkeys(node for place in places for node in place.shared_by))
        if site.aliases
        else (),
    )


def _kind(path: str, owner: nn.Module | None) -> SiteKind:
    if "weight" in path.rpartition(".")[2]:
        return "weight"
    return "input" if isinstance(owner, QuantStub) else "output"


def _numbers(value: Any) -> tuple[float, ...]:
    if not isinstance(value, torch.Tensor):
        return () if value is None else (float(value),)
    return tuple(value.detach().reshape(-1).tolist())


def _flag(module: nn.Module, name: str) -> bool:
    value = getattr(module, name, None)
    return True if value is None else bool(value)


def _observer_runs(quantizer: nn.Module, observer: nn.Module | None, probed: Probe | None) -> str:
    if observer is None or probed is None:
        return ""
    if probed.calls.get(id(observer)):
        return "module"
    if not probed.calls.get(id(quantizer)):
        return "never"
    # FusedMovingAvgObsFakeQuantize hands the observer's buffers to one C++ op.
    fused = "fused" in type(quantizer).__name__.lower()
    return "fused kernel" if fused and _flag(quantizer, "observer_enabled") else "never"


def _describe(
    path: str,
    quantizer: nn.Module,
    owner: str,
    owner_module: nn.Module | None,
    probed: Probe | None,
) -> FakeQuantSite:
    is_fake_quant = isinstance(quantizer, FakeQuantizeBase)
    observer = observer_of(quantizer) if is_fake_quant else quantizer
    source: Any = observer if observer is not None else quantizer
    qscheme = getattr(quantizer, "qscheme", getattr(source, "qscheme", None))
    per_channel = qscheme in (
        torch.per_channel_affine,
        torch.per_channel_symmetric,
        torch.per_channel_affine_float_qparams,
    )
    ch_axis = getattr(quantizer, "ch_axis", getattr(source, "ch_axis", None))
    mechanism: Mechanism = "unused"
    if probed is not None:
        mechanism = probed.mechanisms.get(id(quantizer), "unused")
    min_val, max_val = (
        _numbers(getattr(source, "min_val", None)),
        _numbers(getattr(source, "max_val", None)),
    )
    if min_val and min_val[0] > max_val[0]:
        min_val = max_val = ()
    return FakeQuantSite(
        path=path,
        kind=_kind(path, owner_module),
        owner=owner,
        owner_type=type(owner_module).__name__ if owner_module is not None else "",
        stage="",
        call="",
        mechanism=mechanism,
        fake_quant_class=type(quantizer).__name__,
        observer_class=type(observer).__name__ if observer is not None else "",
        observer_path=f"{path}.activation_post_process" if is_fake_quant and observer else "",
        observer_runs=_observer_runs(quantizer, observer, probed),
        dtype=str(getattr(quantizer, "dtype", getattr(source, "dtype", ""))),
        quant_min=int(_first(quantizer, source, "quant_min")),
        quant_max=int(_first(quantizer, source, "quant_max")),
        qscheme=str(qscheme or ""),
        ch_axis=int(ch_axis) if per_channel and ch_axis is not None else None,
        scale=_numbers(getattr(quantizer, "scale", None)),
        zero_point=tuple(int(z) for z in _numbers(getattr(quantizer, "zero_point", None))),
        min_val=min_val,
        max_val=max_val,
        observer_enabled=_flag(quantizer, "observer_enabled"),
        fake_quant_enabled=is_fake_quant and _flag(quantizer, "fake_quant_enabled"),
        calls_per_forward=None if probed is None else probed.calls.get(id(quantizer), 0),
        state_dict_keys=tuple(f"{path}.{key}" for key in quantizer.state_dict()),
        tensor_shape=None if probed is None else probed.shapes.get(id(quantizer)),
    )


def _first(quantizer: nn.Module, observer: Any, name: str) -> int:
    for holder in (quantizer, observer):
        value = getattr(holder, name, None)
        if value is not None:
            return int(value)
    return 0
