"""What torch does with a layer where it stands: whether it is quantized, fused, given int8."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.ao.quantization import (
    QConfig,
    get_default_qat_module_mappings,
    get_default_qat_qconfig_mapping,
)
from torch.ao.quantization.quantization_mappings import get_default_static_quant_module_mappings

from qatexplorer.checks.evidence.qconfigs import qconfigs
from qatexplorer.checks.subject import Subject
from qatexplorer.flows.fusion import FusionRuns, find_fusable

_INT8_MODULES = get_default_static_quant_module_mappings()


@dataclass(frozen=True)
class Layers:
    """``qconfig`` of every module that torch may quantize, by path; ``groups`` are fused;
    ``before`` has the paths of modules whose output a module gets as it is, ``shape`` that of a
    module's output."""

    qconfig: Mapping[str, QConfig]
    groups: FusionRuns
    before: Mapping[str, tuple[str, ...]]
    shape: Mapping[str, tuple[int, ...]]
    _made: Callable[[QConfig], tuple[Any, Any]] = field(repr=False)

    def group_of(self, path: str) -> tuple[str, ...]:
        """The group that it is fused in, ``()`` for none."""
        return next((group for group in self.groups if path in group), ())

    def weight_of(self, path: str) -> Any:
        """What the qconfig of the module at ``path`` makes for its weight."""
        return self._made(self.qconfig[path])[1]

    def after_int8(self, path: str, modules: Mapping[str, nn.Module]) -> bool:
        """Whether it gets what a module gives that will be int8."""
        return any(
            one in self.qconfig and type(modules[one]) in _INT8_MODULES
            for one in self.before.get(path, ())
        )


def layers(subject: Subject) -> Layers:
    """What is fused, and what gets a qconfig. Nothing runs."""
    known, options = subject.get(qconfigs), subject.options
    groups = options.fusion
    if not subject.flow.offers_fusion:  # FX fuses what it finds
        groups = find_fusable(subject.base, options.graph)
    graph = options.graph
    before: dict[str, tuple[str, ...]] = {}
    shape: dict[str, tuple[int, ...]] = {}
    if graph is not None:
        path_of = {n.id: n.path for n in graph.nodes if n.op == "call_module"}
        scope_of = {n.id: n.scope for n in graph.nodes if n.op != "call_module"}
        for edge in graph.edges:
            target = path_of.get(edge.target) or scope_of.get(edge.target)
            source = path_of.get(edge.source)
            if source and target and not f"{source}.".startswith(f"{target}."):
                before[target] = (*before.get(target, ()), source)
        for node in graph.nodes:
            if node.shape is not None:
                shape[node.path or node.scope] = node.shape
    return Layers(_quantized(subject, known.of, groups), groups, before, shape, known.made)


def _quantized(
    subject: Subject, given: Mapping[str, QConfig | None], groups: FusionRuns
) -> dict[str, QConfig]:
    """Without what FX leaves as one call and what no wrapper stands around in eager mode, and with
    the types that torch's default mapping of a backend gives a qconfig of their own in FX."""
    options, found = subject.options, {}
    own: Mapping[Any, Any] = {}
    if subject.flow.by_graph and options.qconfig.default_of and options.qconfig.given is None:
        own = get_default_qat_qconfig_mapping(options.qconfig.default_of).object_type_qconfigs
    opaque = options.custom.non_traceable if subject.flow.by_graph else ()
    modules = dict(subject.base.named_modules())
    closed = {p for p in opaque if isinstance(p, str)}
    closed |= {p for p, m in modules.items() if isinstance(m, _types(opaque))}
    for path, qconfig in given.items():
        parts = path.split(".")
        if any(".".join(parts[: n + 1]) in closed for n in range(len(parts))):
            continue
        if qconfig is not None and qconfig == options.qconfig.default:
            qconfig = own.get(type(modules[path]), qconfig)
        if qconfig is not None:
            found[path] = qconfig
    if not (subject.flow.offers_stubs and options.stubs == "layers"):
        return found
    mapping = qat_mapping(subject)
    grouped = {path for group in groups if _has_norm(group, modules) for path in group}
    return {p: q for p, q in found.items() if type(modules[p]) in mapping or p in grouped}


def _has_norm(group: tuple[str, ...], modules: Mapping[str, nn.Module]) -> bool:
    """Whether a group fuses to a module that trains, whatever the layer is."""
    return any(isinstance(modules[path], nn.modules.batchnorm._BatchNorm) for path in group)


def qat_mapping(subject: Subject) -> Mapping[Any, Any]:
    """The table of modules that train, in eager mode."""
    mapping = subject.options.qat_mapping
    return get_default_qat_module_mappings() if mapping is None else mapping


def _types(opaque: tuple[str | type[nn.Module], ...]) -> tuple[type[nn.Module], ...]:
    return tuple(one for one in opaque if isinstance(one, type))
