"""Calls in an int8 forward that join tensors of unlike scales: torch runs them, and wrongly."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.overrides import TorchFunctionMode

from qatexplorer.explain.usercode import is_user_file

_NAMES = (
    "cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "column_stack",
    "row_stack",
)  # fmt: skip
_JOINS = {getattr(torch, name): name for name in _NAMES if hasattr(torch, name)}
FIX = (
    "Give the model a torch.ao.nn.quantized.FloatFunctional() for this place and call its "
    ".cat([…], dim), which has a fake quant of its own (for a stack, of x.unsqueeze(dim))."
)


class JoinWatch(TorchFunctionMode):
    """While active, notes each plain ``torch.cat`` or ``stack`` of quantized tensors whose scales
    or zero points differ; ``model`` is the converted one that runs. :attr:`notes` are sentences,
    one for each line of the user's."""

    def __init__(self, model: Module) -> None:
        super().__init__()
        self._paths = {id(module): path for path, module in model.named_modules()}
        self._found: dict[tuple[str, str], str] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._found.values())

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func in _JOINS:
            joined = args[0] if args else given.get("tensors")
            if isinstance(joined, (list, tuple)):
                self._look(_JOINS[func], joined)
        return func(*args, **given)

    def _look(self, name: str, joined: list[Any] | tuple[Any, ...]) -> None:
        grids = [_grid(x) for x in joined if isinstance(x, Tensor) and x.is_quantized]
        known = [grid for grid in grids if grid is not None]
        if len(set(known)) < 2:
            return
        path, source = self._place()
        at = f" at {Path(source.rpartition(':')[0]).name}:{source.rpartition(':')[2]}"
        scales = ", ".join(f"{scale:.3g}" for scale, _ in known[:4])
        more = ", …" if len(known) > 4 else ""
        self._found.setdefault(
            (path, source or name),
            f"torch.{name}{at if source else ''} in {path or 'the model itself'} joins int8 "
            f"tensors of unlike scales or zero points (scales {scales}{more}). torch gives the "
            "result those of the first: the others are rounded to them and cut off at their "
            f"range, which the fake quants do not simulate. {FIX}",
        )

    def _place(self) -> tuple[str, str]:
        """The module whose forward calls, and the user's line nearest to the call."""
        path, source = None, ""
        frame = sys._getframe(1)
        while frame is not None and (path is None or not source):
            name, owner = frame.f_code.co_filename, frame.f_locals.get("self")
            if not source and is_user_file(name):
                source = f"{name}:{frame.f_lineno}"
            if path is None and isinstance(owner, Module):
                path = self._paths.get(id(owner))
            frame = frame.f_back  # type: ignore[assignment]
        return path or "", source


def _grid(x: Tensor) -> tuple[float, int] | None:
    if x.qscheme() not in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return None
    return x.q_scale(), x.q_zero_point()
