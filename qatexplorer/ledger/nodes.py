"""The nodes of an FX graph, found by what a recorded forward knows of a call."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx, nn
from torch.overrides import resolve_name

from qatexplorer.forward.calls import Call


def node_table(model: nn.Module) -> dict[str, str]:
    """FX node names by module path, and by ``"op:<name>:<n-th>"`` for functions and methods."""
    table: dict[str, str] = {}
    counts: dict[str, int] = {}
    for node in model.graph.nodes if isinstance(model, fx.GraphModule) else ():
        if node.op == "call_module":
            table.setdefault(str(node.target), node.name)
        elif node.op in ("call_function", "call_method"):
            name = op_name(node.target)
            table[f"op:{name}:{counts.get(name, 0)}"] = node.name
            counts[name] = counts.get(name, 0) + 1
    return table


def op_name(target: Any) -> str:
    """Name of a function or method as the recorder sees it (``"add"`` for ``operator.add``)."""
    name = str(getattr(target, "__name__", target)).strip("_")
    if name == "fn":  # torch's boolean_dispatch, as in F.max_pool2d
        name = str(resolve_name(target) or name).rpartition(".")[2]
    # The code that FX generates for ``x += y`` is ``x + y``.
    return name[1:] if getattr(operator, name, None) is target and name in _IN_PLACE else name


_IN_PLACE = ("iadd", "isub", "imul", "itruediv", "imatmul")


def pattern_of(model: nn.Module, call: Call, table: dict[str, str]) -> Any:
    """What stands for the operation ``call`` in a backend config: a class, a function, or the name
    of a method; None if it is no node of its own. ``table`` is :func:`node_table`."""
    path = call.scope
    while path and path not in table:  # what a module that is not traced holds is no node
        path = path.rpartition(".")[0]
    if path:
        return type(model.get_submodule(path))
    name = table.get(f"op:{call.name}:{call.ordinal}", "")
    graph: Any = getattr(model, "graph", None)
    node = next((n for n in graph.nodes if n.name == name), None) if graph is not None else None
    return None if node is None else node.target


def spelled(pattern: Any) -> str:
    """``pattern`` as one writes it in code, e.g. ``"torch.flip"`` or ``"'flip'"``."""
    if isinstance(pattern, str):
        return repr(pattern)
    name = getattr(pattern, "__name__", str(pattern))
    if getattr(operator, name, None) is pattern:
        return f"operator.{name}"
    if isinstance(pattern, type) and pattern.__module__.startswith("torch.nn.modules"):
        return f"torch.nn.{pattern.__name__}"
    if isinstance(pattern, type):
        return pattern.__qualname__
    return str(resolve_name(pattern) or name)
