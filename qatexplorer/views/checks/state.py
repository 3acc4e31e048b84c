"""How far a check is, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qatexplorer.checks.records import Finding, Findings
from qatexplorer.views.common.busy import WORTH_AN_ESTIMATE_S
from qatexplorer.views.common.findings import LOOKS, findings_summary, severity_counts
from qatexplorer.views.common.html import Html, tag
from qatexplorer.views.common.names import count, share
from qatexplorer.views.training.progress import duration


@dataclass(frozen=True)
class CheckState:
    """Where the check of a session stands.

    Attributes:
        kind: ``"none"`` before the first and after a change, ``"stopped"`` by the user.
        why: why there is none, ``""`` if nothing stands against it.
        what: what is being done. share: of the rules asked, 0 to 1.
        seconds: since it began; of one that is done, how long it took, 0 if that is not known.
        before: how long the one before took, 0 if there was none.
        findings: of the one that is done. error: why it failed.
    """

    kind: Literal["none", "running", "stopping", "stopped", "done", "failed"] = "none"
    why: str = ""
    what: str = ""
    share: float = 0.0
    seconds: float = 0.0
    before: float = 0.0
    findings: Findings | None = None
    error: Exception | None = None

    @property
    def busy(self) -> bool:
        """Whether one is being made."""
        return self.kind in ("running", "stopping")

    @property
    def seconds_left(self) -> float | None:
        """By how long the one before took; else by the share that is done. None: too soon to say.

        Rules that share a forward wait for it one after another: what is left by the share alone
        is said only where some seconds have passed.
        """
        if self.before > self.seconds:
            return self.before - self.seconds
        if self.before or self.seconds < WORTH_AN_ESTIMATE_S or self.share < 0.1:
            return None
        return self.seconds * (1 - self.share) / self.share


def state_words(state: CheckState) -> str:
    """One line, plain text."""
    if state.kind == "running":
        left = state.seconds_left
        more = f", about {duration(left)} left" if left is not None else ""
        if left is None and state.seconds >= WORTH_AN_ESTIMATE_S:
            more = f" after {duration(state.seconds)}"
        doing = state.what[:1].lower() + state.what[1:] if state.what else "beginning"
        return f"Checking, {_percent(state.share)}{more}: {doing} …"
    if state.kind == "stopping":
        return "Stopping after this step …"
    if state.kind == "stopped":
        return "Stopped: not all rules were asked. What stands here was known without them."
    if state.kind == "failed":
        return "The check failed. What stands here was known without it."
    if state.kind == "done" and state.findings is not None:
        return _done_words(state.findings, state.seconds)
    return f"Not checked yet{f': {state.why}' if state.why else '.'}"


def _done_words(findings: Findings, seconds: float) -> str:
    parts = [f"{count(len(findings.checked), 'rule')} checked"]
    parts[0] += f" in {duration(seconds)}" if seconds else ""
    parts += [f"{len(findings.skipped):,} could not be"] if findings.skipped else []
    parts += [f"{len(findings.silenced):,} silenced"] if findings.silenced else []
    return ", ".join(parts) + "."


def state_html(state: CheckState, findings: Sequence[Finding]) -> Html:
    """The line above the table: how many of each severity, how far the check is, a bar."""
    bar = (
        tag(
            "progress",
            value=f"{state.share:.3f}",
            max="1",
            aria_label="Rules asked",
            class_="qx-checks-progress",
        )
        if state.busy
        else None
    )
    found = findings_summary(findings)
    summary = tag("b", f"{found[:1].upper()}{found[1:]}. ") if found else None
    return tag("span", bar, summary, state_words(state), class_="qx-checks-state")


def header_of(state: CheckState, findings: Sequence[Finding]) -> dict[str, Any]:
    """What the button in the header draws: ``counts`` (``severity``, ``mark``, ``n`` and ``word``
    each), ``said`` (what stands beside them, ``""`` for nothing), ``busy``."""
    counts = [
        {"severity": severity, "mark": LOOKS[severity].mark, "n": n, "word": word}
        for severity, n, word in severity_counts(findings)
    ]
    said = {
        "none": "not checked",
        "running": f"checking {_percent(state.share)}",
        "stopping": "stopping",
        "stopped": "not checked",
        "failed": "check failed",
        "done": "" if counts else "no findings",
    }[state.kind]
    return {"counts": counts, "said": said, "busy": state.busy}


def _percent(part: float) -> str:
    return share(round(part, 2))
