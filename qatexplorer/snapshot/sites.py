"""Finding the fake quants of a model and describing each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from qatexplorer.forward.record import Probe
from qatexplorer.quantizers.facts import (
    derived_qparams,
    find_quantizers,
    flags_of,
    is_fake_quant,
    kind_of,
    observed_range,
    observer_of,
    observer_runs,
    quant_range,
    seen_data,
)
from qatexplorer.quantizers.torchao_grids import blocks_of, is_torchao, scheme_of
from qatexplorer.quantizers.types import Mechanism
from qatexplorer.snapshot.records import FakeQuantSite, Placement, SitePlace

MOST_BLOCKS = 65_536
"""Scales of so many blocks of one weight are kept, none of one that has more."""


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
        site = replace(
            site,
            stage=made[0],
            call=made[1],
            aliases=tuple(paths[1:]),
            places=tuple(SitePlace(p, p.rpartition(".")[0]) for p in paths),
        )
        places = {p: placed[p] for p in paths if p in placed} if placed else {}
        if places:
            site = _at_nodes(site, places)
        elif known is not None and known.nodes:
            old = Placement(known.kind, known.owner, known.owner_type, known.nodes)
            old = replace(
                old, call=known.call, shared_by=known.shared_by, parameter=known.parameter
            )
            site = replace(_at_nodes(site, {path: old}), places=known.places)
        if is_torchao(quantizers[path]):
            site = _in_blocks(site, quantizers[path], modules.get(owner))
        sites.append(site)
    return tuple(sites)


def _in_blocks(site: FakeQuantSite, quantizer: nn.Module, owner: nn.Module | None) -> FakeQuantSite:
    """``site`` of torchao's, with the scales that it would give its weight now."""
    scheme = scheme_of(quantizer)
    weight = getattr(owner, "weight", None) if site.kind == "weight" else None
    found = None
    if isinstance(weight, torch.Tensor) and weight.device.type != "meta":
        found = blocks_of(quantizer, weight)
    kept = found if found is not None and found.scale.numel() <= MOST_BLOCKS else None
    symmetry = "symmetric" if scheme.symmetric else "affine"
    return replace(
        site,
        dtype=scheme.dtype,
        qscheme=f"per {scheme.blocks}, {symmetry}",
        ch_axis=None,
        scale=() if kept is None else _numbers(kept.scale),
        zero_point=() if kept is None else tuple(round(z) for z in _numbers(kept.zero_point)),
        blocks=scheme.blocks,
        block_size=None if found is None else found.size,
        group_asked=scheme.group,
        tensor_shape=tuple(weight.shape) if weight is not None else site.tensor_shape,
    )


def _at_nodes(site: FakeQuantSite, named: Mapping[str, Placement]) -> FakeQuantSite:
    """``site`` as a node of an FX graph; one object may stand at several places, by its names."""
    places = tuple(named.values())
    first = places[0]
    return replace(
        site,
        kind=first.kind,
        owner=first.owner,
        owner_type=first.owner_type,
        parameter=first.parameter,
        call=first.call or site.call,
        mechanism="unused" if site.calls_per_forward == 0 else "node",
        nodes=tuple(dict.fromkeys(node for place in places for node in place.nodes)),
        places=tuple(SitePlace(path, p.owner, p.nodes) for path, p in named.items()),
        # An observer that torch shared and then replaced by another is shared no longer.
        shared_by=tuple(dict.fromkeys(node for place in places for node in place.shared_by))
        if site.aliases
        else (),
    )


def _qparams(quantizer: nn.Module) -> tuple[Any, Any]:
    """Scale and zero point as they are stored, or as they are computed of other fake quants now."""
    own = getattr(quantizer, "scale", None), getattr(quantizer, "zero_point", None)
    return derived_qparams(quantizer) or own


def _numbers(value: Any) -> tuple[float, ...]:
    if not isinstance(value, torch.Tensor):
        return () if value is None else (float(value),)
    return tuple(value.detach().reshape(-1).tolist())


def _describe(
    path: str,
    quantizer: nn.Module,
    owner: str,
    owner_module: nn.Module | None,
    probed: Probe | None,
) -> FakeQuantSite:
    is_rounding = is_fake_quant(quantizer)
    observer = observer_of(quantizer) if is_rounding else quantizer
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
    min_val, max_val = observed_range(quantizer)
    quant_min, quant_max = quant_range(quantizer)
    flags = flags_of(quantizer)
    calls = None if probed is None else probed.calls.get(id(quantizer), 0)
    runs = ""
    if probed is not None and is_rounding and observer is not None:
        inner = probed.calls.get(id(observer), 0)
        wrote = None if id(quantizer) in probed.switched_off else id(quantizer) in probed.wrote
        runs = observer_runs(quantizer, calls or 0, inner, wrote)
        if probed.only_quantizers and calls and runs == "never":
            runs = ""  # the fake quants were counted, what they call was not
    scale, zero_point = _qparams(quantizer)
    return FakeQuantSite(
        path=path,
        kind=kind_of(path, owner_module, probed.fed.get(id(quantizer), "") if probed else ""),
        owner=owner,
        owner_type=type(owner_module).__name__ if owner_module is not None else "",
        stage="",
        call="",
        mechanism=mechanism,
        fake_quant_class=type(quantizer).__name__,
        observer_class=type(observer).__name__ if observer is not None else "",
        observer_path=f"{path}.activation_post_process" if is_rounding and observer else "",
        observer_runs=runs,
        dtype=str(getattr(quantizer, "dtype", getattr(source, "dtype", ""))),
        quant_min=quant_min,
        quant_max=quant_max,
        qscheme=str(qscheme or ""),
        ch_axis=int(ch_axis) if per_channel and ch_axis is not None else None,
        scale=_numbers(scale),
        zero_point=tuple(int(z) for z in _numbers(zero_point)),
        min_val=min_val,
        max_val=max_val,
        seen=seen_data(quantizer),
        observer_enabled=flags.observer,
        fake_quant_enabled=flags.fake_quant,
        calls_per_forward=calls,
        state_dict_keys=tuple(f"{path}.{key}" for key in quantizer.state_dict()),
        tensor_shape=None if probed is None else probed.shapes.get(id(quantizer)),
    )
