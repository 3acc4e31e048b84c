"""Results of one forward, kept as they were although later operations write to them in place."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

Key = TypeVar("Key", bound=Hashable)


class Kept(TorchDispatchMode, Generic[Key]):
    """Tensors by key. While it is open, one is copied just before an operation writes to it.

    Most are never written to, so most cost no copy: ``relu_`` and ``+=`` are what writes.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tensors: dict[Key, Tensor] = {}
        self._shared: dict[int, list[Key]] = {}

    def keep(self, key: Key, tensor: Tensor) -> None:
        with unwatched():
            self._tensors[key] = tensor.detach()
        self._shared.setdefault(_storage(tensor), []).append(key)

    def holds(self, tensor: Tensor) -> bool:
        """Whether one is kept in the memory of ``tensor``: to keep that too costs none. What oneDNN
        has packed for itself has no memory that can be asked for."""
        return tensor.layout == torch.strided and _storage(tensor) in self._shared

    def get(self, key: Key) -> Tensor | None:
        return self._tensors.get(key)

    def clear(self) -> None:
        """Keep none of them any longer."""
        self._tensors.clear()
        self._shared.clear()

    def __contains__(self, key: object) -> bool:
        return key in self._tensors

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        for number, name in _written(func):
            value = args[number] if number < len(args) else given.get(name)
            for one in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(one, Tensor):
                    self._save(one)
        return func(*args, **given)

    def _save(self, tensor: Tensor) -> None:
        for key in self._shared.pop(_storage(tensor), ()):
            self._tensors[key] = self._tensors[key].clone()


@functools.lru_cache(maxsize=4096)
def _written(func: Any) -> tuple[tuple[int, str], ...]:
    """Number and name of the arguments that an operation writes to."""
    if not func._schema.is_mutable:
        return ()
    return tuple(
        (number, argument.name)
        for number, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )


def unwatched() -> AbstractContextManager[Any]:
    """Within this, operations are not looked at: they write to nothing that is kept."""
    manager: AbstractContextManager[Any] = _disable_current_modes()
    return manager


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage().data_ptr())
