"""The session's own copy of what a user hands over, brought to a form that torch can prepare.

Wrappers are taken off, weights that a hook computes become parameters, TorchScript parts are put
into a box of their own. All of it happens to the copy, and each change says so in a note.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.ao.quantization import QConfigMapping
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel

from qatexplorer.flows.copying import Memo, copied
from qatexplorer.flows.edits.layers import computed_by
from qatexplorer.flows.edits.plan import Edit, make_edits
from qatexplorer.flows.user_hooks import mark_hooks
from qatexplorer.forward.scripted import ScriptedPart, named_python_modules, python_modules

_SHOWN = 6
_TAKEN_OFF = " around your model, or a part of it, is taken off on the session's copy"


@dataclass(frozen=True)
class OwnCopy:
    """``notes`` say what differs from the user's model, and ``edits`` are those of weights that it
    computes; ``names`` maps paths in that model to paths in ``model``, where a wrapper in between
    makes them differ."""

    model: nn.Module
    notes: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    edits: tuple[Edit, ...] = ()


def own_copy(model: nn.Module) -> OwnCopy:
    """Copy the user's model. Raises what ``copy.deepcopy`` raises."""
    names = dict(_names_without_wrappers(model))
    memo: Memo = {}
    kinds: dict[str, str] = {}
    # The innermost first, so that none is copied: DDP would talk to the other processes.
    for wrapper in reversed(list(model.modules())):
        found = wrapped_in(wrapper)
        if found is not None:
            prefix, inner = found
            kinds[type(wrapper).__name__] = prefix
            memo[id(wrapper)] = copy.deepcopy(inner, memo)
    twin = copied(_unwrapped(model), memo)
    for parent in list(python_modules(twin)):
        for name, child in parent._modules.items():
            if child is not None:
                parent._modules[name] = _unwrapped(child)
    notes = [_wrapper_note(kind, prefix) for kind, prefix in reversed(kinds.items())]
    edits = _fold_computed_weights(twin)
    notes += _notes_on(edits)
    notes += _box_scripted_parts(twin)
    mark_hooks(twin)
    return OwnCopy(twin, tuple(notes), names, edits)


# -- wrappers -----------------------------------------------------------------------------------


def wrapped_in(module: nn.Module) -> tuple[str, nn.Module] | None:
    """Name of the attribute and the model inside, if ``module`` only wraps one: ``torch.compile``,
    ``DataParallel``, ``DistributedDataParallel``, ``AveragedModel``."""
    inner: Any = None
    if type(module).__module__.startswith("torch._dynamo"):  # importing it takes long
        inner, name = module._modules.get("_orig_mod"), "_orig_mod"
    elif isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)):
        inner, name = module.module, "module"
    return (name, inner) if isinstance(inner, nn.Module) else None


def _unwrapped(module: nn.Module) -> nn.Module:
    while (found := wrapped_in(module)) is not None:
        module = found[1]
    return module


def _names_without_wrappers(
    module: nn.Module, shown: str = "", plain: str = "", seen: tuple[int, ...] = ()
) -> Iterator[tuple[str, str]]:
    if id(module) in seen:
        return
    if shown != plain:
        yield shown, plain
    found = wrapped_in(module)
    for name, child in module._modules.items():
        if child is not None:
            path = f"{shown}.{name}" if shown else name
            inside = found is not None and name == found[0]
            own = plain if inside else (f"{plain}.{name}" if plain else name)
            yield from _names_without_wrappers(child, path, own, (*seen, id(module)))


def _wrapper_note(kind: str, prefix: str) -> str:
    again = " torch.compile(session.model) compiles it again." if prefix == "_orig_mod" else ""
    return (
        f"The {kind}{_TAKEN_OFF}: paths and keys are those of the model inside, without "
        f"{prefix + '.'!r}.{again}"
    )


def is_wrapper_note(note: str) -> bool:
    """Whether a note of an :class:`OwnCopy` is about a wrapper."""
    return _TAKEN_OFF in note


def in_plain_names(value: Any, names: Mapping[str, str]) -> Any:
    """``value`` (lists of paths, dicts by path, a ``QConfigMapping``) with each path of the
    wrapped model replaced by that of the copy."""
    if not names:
        return value
    if isinstance(value, str):
        return ",".join(names.get(part.strip(), part) for part in value.split(","))
    if isinstance(value, (list, tuple)):
        return type(value)(in_plain_names(part, names) for part in value)
    if isinstance(value, dict):
        return {in_plain_names(key, names): part for key, part in value.items()}
    if isinstance(value, QConfigMapping):
        changed = copy.copy(value)
        changed.module_name_qconfigs = type(value.module_name_qconfigs)(
            (names.get(path, path), qconfig) for path, qconfig in value.module_name_qconfigs.items()
        )
        return changed
    return value


def in_plain_names_of(settings: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The same for the settings of a session that name modules."""
    naming = ("qconfig", "fusion", "non_traceable")
    return {k: in_plain_names(v, names) if k in naming else v for k, v in settings.items()}


# -- weights that are computed ------------------------------------------------------------------


def _fold_computed_weights(model: nn.Module) -> tuple[Edit, ...]:
    """Make a parameter of each weight that is computed before a forward, where torch's QAT modules
    want one. Function and value stay as they are."""
    edits = [
        Edit(name, path)
        for path, module in named_python_modules(model)
        for name in computed_by(module)
        if name != "remove_parametrizations" or not _torch_keeps_it(module)
    ]
    return make_edits(model, edits)


def _notes_on(edits: tuple[Edit, ...]) -> list[str]:
    paths: dict[str, list[str]] = {}
    for one in edits:
        paths.setdefault(one.name, []).append(one.path)
    return [_FOLDED[name].format(paths=_listed(named)) for name, named in paths.items()]


_GOES_ON = (
    "torch's QAT modules want a parameter there. On the session's copy it is one, of the same "
    "value; training then moves it freely, without {what}. In a script of your own: {call}."
)
_FOLDED = {
    "remove_weight_norm": "The weight of {paths} is computed by weight_norm. "
    + _GOES_ON.format(what="the norm", call="torch.nn.utils.remove_weight_norm(layer)"),
    "remove_spectral_norm": "The weight of {paths} is computed by spectral_norm. "
    + _GOES_ON.format(what="the norm", call="torch.nn.utils.remove_spectral_norm(layer)"),
    "remove_pruning": "{paths} are pruned: a mask is laid on the weight before each forward. "
    + _GOES_ON.format(
        what="the mask, so that zeros may come back",
        call="torch.nn.utils.prune.remove(layer, 'weight')",
    )
    + " Apply the mask again before you convert: "
    "prune.custom_from_mask(layer, 'weight', mask) and prune.remove.",
    "remove_parametrizations": "The weight of {paths} is computed by a parametrization. "
    + _GOES_ON.format(
        what="the parametrization",
        call="torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')",
    ),
}


def _torch_keeps_it(module: nn.Module) -> bool:
    """Whether both flows prepare and convert ``module`` with its parametrization: nn.Linear with a
    parametrized weight. Modules that are not torch's layers are left alone: nothing swaps them."""
    kind = parametrize.type_before_parametrizations(module)
    layer = any(base.__module__.startswith("torch.nn.") for base in kind.__mro__[:-2])
    linear = kind is nn.Linear and list(module.parametrizations) == ["weight"]  # type: ignore
    return linear or not layer


# -- TorchScript --------------------------------------------------------------------------------


def _box_scripted_parts(model: nn.Module) -> list[str]:
    boxes: dict[int, ScriptedPart] = {}
    paths = []
    for path, parent in list(named_python_modules(model)):
        for name, child in parent._modules.items():
            if isinstance(child, torch.jit.ScriptModule):
                box = boxes.setdefault(id(child), ScriptedPart(child))
                parent._modules[name] = box
                paths.append(f"{path}.{name}" if path else name)
    if not paths:
        return []
    count = sum(p.numel() for box in boxes.values() for p in box.parameters())
    share = count / max(1, sum(p.numel() for p in model.parameters()))
    note = (
        f"{_listed(paths)} is TorchScript, which torch cannot swap module by module: one box that "
        "stays float, dequantized before and quantized after. That is "
        f"{count:,} of the model's parameters ({share:.0%}). Build that part from its Python class "
        "to quantize it; load_state_dict brings its weights over, the names are the same."
    )
    return [note]


def _listed(paths: list[str]) -> str:
    named = [path or "the model itself" for path in paths]
    more = f" … ({len(named)} in all)" if len(named) > _SHOWN else ""
    return ", ".join(named[:_SHOWN]) + more
