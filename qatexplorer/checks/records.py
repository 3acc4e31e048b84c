"""What a check finds: findings, the calls that put them right, and how they print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from html import escape
from typing import Any, Literal, overload

from qatexplorer.shown import at_most, columns, first
from qatexplorer.tables import table

Severity = Literal["error", "warning", "info"]
"""``error``: it will fail, is silently not quantized, or silently computes something else.
``warning``: it costs accuracy or speed, or is hardly what was meant. ``info``: good to know."""
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")

Change = tuple[tuple[str, Any], ...]
"""(name, value) of each argument of a call."""

_SHOWN_LINES = 16
_SHOWN_ROWS = 100


@dataclass(frozen=True)
class Fix:
    """A call of the session that makes a finding go away.

    Attributes:
        label: for a button.
        call: name of a method of :class:`~qatexplorer.session.session.Session`.
        arguments: (name, value) of its keyword arguments.
        code: what a script writes to have the same.
        diff: the change as lines that begin with ``-`` and ``+``; ``""`` for settings.
    """

    label: str
    call: Literal["configure", "use_train_mode", "calibrate", "edit"]
    arguments: Change = ()
    code: str = ""
    diff: str = ""

    def apply(self, session: Any) -> Any:
        """Make the call on ``session``; raises what it raises."""
        return getattr(session, self.call)(**dict(self.arguments))


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a model's quantization, or good to know.

    Attributes:
        id: of the rule, the same for ever, e.g. ``"QX101"``.
        name: of the rule, in words, e.g. ``"string-padding"``.
        severity: see :data:`Severity`.
        path: of the module (or fake quant) concerned, ``""`` for the model itself.
        stage: name of the stage at which it bites.
        message: one sentence.
        fix: what to do: a line of code for this model, or a sentence where code cannot say it.
        fixes: calls of the session that do it, the first one to be preferred; empty where none is
            known to help.
        source: ``"file:line"`` in the user's code, where the place is no module.
        docs: of the rule's page, relative to the project.
        silenced: the reason that the user gave for not wanting to hear of it, ``""`` for none.
    """

    id: str
    name: str
    severity: Severity
    path: str
    stage: str
    message: str
    fix: str = ""
    fixes: tuple[Fix, ...] = ()
    source: str = ""
    docs: str = ""
    silenced: str = ""

    @property
    def key(self) -> str:
        """What tells it from all others of one check, without colons at its end."""
        return "|".join((self.name, self.path, self.source))

    @property
    def place(self) -> str:
        """Path, source line, or the model itself, as a list of findings shows it."""
        where = self.path or ("" if self.source else "the model itself")
        return " ".join(part for part in (where, self.source and f"({self.source})") if part)


@dataclass(frozen=True)
class Skipped:
    """A rule that could not be asked, by ``id`` and ``name``, and why."""

    id: str
    name: str
    why: str


@dataclass(frozen=True)
class Findings(Sequence[Finding]):
    """All findings of one check, the worst first.

    Attributes:
        found: those that count. silenced: those that the user does not want to hear of.
        checked: ids of the rules that were asked. skipped: those that could not be.
    """

    found: tuple[Finding, ...] = ()
    silenced: tuple[Finding, ...] = ()
    checked: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    model: str = field(default="model", compare=False)

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.found)

    @overload
    def __getitem__(self, index: int) -> Finding: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Finding, ...]: ...
    def __getitem__(self, index: int | slice) -> Finding | tuple[Finding, ...]:
        return self.found[index]

    @property
    def counts(self) -> dict[Severity, int]:
        """How many of each severity, zeros included."""
        every = Counter(finding.severity for finding in self.found)
        return {severity: every[severity] for severity in SEVERITIES}

    @property
    def errors(self) -> tuple[Finding, ...]:
        return self.of("error")

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of one severity."""
        return tuple(finding for finding in self.found if finding.severity == severity)

    def with_id(self, rule: str) -> tuple[Finding, ...]:
        """The findings of one rule, by id or name."""
        return tuple(finding for finding in self.found if rule in (finding.id, finding.name))

    def summary(self) -> str:
        """``"1 error, 2 warnings"``, the worst first; ``"no findings"`` for none."""
        return counted(self.found) or "no findings"

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame``, a row a finding. Raises InputError without pandas."""
        return table(Finding, self.found)

    def to_json(self) -> dict[str, Any]:
        """Plain data, keys ``model``, ``counts``, ``findings``, ``silenced``, ``checked``,
        ``skipped``."""
        return {
            "model": self.model,
            "counts": dict(self.counts),
            "findings": [_plain(finding) for finding in self.found],
            "silenced": [_plain(finding) for finding in self.silenced],
            "checked": list(self.checked),
            "skipped": [asdict(one) for one in self.skipped],
        }

    def _head(self) -> str:
        more = [f"{len(self.checked)} rules checked"]
        more += [f"{len(self.skipped)} could not be"] if self.skipped else []
        more += [f"{len(self.silenced)} silenced"] if self.silenced else []
        return f"Findings in {self.model}: {self.summary()} ({', '.join(more)})"

    def __repr__(self) -> str:
        shown, more = first(self.found, _SHOWN_LINES)
        rows = [(one.severity, one.id, one.place, one.message) for one in shown]
        return at_most([self._head(), *columns(rows), *more], _SHOWN_LINES + 4)

    def _repr_html_(self) -> str:
        """A table in the page's own colours, so it reads well on light and on dark."""
        shown, more = first(self.found, _SHOWN_ROWS)
        rows = "".join(
            f"<tr><td>{escape(one.severity)}</td><td>{escape(one.id)}</td>"
            f"<td>{escape(one.place)}</td><td style='text-align:left'>{escape(one.message)}"
            + (f"<br><code>{escape(one.fix)}</code>" if one.fix else "")
            + "</td></tr>"
            for one in shown
        )
        head = "<tr><th>severity</th><th>rule</th><th>where</th><th>what, and the fix</th></tr>"
        body = f"<table>{head}{rows}</table>" if rows else ""
        end = "".join(f"<p>{escape(line)}</p>" for line in more)
        return f"<div style='overflow-x:auto'><b>{escape(self._head())}</b>{body}{end}</div>"


def counted(findings: Sequence[Finding]) -> str:
    """``"1 error, 2 warnings"``, the worst first; ``""`` for none."""
    every = Counter(finding.severity for finding in findings)
    plural = {"error": "errors", "warning": "warnings", "info": "infos"}
    return ", ".join(
        f"{every[one]:,} {one if every[one] == 1 else plural[one]}"
        for one in SEVERITIES
        if every[one]
    )


def worst_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """By severity; those of one severity stay in their order."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))


def silenced_as(finding: Finding, reason: str) -> Finding:
    """The finding, with the reason why the user does not want to hear of it."""
    return replace(finding, silenced=reason)


def _plain(finding: Finding) -> dict[str, Any]:
    """As JSON takes it: of its fixes what its user needs, as their arguments may be objects."""
    data = asdict(replace(finding, fixes=()))
    data["fixes"] = [{"label": f.label, "code": f.code, "diff": f.diff} for f in finding.fixes]
    return data
