"""Whose line raised: the module of the model and the line of the user's source."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from torch.nn import Module

from qatexplorer.explain.usercode import is_user_file
from qatexplorer.quantizers.facts import is_quantizer


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
    # A fake quant is part of the layer it belongs to, whose frames lie further out.
    paths = {id(module): path for path, module in model.named_modules() if not is_quantizer(module)}
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
        if is_user_file(name):
            source = f"{name}:{step.tb_lineno}"
        step = step.tb_next
    return Place(path, source, type_name, function)


def release_frames(error: BaseException) -> None:
    """Let go of the local variables that a kept error holds: the activations of a whole step."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        step = current.__traceback__
        while step is not None:
            with suppress(RuntimeError):  # a frame that is still running
                step.tb_frame.clear()
                # Before Python 3.13 a frame keeps the dict that reading f_locals made; reading
                # again drops from it what was cleared.
                _ = step.tb_frame.f_locals
            step = step.tb_next
        current = current.__cause__ or current.__context__
