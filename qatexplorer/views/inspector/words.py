"""The sentences and strips of the inspector: types over the stages, and why things are so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from qatexplorer.flows import FLOWS
from qatexplorer.snapshot.records import FakeQuantSite, GraphNode, ModuleRecord, Snapshot
from qatexplorer.views.common.html import Html, go, join, kind_badge, tag
from qatexplorer.views.common.names import (
    FUNCTIONALS,
    HOW_IT_RUNS,
    has_qconfigs,
    is_boundary,
    is_int8,
    is_reference,
    is_stored,
    result_word,
    short_type,
)
from qatexplorer.views.inspector.exported import why_exported, why_exported_node

_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
_OPERATORS = frozenset(
    (
        "add",
        "sub",
        "mul",
        "truediv",
        "div",
        "matmul",
        "iadd",
        "imul",
        "add_",
        "mul_",
    )
)


def in_words(number: int) -> str:
    return _WORDS[number] if number < len(_WORDS) else f"{number:,}"


def strip(entries: Sequence[tuple[str, str, str]], stage: str) -> Html:
    """Stages along a line. ``entries`` are (stage, what it is there, how it came to be so)."""
    items: list[Html] = []
    for what, group in groupby(entries, key=lambda entry: entry[1]):
        members = list(group)
        names = [name for name, _, _ in members]
        stages = [tag("span", name, class_="qx-now" if name == stage else None) for name in names]
        how = members[0][2] if items else ""
        items.append(
            tag(
                "li",
                tag("small", join(stages, " · ")),
                tag("b", what),
                class_="qx-strip-item" + (" qx-is-now" if stage in names else ""),
                aria_current="step" if stage in names else None,
                title=f"by {how}" if how else None,
            )
        )
    return tag("ol", *items, class_="qx-strip", aria_label="What it is at each stage")


def type_strip(snapshots: Mapping[str, Snapshot], stage: str, module: ModuleRecord) -> Html:
    """The module's type at every stage reached, matched by its place in the float model."""
    place = module.origin or module.path
    entries = []
    for name, snapshot in snapshots.items():
        found = next((m for m in snapshot.modules if (m.origin or m.path) == place), None)
        how = snapshot.call or "your own code"
        entries.append((name, short_type(found) if found else "not there", how))
    line = strip(entries, stage)
    changes = [
        (name, what, how)
        for (name, what, how), (_, before, _) in zip(entries[1:], entries, strict=False)
        if what != before and what != "not there"
    ]
    made = [change for change in changes if change[1] == short_type(module)]
    if not made:
        return line
    name, what, how = made[-1]
    by = tag("p", f"{what} since stage “{name}”, put there by ", tag("code", how), ".")
    return join([line, by])


def sites_on_output(snapshot: Snapshot, module: ModuleRecord) -> tuple[FakeQuantSite, ...]:
    """Fake quants that what ``module`` returns goes through: those that it holds for its output,
    and in an FX graph those at a node that calls it, whoever their owner is."""
    graph = snapshot.graph
    nodes = graph.nodes if graph is not None and module.path else ()
    calls = {node.id for node in nodes if node.path == module.path}
    return tuple(
        site
        for site in snapshot.sites
        if site.kind != "weight"
        and (calls & set(site.nodes) if site.nodes else site.owner == module.path)
    )


def why_module(snapshots: Mapping[str, Snapshot], snapshot: Snapshot, module: ModuleRecord) -> str:
    """One sentence on what quantization does to the module at this stage of ``snapshot``."""
    if snapshot.exported:
        text = why_exported(snapshots, snapshot, module)
        if text:
            return text
    if is_boundary(module):
        if module.type_name == "Quantize":
            return "Turns a float tensor into an int8 one: here an int8 part begins."
        return "Turns an int8 tensor into a float one: here an int8 part ends."
    if is_int8(module):
        if _had_weight(snapshots, module):
            return "Stores its weight in int8 and runs one of torch's int8 kernels."
        return "One of torch's modules for int8 tensors."
    if is_reference(module):
        return (
            "Keeps its weight on the int8 grid and computes in float: a description of the int8 "
            "layer that lowering can put in its place."
        )
    if is_stored(module):
        return (
            "Its weight is one of torchao's tensors, which stores integers with their scales; the "
            "type of the layer is the plain one again."
        )
    weights = [s for s in snapshot.sites_of(module.path) if s.kind == "weight" and not s.nodes]
    outputs = sites_on_output(snapshot, module)
    if module.stays_float:
        return _why_float(snapshot, module, outputs)
    if weights:
        text = f"Computes in float, {_weight_words(weights[0])}"
        watched = _output_words(outputs[0]) if outputs else ""
        return f"{text}; {watched}." if watched else f"{text}."
    if module.type_name in FUNCTIONALS and outputs:
        return "Holds the operation as a module, so that its result can have a fake quant."
    if module.compute == "stub" and outputs and outputs[0].kind == "input":
        return f"Marks where float input enters; {_output_words(outputs[0])}."
    if outputs:
        words = _output_words(outputs[0])
        return f"{words[:1].upper()}{words[1:]}."
    before = _type_before(snapshots, module)
    if module.type_name == "Identity" and before:
        return f"Does nothing: the {before} that stood here was fused into another module."
    inside = sum(f"{s.owner}.".startswith(f"{module.path}.".lstrip(".")) for s in snapshot.sites)
    if inside:
        belong = "fake quant belongs" if inside == 1 else "fake quants belong"
        return f"{inside:,} {belong} to what is inside."
    around = _part_of(snapshot, module)
    if around:
        return f"A part of {around}."
    leaf = bool(module.path) and not module.children
    if module.compute == "layer" and module.state == "int8" and leaf:
        later = "Works" if snapshot.is_from("reference") else "Will work"
        return f"{later} on int8 tensors as it is."
    if module.qconfig is not None and not snapshot.is_from("inserted"):
        return "Has a qconfig, on which a later stage may act. It has no fake quant yet."
    return "Has no fake quant at this stage."


def _part_of(snapshot: Snapshot, module: ModuleRecord) -> str:
    """Path of the layer that computes with it (a fused one with its batch norm), ``""`` for none.

    In what it computes is the layer's business."""
    path = module.parent
    while path:
        record = snapshot.by_path[path]
        weight = any(s.kind == "weight" and not s.nodes for s in snapshot.sites_of(path))
        if record.fused or weight or record.compute in ("int8", "reference"):
            return path
        path = record.parent
    return ""


def _weight_words(site: FakeQuantSite) -> str:
    if not site.observer_path and site.observer_class:
        return "on its own weight, which an observer watches and nothing rounds"
    if not site.fake_quant_enabled:
        return "on its own weight: its fake quant is off"
    codes = site.quant_max - site.quant_min + 1
    who = "a node of the graph" if site.mechanism == "node" else "its forward"
    return f"on a weight that {who} rounds to a grid of {codes:,} codes"


def _output_words(site: FakeQuantSite) -> str:
    """What becomes of an output, by how its fake quant runs."""
    if site.calls_per_forward == 0:
        return "the fake quant for its output did not run"
    by = {"hook": "a hook", "node": "a node of the graph", "forward": "its own forward"}
    who = by.get(site.mechanism)
    if who is None:
        return "a fake quant is there for its output"
    if not site.observer_path and site.observer_class:
        return f"{who} shows its output to an observer, which rounds nothing"
    return f"{who} {'rounds its output' if site.fake_quant_enabled else 'passes its output on'}"


def _why_float(snapshot: Snapshot, module: ModuleRecord, outputs: Sequence[FakeQuantSite]) -> str:
    result = result_word(snapshot)
    if snapshot.is_from("reference"):
        if result != "int8":
            return "Stays float: no layer was swapped here."
        return "Stays float: no int8 module took its place."
    text = f"Stays float in the {result} model"
    if module.qconfig is None and has_qconfigs(snapshot):
        text += ": it has no qconfig"
    return f"{text}; {_output_words(outputs[0])}." if outputs else f"{text}."


def _had_weight(snapshots: Mapping[str, Snapshot], module: ModuleRecord) -> bool:
    """Whether what stood in its place before had a fake quant for its weight."""
    place = module.origin or module.path
    return any(
        site.kind == "weight" and _place(snapshot, site.owner) == place
        for snapshot in snapshots.values()
        for site in snapshot.sites
    )


def _place(snapshot: Snapshot, path: str) -> str:
    record = snapshot.by_path.get(path)
    return (record.origin or record.path) if record is not None else path


def _type_before(snapshots: Mapping[str, Snapshot], module: ModuleRecord) -> str:
    """Its type at the first stage, ``""`` if it is the same or was not there."""
    first = next(iter(snapshots.values()), None)
    before = first.by_path.get(module.origin) if first is not None and module.origin else None
    return before.type_name if before is not None and before.type_name != module.type_name else ""


def why_node(snapshot: Snapshot, node: GraphNode) -> str:
    """One sentence on a node of the graph."""
    if node.op == "placeholder":
        return "An input of the model."
    if node.op == "output":
        return "What the model returns."
    if node.op == "get_attr":
        return "A parameter or buffer of the model."
    if snapshot.exported:
        return why_exported_node(snapshot, node)
    if node.op == "call_module" or node.path:
        return "A call of a module."
    name = node.target.rpartition(".")[2]
    flow = FLOWS.get(snapshot.flow)
    if flow is None or flow.by_graph:
        return "An operation that is no module."
    if name in _OPERATORS:
        return (
            "An operation that is no module: eager mode can put no fake quant on its result, and "
            "given int8 tensors it raises. FloatFunctional() makes a module of it."
        )
    return "An operation that is no module: eager mode can put no fake quant on its result."


def two_observers(sites: Sequence[FakeQuantSite]) -> Html | None:
    """Answers "does it have two observers?" from what was counted in one forward."""
    if not sites:
        return None
    observers = [s for s in sites if s.observer_path]
    matching = len(sites) + len(observers)
    measured = all(s.calls_per_forward is not None for s in sites)
    measured &= all(s.observer_runs != "" for s in observers)
    running = sum(bool(s.calls_per_forward) for s in sites)
    running += sum(s.observer_runs == "module" for s in observers)
    noun = "fake quant" if any(s.observer_path for s in sites) else "observer"
    lead = (
        f"It has {in_words(len(sites))} {noun}{'' if len(sites) == 1 else 's'} "
        f"({', '.join(_tensor_words(s) for s in sites)}); "
        f"{in_words(matching)} {'module matches' if matching == 1 else 'modules match'} a search "
        "by name"
    )
    lead += f", {in_words(running)} of them run{'s' if running == 1 else ''}." if measured else "."
    if any(s.observer_runs == "fused kernel" for s in sites):
        lead += (
            " The observer inside only holds min_val and max_val: one fused kernel, which "
            "the fake quant calls, updates them."
        )
    heads = [
        tag("th", h, scope="col") for h in ("", "fake quant", "runs", "observer in it", "runs")
    ]
    rows = [
        tag(
            "tr",
            tag("td", kind_badge(s.kind)),
            tag("td", go(f"site:{s.path}", s.path.rpartition(".")[2])),
            tag("td", runs_word(s)),
            tag("td", s.observer_class or "none"),
            tag("td", observer_word(s)),
        )
        for s in sites
    ]
    table = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows))
    return tag(
        "section", tag("h4", "Does it have two observers?"), tag("p", lead), table, class_="qx-two"
    )


def _tensor_words(site: FakeQuantSite) -> str:
    if len(site.nodes) > 1:
        return f"one for {in_words(len(site.nodes))} tensors"
    return f"one for {'an input' if site.kind == 'input' else f'the {site.kind}'}"


def runs_word(site: FakeQuantSite) -> str:
    """How, and how often in one forward, a fake quant runs."""
    if site.calls_per_forward is None:
        return "not measured"
    if not site.calls_per_forward or site.mechanism == "unused":
        return "no"
    return f"{HOW_IT_RUNS[site.mechanism]}, {site.calls_per_forward} ×"


def observer_word(site: FakeQuantSite) -> str:
    """Whether the inner observer runs."""
    words = {"module": "yes", "fused kernel": "no (fused kernel)", "never": "no"}
    return words.get(site.observer_runs, "not measured" if site.observer_path else "")
