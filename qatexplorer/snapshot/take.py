"""Taking a snapshot of a model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.ao.nn.intrinsic.modules.fused import _FusedModule

from qatexplorer.flows.annotations import Annotation
from qatexplorer.flows.base import Role, same_path
from qatexplorer.forward.preserve import preserved_state
from qatexplorer.forward.record import Probe, recorded_graph
from qatexplorer.forward.scripted import named_python_modules
from qatexplorer.forward.trace import fx_graph
from qatexplorer.quantizers.facts import is_quantizer
from qatexplorer.quantizers.types import compute_of
from qatexplorer.shown import error_line
from qatexplorer.snapshot.exported import Walked, exported_states
from qatexplorer.snapshot.records import (
    FakeQuantSite,
    Graph,
    HookRecord,
    ModuleRecord,
    Placement,
    QConfigRecord,
    Snapshot,
    TensorInfo,
)
from qatexplorer.snapshot.sites import find_sites
from qatexplorer.snapshot.states import ModuleState, States, module_states

_UNKNOWN = ModuleState()
_OBSERVER_HOOKS = ("_observer_forward_hook", "_observer_forward_pre_hook")


def take_snapshot(
    model: nn.Module,
    *,
    flow: str,
    stage: str,
    call: str,
    graph: Graph | None,
    role: Role = "float",
    float_paths: frozenset[str] | None = None,
    origin: Callable[[str], str] = same_path,
    earlier: Mapping[str, FakeQuantSite] | None = None,
    probed: Probe | None = None,
    placed: Mapping[str, Placement] | None = None,
    warnings: Sequence[str] = (),
    notes: Sequence[str] = (),
    settled: bool = False,
    annotations: tuple[Annotation, ...] = (),
    groups: tuple[tuple[str, ...], ...] = (),
    walked: Walked | None = None,
) -> Snapshot:
    """Describe ``model`` as it is now; no tensor, module or hook is kept.

    Args:
        flow, stage, call, role: of the stage, as in :class:`~qatexplorer.flows.base.Stage`.
        float_paths: paths of the float stage; a module whose origin is not among them is new.
        origin: maps a path of this stage to the float stage's path of the same place.
        earlier: sites of the stage before, by path; they keep the stage that made them.
        probed: counts of one forward on this very model, None if there was none.
        placed: fake quants that are nodes of an FX graph, by path.
        settled: the fake quants are in, or converted: what will be int8 is known.
        annotations, groups: of a quantizer, see :mod:`~qatexplorer.flows.annotations`.
        walked: of an exported model, whose module tree is the user's, see :class:`Walked`.
    """
    found = States({}, frozenset())
    if settled:
        found = (
            exported_states(model, graph, walked, role == "int8")
            if walked is not None
            else module_states(model, graph, reference=role == "reference")
        )
    sites = find_sites(
        model, stage=stage, call=call, earlier=earlier or {}, probed=probed, placed=placed
    )
    records = module_records(model, float_paths, origin, probed, found.by_path)
    return Snapshot(
        flow=flow,
        stage=stage,
        modules=records if walked is None else walked.tree(records, found.by_path),
        sites=sites,
        graph=graph,
        training=model.training,
        warnings=tuple(dict.fromkeys(warnings)),
        notes=tuple(notes),
        role=role,
        call=call,
        int8_nodes=found.int8_nodes,
        annotations=annotations,
        groups=groups,
    )


def take_graph(model: nn.Module, inputs: Any) -> Graph:
    """The dataflow graph: by ``torch.fx`` if the model traces, else from one recorded forward.

    State and RNG are restored. Raises what the model's own forward raises, and only that.
    """
    try:
        with preserved_state(model):
            return fx_graph(model, inputs)
    except Exception as error:
        note = f"torch.fx cannot trace this model: {error_line(error)}"
    with preserved_state(model):
        return recorded_graph(model, inputs, note)


def module_records(
    model: nn.Module,
    float_paths: frozenset[str] | None,
    origin: Callable[[str], str],
    probed: Probe | None,
    by_path: Mapping[str, ModuleState],
) -> tuple[ModuleRecord, ...]:
    """One record per path, preorder; a module under two names is listed under both."""
    inner_observers = {
        id(m.activation_post_process)
        for m in model.modules()
        if is_quantizer(m) and isinstance(getattr(m, "activation_post_process", None), nn.Module)
    }
    counts, own_counts = _param_counts(model), _own_param_counts(model)
    identities: dict[int, int] = {}
    tensors: dict[int, int] = {}
    qconfigs: dict[int, QConfigRecord | None] = {}  # many modules share one
    records = []
    for path, module in named_python_modules(model, remove_duplicate=False):
        if id(module) in inner_observers:
            continue
        prefix = f"{path}." if path else ""
        origin_path = origin(path)
        qconfig = getattr(module, "qconfig", None)
        if id(qconfig) not in qconfigs:
            qconfigs[id(qconfig)] = describe_qconfig(qconfig)
        known = float_paths is None or origin_path in float_paths
        module_state = by_path.get(path, _UNKNOWN)
        records.append(
            ModuleRecord(
                path=path,
                type_name=type(module).__name__,
                qualified_type=f"{type(module).__module__}.{type(module).__qualname__}",
                origin=origin_path if known else "",
                parent=None if path == "" else path.rpartition(".")[0],
                children=tuple(
                    prefix + name
                    for name, child in module._modules.items()
                    if child is not None
                    and id(child) not in inner_observers
                    and not isinstance(child, torch.jit.ScriptModule)
                ),
                tensors=_tensors(module, tensors),
                param_count=counts[id(module)],
                qconfig=qconfigs[id(qconfig)],
                training=module.training,
                hooks=_hooks(module),
                extra_repr=_extra_repr(module),
                calls=_calls(module, probed),
                identity=identities.setdefault(id(module), len(identities)),
                compute=compute_of(module),
                state=module_state.state,
                stays_float=module_state.stays_float,
                fused=isinstance(module, _FusedModule),
                inside=module_state.inside,
                own_params=own_counts.get(path, 0),
                own_state=module_state.own_state,
            )
        )
    return tuple(records)


def _calls(module: nn.Module, probed: Probe | None) -> int | None:
    if probed is None or (probed.only_quantizers and not is_quantizer(module)):
        return None
    return probed.calls.get(id(module), 0)


def _param_counts(model: nn.Module) -> dict[int, int]:
    sets: dict[int, dict[int, int]] = {}

    def visit(module: nn.Module) -> dict[int, int]:
        if id(module) not in sets:
            own = {id(p): p.numel() for p in module._parameters.values() if p is not None}
            sets[id(module)] = own
            for child in module._modules.values():
                if child is not None:
                    own.update(visit(child))
        return sets[id(module)]

    visit(model)
    return {key: sum(own.values()) for key, own in sets.items()}


def _own_param_counts(model: nn.Module) -> dict[str, int]:
    """Parameter elements that each module holds itself, by path; each parameter once, at the first
    path that has it. Those of a scripted part count for the module around it."""
    known = {path for path, _ in named_python_modules(model)}
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        path = name.rpartition(".")[0]
        while path not in known:
            path = path.rpartition(".")[0]
        counts[path] = counts.get(path, 0) + parameter.numel()
    return counts


def _tensors(module: nn.Module, identities: dict[int, int]) -> tuple[TensorInfo, ...]:
    own: dict[str, torch.Tensor | None] = {**module._parameters, **module._buffers}
    return tuple(
        TensorInfo(
            name,
            tuple(t.shape),
            str(t.dtype),
            str(t.device),
            t.requires_grad,
            name in module._parameters,
            identities.setdefault(id(t), len(identities)),
        )
        for name, t in own.items()
        if t is not None
    )


def _hooks(module: nn.Module) -> tuple[HookRecord, ...]:
    kinds = (
        ("forward_pre", module._forward_pre_hooks),
        ("forward", module._forward_hooks),
        ("backward", module._backward_hooks),
    )
    return tuple(
        HookRecord(kind, name, name in _OBSERVER_HOOKS)
        for kind, table in kinds
        for name in (_function_name(hook) for hook in table.values())
    )


def _function_name(function: Any) -> str:
    return str(getattr(function, "__qualname__", type(function).__name__))


def _extra_repr(module: nn.Module) -> str:
    if is_quantizer(module):
        return ""  # it prints every scale of every channel
    try:
        return module.extra_repr()
    except Exception as error:
        return f"(extra_repr raises {type(error).__name__})"


def describe_qconfig(qconfig: Any) -> QConfigRecord | None:
    """Spell out the two factories of a ``QConfig``; None for None."""
    if qconfig is None:
        return None
    return QConfigRecord(
        activation=describe_factory(getattr(qconfig, "activation", None)),
        weight=describe_factory(getattr(qconfig, "weight", None)),
    )


def describe_factory(factory: Any) -> str:
    """``FakeQuantize.with_args(observer=…)`` as ``"FakeQuantize(observer=…, quant_min=0, …)"``."""
    partial = getattr(factory, "p", factory)
    if not isinstance(partial, functools.partial):
        return getattr(partial, "__name__", str(partial))
    arguments = [
        f"{name}={_short(value)}"
        for name, value in partial.keywords.items()
        if name != "factory_kwargs"
    ]
    return f"{getattr(partial.func, '__name__', partial.func)}({', '.join(arguments)})"


def _short(value: Any) -> str:
    if isinstance(value, (torch.dtype, torch.qscheme)):
        return str(value).removeprefix("torch.")
    if hasattr(value, "p") or isinstance(value, functools.partial):
        return describe_factory(value)
    return str(getattr(value, "__name__", value))
