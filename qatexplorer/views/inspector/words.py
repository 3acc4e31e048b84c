"""The sentences and strips of the inspector: types over the stages, and why things are so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from qatexplorer.flows import FLOWS
from qatexplorer.snapshot.records import FakeQuantSite, GraphNode, ModuleRecord, Snapshot
from qatexplorer.views.common.html import Html, go, join, kind_badge, tag
from qatexplorer.views.common.names import (
    FUNCTIONALS,
    is_boundary,
    is_int8,
    is_reference,
    short_type,
)

_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
_OPERATORS = frozenset(
    (
        "add",
        "sub",
        "mul",
        "truediv",
        "div",
        "cat",
        "concat",
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


def why_module(snapshot: Snapshot, module: ModuleRecord) -> str:
    """One sentence on what quantization does to the module at this stage."""
    sites = snapshot.sites_of(module.path)
    kinds = {site.kind for site in sites}
    if is_boundary(module):
        if module.type_name == "Quantize":
            return "Turns float tensors into int8: here the int8 part begins."
        return "Turns int8 tensors into float: here the int8 part ends."
    if is_int8(module):
        return "Stores int8 weights and runs torch's int8 kernels; its scales come from training."
    if is_reference(module):
        return (
            "Keeps its weight on the int8 grid and computes in float: a description of the int8 "
            "layer that lowering puts in its place."
        )
    if module.stays_float:
        if snapshot.is_from("reference"):
            return "Stays float: no int8 module took its place."
        reason = (
            "no qconfig reaches it" if module.qconfig is None else "torch has no QAT module for it"
        )
        return f"Stays float: {reason}, so no fake quant watches its weight or its output."
    if kinds >= {"weight", "output"}:
        return (
            "Computes in float, on a weight rounded to the int8 grid, and a hook rounds its output "
            "the same way: so training feels what int8 will do."
        )
    if "weight" in kinds:
        return (
            "A torch QAT module: its forward rounds the weight to the int8 grid. Its output is not "
            "watched" + ("." if snapshot.is_from("inserted") else " yet.")
        )
    if "input" in kinds:
        return "Marks where float input enters; a hook rounds what passes to the int8 grid."
    if module.type_name in FUNCTIONALS and "output" in kinds:
        return "Holds the operation as a module, so that its result can have a fake quant."
    if "output" in kinds:
        return "A hook rounds its output to the int8 grid."
    if module.type_name == "Identity" and module.origin:
        return "Does nothing. If something stood here, it was fused into the module before it."
    inside = sum(
        s.owner.startswith(f"{module.path}." if module.path else "") for s in snapshot.sites
    )
    if inside:
        return f"Holds no fake quant itself; {inside:,} are inside."
    if module.qconfig is not None:
        return "Has a qconfig, which later stages act on; it computes in plain float here."
    return "Computes in plain float; no stage has changed it so far."


def why_node(snapshot: Snapshot, node: GraphNode) -> str:
    """One sentence on a node of the graph."""
    if node.op == "placeholder":
        return "An input of the model."
    if node.op == "output":
        return "What the model returns."
    if node.op == "call_module" or node.path:
        return "A call of a module; its fake quants belong to the module."
    name = node.target.rpartition(".")[2]
    flow = FLOWS.get(snapshot.flow)
    if name in _OPERATORS and flow is not None and not flow.by_graph:
        return (
            "A plain operation, not a module: eager mode can put no fake quant on its result, and "
            "on int8 tensors it raises. FloatFunctional() makes a module of it."
        )
    return "A plain operation: eager mode does not touch it."


def two_observers(sites: Sequence[FakeQuantSite]) -> Html | None:
    """Answers "does it have two observers?" from what was counted in one forward."""
    if not sites:
        return None
    observers = [s for s in sites if s.observer_path]
    matching = len(sites) + len(observers)
    measured = all(s.calls_per_forward is not None for s in sites)
    running = sum(bool(s.calls_per_forward) for s in sites)
    running += sum(s.observer_runs == "module" for s in observers)
    one = len(sites) == 1
    lead = (
        f"It has {in_words(len(sites))} fake quant{'' if one else 's'}, for "
        f"{'one tensor' if one else in_words(len(sites)) + ' different tensors'}; "
        f"{in_words(matching)} modules match a search by name"
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


def runs_word(site: FakeQuantSite) -> str:
    """How, and how often in one forward, a fake quant runs."""
    if site.calls_per_forward is None:
        return "not measured"
    if not site.calls_per_forward or site.mechanism == "unused":
        return "no"
    how = {"forward": "in forward", "hook": "by hook", "node": "as a node"}[site.mechanism]
    return f"{how}, {site.calls_per_forward} ×"


def observer_word(site: FakeQuantSite) -> str:
    """Whether the inner observer runs."""
    words = {"module": "yes", "fused kernel": "no (fused kernel)", "never": "no"}
    return words.get(site.observer_runs, "not measured" if site.observer_path else "")
