"""Which function of a quantizer wrote each annotation, noted while it annotates.

Quantizers keep their patterns where they like: X86Inductor in methods, XNNPACK, Vulkan and Core ML
in functions of a table, Qualcomm and Samsung in functions that take one node. All of them write to
a node's ``meta``, so that is what is watched, and the author is found among the functions that are
running then. The quantizer itself is called as it is.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from torch import fx

from qatexplorer.flows.annotations import KEY

_NAMED = re.compile(r"_*annotate_(.*?)_*")


def annotate_noting(annotate: Callable[[Any], Any], model: fx.GraphModule) -> tuple[Any, Authors]:
    """``annotate(model)``, and which function annotated which node first."""
    authors: Authors = {}
    with _noting(model, authors):
        return annotate(model), authors


Authors = dict[str, str]
"""By the id of the node: a function's name, without ``_annotate_``; ``""`` where no function that
was running has a name that says so."""


class _Meta(dict[str, Any]):
    """What stands in for a node's ``meta``: an annotation that is written is noted."""

    __slots__ = ("note",)

    def __init__(self, given: dict[str, Any], note: Callable[[], None]) -> None:
        super().__init__(given)
        self.note = note

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        if key == KEY and value is not None:
            self.note()

    def setdefault(self, key: str, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value


@contextmanager
def _noting(model: fx.GraphModule, authors: Authors) -> Iterator[None]:
    """Inside, ``meta`` of each node of ``model`` notes; after it, it is what it was, with what has
    been written."""

    def noted_as(node: fx.Node) -> Callable[[], None]:
        def note() -> None:
            if node.name not in authors:
                authors[node.name] = _author(sys._getframe(2))

        return note

    before = [(node, node.meta) for node in model.graph.nodes]
    # Node's own __setattr__ would take each node out of the graph's table and put it in again.
    put = object.__setattr__
    for node, meta in before:
        put(node, "meta", _Meta(meta, noted_as(node)))
    try:
        yield
    finally:
        for node, meta in before:
            now = node.meta
            if isinstance(now, _Meta):
                meta.clear()
                meta.update(now)
                put(node, "meta", meta)


def _author(frame: FrameType | None) -> str:
    """Of the functions that are running the one that is named for what it annotates.

    Helpers that several patterns share are called inside of it, and what goes over all patterns is
    around it. So of those that take the graph it is the innermost ``_annotate_…``, else the
    innermost ``annotate_…``; else, of those that take one node, the outermost.
    """
    found = dict.fromkeys(("_annotate", "annotate", "of a node", "other"), "")
    while frame is not None and frame.f_code is not annotate_noting.__code__:
        name = frame.f_code.co_name
        if "annotat" in name:
            named, taken = _NAMED.fullmatch(name), _arguments(frame)
            if any(isinstance(one, (fx.GraphModule, fx.Graph)) for one in taken):
                kind = ("_" * name.startswith("_") + "annotate") if named else "other"
                found[kind] = found[kind] or (named[1] if named else name.strip("_"))
            elif named and any(isinstance(one, fx.Node) for one in taken):
                found["of a node"] = named[1]
        frame = frame.f_back
    found["other"] = "" if found["other"] == "annotate" else found["other"]
    return next(filter(None, found.values()), "")


def _arguments(frame: FrameType) -> list[Any]:
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return [frame.f_locals[name] for name in names if name in frame.f_locals]
