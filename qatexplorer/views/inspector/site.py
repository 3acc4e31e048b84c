"""The inspector's page for one fake quant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from qatexplorer.snapshot.exported import fused_norms
from qatexplorer.snapshot.records import FakeQuantSite, Snapshot
from qatexplorer.views.common.html import Html, code, folded, go, join, kind_badge, tag, terms
from qatexplorer.views.common.names import (
    by_quantizer,
    count,
    number,
    plain_dtype,
    seen_words,
    shape_text,
)
from qatexplorer.views.inspector.blocks import blocks_terms
from qatexplorer.views.inspector.words import runs_word, strip


def site_html(snapshots: Mapping[str, Snapshot], stage: str, site: FakeQuantSite) -> Html:
    """All about ``site`` as it is at ``stage``."""
    snapshot = snapshots[stage]
    parts = [
        tag("header", tag("h3", site.path), kind_badge(site.kind, word=True)),
        strip(_over_stages(snapshots, site), stage),
        tag("p", why_site(snapshot, site), class_="qx-why"),
        *(tag("p", warning, class_="qx-remark") for warning in warnings_of(snapshot, site)),
        tag("section", tag("h4", "What it quantizes"), _place(snapshot, site)),
        tag("section", tag("h4", "The grid"), _grid(site)),
        tag("section", tag("h4", "How it runs"), _running(site)),
    ]
    keys = [tag("li", code(key)) for key in site.state_dict_keys]
    if keys:
        parts.append(folded(f"state_dict keys ({len(keys)})", tag("ul", *keys)))
    return join(parts)


def _over_stages(
    snapshots: Mapping[str, Snapshot], site: FakeQuantSite
) -> list[tuple[str, str, str]]:
    entries = []
    for name, snapshot in snapshots.items():
        found = snapshot.site_by_path.get(site.path)
        what = "not there"
        if found is not None:
            what = seen_words(found)
        entries.append((name, what, site.call if name == site.stage else ""))
    return entries


def _is_constant(snapshot: Snapshot, site: FakeQuantSite) -> bool:
    """Whether what it rounds is a node of the graph that holds a parameter."""
    nodes = snapshot.graph.nodes if snapshot.graph is not None else ()
    return any(node.id in site.nodes and node.op == "get_attr" for node in nodes)


def _place(snapshot: Snapshot, site: FakeQuantSite) -> Html:
    what = {
        "weight": f"the {site.parameter} of ",
        "input": "what enters through ",
        "output": "the output of ",
    }[site.kind]
    owner = go(f"module:{site.owner}", site.owner or "the model itself")
    tensor = join([what, owner, f" ({site.owner_type})"])
    if site.nodes and site.kind == "weight" and not _is_constant(snapshot, site):
        tensor = join(["the weight that is given to ", _after(site)])
    elif site.nodes:
        what = {"weight": "the parameter ", "input": "the model's input "}.get(site.kind, "")
        tensor = join([what, "the output of " if not what else "", _after(site)])
    return terms(
        [
            ("tensor", tensor),
            ("shape", shape_text(site.tensor_shape)),
            (
                "put there",
                join([f"in stage “{site.stage}” by ", code(site.call or "your own code")]),
            ),
            ("in", owner if site.nodes else None),
            ("also named", join([code(alias) for alias in site.aliases], ", ") or None),
            ("shared because of", join([go(f"node:{n}", n) for n in site.shared_by], ", ") or None),
        ]
    )


def _after(site: FakeQuantSite) -> Html:
    """The operations of the graph whose result it quantizes."""
    return join([go(f"node:{node}", node) for node in site.nodes], ", ")


def _grid(site: FakeQuantSite) -> Html:
    if site.blocks:
        return blocks_terms(site)
    levels = site.quant_max - site.quant_min + 1
    channels = None
    if site.ch_axis is not None:
        channels = f"axis {site.ch_axis}"
        if len(site.scale) > 1:
            channels += f", {count(len(site.scale), 'channel')}"
    seen = site.seen != "nothing"
    return terms(
        [
            ("dtype", code(plain_dtype(site.dtype))),
            (
                "codes",
                f"{number(site.quant_min)} .. {number(site.quant_max)} ({count(levels, 'level')})",
            ),
            ("qscheme", code(site.qscheme.removeprefix("torch."))),
            ("channels", channels or "one grid for the whole tensor"),
            ("scale", _summary(site.scale) if seen or len(site.scale) > 1 else _start(site.scale)),
            ("zero_point", _summary(site.zero_point)),
            ("range observed", _range(site)),
        ]
    )


def _start(scale: Sequence[float]) -> str:
    return f"{_summary(scale)} (the initial value)" if scale else "none yet"


def _summary(values: Sequence[float]) -> str:
    """One number, or min / median / max and the count; "all 0" when they agree."""
    if not values:
        return "none"
    if len(values) == 1:
        return number(values[0], 6)
    if min(values) == max(values):
        return f"{number(values[0], 6)} in all {count(len(values), 'channel')}"
    return (
        f"{number(min(values))} to {number(max(values))}, median {number(median(values))}; "
        f"{count(len(values), 'channel')}, plotted below"
    )


def _range(site: FakeQuantSite) -> str:
    if site.seen == "fixed":
        return "none: the operation fixes it"
    if site.seen == "derived":
        return "none: its scale is computed of those of other fake quants"
    if site.seen == "dynamic":
        return "none: it takes that of each tensor that comes"
    if site.seen == "nothing":
        return "none yet: the observer has seen no data"
    low, high = min(site.min_val), max(site.max_val)
    several = " over all channels" if len(site.min_val) > 1 else ""
    partly = f"; it {seen_words(site)}" if site.seen == "partly" else ""
    return f"{number(low)} .. {number(high)}{several}{partly}"


def _running(site: FakeQuantSite) -> Html:
    observer = None
    if site.observer_class:
        words = {
            "module": "its forward runs and updates the range"
            if site.seen not in ("fixed", "derived")
            else "its forward runs and changes nothing",
            "fused kernel": "its forward never runs: one fused kernel, called by the fake quant, "
            "updates its min_val and max_val",
            "never": "it did not run in the forward of the example input",
        }
        meaning = words.get(site.observer_runs, "not measured at this stage")
        observer = join([code(site.observer_class), f": {meaning}"])
    return terms(
        [
            ("fake quant", code(site.fake_quant_class)),
            ("runs", runs_word(site) + (" per forward" if site.calls_per_forward else "")),
            ("observer", observer),
            (
                "observing",
                None
                if site.blocks or site.seen in ("fixed", "derived")
                else _flag(site.observer_enabled, "the range follows the data", "range is fixed"),
            ),
            (
                "fake-quantizing",
                _flag(site.fake_quant_enabled, "values are rounded", "passes through"),
            ),
        ]
    )


def _flag(value: bool, on: str, off: str) -> str:
    return f"on ({on})" if value else f"off ({off})"


def fused_with_norm(snapshot: Snapshot, site: FakeQuantSite) -> str:
    """``", scaled by its batch norm,"`` where the owner holds one, else nothing."""
    inside = (m for m in snapshot.modules if m.parent == site.owner)
    return ", scaled by its batch norm," if any("BatchNorm" in m.type_name for m in inside) else ""


def why_site(snapshot: Snapshot, site: FakeQuantSite) -> str:
    """One sentence on why it is there and runs as it does."""
    owner = site.owner or "the model"
    if site.mechanism == "unused":
        if site.calls_per_forward is None:
            return "How it runs was not measured at this stage."
        return "It did not run in the forward of the example input."
    bare = bool(site.observer_class) and not site.observer_path
    if site.kind == "weight" and site.mechanism == "forward":
        scaled = fused_with_norm(snapshot, site)
        return (
            f"The forward of {owner} passes its weight{scaled} through this before it computes, so "
            "no hook is needed."
        )
    if bare and site.mechanism == "hook":
        return f"A forward hook on {owner} shows it the output; it rounds nothing."
    if site.blocks and site.kind == "input":
        return f"The forward of {owner} passes its input through this before it computes."
    if site.kind == "input" and site.mechanism == "hook":
        return (
            f"{owner} hands the tensor on as it is; a forward hook on it passes it through this "
            "fake quant, so that what comes after it trains on rounded values."
        )
    if site.mechanism == "hook":
        return (
            f"A forward hook on {owner} replaces its output by the result of this fake quant: the "
            "module's own code does not know of it."
        )
    if site.mechanism == "node":
        if by_quantizer(snapshot):
            return _why_annotated(snapshot, site)
        if len(site.nodes) > 1:
            return (
                f"One fake quant at {len(site.nodes)} places of the FX graph: torch lets "
                "operations that pass values on, or need one scale, share it."
            )
        return "It is a node of the FX graph, called between the operations it connects."
    return f"{owner} calls it itself, on the result of its operation; no hook is needed."


def _why_annotated(snapshot: Snapshot, site: FakeQuantSite) -> str:
    owner = site.owner or "the model"
    if site.kind == "weight":
        pairs = fused_norms(snapshot.graph)
        norm = next((p.norm.path for p in pairs if p.conv.path == site.owner and p.between), "")
        scaled = f", scaled by the running variance of {norm}," if norm else ""
        return (
            f"It is a node of the exported graph: the {site.parameter} of {owner}{scaled} goes "
            "through it "
            "before the operation takes it, as the quantizer's annotation says."
        )
    if len(site.nodes) > 1:
        return (
            f"One fake quant at {len(site.nodes)} places of the exported graph: the quantizer's "
            "annotations let these tensors share it."
        )
    return (
        "It is a node of the exported graph, called between the operations it connects, because "
        "the quantizer's annotation says so."
    )


def warnings_of(snapshot: Snapshot, site: FakeQuantSite) -> list[str]:
    """What is unusual about the site, as whole sentences."""
    found = []
    owner = snapshot.by_path.get(site.owner)
    hooks = sum(h.observer for h in owner.hooks) if owner is not None else 0
    if hooks > 1 and site.kind != "weight":
        found.append(
            f"The hook is registered {hooks} times, so one tensor goes through it {hooks} times, "
            "as after calling prepare more than once."
        )
    if site.dtype.endswith("quint8") and (site.quant_min, site.quant_max) == (0, 127):
        found.append(
            "Only 128 of the 256 codes are used (reduce_range, for older CPUs); the converted "
            "module uses all 256, so training clips values that int8 will not."
        )
    if any(value == 0 or value != value for value in site.scale):
        found.append("At least one scale is 0 or NaN: what passes here is lost.")
    return found
