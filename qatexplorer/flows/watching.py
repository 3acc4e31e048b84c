"""Watching functions of a library while they run, unchanged.

While a watch is open, the functions that it names are wrapped by ones that call them with the very
same arguments and tell before and after. What they give is what they give unwatched.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch

from qatexplorer._tested import TESTED
from qatexplorer.errors import UnsupportedTorchError
from qatexplorer.forward.trace import TRACE_LOCK

# One watch at a time: two that open and close in turn would put each other's wrapper back.


_signature_of = functools.lru_cache(maxsize=64)(inspect.signature)


@dataclass(frozen=True)
class Watched:
    """A function of torch, by the module that calls it, and the parameters that are read."""

    module: str
    name: str
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Call:
    """One call of a watched function; ``result`` is None in phase "before"."""

    name: str
    phase: Literal["before", "after"]
    arguments: Mapping[str, Any]
    result: Any = None


@contextmanager
def watching(functions: Sequence[Watched], report: Callable[[Call], None]) -> Iterator[None]:
    """Call ``report`` before and after each call that this thread makes of ``functions``.

    Calls of other threads go through unreported. What ``report`` raises goes up through torch's
    call. At exit every name holds what it held before, also after an error.

    Raises UnsupportedTorchError, before anything is changed, for a name or parameter that this
    release of torch does not have.
    """
    with TRACE_LOCK:
        found = [_find(watched) for watched in functions]
        thread = threading.get_ident()
        put_back: list[tuple[Any, str, Any]] = []
        try:
            for watched, (module, original) in zip(functions, found, strict=True):
                put_back.append((module, watched.name, original))
                setattr(module, watched.name, _reporting(watched.name, original, report, thread))
            yield
        finally:
            for module, name, original in reversed(put_back):
                setattr(module, name, original)


def _find(watched: Watched) -> tuple[Any, Callable[..., Any]]:
    try:
        # Not `import … as`: fx.prepare and fx.convert are also the names of functions.
        module = importlib.import_module(watched.module)
        original = getattr(module, watched.name)
        parameters = _signature_of(original).parameters
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise _moved(f"{watched.module}.{watched.name}") from error
    missing = [name for name in watched.parameters if name not in parameters]
    if missing:
        raise _moved(f"{watched.module}.{watched.name}({', '.join(missing)})")
    return module, original


def _moved(what: str) -> UnsupportedTorchError:
    return UnsupportedTorchError(
        f"torch {torch.__version__} has no {what}.",
        why="This flow watches torch's own functions while they run, and this one has moved or "
        "changed in this release.",
        fix="Use the eager flow, or a release of torch that this version of qatexplorer is "
        f"tested on: {', '.join(TESTED)}.",
    )


def _reporting(
    name: str, original: Callable[..., Any], report: Callable[[Call], None], thread: int
) -> Callable[..., Any]:
    signature = _signature_of(original)

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != thread:
            return original(*args, **kwargs)
        arguments = signature.bind(*args, **kwargs).arguments
        report(Call(name, "before", arguments))
        result = original(*args, **kwargs)
        report(Call(name, "after", arguments, result))
        return result

    return call
