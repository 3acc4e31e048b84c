"""Edits of batch norms of other classes than torch's own. See
:mod:`~qatexplorer.flows.edits.plan`."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from qatexplorer.flows.edits.plan import Change, Place, edit, put
from qatexplorer.flows.layer_types import BATCH_NORMS
from qatexplorer.flows.user_hooks import HOOK_TABLES
from qatexplorer.forward.preserve import preserved_rng

_SHAPES = ((4, 5), (2, 3, 3), (2, 2, 2, 2))  # the batch, and what follows the channels
_DROPS = nn.modules.dropout._DropoutNd


@edit("split_norm")
def split_norm(place: Place) -> Change:
    """Torch's BatchNorm, and after it the modules inside, for a class derived from it.

    Both are run on random values, in train and in eval mode, and must give the same.
    """
    old: Any = place.module
    index = next((i for i, kind in enumerate(BATCH_NORMS) if isinstance(old, kind)), None)
    if index is None or type(old) in BATCH_NORMS:
        raise place.misfit("of a class derived from torch's BatchNorm")
    kind = BATCH_NORMS[index]
    after = [(n, m) for n, m in old.named_children() if not isinstance(m, nn.Identity)]
    if not _are_same(old, _split(old, kind), _SHAPES[index]):
        raise place.misfit("torch's BatchNorm followed by the modules inside it")
    arguments = {name: getattr(old, name) for name in ("eps", "momentum")}
    arguments |= {n: False for n in ("affine", "track_running_stats") if not getattr(old, n)}
    shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    here = place.code
    parts = ", ".join(["norm", *(f"{here}.{name}" for name, _ in after)])
    new = f"nn.Sequential({parts})" if after else "norm"
    code = (
        f"norm = nn.{kind.__name__}({old.num_features}, {shown})\n"
        f"norm.load_state_dict({here}.state_dict(), strict=False)\n"
        f"{here} = {new}.train({here}.training)"
    )
    return Change(code, lambda: put(place.model, place.path, _hooked(old, kind)))


def _split(old: Any, kind: type[nn.Module]) -> nn.Module:
    norm: Any = kind(
        old.num_features, old.eps, old.momentum, old.affine, old.track_running_stats
    ).train(old.training)
    for table in ("_parameters", "_buffers"):
        getattr(norm, table).update({n: getattr(old, table).get(n) for n in getattr(norm, table)})
    after = [m for m in old.children() if not isinstance(m, nn.Identity)]
    return nn.Sequential(norm, *after) if after else norm


def _hooked(old: nn.Module, kind: type[nn.Module]) -> nn.Module:
    new = _split(old, kind)
    for table in HOOK_TABLES:
        for name in (table, f"{table}_with_kwargs"):
            if hasattr(old, name):
                setattr(new, name, getattr(old, name))
    return new


def _are_same(old: Any, new: nn.Module, shape: tuple[int, ...]) -> bool:
    like = next((t for t in (*old.parameters(), *old.buffers())), torch.zeros(0))
    with preserved_rng(), torch.no_grad():
        x = torch.rand(shape[0], old.num_features, *shape[1:], device=like.device) * 3 - 1
        pair = copy.deepcopy([old, new])
        drops = any(isinstance(module, _DROPS) for module in old.modules())
        modes: tuple[bool, ...] = (False,) if drops else (True, False)
        try:
            results = [[m.train(mode)(x.clone()) for m in pair] for mode in modes]
        except Exception:  # it wants other tensors than a batch norm
            return False
    return all(
        isinstance(a, torch.Tensor) and a.shape == b.shape and torch.allclose(a, b, atol=1e-6)
        for a, b in results
    )
