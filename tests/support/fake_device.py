"""A device of our own, ``npy``, that keeps its tensors on the CPU and refuses to mix.

It stands for a GPU where there is none: an operation on tensors of two devices raises, as on CUDA,
and reading a value counts as a synchronisation. It changes torch for the whole process, so that it
belongs into a process of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

NAME = "npy"
SYNCHRONISATIONS: list[str] = []
_MAY_MIX = ("aten::copy_", "aten::_copy_from", "aten::set_")


class OnDevice(Tensor):
    """Says that it lies on ``npy:0``; ``raw`` has its values."""

    raw: Tensor

    @staticmethod
    def __new__(cls, raw: Tensor) -> OnDevice:
        made: OnDevice = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, raw.shape, strides=raw.stride(), dtype=raw.dtype, device=torch.device(NAME, 0)
        )
        return made

    def __init__(self, raw: Tensor) -> None:
        self.raw = raw

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnDevice({self.raw})"

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(op, *args, **(kwargs or {}))


def run(op: Any, *args: Any, **kwargs: Any) -> Any:
    """``op`` on the values, its results on the device. Raises RuntimeError for two devices."""
    known: dict[int, OnDevice] = {}
    kinds: set[str] = set()
    wanted: set[str] = set()

    def unwrap(value: Any) -> Any:
        if isinstance(value, OnDevice):
            known[id(value.raw)] = value
            kinds.add(NAME)
            return value.raw
        if isinstance(value, Tensor):
            if value.dim():
                kinds.add("cpu")
            return value
        if isinstance(value, torch.device):
            wanted.add(value.type)
            return torch.device("cpu")
        return value

    inner_args, inner_kwargs = tree_map(unwrap, (args, kwargs))
    name = op._schema.name
    if name == "aten::_local_scalar_dense":
        SYNCHRONISATIONS.append(name)
    if "cpu" in wanted and NAME in kinds:
        SYNCHRONISATIONS.append(f"{name} to the CPU")
    if len(kinds) > 1 and name not in _MAY_MIX:
        raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got two")
    result = op(*inner_args, **inner_kwargs)

    def wrap(value: Any) -> Any:
        if not isinstance(value, Tensor) or "cpu" in wanted:
            return value
        return known[id(value)] if id(value) in known else OnDevice(value)

    wrapped = tree_map(wrap, result)
    for tensor in known.values():
        if tensor.raw.shape != tensor.shape:  # resized in place, as observers are
            tensor.data = OnDevice(tensor.raw)
    return wrapped


def install() -> torch.device:
    """Make the device known to torch. Raises ImportError where torch has no way for that."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME)
    library = torch.library.Library("_", "IMPL")
    library.fallback(run, "PrivateUse1")  # type: ignore[attr-defined]
    install.kept = library  # type: ignore[attr-defined]
    torch.__future__.set_swap_module_params_on_conversion(True)
    made = torch.tensor

    def tensor(*args: Any, device: Any = None, **settings: Any) -> Tensor:
        there = device is not None and torch.device(device).type == NAME
        if there:  # torch makes those in C++, past any backend written in Python
            return made(*args, **settings).to(device)
        return made(*args, device=device, **settings)

    torch.tensor = tensor  # type: ignore[assignment]
    return torch.device(NAME, 0)
