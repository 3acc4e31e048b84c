"""Rules about modules, stubs and weights that are used more than once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from torch import nn
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import QuantStub
from torch.ao.quantization.quantization_mappings import (
    get_default_qat_module_mappings,
    get_default_static_quant_module_mappings,
)

from qatexplorer.checks.evidence.float_run import float_run
from qatexplorer.checks.evidence.qconfigs import qconfigs
from qatexplorer.checks.evidence.unshared import own_module, unshared, unsharing
from qatexplorer.checks.evidence.uses import CONVS, Uses, called_names, uses
from qatexplorer.checks.families.operations import one_range_for_several
from qatexplorer.checks.records import Fix
from qatexplorer.checks.rules import Found, rule
from qatexplorer.checks.subject import NoEvidence, Subject
from qatexplorer.flows.edits.sharing import slots_of
from qatexplorer.forward.graph import GraphNode
from qatexplorer.quantizers.types import FUNCTIONAL_CLASSES
from qatexplorer.shown import listed

_OBSERVED = frozenset({"add", "mul", "cat", "add_relu", "matmul"})  # of a FloatFunctional


@rule("QX151", "fused-and-reused", "error", "fused")
def fused_and_reused(subject: Subject) -> Iterator[Found]:
    """A module that is fused at one place is also used at another

    Symptom:
        The prepared model computes something else than the float model, with all fake quants off.
        Nothing warns.
    Cause:
        Fusing replaces the module itself. A batch norm or ReLU that is folded into it is then
        computed at each of its uses, also where the float model has another one, or none. In
        eager mode the modules that were folded become Identity: a ReLU that is fused once does
        nothing where else it is called.
    Fix:
        Give each use a module of its own. To keep one weight, share the parameters:
        copy.deepcopy(conv, {id(p): p for p in conv.parameters()}). In eager mode the group can be
        left out of the fuse list instead.
    Sources:
        https://github.com/pytorch/pytorch/pull/68178
        https://github.com/pytorch/pytorch/issues/197539
        https://github.com/IntelLabs/distiller/issues/297
    """
    used = subject.get(uses)
    if subject.flow.by_graph:
        yield from _fused_by_fx(subject, used)
    elif subject.flow.offers_fusion:
        yield from _fused_by_list(subject, used)


def _fused_by_list(subject: Subject, used: Uses) -> Iterator[Found]:
    groups = subject.options.fusion
    odd = {group: path for group in groups for path in group if _apart(used, group, path)}
    rest = [list(group) for group in groups if group not in odd]
    code = f"session.configure(fusion={rest})"
    for group, path in odd.items():
        diff = f"- fused: {', '.join(group)}"
        yield Found(
            path,
            f"{path}, a {type(used.modules[path]).__name__}, runs {len(used.calls[path])} times "
            f"in a forward, and not each time within {' + '.join(group)}: fused, it computes "
            "something else at the other places.",
            code,
            (Fix("Leave such groups apart", "configure", (("fusion", rest),), code, diff),),
        )


def _apart(used: Uses, group: Sequence[str], path: str) -> bool:
    """Whether ``path`` runs anywhere else than in a run through all of ``group``."""
    whole = [used.run_of(group, node) for node in used.calls.get(group[0], ())]
    inside = {node.id for run in whole if len(run) == len(group) for node in run}
    return any(node.id not in inside for node in used.calls.get(path, ()))


def _fused_by_fx(subject: Subject, used: Uses) -> Iterator[Found]:
    for path, calls in used.calls.items():
        groups = [used.fx_group(node) for node in calls]
        kinds = [_folded(used, group) for group in groups]
        if len(set(kinds)) < 2:
            continue
        first = next(index for index, group in enumerate(groups) if group)
        other = next(index for index, kind in enumerate(kinds) if kind != kinds[first])
        instead = " + ".join(map(used.named, groups[other])) or f"{path} alone"
        yield Found(
            path,
            f"{path} runs {len(calls)} times, and FX fuses "
            f"{' + '.join(map(used.named, groups[first]))}{_at(calls[first])}: where the model "
            f"computes {instead}{_at(calls[other])}, it then computes all of that.",
            own_module(subject, used, path, calls[other]),
            unshared(subject, used, path),
        )


def _folded(used: Uses, group: Sequence[GraphNode]) -> tuple[str, ...]:
    """What is folded into the first of ``group``: batch norms by path, ReLUs all alike."""
    return tuple("relu" if used.is_relu(node) else node.path for node in group[1:])


@rule("QX152", "two-names", "error", "weights")
def two_names(subject: Subject) -> Iterator[Found]:
    """A module is called by a name that torch does not swap

    Symptom:
        Could not run 'quantized::linear' with arguments from the 'CPU' backend
    Cause:
        One module is registered twice in its parent (self.b = self.a). Eager mode swaps children
        by name and looks at each once: what stands under the first name becomes another module,
        and the second name keeps the old one. A layer then trains without a fake quant for its
        weight; a stub stays a stub, and a FloatFunctional stays float.
    Fix:
        Register one module for each name. To keep one weight, share the parameters:
        self.b = copy.deepcopy(self.a, {id(p): p for p in self.a.parameters()}).
    Sources:
        https://github.com/pytorch/pytorch/pull/54812
        https://github.com/IntelLabs/distiller/pull/239
    """
    if subject.flow.by_graph:
        return
    used = subject.get(uses)
    mapping = subject.options.qat_mapping or get_default_qat_module_mappings()
    swapped = {*mapping, *get_default_static_quant_module_mappings()}
    for parent_path, parent in subject.base.named_modules():
        for first, second in _twins(parent):
            module = parent._modules[first]
            path, other = (f"{parent_path}.{n}" if parent_path else n for n in (first, second))
            if type(module) not in swapped or subject.get(qconfigs).of[path] is None:
                continue
            if not subject.get(called_names).get(other):
                continue
            kind = type(module).__name__
            learns = type(module) in mapping
            what = "its weight has no fake quant there" if learns else "it stays float there"
            yield Found(
                path,
                f"{other} is another name of {path}, a {kind}, and is called: torch swaps the "
                f"first name only, so {what}.",
                unsharing(subject, path).code.splitlines()[-1],
                unshared(subject, used, path),
                severity="warning" if learns else None,
            )


def _twins(parent: nn.Module) -> Iterator[tuple[str, str]]:
    """(first name, other name) of children that ``parent`` has more than once."""
    first: dict[int, str] = {}
    for name, child in parent._modules.items():
        if child is None:
            continue
        if id(child) in first:
            yield first[id(child)], name
        first.setdefault(id(child), name)


@rule("QX153", "functional-reused", "warning", "inserted")
def functional_reused(subject: Subject) -> Iterator[Found]:
    """One FloatFunctional serves several operations

    Symptom:
        Accuracy is lost at skip connections; one observer's range fits neither addition.
    Cause:
        A FloatFunctional holds one fake quant for the results of all its operations. If one is
        small and the other large, the small one has few codes left.
    Fix:
        Make one for each operation in forward: self.add1, self.add2 = FloatFunctional(), ….
    Sources:
        https://github.com/pytorch/vision/issues/1948
    """
    if subject.flow.by_graph:
        return
    used = subject.get(uses)
    twins = {
        id(parent._modules[first])
        for parent in subject.base.modules()
        for first, _ in _twins(parent)
    }
    for path, calls in used.calls.items():
        module = used.modules[path]
        if not isinstance(module, FloatFunctional) or id(module) in twins:
            continue
        nodes = [node for node in calls if node.label in _OBSERVED]
        if len(nodes) < 2 or subject.get(qconfigs).of[path] is None:
            continue
        if any(found.path == path for found in one_range_for_several(subject)):
            continue
        spans = _spans(subject, path)
        where = ", ".join(dict.fromkeys(node.source for node in nodes if node.source))
        yield Found(
            path,
            f"{path}, one FloatFunctional, serves {len(nodes)} operations in a forward"
            f"{f' ({where})' if where else ''}: one fake quant has to fit all of them"
            + (f", in ranges {spans[0]:.3g} to {spans[1]:.3g} wide." if spans else "."),
            own_module(subject, used, path, nodes[1]),
            unshared(subject, used, path),
            severity="info" if spans is not None and spans[1] <= 2 * spans[0] else None,
        )


@rule("QX157", "tied-weights", "info", "weights")
def tied_weights(subject: Subject) -> Iterator[Found]:
    """Two layers share one weight

    Symptom:
        The int8 model is larger than expected.
    Cause:
        A parameter that several layers hold stays one while training, with a fake quant in each of
        them. Converting packs it once for each layer that becomes int8, beside the float one of
        those that do not.
    Fix:
        Nothing, if the size does not matter.
    Sources:
        https://github.com/huggingface/transformers/pull/37905
    """
    holders: dict[int, list[tuple[str, str]]] = {}
    for path, module in subject.base.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.dim() > 1:
                holders.setdefault(id(parameter), []).append((path, name))
    becomes_int8 = {path for path, _ in subject.layers(CONVS, nn.Linear)}
    becomes_int8 -= {path for path, qconfig in subject.get(qconfigs).of.items() if qconfig is None}
    for found in holders.values():
        if len(found) < 2 or becomes_int8.isdisjoint(path for path, _ in found):
            continue
        path, name = found[0]
        parameter = subject.base.get_submodule(path)._parameters[name]
        assert parameter is not None
        names = [f"{p}.{n}" if p else n for p, n in found]
        yield Found(
            path,
            f"{listed(names, 3)} are one parameter of {parameter.numel():,} values; each of "
            "them that becomes int8 has an int8 copy of its own.",
        )


@rule("QX158", "many-names", "info", "qconfig")
def many_names(subject: Subject) -> Iterator[Found]:
    """One activation module has several names

    Symptom:
        A qconfig, a hook or a change that was meant for one place has an effect at all of them, or
        at none.
    Cause:
        The module was made once (a class attribute, a default argument) and registered in many
        blocks. torch.fx calls it by its first name everywhere, and a qconfig that is set for
        another name is not looked at.
    Fix:
        Make one for each block: self.act = nn.SiLU().
    Sources:
        https://github.com/ultralytics/yolov3/issues/2266
    """
    used = subject.get(uses)
    for path, nodes in used.calls.items():
        module = used.modules[path]
        names = used.names_of(path)
        if len(nodes) < 2 or len(names) < 2 or isinstance(module, (FUNCTIONAL_CLASSES, QuantStub)):
            continue
        learns = next(module.parameters(), None) is not None
        if learns or len(list(slots_of(subject.base, module))) < 2:
            continue
        yield Found(
            path,
            f"{path}, one {type(module).__name__}, has {len(names)} names and runs {len(nodes)} "
            f"times in a forward: what is set for one of them, such as a qconfig or a hook, is set "
            "for all or for none.",
            fixes=unshared(subject, used, path),
        )


def _spans(subject: Subject, path: str) -> tuple[float, float] | None:
    """The narrowest and the widest range of what the module at ``path`` gives, as fake quants of
    their own would have it; None if that cannot be known."""
    try:
        calls = subject.get(float_run).runs.get(path, [])
    except NoEvidence:
        return None
    looks = [call.got for call in calls if not call.method or call.method in _OBSERVED]
    spans = [look.span for look in looks if look is not None and math.isfinite(look.span)]
    return (min(spans), max(spans)) if len(spans) > 1 else None


def _at(node: GraphNode) -> str:
    return f" ({node.source})" if node.source else ""
