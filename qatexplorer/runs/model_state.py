"""The state of a model as named tensors, and back into a model of the same shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from qatexplorer.errors import CheckpointError
from qatexplorer.quantizers.facts import is_quantizer
from qatexplorer.runs.codec import pack, unpack

_PREFIX = "model/"


def save_model(model: Module, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Copies of all parameters and buffers into ``tensors``; returns the rest, for JSON.

    Non-persistent buffers too: a ``state_dict`` leaves them out, and training may move them.
    """
    for name, tensor in _tensors(model):
        tensors[_PREFIX + name] = tensor.detach().to("cpu", copy=True).contiguous()
    extra = {
        path: module.get_extra_state()
        for path, module in model.named_modules()
        if type(module).get_extra_state is not Module.get_extra_state
    }
    return {"extra": pack(extra, "extra", tensors)}


def check_model(model: Module, tensors: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError if what :func:`save_model` gave does not fit ``model``."""
    saved = _of_model(tensors)
    here = dict(_tensors(model))
    _check_names(here, saved)
    elastic = _elastic(model)
    for name, tensor in here.items():
        grown = name in elastic and tensor.dim() <= 1
        if (tensor.shape != saved[name].shape and not grown) or tensor.dtype != saved[name].dtype:
            raise CheckpointError(
                f"The checkpoint does not fit the model: {name} is {_words(saved[name])} in the "
                f"checkpoint and {_words(tensor)} here.",
                where=name.rpartition(".")[0],
                fix="Open the run with the model that it was made with.",
            )


@torch.no_grad()
def load_model(model: Module, tree: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Put what :func:`save_model` gave into ``model``, in place.

    Buffers of fake quants and observers take the saved shape: they grow with the first batch.
    Raises CheckpointError if the model is another one; then nothing has changed.
    """
    check_model(model, tensors)
    saved = _of_model(tensors)
    for name, tensor in _tensors(model):
        if tensor.shape != saved[name].shape:
            tensor.resize_(saved[name].shape)
        tensor.copy_(saved[name])
    for path, value in unpack(tree["extra"], tensors).items():
        model.get_submodule(path).set_extra_state(value)


def _of_model(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(_PREFIX): t for k, t in tensors.items() if k.startswith(_PREFIX)}


def _check_names(here: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    missing, foreign = sorted(here.keys() - saved.keys()), sorted(saved.keys() - here.keys())
    if not missing and not foreign:
        return
    parts = []
    if missing:
        parts.append(f"the checkpoint lacks {_some(missing)}")
    if foreign:
        parts.append(f"the model lacks {_some(foreign)}")
    raise CheckpointError(
        "The checkpoint does not fit the model.",
        where=min(missing or foreign, key=lambda name: name.count(".")).rpartition(".")[0],
        why=" and ".join(parts).capitalize() + ".",
        fix="Open the run with the model, qconfig, stubs and fusion that it was made with.",
    )


def _tensors(model: Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _elastic(model: Module) -> set[str]:
    return {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if is_quantizer(module)
        for name, _ in module.named_buffers()
    }


def _words(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
