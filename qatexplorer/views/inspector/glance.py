"""The inspector's page when nothing is selected: the model at a glance, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from qatexplorer.checks.records import Finding
from qatexplorer.ledger.records import Redundancy
from qatexplorer.session.glance import Glance
from qatexplorer.snapshot.parts import Share
from qatexplorer.snapshot.records import FakeQuantSite, GraphNode, ModuleRecord, Snapshot
from qatexplorer.views.common.findings import LOOKS
from qatexplorer.views.common.html import Html, ask, code, folded, go, join, kind_badge, tag
from qatexplorer.views.common.names import (
    KINDS,
    TensorNames,
    count,
    result_word,
    share,
    short_type,
    stores_integers,
)
from qatexplorer.views.inspector.site import warnings_of

_MOST_TYPES = 8
_MOST_LINKS = 12
_MOST_FINDINGS = 4


def glance_html(glance: Glance) -> Html:
    """Parts int8 and float, what to do next, warnings, groups by type, redundancies.

    Returns:
        HTML, all text escaped. Buttons with ``data-select`` name selections; those with
        ``data-ask`` ask the page for something: ``"search:<query>"``, ``"stage:<name>"``,
        ``"panel:<name>"`` ("checks", "training", "inside", "ledger", "results", "settings") or
        ``"fix:<id of the finding>:<index of its fix>"``.
    """
    snapshot = glance.snapshot
    root = snapshot.modules[0]
    return join(
        [
            tag(
                "header",
                tag("h3", "The model at a glance"),
                go("module:", short_type(root), "Select the model itself"),
            ),
            _next_steps(glance),
            _parts(glance),
            _warnings(glance),
            _groups_table(glance),
            _redundancies(glance),
        ]
    )


# -- what to do next ----------------------------------------------------------------------------


def next_steps(glance: Glance) -> list[tuple[Html, str]]:
    """What can be done from here, the likeliest first: a button and what it is for."""
    if glance.progress is not None:
        run = glance.progress
        words = f"A run is {run.state}: epoch {run.epoch + 1:,} of {run.epochs:,}."
        return [(ask("panel:inside", "Look inside the training"), words)]
    steps: list[tuple[Html, str]] = []
    stops = [found for found in glance.findings if found.severity == "error"]
    for found in stops[:_MOST_FINDINGS]:
        steps += [(button, found.message) for button in _fixes(found)[:1]]
    snapshot, following = glance.snapshot, glance.following
    result = result_word(snapshot)
    if following is not None and any(found.stage == following.name for found in stops):
        return steps  # torch's call would fail
    if not snapshot.is_from("inserted"):
        if following is not None:
            steps.append((_to(following.name, f"Step to {following.title}"), ""))
        if following is not None and following.name != glance.prepared.name:
            why = "There all fake quants are in, and it is known what "
            why += "becomes int8." if result == "int8" else "is quantized."
            steps.append((_to(glance.prepared.name, f"Go to {glance.prepared.title}"), why))
    elif snapshot.role in ("inserted", "trained") and not glance.observed:
        if glance.has_data:
            why = "No fake quant has seen data: scales mean nothing until then."
            steps.append((ask("panel:training", "Train or calibrate"), why))
        else:
            why = (
                "No fake quant has seen data, and the session has none to train with: pass data=, "
                "or train the model of this stage (session.model) in your own loop."
            )
            steps.append((Html(""), why))
    elif following is not None:
        seen = any(site.seen in ("all", "partly") for site in snapshot.sites)
        why = "The fake quants have seen data." if seen else ""
        if snapshot.role == "inserted":
            steps.append((_to(glance.train.name, f"Go to {glance.train.title}"), why))
        else:
            steps.append((_to(following.name, f"Step to {following.title}"), why))
    elif glance.has_data and glance.observed:
        why = "Accuracy, size and latency of this model beside the float one."
        steps.append((ask("panel:results", f"Compare float, fake-quant and {result}"), why))
    elif not glance.observed:
        why = "No fake quant had seen data when this model was converted."
        steps.append((_to(glance.train.name, f"Back to {glance.train.title}"), why))
    return steps


def _fixes(found: Finding) -> list[Html]:
    """Buttons that put a finding right."""
    return [
        ask(f"fix:{found.key}:{index}", fix.label, fix.code or None)
        for index, fix in enumerate(found.fixes)
    ]


def _to(stage: str, label: str) -> Html:
    return ask(f"stage:{stage}", label)


def _next_steps(glance: Glance) -> Html | None:
    steps = next_steps(glance)
    if not steps:
        return None
    items = [tag("li", join([step, " " if step and why else "", why])) for step, why in steps]
    return tag("div", tag("h4", "What to do next"), tag("ul", *items), class_="qx-glance-next")


# -- parts --------------------------------------------------------------------------------------


def parts_words(share_: Share, noun: str, snapshot: Snapshot) -> str:
    """How much of something is int8, as one sentence; ``noun`` in the plural."""
    if not share_.total:
        return f"There are no {noun}."
    if not snapshot.is_from("inserted"):
        what = "becomes int8" if result_word(snapshot) == "int8" else "is quantized"
        return f"All {share_.total:,} {noun} are float; what {what} is not decided yet."
    verb = "are int8" if snapshot.role == "int8" else "are prepared for int8"
    if stores_integers(snapshot):
        verb = "are" if noun == "parameters" else "are by weights that are"
        verb += " stored as integers" if snapshot.role == "int8" else " trained to be integers"
    part = share(share_.int8 / share_.total)
    words = f"{share_.int8:,} of {share_.total:,} {noun} ({part}) {verb}"
    words += f", {share_.float:,} stay float" if share_.float else ""
    return words + (f", of {share_.unknown:,} it is not known." if share_.unknown else ".")


def _bar(title: str, parts: Share, words: str) -> Html:
    segments = [
        tag("span", class_=f"qx-bar-{kind}", style=f"flex-grow:{number / parts.total:.6f}")
        for kind, number in (
            ("int8", parts.int8),
            ("float", parts.float),
            ("unknown", parts.unknown),
        )
        if number
    ]
    bar = tag("div", *segments, class_="qx-bar", role="img", aria_label=f"{title}: {words}")
    return tag("div", tag("b", title), bar if parts.total else None, tag("p", words))


def _parts(glance: Glance) -> Html:
    snapshot = glance.snapshot
    words = parts_words(glance.params, "parameters", snapshot)
    rows = [_bar("Parameters", glance.params, words)]
    if glance.macs is not None:
        words = parts_words(glance.macs, "multiply-accumulates", snapshot)
        rows.append(_bar("MACs of the example input", glance.macs, words))
    else:
        why = f"Not known: {glance.macs_error}" if glance.macs_error else "Being counted …"
        rows.append(tag("div", tag("b", "MACs of the example input"), tag("p", why)))
    rows.append(tag("div", tag("b", "Fake quants"), tag("p", *_quants(snapshot))))
    stored = "integers" if result_word(snapshot) != "int8" else "int8"
    legend = tag(
        "p",
        *(
            tag("span", tag("span", class_=f"qx-bar-{kind}"), word)
            for kind, word in (("int8", stored), ("float", "float"), ("unknown", "not known"))
            if getattr(glance.params, kind) or getattr(glance.macs, kind, 0)
        ),
        class_="qx-glance-legend",
        aria_hidden="true",
    )
    return tag("div", tag("h4", f"{stored} and float"), legend, *rows, class_="qx-glance-parts")


def _quants(snapshot: Snapshot) -> list[Html | str]:
    sites = snapshot.sites
    if not sites:
        if snapshot.is_from("reference"):
            return ["None: converting has replaced them."]
        return ["None at this stage."]
    kinds = [(kind, sum(site.kind == kind for site in sites)) for kind in KINDS]
    parts: list[Html | str] = [f"{len(sites):,}: "]
    parts.append(join([join([f"{n:,} ", kind_badge(kind)]) for kind, n in kinds if n], ", "))
    unseen = sum(site.seen == "nothing" for site in sites)
    if unseen:
        which = "all" if unseen == len(sites) else f"{unseen:,}"
        have = "has" if unseen == 1 and which != "all" else "have"
        parts.append(f"; {which} {have} seen no data yet")
    shared = sum(len(site.nodes) > 1 for site in sites)
    if shared:
        parts.append(f"; {shared:,} of them for more than one tensor")
    return [*parts, "."]


# -- warnings -----------------------------------------------------------------------------------


def _warnings(glance: Glance) -> Html:
    snapshot = glance.snapshot
    items = [_finding(finding, snapshot) for finding in glance.findings[:_MOST_FINDINGS]]
    if left := len(glance.findings) - len(items):
        items.append(tag("li", ask("panel:checks", f"{left:,} more in Checks")))
    items += [tag("li", note) for note in glance.notes]
    found: dict[str, list[FakeQuantSite]] = {}
    for site in snapshot.sites:
        for words in warnings_of(snapshot, site):
            found.setdefault(words, []).append(site)
        if site.calls_per_forward == 0:
            words = "Not run in the forward of the example input: it sees no tensor."
            found.setdefault(words, []).append(site)
    names = TensorNames(snapshot)
    for words, sites in found.items():
        links = [go(f"site:{s.path}", names.of(s.path).text, s.path) for s in sites[:_MOST_LINKS]]
        more = f" and {len(sites) - _MOST_LINKS:,} more" if len(sites) > _MOST_LINKS else ""
        where = join([join(links, ", "), more])
        if len(sites) == 1:
            items.append(tag("li", words, " ", where))
        else:
            items.append(tag("li", words, folded(f"{count(len(sites), 'fake quant')}", where)))
    if snapshot.warnings:
        said = tag("ul", *(tag("li", words) for words in snapshot.warnings))
        items.append(
            tag("li", folded(f"torch said {count(len(snapshot.warnings), 'thing')}", said))
        )
    body = tag("ul", *items) if items else tag("p", "None at this stage.", class_="qx-muted")
    return tag("div", tag("h4", "Warnings and notes"), body)


_REMARKS = {"error": "qx-remark qx-remark-error", "warning": "qx-remark"}


def _finding(found: Finding, snapshot: Snapshot) -> Html:
    kind = "site" if found.path in snapshot.site_by_path else "module"
    where = go(f"{kind}:{found.path}", found.path) if found.path else None
    return tag(
        "li",
        tag("b", LOOKS[found.severity].word),
        " ",
        found.message,
        " " if where else None,
        where,
        " ",
        found.fix,
        *(join([" ", button]) for button in _fixes(found)),
        class_=_REMARKS.get(found.severity),
    )


# -- groups -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """Modules of one type, operations of one name, or inputs of the model, at one stage.

    ``params`` are the elements that they hold themselves, ``quants`` the fake quants of their
    weights, outputs or inputs. ``first`` is a selection string of one of them.
    """

    name: str
    kind: Literal["module", "operation", "input"]
    number: int
    params: int
    quants: int
    first: str


def groups_of(glance: Glance) -> list[Group]:
    """Every type of module and every operation of the graph, those with most parameters first. A
    module that several paths name, and a fake quant for several tensors, count once."""
    snapshot = glance.snapshot
    modules: dict[str, dict[int, ModuleRecord]] = {}
    params: dict[str, int] = {}
    for module in snapshot.modules:
        if module.path in snapshot.site_by_path:
            continue
        kind = short_type(module)
        modules.setdefault(kind, {}).setdefault(module.identity, module)
        params[kind] = params.get(kind, 0) + glance.held.get(module.path, 0)
    operations: dict[str, list[GraphNode]] = {}
    nodes = snapshot.graph.nodes if snapshot.graph is not None else ()
    for node in nodes:
        if not node.path and node.op in ("call_function", "call_method"):
            operations.setdefault(node.label, []).append(node)
    inputs = [node for node in nodes if node.op == "placeholder"]
    on_modules, on_operations, on_inputs = _quants_by_group(snapshot)
    found = [
        Group(
            kind,
            "module",
            len(records),
            params[kind],
            on_modules.get(kind, 0),
            f"module:{next(iter(records.values())).path}",
        )
        for kind, records in modules.items()
    ]
    found += [
        Group(name, "operation", len(many), 0, on_operations.get(name, 0), f"node:{many[0].id}")
        for name, many in operations.items()
    ]
    if on_inputs:
        found.append(
            Group("model input", "input", len(inputs), 0, on_inputs, f"node:{inputs[0].id}")
        )
    return sorted(found, key=lambda group: (-group.params, -group.quants, -group.number))


def _quants_by_group(snapshot: Snapshot) -> tuple[dict[str, int], dict[str, int], int]:
    """Fake quants by the type of their module, by their operation, and those of model inputs."""
    nodes = {node.id: node for node in snapshot.graph.nodes} if snapshot.graph is not None else {}
    on_modules: dict[str, int] = {}
    on_operations: dict[str, int] = {}
    inputs = 0
    for site in snapshot.sites:
        node = nodes.get(site.nodes[0]) if site.nodes else None
        if node is not None and node.op == "placeholder":
            inputs += 1
        elif node is not None and node.op in ("call_function", "call_method") and not node.path:
            on_operations[node.label] = on_operations.get(node.label, 0) + 1
        else:
            owner = snapshot.by_path.get(site.owner)
            kind = short_type(owner) if owner is not None else site.owner_type
            on_modules[kind] = on_modules.get(kind, 0) + 1
    return on_modules, on_operations, inputs


def _groups_table(glance: Glance) -> Html:
    groups = groups_of(glance)
    telling = [group for group in groups if group.params or group.quants]
    shown, rest = telling[:_MOST_TYPES], telling[_MOST_TYPES:]
    rest += [group for group in groups if group not in telling]
    parts = [tag("h4", "By type"), _table(shown)] if shown else [tag("h4", "By type")]
    if rest:
        parts.append(folded(f"Other types ({len(rest)})", _table(rest)))
    return tag("div", *parts)


def _table(groups: Sequence[Group]) -> Html:
    heads = [tag("th", "type", scope="col")]
    heads += [
        tag("th", h, scope="col", class_="qx-number")
        for h in ("count", "parameters", "fake quants")
    ]
    rows = [
        tag(
            "tr",
            tag(
                "td",
                _group_link(group),
                tag("small", " operation") if group.kind == "operation" else None,
            ),
            tag("td", f"{group.number:,}", class_="qx-number"),
            tag("td", f"{group.params:,}" if group.params else "", class_="qx-number"),
            tag("td", f"{group.quants:,}" if group.quants else "", class_="qx-number"),
        )
        for group in groups
    ]
    return tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows))


def _group_link(group: Group) -> Html:
    if group.kind != "module" or group.number == 1:
        return go(group.first, group.name, "Select it")
    title = f"Show the {group.number:,} of this type in the tree"
    return ask(f"search:type:{group.name}", group.name, title)


# -- redundancies -------------------------------------------------------------------------------


def _redundancies(glance: Glance) -> Html | None:
    snapshot, ledger = glance.snapshot, glance.ledger
    head = tag("h4", "Rounded twice")
    if ledger is not None:
        if not ledger.faults:
            return tag(
                "div", head, tag("p", "No value is fake-quantized twice.", class_="qx-muted")
            )
        names = TensorNames(snapshot)
        items = [_fault(found, snapshot, names) for found in ledger.faults[:_MOST_LINKS]]
        more = len(ledger.faults) - _MOST_LINKS
        rest = tag("p", f"and {more:,} more: ", ask("panel:ledger", "all")) if more > 0 else None
        return tag("div", head, tag("ul", *items), rest)
    if not snapshot.sites:
        return None
    words = tag("p", "Not looked for yet at this stage. ", ask("panel:ledger", "Look for it"))
    return tag("div", head, words)


def _fault(found: Redundancy, snapshot: Snapshot, names: TensorNames) -> Html:
    links = [
        go(f"site:{path}", names.of(path).text, path)
        if path in snapshot.site_by_path
        else code(path)
        for path in found.paths
    ]
    runs = " runs again on its own output" if len(links) == 1 else ""
    edge = go(found.edges[0], "show") if found.edges else None
    return tag("li", join(links, ", then "), runs, ": " if edge else None, edge)
