"""One row for every module and operation that stays float, with the reason."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from qatexplorer.forward.calls import Call
from qatexplorer.forward.leaves import is_leaf_call
from qatexplorer.forward.record import Recording
from qatexplorer.ledger.coverage import Outcome
from qatexplorer.ledger.nodes import node_table
from qatexplorer.ledger.reasons import Known, explain, qconfig_dtypes
from qatexplorer.ledger.records import FloatRow, Reason
from qatexplorer.quantizers.types import ON_INT8, QUANTIZED_DTYPES
from qatexplorer.snapshot.records import Graph
from qatexplorer.snapshot.states import computing_modules, swapped_paths, unlowered_paths

_NORMS = (nn.modules.batchnorm._BatchNorm,)
_FUSED_ACTIVATIONS = (nn.ReLU, nn.ReLU6)


@dataclass
class Situation:
    """Everything the reasons are looked up in."""

    model: nn.Module
    recording: Recording
    outcome: Outcome
    known: Known
    graph: Graph | None = None

    def __post_init__(self) -> None:
        self.modules = dict(self.model.named_modules())
        self.nodes = node_table(self.model)
        self.sources = {n.id: n.source for n in self.graph.nodes} if self.graph else {}
        self.from_input = _from_input(self.recording)
        self.int8_ops = _op_dtypes(self.outcome.recording)
        # A subclass of a layer is one thing that stays float, not the function in its forward.
        self.closed = {
            path
            for path, module in self.modules.items()
            if not self.known.in_fx and self.known.base_of(module) is not None
        }
        self.swapped, self.unlowered = swapped_paths(self.model), unlowered_paths(self.model)
        self.ops_of: dict[str, list[Call]] = {}
        self.macs_at: dict[str, int] = {}
        for call in self.recording.calls:
            if call.kind == "op":
                self.ops_of.setdefault(call.scope, []).append(call)
                self.macs_at[call.scope] = self.macs_at.get(call.scope, 0) + call.macs

    def becomes_int8(self, path: str) -> bool:
        """Whether the module at ``path``, or one around it, is int8 in the converted copy; where
        torch could not convert one, whether ``convert`` would swap it."""
        if self.outcome.int8_paths is not None or self.known.in_fx:
            return self.outcome.is_int8(path)
        return any(path == p or path.startswith(f"{p}.") for p in self.swapped)

    def macs_below(self, path: str) -> int:
        """MACs of this module; of the whole model for ``""``."""
        if path == "":
            return sum(self.macs_at.values())
        return sum(n for p, n in self.macs_at.items() if p == path or p.startswith(f"{path}."))


def float_rows(situation: Situation) -> tuple[FloatRow, ...]:
    """Modules in order of definition, then operations in order of execution."""
    modules = [_module_row(situation, path, m) for path, m in computing_modules(situation.model)]
    ops = [_op_row(situation, call) for call in situation.recording.calls if call.kind == "op"]
    return tuple(row for row in (*modules, *ops) if row is not None)


# -- modules ------------------------------------------------------------------------------------


def _module_row(s: Situation, path: str, module: nn.Module) -> FloatRow | None:
    if path and s.becomes_int8(path):
        return None
    if s.known.in_fx and path not in s.nodes and s.known.opaque(path) is None:
        return None  # FX has traced through it: its operations have rows
    leaf = is_leaf_call(module) or path in s.closed
    if isinstance(module, fx.GraphModule) or (path == "" and not leaf):
        return None  # its own parameters feed operations, which have rows
    if _computes_on_int8(s, path, module):
        return None
    reason, words = _module_reason(s, path, module)
    sentence, fix = explain(
        reason, s.known.in_fx, name=path or "the model", type=type(module).__name__, **words
    )
    return FloatRow(
        what="module",
        path=path,
        name=type(module).__name__,
        reason=reason,
        sentence=sentence,
        fix=fix,
        params=sum({id(p): p.numel() for p in module.parameters(recurse=leaf)}.values()),
        macs=s.macs_below(path) if leaf else 0,
        selection=f"module:{path}",
    )


def _computes_on_int8(s: Situation, path: str, module: nn.Module) -> bool:
    if s.outcome.recording is not None and not s.known.in_fx:
        return s.outcome.recording.module_dtypes.get(path) in QUANTIZED_DTYPES
    if hasattr(module, "weight_fake_quant"):
        return s.outcome.int8_paths is None  # it is prepared; convert could not be asked
    if path in s.unlowered:
        return False
    ops = [c for c in s.ops_of.get(path, []) if c.index in s.from_input]
    return bool(ops) and all(c.index in s.outcome.followers for c in ops)


def _module_reason(s: Situation, path: str, module: nn.Module) -> tuple[Reason, dict[str, Any]]:
    known, kind = s.known, type(module)
    ops = [c for c in s.ops_of.get(path, []) if c.index in s.from_input]
    base = known.base_of(module)
    if path == "":
        return "root_module", {}
    if not s.recording.module_calls.get(path):
        return "never_executed", {}
    opaque = known.opaque(path)
    if opaque is not None and opaque != path:
        return "below_non_traceable", {"opaque": opaque}
    qconfig = known.qconfig(s.nodes.get(path, ""), module)
    has_own = any(True for _ in module.parameters())
    if qconfig is None:
        return "no_qconfig", {}
    passes_on = not has_own and ops and all(c.name in ON_INT8 for c in ops)
    given_float = path not in s.unlowered and _fed_float_in_int8(s, path)
    if passes_on and (given_float or _fed_float(s, ops)):
        return "float_input", {}
    if not kind.__module__.startswith("torch."):
        if base is not None:
            return "subclass_not_in_mapping", {"base": base.__name__}
        return ("custom_without_entry" if has_own else "type_not_in_mapping"), {}
    if isinstance(module, (*_NORMS, *_FUSED_ACTIVATIONS)):
        return "not_fused", {}
    if not known.has(kind) and not hasattr(module, "weight_fake_quant"):
        if base is not None:
            return "subclass_not_in_mapping", {"base": base.__name__}
        return "type_not_in_mapping", {}
    if known.in_fx and not known.supports(kind, qconfig):
        return "dtype_not_in_backend_config", {"dtypes": _dtypes(qconfig)}
    return "not_matched", {}


def _fed_float(s: Situation, ops: list[Call]) -> bool:
    mine = {c.index for c in ops}
    return any(
        i not in s.outcome.followers and i in s.from_input and i not in mine
        for c in ops
        for i in c.inputs
    )


def _fed_float_in_int8(s: Situation, path: str) -> bool:
    """Whether it got a float tensor in the converted copy: there is a DeQuantStub before it."""
    ran = s.outcome.recording
    calls = [c for c in ran.calls if c.kind == "op" and c.scope == path] if ran is not None else []
    return any(
        ran is not None and ran.calls[i].dtype.startswith("torch.float")
        for call in calls[:1]
        for i in call.inputs
    )


def _dtypes(qconfig: Any) -> str:
    names = [str(d).removeprefix("torch.") for d in qconfig_dtypes(qconfig)]
    return f"activation {names[0]}, weight {names[1]}"


# -- operations ---------------------------------------------------------------------------------


def _op_row(s: Situation, call: Call) -> FloatRow | None:
    if call.index not in s.from_input or not call.dtype.startswith("torch.float"):
        return None
    if call.inner or call.scope in s.closed or call.index in s.outcome.followers:
        return None
    if _was_int8(s, call):
        return None
    reason, words = _op_reason(s, call)
    line = call.source or s.sources.get(s.nodes.get(_op_key(call), ""), "")
    source = f" ({line})" if line else ""
    sentence, fix = explain(
        reason, s.known.in_fx, name=call.name, type=call.name, op=call.name, source=source, **words
    )
    return FloatRow(
        what="op",
        path=call.scope,
        name=call.name,
        reason=reason,
        sentence=sentence,
        fix=fix,
        macs=call.macs,
        source=line,
        selection=f"node:{s.nodes.get(_op_key(call), '')}" if s.known.in_fx else "",
    )


def _op_reason(s: Situation, call: Call) -> tuple[Reason, dict[str, Any]]:
    known = s.known
    opaque = known.opaque(call.scope) if call.scope else None
    if opaque is not None:
        return "below_non_traceable", {"opaque": opaque}
    if call.name in ON_INT8 and _fed_float(s, [call]):
        return "float_input", {}
    if not known.in_fx:
        return "functional_op", {}
    name = s.nodes.get(_op_key(call), "")
    qconfig = known.qconfig(name, None)
    if name and qconfig is None:
        return "no_qconfig", {}
    target = _node_target(s.model, name)
    plain = getattr(operator, call.name, None)
    if not (known.has(target) or known.has(plain)):
        return "type_not_in_mapping", {}
    if qconfig is not None and not any(known.supports(t, qconfig) for t in (target, plain)):
        return "dtype_not_in_backend_config", {"dtypes": _dtypes(qconfig)}
    return "not_matched", {}


def _was_int8(s: Situation, call: Call) -> bool:
    """Whether the same operation had an int8 result in the converted copy's forward."""
    dtypes = s.int8_ops.get((call.scope, call.name), [])
    earlier = [
        c for c in s.ops_of.get(call.scope, []) if c.name == call.name and c.index < call.index
    ]
    turn = len(earlier)
    return not s.known.in_fx and turn < len(dtypes) and dtypes[turn] in QUANTIZED_DTYPES


def _op_dtypes(recording: Recording | None) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for call in recording.calls if recording is not None else ():
        if call.kind == "op":
            found.setdefault((call.scope, call.name), []).append(call.dtype)
    return found


def _from_input(recording: Recording) -> frozenset[int]:
    """Calls whose result depends on the model's input."""
    found: set[int] = set()
    for call in recording.calls:
        if call.kind == "input" or any(i in found for i in call.inputs):
            found.add(call.index)
    return frozenset(found)


def _op_key(call: Call) -> str:
    return f"op:{call.name}:{call.ordinal}"


def _node_target(model: nn.Module, name: str) -> Any:
    graph: Any = getattr(model, "graph", None)
    node = next((n for n in graph.nodes if n.name == name), None)
    return None if node is None else node.target
