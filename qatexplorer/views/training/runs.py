"""Runs kept on disk, in words: a line for a list and the details of one."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from qatexplorer.runs.opened import OpenedRun, OpenState, RunLine
from qatexplorer.views.common.html import Html, code, folded, join, tag, terms
from qatexplorer.views.common.names import number

_MARKS: dict[OpenState, str] = {
    "running": "▶",
    "paused": "Ⅱ",
    "interrupted": "✂",
    "stopped": "■",
    "finished": "✓",
    "failed": "✗",
}
_STATES: dict[OpenState, str] = {
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
    "seed": "seed",
}


def run_line(line: RunLine) -> str:
    """``"✓ finished · 2026-11-24 07:30 · DigitsCNN · epoch 3 of 3, step 120"`` (plain text)."""
    when = line.created.replace("T", " ")[:16]
    parts = [f"{_MARKS[line.state]} {line.state}", when, line.model]
    parts.append(f"epoch {min(line.epoch + 1, line.epochs)} of {line.epochs}, step {line.step}")
    parts.append(line.path.name)
    return " · ".join(part for part in parts if part)


def run_html(run: OpenedRun) -> Html:
    """Where a run stands, how it was set, what can be gone on from."""
    last, best, status = run.last_checkpoint, run.best_checkpoint, run.status
    steps = run.history.steps
    rows: list[tuple[Any, Any]] = [
        ("State", f"{_MARKS[run.state]} {_STATES[run.state]}"),
        ("Folder", code(str(run.path))),
        ("Begun", str(run.about.get("created", "")).replace("T", " ")),
        ("Steps on the curves", f"{steps[-1].step + 1:,}" if steps else "none"),
        ("Last checkpoint", _checkpoint(last)),
        ("Best checkpoint", _checkpoint(best)),
    ]
    if run.state in ("running", "paused") and "pid" in status:
        rows.append(("Trained by", f"process {status['pid']} on {status.get('host', '?')}"))
    settings = folded("Settings of the run", terms(_set(run.about.get("config", {}))))
    return tag("div", terms(rows), _error(status.get("error")), settings)


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
        tag("p", "What to do: ", error["remedy"]) if error.get("remedy") else None,
    ]
    return tag("div", join(parts), class_="qx-message-error", role="note")


def _set(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found = []
    for name, words in _SETTINGS.items():
        value = config.get(name)
        if isinstance(value, dict):
            value = value.get("given")
        if value is None or (value == 0 and name not in ("freeze_observer_epoch", "seed")):
            continue
        found.append((words, f"{value:g}" if isinstance(value, float) else str(value)))
    return found
