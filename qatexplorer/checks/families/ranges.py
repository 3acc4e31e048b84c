"""What costs accuracy or speed in int8: ranges that do not fit, and what stays outside of int8.

None of it is an error. The thresholds are those of tools that measure the same; each rule names its
own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.ao.nn.quantized import FloatFunctional

from qatexplorer.checks.evidence.float_run import JOINS, FloatRun, Look, float_run
from qatexplorer.checks.evidence.prepared import prepared_model
from qatexplorer.checks.evidence.weights import channel_ratio
from qatexplorer.checks.records import Fix
from qatexplorer.checks.rules import Found, rule
from qatexplorer.checks.subject import NoEvidence, Subject
from qatexplorer.flows.layer_types import TRANSPOSED
from qatexplorer.quantizers.engine_choice import DEFAULT_QCONFIG
from qatexplorer.quantizers.facts import is_quantizer
from qatexplorer.snapshot.parts import params_share
from qatexplorer.snapshot.records import FakeQuantSite, GraphNode, Snapshot

UNBALANCED = 8.0
"""Three of eight bits."""
TAIL = 3.5
"""torch's OutlierDetector: largest value to the 97.5th percentile."""
BULK = 0.975
NEGATIVE = 0.05
"""Share of the range below zero from which on a symmetric grid is no waste."""
HALF = 0.5
_FEW = 256  # values of which a percentile says nothing
_LINE = 2
_PASSING = frozenset({"dequantize", "Dropout", "Dropout1d", "Dropout2d", "Identity", "dropout"})


@rule("QX601", "unbalanced-join", "warning", "inserted")
def unbalanced_join(subject: Subject) -> Iterator[Found]:
    """Tensors of very different range are joined on one scale

    Symptom:
        A network with torch.cat loses accuracy in int8; the branch with the small values is coarse.
    Cause:
        The result of cat or stack has one scale, which follows the widest input. An input with an
        eighth of that range (the threshold here) keeps 32 of 256 codes: three of eight bits are
        lost. In FX the inputs share one observer, too: its moving average lies between their
        ranges, so that the widest input is cut off as well.
    Fix:
        Bring the inputs to like ranges before the join, for example by a batch norm at the end of
        each branch.
    Sources:
        https://github.com/pytorch/pytorch/issues/46604
        https://github.com/SonySemiconductorSolutions/mct-model-optimization
    """
    run = subject.get(float_run)
    for path, name, source, looks in _joins(subject, run):
        spans = [look.span for look in looks if look.is_float and look.span > 0]
        if len(spans) < 2 or max(spans) < UNBALANCED * min(spans):
            continue
        ratio = max(spans) / min(spans)
        codes = max(1, round(256 / ratio))
        left = "1 of 256 codes" if codes == 1 else f"{codes} of 256 codes"
        yield Found(
            path,
            f"{name} joins tensors whose ranges differ by a factor of {ratio:.3g} on one scale: of "
            f"one that fits the widest, the narrowest keeps {left}.",
            f"Bring the inputs of this {name} to like ranges, e.g. by a batch norm in each branch.",
            source=source,
        )


Join = tuple[str, str, str, Sequence[Look]]
"""Path of a FloatFunctional or ``""``, the operation's name, its line, and what it was given."""


def _joins(subject: Subject, run: FloatRun) -> Iterator[Join]:
    """Those whose result has one fake quant."""
    model = subject.get(prepared_model)
    if not isinstance(model, fx.GraphModule):
        named = dict(model.named_modules(remove_duplicate=False))
        for path, _ in subject.layers(FloatFunctional):
            at = next((p for p in (path, f"module.{path}") if p in named), "")
            if not at or not is_quantizer(named[at].activation_post_process):
                continue
            for call in run.runs.get(path, ()):
                if call.method in JOINS and call.given is not None:
                    yield path, f"{path}.{call.method}", "", (call.given, *call.others)
        return
    nodes = [node for node in model.graph.nodes if _join_name(node)]
    made = [one for one in run.operations if one.name in JOINS]
    if len(nodes) != len(made):  # the graph is not what the forward did: nothing is certain
        return
    named = dict(model.named_modules(remove_duplicate=False))
    for node, one in zip(nodes, made, strict=True):
        behind = [n for n in node.users if n.op == "call_module"]
        if any(is_quantizer(named[str(n.target)]) for n in behind):
            yield "", f"torch.{one.name}", one.source, one.ranges


def _join_name(node: fx.Node) -> str:
    name = str(getattr(node.target, "__name__", ""))
    return name if node.op == "call_function" and name in JOINS else ""


@rule("QX602", "unlike-channels", "warning", "weights")
def unlike_channels(subject: Subject) -> Iterator[Found]:
    """One scale for a weight whose channels differ

    Symptom:
        A depthwise network falls from 76 % to 14 % in int8 with the qnnpack qconfig, and to 69 %
        with one scale per channel.
    Cause:
        The widest channel of a weight sets the scale of all. If its range is eight times that of
        the median channel (the threshold here), half of the channels keep 32 of 256 codes or fewer.
        A fused batch norm counts: it scales the channels before they are rounded.
    Fix:
        A qconfig with one scale per channel: qconfig="onednn".
    Sources:
        https://github.com/Edgecortix-Inc/pytorch_quantization/issues/5
        https://arxiv.org/abs/1906.04721
    """
    ratios: dict[str, float] = {}
    for path, module in subject.get(prepared_model).named_modules():
        site: Any = getattr(module, "weight_fake_quant", None)
        weight = getattr(module, "weight", None)
        if not isinstance(site, nn.Module) or not isinstance(weight, Tensor) or weight.dim() < 2:
            continue
        if not is_quantizer(site) or getattr(site, "ch_axis", -1) not in (-1, None):
            continue
        ratio = channel_ratio(module, weight)
        if ratio >= UNBALANCED:
            ratios[path] = ratio
    if not ratios:
        return
    worst = max(ratios, key=lambda path: ratios[path])
    more = f" In {len(ratios):,} layers it is {UNBALANCED:g} times or more." * (len(ratios) > 1)
    fix, fixes = _per_channel(subject)
    yield Found(
        worst,
        f"The weight of {worst or 'the model itself'} has one scale, and its widest channel is "
        f"{ratios[worst]:.3g} times as wide as the median one.{more}",
        fix,
        fixes,
    )


def _per_channel(subject: Subject) -> tuple[str, tuple[Fix, ...]]:
    code = f"session.configure(qconfig={DEFAULT_QCONFIG!r})"
    plan = subject.options.qconfig
    whole = plan.default_of and not (plan.by_path or plan.by_type or plan.by_regex)
    if not whole or any(True for _ in subject.layers(*TRANSPOSED)):
        # torch refuses one scale per channel for a transposed convolution.
        return f"qconfig={{…: {DEFAULT_QCONFIG!r}}} for these layers", ()
    change = (("qconfig", DEFAULT_QCONFIG), ("engine", plan.backend))
    code = f"session.configure(qconfig={DEFAULT_QCONFIG!r}, engine={plan.backend!r})"
    return code, (Fix("One scale per channel", "configure", change, code),)


@rule("QX603", "outliers", "info", "inserted")
def outliers(subject: Subject) -> Iterator[Found]:
    """A few large values set the scale of a layer's output

    Symptom:
        Accuracy falls by tens of percent in int8 in a network with SiLU, GELU or unbounded scores.
    Cause:
        The observers of QAT take the smallest and largest value. Where the largest is more than
        3.5 times the 97.5th percentile (the threshold of torch's own OutlierDetector), most values
        share few codes.
    Fix:
        Bound the activation (ReLU6, Hardswish after a norm), or give that layer a qconfig with a
        HistogramObserver, or leave it float.
    Sources:
        https://github.com/pytorch/pytorch/issues/27949
    """
    run, seen = subject.get(float_run), _observed_sites(subject)
    owners = {site.owner for site in seen if site.kind == "output" and not site.per_channel}
    tails = {path: _tail(run, path) for path in owners if path in run.outputs}
    long = {path: tail for path, tail in tails.items() if tail > TAIL}
    if not long:
        return
    worst = max(long, key=lambda path: long[path])
    more = f" So it is at {len(long):,} places." if len(long) > 1 else ""
    yield Found(
        worst,
        f"97.5 % of the output of {worst} lies within 1/{long[worst]:.3g} of its range: the rest "
        f"sets the scale.{more}",
        f"qconfig={{{worst!r}: None}} keeps it float; a HistogramObserver would cut the tail.",
    )


def _tail(run: FloatRun, path: str) -> float:
    """Largest by 97.5th percentile of the sizes of an output's values, zeros left out."""
    values = torch.cat(run.outputs[path]).abs() if run.outputs[path] else torch.empty(0)
    values = values[values > 0]
    if values.numel() < _FEW or not bool(torch.isfinite(values).all()):
        return 0.0
    return float(values.max() / torch.quantile(values, BULK))


@rule("QX604", "half-unused", "warning", "trained")
def half_unused(subject: Subject) -> Iterator[Found]:
    """A symmetric grid for values that are hardly negative

    Symptom:
        8 bits are as good as 7.
    Cause:
        A symmetric qscheme spends half of its codes below zero. After ReLU there is nothing, and
        after SiLU, GELU or Hardswish less than 5 % of the range (the threshold here).
    Fix:
        qscheme=torch.per_tensor_affine for activations: zero then lies at the end of the grid.
    Sources:
        https://github.com/SonySemiconductorSolutions/mct-model-optimization
    """
    hit = [site for site in _observed_sites(subject) if _wastes_half(site)]
    if hit:
        more = f" and {len(hit) - 1:,} more" if len(hit) > 1 else ""
        verb = "have" if len(hit) > 1 else "has"
        site = hit[0]
        yield Found(
            site.path,
            f"{site.path}{more} {verb} a symmetric grid, and what came was between "
            f"{site.min_val[0]:.3g} and {site.max_val[0]:.3g}: about half of the codes are unused.",
            "FakeQuantize.with_args(..., qscheme=torch.per_tensor_affine) as the activation",
        )


def _wastes_half(site: FakeQuantSite) -> bool:
    if site.kind == "weight" or "symmetric" not in site.qscheme or len(site.min_val) != 1:
        return False
    low, high = min(site.min_val[0], 0.0), max(site.max_val[0], 0.0)
    return math.isfinite(high - low) and high > low and -low < NEGATIVE * (high - low)


@rule("QX605", "float-islands", "info", "int8")
def float_islands(subject: Subject) -> Iterator[Found]:
    """Operations compute in float between int8 ones

    Symptom:
        The int8 model is slower than expected; the converted graph is full of quantize and
        dequantize calls.
    Cause:
        An operation without an int8 kernel (SiLU, GELU, softmax, layer or group norm in FX) takes
        its input dequantized and gives a float result, which is quantized again.
    Fix:
        ReLU or Hardswish in place of the activation; or leave the layers around it float too.
    Sources:
        https://github.com/pytorch/pytorch/issues/42113
        https://github.com/pytorch/ao/issues/3609
    """
    snapshot = _prepared_snapshot(subject)
    islands = _islands(snapshot, subject.flow.by_graph)
    if not islands:
        return
    first = islands[0]
    labels = ", ".join(dict.fromkeys(node.label for node in first.nodes[:_LINE]))
    count = "1 group of operations computes"
    if len(islands) > 1:
        count = f"{len(islands):,} groups of operations compute"
    borders = sum(one.borders for one in islands)
    yield Found(
        first.nodes[0].path or first.nodes[0].scope,
        f"{count} in float between int8 ones (the first: {labels}), and values pass between float "
        f"and int8 {borders:,} times for them in one forward.",
        "session.overlay('precision') shows them; session.ledger().floats says why.",
        source=first.nodes[0].source,
    )


@dataclass(frozen=True)
class _Island:
    """Connected float operations, and the edges by which int8 values come in and go out."""

    nodes: tuple[GraphNode, ...]
    borders: int


def _islands(snapshot: Snapshot, by_graph: bool) -> list[_Island]:
    """Those with int8 before and behind them. Where torch does not go ``by_graph`` (eager mode),
    nothing but a DeQuantStub leads out of int8."""
    graph, int8 = snapshot.graph, snapshot.int8_nodes
    if graph is None or not int8:
        return []
    nodes = {node.id: node for node in graph.nodes}
    floats = {
        id
        for id, node in nodes.items()
        if node.op.startswith("call") and id not in int8 and node.dtype == "torch.float32"
    }
    group = graph.connected(floats)
    entering: dict[str, int] = {}
    leaving: dict[str, int] = {}
    for edge in graph.edges:
        if edge.source in int8 and edge.target in floats:
            entering[group[edge.target]] = entering.get(group[edge.target], 0) + 1
        if edge.source in floats and edge.target in int8:
            leaving[group[edge.source]] = leaving.get(group[edge.source], 0) + 1
    between = dict.fromkeys(group[id] for id in nodes if id in floats)
    found = []
    for one in between:
        if entering.get(one) and leaving.get(one):
            inside = [nodes[id] for id in nodes if group.get(id) == one]
            computing = tuple(node for node in inside if _computes(snapshot, node))
            left = by_graph or any(_is_border(snapshot, node) for node in inside)
            found += (
                [_Island(computing, entering[one] + leaving[one])] if computing and left else []
            )
    return found


def _computes(snapshot: Snapshot, node: GraphNode) -> bool:
    """Whether it does more than to pass a tensor on, or to turn int8 into float."""
    record = snapshot.by_path.get(node.path) if node.path else None
    kind = node.label if record is None else record.type_name
    return kind not in _PASSING and not _is_border(snapshot, node)


def _is_border(snapshot: Snapshot, node: GraphNode) -> bool:
    record = snapshot.by_path.get(node.path) if node.path else None
    return record is not None and record.compute in ("stub", "boundary")


@rule("QX606", "mostly-float", "info", "int8", flows=("modules", "annotation"))
def mostly_float(subject: Subject) -> Iterator[Found]:
    """Most parameters stay float

    Symptom:
        The int8 model is hardly smaller than the float one.
    Cause:
        An int8 parameter takes one byte in place of four. If fewer than half of them are int8, the
        model keeps more than 62 % of its size, whatever is done elsewhere.
    Fix:
        Give the large layers that stay float a qconfig: embeddings need one of their own,
        float_qparams_weight_only_qconfig, or leave them float knowingly.
    Sources:
        https://github.com/pytorch/ao/issues/1290
    """
    snapshot = _prepared_snapshot(subject)
    share = params_share(snapshot)
    if not share.total or not share.int8 or share.unknown:
        return
    int8 = share.int8 / share.total
    if int8 >= HALF:
        return
    floats = {
        m.path: m.own_params for m in snapshot.modules if m.own_params and m.own_state == "float"
    }
    largest = max(floats, key=lambda path: floats[path], default="")
    which = f" The largest that stays float is {largest}." if largest else ""
    yield Found(
        largest,
        f"{100 * int8:.3g} % of the parameters become int8: the int8 model keeps about "
        f"{100 * (1 - 0.75 * int8):.3g} % of the size.{which}",
        "session.ledger().floats says why, layer by layer.",
    )


@rule("QX607", "bilinear-int8", "info", "int8")
def bilinear_int8(subject: Subject) -> Iterator[Found]:
    """Bilinear upsampling is mostly slower in int8 than in float

    Symptom:
        A U-Net is slower in int8; the profile points at upsample_bilinear2d.
    Cause:
        Every int8 convolution returns a tensor in the memory format channels_last. On such,
        torch's int8 kernel of bilinear interpolation took 3 to 19 times as long as the float one
        where it was measured (a contiguous one 0.6 to 4 times).
    Fix:
        mode="nearest", whose int8 kernel is fast; or leave the upsampling float.
    Sources:
        https://github.com/pytorch/pytorch/issues/60015
        https://github.com/pytorch/pytorch/issues/46096
    """
    snapshot = _prepared_snapshot(subject)
    int8 = snapshot.int8_nodes
    nodes = snapshot.graph.nodes if snapshot.graph is not None else ()
    lines = {
        one.source
        for one in subject.get(float_run).operations
        if one.name == "interpolate" and _mode(one.args, one.kwargs) == "bilinear"
    }
    named = dict(subject.base.named_modules())
    for node in nodes:
        if node.id not in int8:
            continue
        origin = snapshot.by_path[node.path].origin if node.path in snapshot.by_path else ""
        module: Any = named.get(origin) if node.path else None
        by_module = isinstance(module, nn.Upsample) and module.mode == "bilinear"
        if by_module or (not node.path and "interpolate" in node.target and node.source in lines):
            name = node.path or "F.interpolate"
            yield Found(
                node.path or node.scope,
                f"{name} is bilinear and runs in int8, whose kernel is mostly slower than that of "
                "float, most in the memory format channels_last that int8 convolutions return.",
                'mode="nearest", if the accuracy allows it',
                source=node.source if not node.path else "",
            )


def _mode(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    return str(kwargs.get("mode", args[3] if len(args) > 3 else "nearest"))


def _prepared_snapshot(subject: Subject) -> Snapshot:
    """The newest with all fake quants in. Raises NoEvidence before there is one."""
    for stage in (subject.flow.train_stage, subject.flow.prepared_stage):
        if stage in subject.snapshots:
            return subject.snapshots[stage]
    raise NoEvidence(f"Known from stage {subject.flow.prepared_stage!r} on.")


def _observed_sites(subject: Subject) -> tuple[FakeQuantSite, ...]:
    """Fake quants that have seen data. Raises NoEvidence while none has."""
    sites = _prepared_snapshot(subject).sites
    seen = tuple(site for site in sites if site.seen == "all")
    if not subject.observed or not seen:
        raise NoEvidence("No observer has seen data yet: train or calibrate first.")
    return seen
