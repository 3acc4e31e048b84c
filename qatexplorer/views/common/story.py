"""The text beside the stages: which torch call ran, what it changed, why, and what torch said."""

from __future__ import annotations

from html import escape
from typing import Any

from qatexplorer.errors import QatExplorerError
from qatexplorer.flows.base import Stage
from qatexplorer.snapshot.diff import Diff
from qatexplorer.snapshot.records import Snapshot
from qatexplorer.views.common.names import KINDS, count


def stage_entries(
    stages: tuple[Stage, ...], current: str, reached: str, diffs: dict[str, str]
) -> list[dict[str, Any]]:
    """What the stage bar draws: name, title, state ("done", "current", "next", "later"), summary.

    ``diffs`` has the one-line summary of each stage reached.
    """
    names = [s.name for s in stages]
    last = names.index(reached)
    entries = []
    for index, stage in enumerate(stages):
        if stage.name == current:
            state = "current"
        elif index <= last:
            state = "done"
        else:
            state = "next" if index == last + 1 else "later"
        entries.append(
            {
                "name": stage.name,
                "title": stage.title,
                "state": state,
                "summary": diffs.get(stage.name, ""),
                "call": stage.call,
            }
        )
    return entries


def story_html(stage: Stage, snapshot: Snapshot, change: Diff | None) -> str:
    """The panel under the stage bar, as safe HTML."""
    parts = [f'<p class="qx-story-why">{escape(stage.why)}</p>']
    head = f"<h2>{escape(stage.title)}</h2>"
    if stage.call:
        head += f"<code>{escape(stage.call)}</code>"
    parts.insert(0, f'<div class="qx-story-head">{head}</div>')
    if change is not None:
        parts.append(f'<p class="qx-story-change"><b>What changed:</b> {_change(change)}</p>')
    else:
        graph = snapshot.graph
        parts.append(
            f'<p class="qx-story-change"><b>Your model:</b> '
            f"{count(len(snapshot.modules), 'module')}, "
            f"{count(snapshot.modules[0].param_count, 'parameter')}"
            + (f", graph from {escape(graph.origin)}" if graph is not None else "")
            + "</p>"
        )
    if snapshot.graph is not None and snapshot.graph.note:
        parts.append(f'<p class="qx-story-note">{escape(snapshot.graph.note)}</p>')
    parts += [f'<p class="qx-story-note">{escape(note)}</p>' for note in snapshot.notes]
    if snapshot.warnings:
        lines = "".join(f"<li>{escape(w)}</li>" for w in snapshot.warnings)
        parts.append(
            f"<details><summary>torch said {count(len(snapshot.warnings), 'thing')}</summary>"
            f"<ul>{lines}</ul></details>"
        )
    return "".join(parts)


def story_line(stage: Stage, snapshot: Snapshot, change: Diff | None) -> str:
    """What happened at this stage, in one line, as safe HTML."""
    if change is not None:
        what = change.summary()
    else:
        what = f"{count(len(snapshot.modules), 'module')} as they were given"
    return f"<b>{escape(stage.title)}:</b> {escape(what)}"


def _change(change: Diff) -> str:
    text = escape(change.summary())
    kinds = dict.fromkeys(KINDS, 0)
    for site in change.sites_added:
        kinds[site.kind] += 1
    badges = [
        f'<span class="qx-badge qx-{kind}">{KINDS[kind].mark} {number} {KINDS[kind].word}</span>'
        for kind, number in kinds.items()
        if number
    ]
    swaps: dict[str, int] = {}
    for pair in change.swapped:
        arrow = f"{pair.before.type_name} → {pair.after.type_name}"
        swaps[arrow] = swaps.get(arrow, 0) + 1
    listed = [
        f'<span class="qx-badge">{escape(arrow)}{f" × {n}" if n > 1 else ""}</span>'
        for arrow, n in sorted(swaps.items(), key=lambda item: -item[1])[:6]
    ]
    if len(swaps) > 6:
        listed.append(f'<span class="qx-badge">and {len(swaps) - 6} other kinds of swap</span>')
    return " ".join([text, *badges, *listed])


def message_html(error: Exception) -> str:
    """An error as its user needs it: what, where, why, what to do. Never a traceback."""
    if not isinstance(error, QatExplorerError):
        first = (str(error).strip().splitlines() or [""])[0]
        error = QatExplorerError(
            f"Something unexpected happened: {type(error).__name__}: {first}",
            fix="The model and the session are as they were. Please report this with the call "
            "that led to it.",
        )
    rows = [f"<b>{escape(_sentence(error.message))}</b>"]
    if error.where is not None:
        place = error.where or "the model itself (root)"
        rows.append(f"<span>Where</span><code>{escape(place)}</code>")
    if error.why:
        rows.append(f"<span>Why</span><span>{escape(error.why)}</span>")
    if error.fix:
        rows.append(f"<span>What to do</span><span>{escape(error.fix)}</span>")
    body = "".join(f"<div>{row}</div>" for row in rows)
    return f'<div class="qx-message-body">{body}</div>'


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
