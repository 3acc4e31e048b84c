"""Watching torch's own ``prepare_qat_fx`` and ``convert_fx`` while they run, unchanged.

The only file that touches internals of FX quantization, and it touches them to look: while a
watch is open, the functions named here are wrapped by ones that call them with the very same
arguments and tell before and after. Results are torch's own, bit for bit (the tests hold this).
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn

from qatexplorer.flows.watching import Call, Watched, watching
from qatexplorer.quantizers.facts import is_quantizer

_API = "torch.ao.quantization.quantize_fx"
_PREPARE = "torch.ao.quantization.fx.prepare"
_CONVERT = "torch.ao.quantization.fx.convert"
_LOWER = "torch.ao.quantization.fx._lower_to_native_backend"


@contextmanager
def models_let_go() -> Iterator[None]:
    """Torch asks each model for its device through a function with a cache that has no end, so
    that a process would keep every model it ever prepared or converted. Emptied on the way out."""
    try:
        yield
    finally:
        asked = getattr(importlib.import_module(_CONVERT), "assert_and_get_unique_device", None)
        empty = getattr(asked, "cache_clear", None)  # a later torch may have no cache
        if empty is not None:
            empty()


PREPARE_CALLS = (
    Watched(_API, "_fuse_fx", ("model",)),
    Watched(_API, "prepare", ("model", "node_name_to_scope")),
    Watched(_PREPARE, "propagate_qconfig_", ("module",)),
    Watched(_PREPARE, "_qat_swap_modules", ("root",)),
    Watched(_PREPARE, "insert_observers_for_model", ("model",)),
    Watched(_PREPARE, "_maybe_insert_input_observers_for_node", ("node",)),
    Watched(_PREPARE, "_maybe_insert_output_observer_for_node", ("node",)),
    Watched(_PREPARE, "_maybe_insert_observers_before_graph_output", ("graph_output_node",)),
    Watched(_PREPARE, "_insert_obs_or_fq", ("node", "obs_or_fq")),
    Watched(_PREPARE, "_maybe_make_input_output_share_observers", ("node", "named_modules")),
    Watched(_PREPARE, "_swap_custom_module_to_observed", ("node", "named_modules")),
)
LOWERING_PASSES = (
    "_lower_static_weighted_ref_module",
    "_lower_static_weighted_ref_module_with_two_inputs",
    "_lower_dynamic_weighted_ref_module",
    "_lower_weight_only_weighted_ref_module",
    "_lower_static_weighted_ref_functional",
    "_lower_dynamic_weighted_ref_functional",
    "_lower_quantized_binary_op",
    "_lower_getattr_tensor_metadta_op",
    "_lower_get_tensor_info_op",
    "special_pattern_replacement",
    "fold_weight",
)
CONVERT_CALLS = (
    Watched(_API, "convert", ("model",)),
    Watched(_CONVERT, "lower_to_fbgemm", ("model",)),
    *(Watched(_LOWER, name) for name in LOWERING_PASSES),
)


@contextmanager
def _watching_fx(functions: Sequence[Watched], report: Callable[[Call], None]) -> Iterator[None]:
    """:func:`~qatexplorer.flows.watching.watching`, with tracing kept to this thread."""
    with watching(functions, report), _tracing_one_thread(), _tracing_with_lines():
        yield


@contextmanager
def _tracing_one_thread() -> Iterator[None]:
    """While torch traces, it sees the module calls of the whole process; a training run of another
    session would fail in the middle of its forward. A tracer is kept to the thread it traces in.
    """
    tracer = importlib.import_module(_API).QuantizationTracer
    threads: dict[int, int] = {}

    def elsewhere(self: Any) -> bool:
        return threads.get(id(self), threading.get_ident()) != threading.get_ident()

    def trace(self: Any, *args: Any, **kwargs: Any) -> Any:
        threads[id(self)] = threading.get_ident()
        return inherited["trace"](self, *args, **kwargs)

    def call_module(self: Any, m: Any, forward: Any, args: Any, kwargs: Any) -> Any:
        if elsewhere(self):
            return forward(*args, **kwargs)
        return inherited["call_module"](self, m, forward, args, kwargs)

    def read(self: Any, attr: str, attr_val: Any, parameter_proxy_cache: Any) -> Any:
        if elsewhere(self):
            return attr_val
        return inherited["getattr"](self, attr, attr_val, parameter_proxy_cache)

    ours = {"trace": trace, "call_module": call_module, "getattr": read}
    inherited = {name: getattr(tracer, name) for name in ours}
    own = {name: tracer.__dict__[name] for name in ours if name in tracer.__dict__}
    for name, function in ours.items():
        setattr(tracer, name, function)
    try:
        yield
    finally:
        for name in ours:
            delattr(tracer, name)
            if name in own:
                setattr(tracer, name, own[name])


@contextmanager
def _tracing_with_lines() -> Iterator[None]:
    """Every traced node keeps the lines that made it, also for a user who has turned that off
    (torch 2.12 and newer): where a node belongs is read from them."""
    config, setting = getattr(fx, "config", None), "do_not_emit_stack_traces"
    before = getattr(config, setting, False)
    if before:
        setattr(config, setting, False)
    try:
        yield
    finally:
        if before:
            setattr(config, setting, before)


# -- prepare_qat_fx ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Insertion:
    """One ``_insert_obs_or_fq``: fake quant ``site`` put after graph node ``node``.

    ``call`` is the function that asked for it and ``reason`` the node it was asked for.
    """

    site: str
    node: str
    call: str
    reason: str


@dataclass
class PrepareLog:
    """What one ``prepare_qat_fx`` did, in order.

    ``shared`` has (node, the fake quants that torch made one object for it); ``customs`` has
    (path, class before, class after) of modules swapped as custom ones; ``scopes`` the module
    path in whose forward each node was traced; ``reached`` the boundaries passed. ``shapes`` is
    for who draws the graph: shape and dtype by node id.
    """

    insertions: list[Insertion] = field(default_factory=list)
    shared: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    customs: list[tuple[str, str, str]] = field(default_factory=list)
    scopes: dict[str, str] = field(default_factory=dict)
    reached: list[str] = field(default_factory=list)
    shapes: dict[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)


class PrepareWatch:
    """Turns the calls inside one ``prepare_qat_fx`` into boundaries and a :class:`PrepareLog`.

    ``at(boundary, graph_module)`` is called at "trace", "fuse", "propagate" and "swap", with the
    model as it is then. Standalone submodules, which torch prepares by the same functions on the
    way, are not reported.
    """

    def __init__(self, at: Callable[[str, fx.GraphModule], None]) -> None:
        self.log = PrepareLog()
        self._at = at
        self._depth = 0
        self._cause: tuple[str, str] = ("", "")
        self._custom_before = ""

    def open(self) -> Any:
        """Context manager to run ``prepare_qat_fx`` in, once."""
        return _watching_fx(PREPARE_CALLS, self._report)

    def _report(self, call: Call) -> None:
        if call.name == "prepare":
            self._depth += 1 if call.phase == "before" else -1
            if self._depth == 1 and call.phase == "before":
                scopes = call.arguments["node_name_to_scope"]
                self.log.scopes |= {name: scope[0] for name, scope in scopes.items()}
            return
        level = 0 if call.name == "_fuse_fx" else 1
        if self._depth == level:
            handler = getattr(self, f"_on_{call.name.strip('_')}", None)
            if handler is not None:
                handler(call)

    def _boundary(self, name: str, module: fx.GraphModule) -> None:
        self.log.reached.append(name)
        self._at(name, module)

    def _on_fuse_fx(self, call: Call) -> None:
        if call.phase == "before":
            self._boundary("trace", call.arguments["model"])
        else:
            self._boundary("fuse", call.result)

    def _on_propagate_qconfig(self, call: Call) -> None:
        if call.phase == "after":
            self._boundary("propagate", call.arguments["module"])

    def _on_qat_swap_modules(self, call: Call) -> None:
        if call.phase == "after":
            self._boundary("swap", call.arguments["root"])

    def _note_cause(self, call: Call, node: fx.Node) -> None:
        self._cause = (call.name, node.name) if call.phase == "before" else ("", "")

    def _on_maybe_insert_input_observers_for_node(self, call: Call) -> None:
        self._note_cause(call, call.arguments["node"])

    def _on_maybe_insert_output_observer_for_node(self, call: Call) -> None:
        self._note_cause(call, call.arguments["node"])

    def _on_maybe_insert_observers_before_graph_output(self, call: Call) -> None:
        self._note_cause(call, call.arguments["graph_output_node"])

    def _on_insert_obs_or_fq(self, call: Call) -> None:
        if call.phase == "after":
            asker, reason = self._cause
            chain = f"insert_observers_for_model → {asker}({reason}) → " if asker else ""
            node = call.arguments["node"].name
            text = f"{chain}_insert_obs_or_fq({node})"
            self.log.insertions.append(Insertion(str(call.result.target), node, text, reason))

    def _on_maybe_make_input_output_share_observers(self, call: Call) -> None:
        if call.phase == "after" and call.result:
            node, modules = call.arguments["node"], call.arguments["named_modules"]
            around = [*node.all_input_nodes, *node.users]
            sites = [str(n.target) for n in around if _calls_quantizer(n, modules)]
            self.log.shared.append((node.name, tuple(dict.fromkeys(sites))))

    def _on_swap_custom_module_to_observed(self, call: Call) -> None:
        path = str(call.arguments["node"].target)
        kind = type(_module_at(call.arguments["named_modules"], path))
        now = f"{kind.__module__}.{kind.__qualname__}"
        if call.phase == "before":
            self._custom_before = now
        else:
            self.log.customs.append((path, self._custom_before, now))


def _calls_quantizer(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    return node.op == "call_module" and is_quantizer(modules[str(node.target)])


def _module_at(modules: Mapping[str, nn.Module], path: str) -> nn.Module:
    parent, _, name = path.rpartition(".")
    found: nn.Module = getattr(modules[parent], name)
    return found


# -- convert_fx ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoweringPass:
    """One pass of the lowering; ``changed`` are ids of nodes it made or whose call it changed."""

    name: str
    changed: tuple[str, ...]
    removed: int


class ConvertWatch:
    """Notes what each lowering pass inside one ``convert_fx`` did to the graph."""

    def __init__(self) -> None:
        self.passes: list[LoweringPass] = []
        self._depth = 0
        self._before: dict[str, tuple[str, str]] = {}

    def open(self) -> Any:
        """Context manager to run ``convert_fx`` in, once."""
        return _watching_fx(CONVERT_CALLS, self._report)

    def _report(self, call: Call) -> None:
        if call.name == "convert":
            self._depth += 1 if call.phase == "before" else -1
            return
        if self._depth != 1 or call.name == "lower_to_fbgemm":
            return
        model = next(v for v in call.arguments.values() if isinstance(v, fx.GraphModule))
        if call.phase == "before":
            self._before = _calls_of(model)
            return
        now = _calls_of(call.result if isinstance(call.result, fx.GraphModule) else model)
        changed = tuple(name for name, what in now.items() if self._before.get(name) != what)
        gone = sum(name not in now for name in self._before)
        self.passes.append(LoweringPass(call.name, changed, gone))


def _calls_of(model: fx.GraphModule) -> dict[str, tuple[str, str]]:
    """What each node calls: its target, and for a module its class."""
    found = {}
    for node in model.graph.nodes:
        what = str(node.target)
        kind = type(model.get_submodule(what)) if node.op == "call_module" else None
        found[node.name] = (what, f"{kind.__module__}.{kind.__qualname__}" if kind else node.op)
    return found
