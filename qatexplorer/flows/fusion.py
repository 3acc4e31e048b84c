"""Which modules torch can fuse: found in the dataflow graph, or by module order."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn
from torch.ao.quantization.fuser_method_mappings import get_fuser_method

from qatexplorer.errors import FusionError
from qatexplorer.flows.layer_types import TRANSPOSED
from qatexplorer.forward.graph import Graph
from qatexplorer.shown import listed

_LONGEST = 3
FusionRuns = tuple[tuple[str, ...], ...]


def can_fuse(modules: Sequence[nn.Module]) -> bool:
    """Whether torch has a fuser for these modules, in training, that keeps their function."""
    types: Any = tuple(type(m) for m in modules)
    if len(modules) < 2 or types[0] in TRANSPOSED:
        return False  # torch raises for transposed convolutions in QAT
    try:
        if get_fuser_method(types) is None:
            return False
    except (AssertionError, KeyError, NotImplementedError):
        return False
    if len({m.training for m in modules}) > 1:
        return False
    norms = [m for m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return all(n.affine and n.track_running_stats for n in norms)


def find_fusable(model: nn.Module, graph: Graph | None) -> FusionRuns:
    """Runs of module paths to fuse, in order of execution (or of definition without a graph).

    A run is taken only where each module is called once and feeds nothing but the next one:
    fusing a ReLU that is used twice would silently remove the second use.
    """
    modules = dict(model.named_modules())
    chains = _chains_in_graph(modules, graph) if graph is not None else _siblings(model)
    runs: list[tuple[str, ...]] = []
    for chain in chains:
        runs += _split(chain, modules)
    return tuple(runs)


def _split(chain: Sequence[str], modules: dict[str, nn.Module]) -> Iterable[tuple[str, ...]]:
    start = 0
    while start < len(chain):
        for length in range(_LONGEST, 1, -1):
            run = tuple(chain[start : start + length])
            if len(run) == length and can_fuse([modules[p] for p in run]):
                yield run
                start += length
                break
        else:
            start += 1


def _chains_in_graph(modules: dict[str, nn.Module], graph: Graph) -> list[list[str]]:
    """Maximal straight lines of module calls, each called once in the whole forward."""
    calls: dict[int, int] = {}
    for node in graph.nodes:
        if node.path in modules:
            key = id(modules[node.path])
            calls[key] = calls.get(key, 0) + 1
    single = {
        n.id: n.path
        for n in graph.nodes
        if n.op == "call_module" and n.path in modules and calls[id(modules[n.path])] == 1
    }
    successors: dict[str, list[str]] = {}
    predecessors: dict[str, list[str]] = {}
    for edge in graph.edges:
        successors.setdefault(edge.source, []).append(edge.target)
        predecessors.setdefault(edge.target, []).append(edge.source)

    def follower(node: str) -> str | None:
        after = successors.get(node, [])
        if len(after) == 1 and after[0] in single and len(predecessors[after[0]]) == 1:
            return after[0]
        return None

    followers = {node: follower(node) for node in single}
    heads = set(single) - {f for f in followers.values() if f is not None}
    chains = []
    for node in graph.nodes:
        if node.id in heads:
            chain: list[str] = []
            current: str | None = node.id
            while current is not None:
                chain.append(single[current])
                current = followers[current]
            chains.append(chain)
    return chains


def _siblings(model: nn.Module) -> list[list[str]]:
    chains = []
    for path, parent in model.named_modules():
        prefix = f"{path}." if path else ""
        chains.append([prefix + name for name, _ in parent.named_children()])
    return chains


def check_fusion(model: nn.Module, runs: Any) -> FusionRuns:
    """``runs`` as tuples of paths, checked against the model. Raises FusionError."""
    modules = dict(model.named_modules())
    checked: list[tuple[str, ...]] = []
    used: set[str] = set()
    for run in runs:
        paths = tuple(run.split(",")) if isinstance(run, str) else tuple(run)
        paths = tuple(p.strip() for p in paths)
        for path in paths:
            if path not in modules:
                raise _no_module(paths, path, list(modules))
            if path in used:
                raise FusionError(
                    f"cannot fuse {list(paths)}: {path!r} stands in two runs.",
                    where=path,
                    fix="A module can be fused once; leave it out of one of the runs.",
                )
            used.add(path)
        if not can_fuse([modules[p] for p in paths]):
            names = " + ".join(type(modules[p]).__name__ for p in paths)
            raise FusionError(
                f"torch cannot fuse {names} for training.",
                where=paths[0] if paths else None,
                why="It knows conv + batch norm (+ ReLU), conv + ReLU, linear + ReLU, linear + "
                "batch norm and batch norm + ReLU, of exactly torch's own types, with affine "
                "batch norms, all in the same mode.",
                fix="List the modules in the order in which they run.",
            )
        checked.append(paths)
    return tuple(checked)


def _no_module(paths: tuple[str, ...], path: str, modules: list[str]) -> FusionError:
    message = f"cannot fuse {list(paths)}: there is no module {path!r}."
    same = [name for name in modules if name.endswith(f".{path}")]
    if same:
        return FusionError(
            message,
            why=f"Paths are full ones, and {listed(same)} {'ends' if len(same) == 1 else 'end'} "
            f"in {path!r}. fusion= is a list of groups, each a list of paths.",
            fix="Pass fusion='auto': it finds the groups.",
        )
    near = difflib.get_close_matches(path, modules, n=3, cutoff=0.4)
    fix = f"Nearest: {', '.join(near)}." if near else "Paths are those of model.named_modules()."
    return FusionError(message, fix=fix)
