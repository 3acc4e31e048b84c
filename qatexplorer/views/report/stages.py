"""Stages of a report: what each changed, its tree and its graph."""

from __future__ import annotations

from qatexplorer.session.report_part import Reported
from qatexplorer.views.common.html import Html, code, folded, join, tag, terms
from qatexplorer.views.common.names import count
from qatexplorer.views.common.news import news_of
from qatexplorer.views.graph.scene import build_scene
from qatexplorer.views.report.pieces import Section, table_html
from qatexplorer.views.report.style import themed
from qatexplorer.views.static.graph import graph_svg
from qatexplorer.views.static.tree import tree_table
from qatexplorer.views.tree import build_tree, state_label

_MOST_CHANGES = 200


def stages_section(known: Reported) -> Section:
    """A line a stage, and for each that was reached its changes, tree and graph."""
    news = news_of(known.flow.stages, known.snapshots)
    rows = []
    for stage in known.flow.stages:
        shot = known.snapshots.get(stage.name)
        rows.append(
            (
                stage.title,
                code(stage.call) if stage.call else "",
                "not reached" if shot is None else news.get(stage.name, ""),
                "" if shot is None else f"{len(shot.modules):,}",
                "" if shot is None else f"{len(shot.sites):,}",
            )
        )
    heads = ("stage", "torch's call", "what it did", "modules", "fake quants")
    table = table_html(f"Stages of {known.flow.title}", heads, rows, (3, 4))
    parts = [_stage(known, stage.name) for stage in known.flow.stages]
    return Section("stages", "Stages", join([table, *parts]))


def _stage(known: Reported, name: str) -> Html | None:
    shot = known.snapshots.get(name)
    if shot is None:
        return None
    change = known.diffs.get(name)
    first = next(iter(known.snapshots.values()))
    before = known.snapshots.get(change.before) if change is not None else None
    rows = build_tree(shot, change, before)
    scene = build_scene(shot, change.paths if change is not None else frozenset(), before=first)
    svg = graph_svg(scene)
    reason = str(scene.get("reason") or "There is no graph at this stage.")
    graph = Html(themed(svg)) if svg else tag("p", reason, class_="muted")
    notes = tag("ul", *(tag("li", note) for note in shot.notes)) if shot.notes else None
    tree = tag("div", Html(tree_table(rows, state=state_label(shot))), class_="scroll tree",
               tabindex="0", role="region", aria_label=f"Modules at stage {name}")  # fmt: skip
    picture = tag("div", graph, class_="scroll", tabindex="0", role="region",
                  aria_label=f"Dataflow graph at stage {name}")  # fmt: skip
    stage = known.flow.stage(name)
    return tag(
        "div",
        tag("h3", stage.title),
        tag("p", change.summary() if change is not None else stage.why),
        notes,
        _changes(known, name),
        folded(f"Tree: {count(len(shot.modules), 'module')}", tree, open_=name == known.stage),
        folded("Graph", picture, open_=name == known.stage),
    )


def _changes(known: Reported, name: str) -> Html | None:
    change = known.diffs.get(name)
    if change is None or not change.what:
        return None
    shot = known.snapshots[name]
    rows = []
    for path, words in list(change.what.items())[:_MOST_CHANGES]:
        before = change.before_of.get(path)
        now = shot.by_path.get(path)
        type_ = now.type_name if now is not None else "fake quant"
        if before is not None and now is not None and before.type_name != now.type_name:
            type_ = f"{before.type_name} → {type_}"
        rows.append((tag("span", path or "the model", class_="mono"), type_, ", ".join(words)))
    more = len(change.what) - len(rows)
    rest = tag("p", f"{more:,} more.", class_="muted") if more else None
    title = f"What changed: {count(len(change.what), 'place')}"
    return folded(
        title, table_html("Places that changed", ("place", "type", "changed"), rows), rest
    )


def settings_section(known: Reported) -> Section:
    """How the session was set."""
    return Section("settings", "Settings", terms(known.settings))
