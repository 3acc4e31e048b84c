"""Runs kept on disk, in words: a line for a list and the details of one."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from qatexplorer.runs.opened import OpenedRun, RunLine
from qatexplorer.runs.store import Telemetry
from qatexplorer.views.common.html import Html, code, folded, join, tag, terms
from qatexplorer.views.common.names import count, number
from qatexplorer.views.training.telemetry import overhead_words

_MARKS: dict[str, str] = {
    "running": "▶",
    "paused": "Ⅱ",
    "interrupted": "✂",
    "stopped": "■",
    "finished": "✓",
    "failed": "✗",
    "unreadable": "?",
}
_STATES: dict[str, str] = {
    "running": "running",
    "paused": "paused",
    "interrupted": "its kernel has ended in the middle of it",
    "stopped": "stopped",
    "finished": "finished",
    "failed": "failed",
}
_SETTINGS = {
    "epochs": "epochs",
    "lr": "learning rate",
    "optimizer": "optimizer",
    "scheduler": "schedule",
    "warmup_steps": "warm-up steps",
    "freeze_observer_epoch": "observers frozen from epoch",
    "freeze_bn_epoch": "BN statistics frozen from epoch",
    "fake_quant_start_epoch": "fake quants on from epoch",
    "label_smoothing": "label smoothing",
    "clip_grad_norm": "gradient norm at most",
    "ema_decay": "EMA decay",
    "dampen_weights": "weights dampened, in the end by",
    "freeze_weights": "weights frozen above a rate of",
    "freeze_weights_from": "that rate begins at",
    "oscillation": "oscillation measured",
    "seed": "seed",
}


def run_line(line: RunLine) -> str:
    """``"✓ finished · 2026-11-24 07:30 · DigitsCNN · epoch 3 of 3, step 120"`` (plain text)."""
    when = line.created.replace("T", " ")[:16]
    parts = [f"{_MARKS[line.state]} {line.state}", when, line.model]
    epoch = f"epoch {min(line.epoch + 1, line.epochs)} of {line.epochs}, " if line.epochs else ""
    parts.append(f"{epoch}step {line.step}")
    if line.kind == "watch":
        parts.append("watch")
    parts.append(line.path.name)
    return " · ".join(part for part in parts if part)


def run_html(run: OpenedRun) -> Html:
    """Where a run stands, how it was set, what can be gone on from."""
    status, session = run.status, run.kind == "session"
    steps = run.history.steps
    rows: list[tuple[Any, Any]] = [
        ("State", f"{_MARKS[run.state]} {_STATES[run.state]}"),
        ("Folder", code(str(run.path))),
        ("Written by", "a session" if session else "watch, in a training loop of your own"),
        ("Begun", str(run.about.get("created", "")).replace("T", " ")),
    ]
    if session:
        rows += [
            ("Steps on the curves", f"{steps[-1].step + 1:,}" if steps else "none"),
            ("Last checkpoint", _checkpoint(run.last_checkpoint)),
            ("Best checkpoint", _checkpoint(run.best_checkpoint)),
        ]
    else:
        rows.append(("Steps", f"{status.get('step', 0):,}"))
    rows += _samples(run.telemetry)
    if run.state in ("running", "paused") and "pid" in status:
        rows.append(("Trained by", f"process {status['pid']} on {status.get('host', '?')}"))
    config = run.about.get("config")
    settings = folded("Settings of the run", terms(settings_in_words(config))) if config else None
    return tag("div", terms(rows), _error(status.get("error")), settings)


def _samples(telemetry: Telemetry | None) -> list[tuple[str, str]]:
    if telemetry is None:
        return []
    words = count(len(telemetry.infos), "fake quant")
    return [("Watched", f"{words}. {overhead_words(telemetry)}")]


def _checkpoint(info: Any) -> str | None:
    if info is None:
        return None
    at = info.position
    when = datetime.datetime.fromtimestamp(info.saved_at).strftime("%H:%M:%S")
    size = f"{info.bytes / 1e6:.1f} MB" if info.bytes > 1e5 else f"{info.bytes / 1e3:.0f} kB"
    text = f"step {at.step:,} (epoch {at.epoch + 1}), {info.reason}, {when}, {size}"
    return text + (f", metric {number(info.metric)}" if info.metric is not None else "")


def _error(error: Mapping[str, Any] | None) -> Html | None:
    if not error:
        return None
    where = error.get("where")
    parts = [
        tag("p", tag("strong", error.get("message", ""))),
        None if where is None else tag("p", "Where: ", code(where or "the model itself")),
        tag("p", "Why: ", error["why"]) if error.get("why") else None,
        tag("p", "What to do: ", error["fix"]) if error.get("fix") else None,
    ]
    return tag("div", join(parts), class_="qx-message-error", role="note")


def settings_in_words(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of the settings of a run that say something; a function by its name."""
    found: list[tuple[str, str]] = []
    for name, words in _SETTINGS.items():
        value = config.get(name)
        if isinstance(value, dict):
            value = value.get("given")
        if value is None or (value == 0 and name not in ("freeze_observer_epoch", "seed")):
            continue
        found.append((words, f"{value:g}" if isinstance(value, float) else str(value)))
    return found
