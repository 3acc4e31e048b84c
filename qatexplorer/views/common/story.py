"""The text beside the stages: which torch call ran, what it changed, why, and what torch said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from html import escape
from typing import Any

from qatexplorer.errors import QatExplorerError
from qatexplorer.flows.base import Stage
from qatexplorer.shown import error_line
from qatexplorer.snapshot.diff import Diff
from qatexplorer.snapshot.records import Snapshot
from qatexplorer.views.common.names import KINDS, count

_SWAPS = 6


def stage_entries(
    stages: tuple[Stage, ...], current: str, reached: str, news: Mapping[str, str]
) -> list[dict[str, Any]]:
    """What the stage bar draws: name, title, state ("done", "current", "next", "later"), summary.

    ``news`` has the line of each stage reached (:func:`qatexplorer.views.common.news.news_of`).
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
                "summary": news.get(stage.name, ""),
                "call": stage.call,
            }
        )
    return entries


def story_html(stage: Stage, snapshot: Snapshot, change: Diff | None, news: str) -> str:
    """All that there is to say of a stage, as safe HTML: its call and why, what happened, what was
    put in and swapped, notes, and what torch said. ``news`` is its line of news."""
    call = f"<code>{escape(stage.call)}</code>" if stage.call else ""
    parts = [
        f'<div class="qx-story-head"><h2>{escape(stage.title)}</h2>{call}</div>',
        f'<p class="qx-story-why">{escape(stage.why)}</p>',
        f'<p class="qx-story-change"><b>What happened:</b> {escape(news)} {_changes(change)}</p>',
    ]
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


def _changes(change: Diff | None) -> str:
    """Badges of the fake quants put in by kind, and of the swaps by their types."""
    if change is None:
        return ""
    kinds = Counter(site.kind for site in change.sites_added)
    badges = [
        f'<span class="qx-badge qx-{kind}">{look.mark} {kinds[kind]} {look.word}</span>'
        for kind, look in KINDS.items()
        if kinds[kind]
    ]
    swaps = Counter(f"{c.before.type_name} → {c.after.type_name}" for c in change.swapped)
    badges += [
        f'<span class="qx-badge">{escape(arrow)}{f" × {n}" if n > 1 else ""}</span>'
        for arrow, n in swaps.most_common(_SWAPS)
    ]
    if len(swaps) > _SWAPS:
        badges.append(
            f'<span class="qx-badge">and {len(swaps) - _SWAPS} other kinds of swap</span>'
        )
    return " ".join(badges)


def message_html(error: Exception) -> str:
    """An error as its user needs it: what, where, why, what to do. Never a traceback."""
    if not isinstance(error, QatExplorerError):
        error = QatExplorerError(
            f"Something unexpected happened: {error_line(error)}",
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
