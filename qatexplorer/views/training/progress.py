"""How far a run is, in words."""

from __future__ import annotations

from html import escape

from qatexplorer.runs.records import Progress


def progress_words(progress: Progress) -> str:
    """``"running: epoch 2 of 5, step 40 of 100, loss 0.123, 12 s left"``, safe as HTML."""
    parts: list[str] = [progress.state]
    if progress.step or progress.state != "ready":
        parts.append(f"epoch {min(progress.epoch + 1, progress.epochs)} of {progress.epochs}")
        total = f" of {progress.total_steps}" if progress.total_steps else ""
        parts.append(f"step {progress.step}{total}")
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.4g}")
    if progress.state == "running" and progress.eta_s is not None:
        parts.append(f"about {duration(progress.eta_s)} left")
    elif progress.state in ("stopped", "finished", "failed"):
        parts.append(f"took {duration(progress.elapsed_s)}")
    head, *rest = parts
    return escape(f"{head}: {', '.join(rest)}" if rest else head)


def duration(seconds: float) -> str:
    """``"0.4 s"``, ``"12 s"``, ``"3 min 20 s"``, ``"1 h 5 min"``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
