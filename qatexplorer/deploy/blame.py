"""Whose line raised: the module of the model and the line of the user's source."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch.nn import Module

_TORCH = str(Path(torch.__file__).parent)
_PACKAGE = Path(__file__).parent.parent
_OURS = tuple(
    str(_PACKAGE / part)
    for part in ("deploy", "training", "flows", "snapshot", "data.py", "session.py")
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an error comes from.

    ``path`` is the innermost module whose method was running (None if none was), ``source`` the
    ``file:line`` of the innermost frame outside torch (``""`` if none), ``type_name`` the class of
    that module, ``function`` the innermost function.
    """

    path: str | None
    source: str
    type_name: str = ""
    function: str = ""


def place_of(error: BaseException, model: Module) -> Place:
    """Read the place from the traceback of ``error``, so that nothing needs to be hooked."""
    paths = {id(module): path for path, module in reversed(list(model.named_modules()))}
    path: str | None = None
    source = type_name = function = ""
    step: TracebackType | None = error.__traceback__
    while step is not None:
        frame = step.tb_frame
        owner = frame.f_locals.get("self")
        if isinstance(owner, Module) and id(owner) in paths:
            path, type_name = paths[id(owner)], type(owner).__name__
        name = frame.f_code.co_filename
        function = frame.f_code.co_name
        if not name.startswith(("<", _TORCH, *_OURS)):
            source = f"{name}:{step.tb_lineno}"
        step = step.tb_next
    return Place(path, source, type_name, function)


def release_frames(error: BaseException) -> None:
    """Let go of the local variables that a kept error holds: the activations of a whole step."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        traceback.clear_frames(current.__traceback__)
        current = current.__cause__ or current.__context__
