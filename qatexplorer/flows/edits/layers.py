"""Edits of single layers: padding, batch norms, computed weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from qatexplorer.flows.base import own_parameters
from qatexplorer.flows.edits.plan import Change, Place, edit, put
from qatexplorer.flows.layer_types import BATCH_NORMS, WEIGHTED
from qatexplorer.flows.user_hooks import HOOK_TABLES

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
_PADS: dict[str, tuple[type[nn.Module], ...]] = {
    "zeros": (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d),
    "reflect": (nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d),
    "replicate": (nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d),
    "circular": (nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d),
}
FROZEN_BUFFERS = {"weight", "bias", "running_mean", "running_var"}


# -- padding ------------------------------------------------------------------------------------


def padding_sides(conv: Convolution) -> tuple[tuple[int, int], ...]:
    """(before, after) that a convolution pads each dimension by, the first dimension first."""
    if conv.padding == "valid":
        return ((0, 0),) * len(conv.kernel_size)
    if conv.padding == "same":
        totals = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((int(size), int(size)) for size in conv.padding)


def number_of(conv: Convolution) -> tuple[int, ...] | None:
    """The padding as numbers; None where the two sides differ (an even kernel with "same")."""
    sides = padding_sides(conv)
    return tuple(a for a, _ in sides) if all(a == b for a, b in sides) else None


@edit("number_padding")
def number_padding(place: Place) -> Change:
    """The padding of a convolution as the numbers that its word stands for."""
    conv = place.module
    if not isinstance(conv, Convolution) or not isinstance(conv.padding, str):
        raise place.misfit("a convolution whose padding is a word")
    number = number_of(conv)
    if number is None:
        raise place.misfit(
            "a convolution that pads both sides alike: its kernel is even",
            "The edit 'pad_layer' puts a layer before it that pads.",
        )
    return Change(f"{place.code}.padding = {number}", lambda: setattr(conv, "padding", number))


@edit("pad_layer")
def pad_layer(place: Place) -> Change:
    """A layer that pads, before a convolution that pads no more.

    The value ``"float"`` puts it between a DeQuantStub and a QuantStub, for what cannot pad int8
    tensors.
    """
    conv = place.module
    if not isinstance(conv, Convolution) or conv.padding_mode not in _PADS:
        raise place.misfit("a convolution")
    sides = padding_sides(conv)
    if not any(size for side in sides for size in side):
        raise place.misfit("a convolution that pads")
    kind = _PADS[conv.padding_mode][len(sides) - 1]
    size = tuple(n for side in reversed(sides) for n in side)
    arguments = (size, 0.0) if conv.padding_mode == "zeros" else (size,)
    shown = f"nn.{kind.__name__}({', '.join(map(str, arguments))})"
    parts: list[nn.Module] = [kind(*arguments)]
    if place.value == "float":
        parts = [torch.ao.quantization.DeQuantStub(), *parts, torch.ao.quantization.QuantStub()]
        shown = f"DeQuantStub(), {shown}, QuantStub()"

    def make() -> None:
        conv.padding = (0,) * len(sides)
        conv.padding_mode = "zeros"
        put(place.model, place.path, nn.Sequential(*parts, conv))

    new = f"nn.Sequential({shown}, {place.code})"
    zeros = f"{place.code}.padding, {place.code}.padding_mode = {(0,) * len(sides)}, 'zeros'"
    return Change(f"{zeros}\n{place.code} = {new}", make)


# -- subclasses ---------------------------------------------------------------------------------


def plain_base(module: nn.Module) -> type[nn.Module] | None:
    """Torch's own layer that ``module``, of a subclass of it, computes the same as; None if it is
    no such subclass, or computes something of its own."""
    kind: Any = type(module)
    base: type[nn.Module] | None = next((o for o in kind.__mro__[1:] if o in WEIGHTED), None)
    computes = ("forward", "_conv_forward", "__call__")
    if base is None or any(getattr(kind, n, None) is not getattr(base, n, None) for n in computes):
        return None
    return base


@edit("plain_class")
def plain_class(place: Place) -> Change:
    """Torch's own class for a layer whose class only derives from it."""
    base = plain_base(place.module)
    if base is None:
        raise place.misfit("of a subclass that computes what torch's layer does")
    name = type(place.module).__name__

    def make() -> None:
        place.module.__class__ = base

    code = f"{place.code}.__class__ = nn.{base.__name__}"
    extra = place.module.extra_repr()
    return Change(code, make, f"{name}({extra})", f"{base.__name__}({extra})")


# -- batch norms --------------------------------------------------------------------------------


@edit("frozen_affine")
def frozen_affine(place: Place) -> Change:
    """A weight of ones and a bias of zeros that do not learn, for a batch norm without affine."""
    norm: Any = place.module
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or norm.affine:
        raise place.misfit("a batch norm with affine=False")
    like = norm.running_mean if norm.running_mean is not None else torch.zeros(0)
    ones = torch.ones(norm.num_features, device=like.device)

    def make() -> None:
        norm.affine = True
        norm.weight = nn.Parameter(ones, requires_grad=False)
        norm.bias = nn.Parameter(torch.zeros_like(ones), requires_grad=False)

    here, count = place.code, norm.num_features
    code = (
        f"{here}.affine = True\n"
        f"{here}.weight = nn.Parameter(torch.ones({count}), requires_grad=False)\n"
        f"{here}.bias = nn.Parameter(torch.zeros({count}), requires_grad=False)"
    )
    return Change(code, make)


@edit("plain_batch_norm")
def plain_batch_norm(place: Place) -> Change:
    """BatchNorm for a SyncBatchNorm or a frozen batch norm; the value is the number of dimensions
    that it normalizes over, 1, 2 or 3. One that was frozen has a frozen weight and bias, and
    running statistics that stay (momentum 0)."""
    old: Any = place.module
    sync = isinstance(old, nn.SyncBatchNorm)
    if not sync and not is_frozen_norm(old):
        raise place.misfit("a SyncBatchNorm or a frozen batch norm")
    if place.value not in (1, 2, 3):
        raise place.misfit(
            f"one that an edit with the value {place.value!r} fits", "Pass value=1, 2 or 3."
        )
    kind = BATCH_NORMS[place.value - 1]
    count = old.num_features if sync else old.running_mean.numel()
    momentum = old.momentum if sync else 0.0
    arguments: dict[str, Any] = {"eps": _eps_of(old), "momentum": momentum}
    if sync and not (old.affine and old.track_running_stats):
        arguments |= {"affine": old.affine, "track_running_stats": old.track_running_stats}
    here, shown = place.code, ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    code = (
        f"norm = nn.{kind.__name__}({count}, {shown})\n"
        f"norm.load_state_dict({here}.state_dict(), strict={sync})\n"
        f"{here} = norm.train({here}.training)"
    )
    if not sync:
        code += f"\n{here}.requires_grad_(False)"

    def make() -> None:
        norm = kind(count, **arguments)
        with torch.no_grad():
            for name in ("weight", "bias"):
                value = getattr(old, name)
                if value is not None:
                    learns = sync and value.requires_grad
                    shared = value if sync else nn.Parameter(value.detach().clone(), learns)
                    setattr(norm, name, shared)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            if isinstance(getattr(old, name, None), torch.Tensor):
                setattr(norm, name, getattr(old, name).detach().clone())
        norm.num_batches_tracked = _on_the_device(norm)
        for table in HOOK_TABLES:
            for name in (table, f"{table}_with_kwargs"):
                if hasattr(old, name):
                    setattr(norm, name, getattr(old, name))
        put(place.model, place.path, norm)

    return Change(code, make)


def _on_the_device(norm: nn.modules.batchnorm._BatchNorm) -> Any:
    counted, like = norm.num_batches_tracked, norm.running_mean
    return counted.to(like.device) if counted is not None and like is not None else counted


def _eps_of(norm: Any) -> float:
    # Detectron2's and torchvision's have one; those of DETR have 1e-5 in their forward.
    return float(getattr(norm, "eps", 1e-5))


def is_frozen_norm(module: nn.Module) -> bool:
    """Whether it is one of the classes named FrozenBatchNorm… of torchvision, detectron2, DETR and
    others: a batch norm whose weight and bias are buffers."""
    names = {name for name, _ in module.named_buffers(recurse=False)}
    frozen = any(kind.__name__.startswith("FrozenBatchNorm") for kind in type(module).__mro__)
    return frozen and names >= FROZEN_BUFFERS and not list(module.children())


# -- computed weights ---------------------------------------------------------------------------


@edit("remove_weight_norm")
def remove_the_weight_norm(place: Place) -> Change:
    """One parameter for a weight that ``torch.nn.utils.weight_norm`` computes of two."""
    return _removed(place, WeightNorm, "name", remove_weight_norm, "weight_norm")


@edit("remove_spectral_norm")
def remove_the_spectral_norm(place: Place) -> Change:
    """One parameter for a weight that ``torch.nn.utils.spectral_norm`` computes."""
    return _removed(place, SpectralNorm, "name", remove_spectral_norm, "spectral_norm")


@edit("remove_pruning")
def remove_the_pruning(place: Place) -> Change:
    """A parameter with zeros for one that ``torch.nn.utils.prune`` lays a mask on."""
    return _removed(place, prune.BasePruningMethod, "_tensor_name", prune.remove, "prune")


def _removed(
    place: Place, kind: type, attribute: str, remove: Callable[..., Any], what: str
) -> Change:
    hooks = [h for h in place.module._forward_pre_hooks.values() if isinstance(h, kind)]
    if not hooks:
        raise place.misfit(f"a layer with {what}")
    names = [getattr(hook, attribute) for hook in hooks]
    where = "torch.nn.utils.prune.remove" if what == "prune" else f"torch.nn.utils.remove_{what}"
    code = "\n".join(f"{where}({place.code}, {name!r})" for name in names)
    kept = type(place.module).__name__, place.module.extra_repr()
    before = f"{kept[0]}({kept[1]}), {names[0]} computed by {what}"

    def make() -> None:
        for name in names:
            remove(place.module, name)

    return Change(code, make, before, f"{kept[0]}({kept[1]})")


@edit("remove_parametrizations")
def remove_the_parametrizations(place: Place) -> Change:
    """One parameter for each tensor that a parametrization computes."""
    module: Any = place.module
    if not parametrize.is_parametrized(module):
        raise place.misfit("parametrized")
    names = list(module.parametrizations)
    call = "torch.nn.utils.parametrize.remove_parametrizations"
    code = "\n".join(f"{call}({place.code}, {name!r})" for name in names)

    def make() -> None:
        modes = [(m, m.training) for m in module.modules()]
        module.eval()  # a spectral norm would go on iterating
        own_parameters(module)  # torch writes to the one below a parametrization
        _give_own_class(module)
        for name in names:
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        for part, training in modes:
            part.training = training

    return Change(code, make)


def _give_own_class(module: nn.Module) -> None:
    """Its class has the property that computes a tensor, which torch deletes; copies share it."""
    kind = type(module)
    own = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
    module.__class__ = type(kind.__name__, kind.__bases__, own)


def computed_by(module: nn.Module) -> tuple[str, ...]:
    """Names of the edits that make parameters of tensors of ``module`` that it computes."""
    kinds = {
        "remove_weight_norm": WeightNorm,
        "remove_spectral_norm": SpectralNorm,
        "remove_pruning": prune.BasePruningMethod,
    }
    hooks = module._forward_pre_hooks.values()
    found = [name for name, kind in kinds.items() if any(isinstance(h, kind) for h in hooks)]
    return (*found, *(["remove_parametrizations"] * parametrize.is_parametrized(module)))
