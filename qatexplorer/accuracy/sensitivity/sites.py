"""The fake quants of a prepared model as the places to rank, and a copy to run them on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from qatexplorer.errors import StageError
from qatexplorer.flows.base import copy_sharing_parameters
from qatexplorer.quantizers.facts import (
    fake_quants,
    fake_quants_on,
    family_of,
    find_quantizers,
    freeze_observers,
    is_fake_quant,
    kinds_of,
    never_observed,
    seen_data,
)


@dataclass(frozen=True)
class Site:
    """One fake quant, each object once. ``owner`` is the path of the module whose output, input or
    weight it quantizes."""

    path: str
    owner: str
    kind: Literal["activation", "weight"]
    module: nn.Module


@dataclass(frozen=True)
class Subject:
    """A copy of a prepared model that has the parameters in common with it: eval mode, observers
    still, all fake quants on.

    ``fingerprint`` is the same for two models with the same parameters, grids and fake quants.
    ``notes`` say what of it is not as one would think.
    """

    model: nn.Module
    sites: tuple[Site, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()


def subject_of(prepared: nn.Module, owners: Mapping[str, str]) -> Subject:
    """``owners`` is the path of the module that each fake quant belongs to, by its own path.

    Raises StageError if nothing can be ranked: no fake quants, or none that has seen data.
    """
    found = fake_quants(prepared)
    if not found:
        bare = any(not is_fake_quant(m) for m in find_quantizers(prepared).values())
        raise StageError(
            "there are no fake quants to rank.",
            why="The qconfig has observers where fake quants belong; they round nothing."
            if bare
            else "No module has a qconfig, so nothing is quantized.",
            fix="Choose a qconfig of QAT, such as qconfig='onednn'.",
        )
    if never_observed(prepared):
        raise StageError(
            "the fake quants have seen no data yet.",
            why="Their grids are made of the ranges that they have seen.",
            fix="Call session.calibrate() or session.train(1) first.",
        )
    notes = _notes(found)
    model = copy_sharing_parameters(prepared).eval()
    fake_quants_on(model)
    freeze_observers(model)
    for module in fake_quants(model).values():
        static = getattr(module, "static_enabled", None)  # a learned step size's observer
        if isinstance(static, Tensor):
            static.fill_(0)
    kinds = kinds_of(model)
    sites = tuple(
        Site(
            path,
            owners.get(path, path.rpartition(".")[0]),
            "weight" if kinds.get(path) == "weight" else "activation",
            module,
        )
        for path, module in fake_quants(model).items()
    )
    return Subject(model, sites, fingerprint_of(model, sites), notes)


def _notes(found: Mapping[str, nn.Module]) -> tuple[str, ...]:
    # A weight has its range from its first forward on; what stands where no data comes has none.
    unseen = [path for path, module in found.items() if seen_data(module) in ("nothing", "partly")]
    if not unseen:
        return ()
    names = ", ".join(unseen[:3]) + (f" and {len(unseen) - 3} more" if len(unseen) > 3 else "")
    return (f"Not all channels of these have seen data, so their grid is no good: {names}.",)


def copies_when_off(module: nn.Module) -> bool:
    """Whether a fake quant that is off gives a copy of what it is given, as torch's fused one does,
    and not the tensor itself. A model that writes to its tensors sees the difference."""
    family = family_of(module)
    return family is not None and family.kernel_observes(module)


def fingerprint_of(model: nn.Module, sites: Iterable[Site]) -> str:
    """Of all parameters and buffers, names and values, and of the paths of the fake quants."""
    found = hashlib.blake2b(digest_size=16)
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor):
            found.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
            found.update(_bytes_of(value))
    for site in sites:
        found.update(f"{site.path} {site.kind};".encode())
    return found.hexdigest()


def digest_of(batch: Any) -> str:
    """The same for two batches with the same tensors in the same places."""
    found = hashlib.blake2b(digest_size=16)
    for leaf in tree_leaves(batch):
        if isinstance(leaf, Tensor):
            found.update(f"{leaf.dtype} {tuple(leaf.shape)};".encode())
            found.update(_bytes_of(leaf))
        elif isinstance(leaf, (bool, int, float, str)):
            found.update(f"{leaf!r};".encode())
    return found.hexdigest()


def _bytes_of(tensor: Tensor) -> Any:
    """Its values as a buffer, whatever the dtype."""
    plain = tensor.detach().cpu().contiguous().reshape(-1)
    return plain.view(torch.uint8).numpy() if plain.numel() else b""
