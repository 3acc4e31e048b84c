"""What is proposed, with what it rests on, as records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Literal, overload

from qatexplorer.checks.records import Change
from qatexplorer.shown import at_most
from qatexplorer.tables import table

Phase = Literal["fix", "measure", "win", "take home"]
"""``fix``: what is measured means nothing before it. ``measure``: what the others hang on is not
known. ``win``: it can win accuracy back. ``take home``: nothing is left to win."""
PHASES: tuple[Phase, ...] = ("fix", "measure", "win", "take home")

Level = Literal["measured here", "published", "rule"]
"""``measured here``: on this model. ``published``: a figure of another net. ``rule``: a rule that
no figure stands behind."""
WEIGHTS: dict[Level, float] = {"measured here": 1.0, "published": 0.5, "rule": 0.25}
"""By how much each counts in the order of proposals."""

_SHOWN_LINES = 20
_SHOWN_REASONS = 3


@dataclass(frozen=True, slots=True)
class Published:
    """A figure of another net: its metric in float (``whole``), before and after, in percent.

    ``what`` is the net and what was done, ``source`` where it was read.
    """

    what: str
    whole: float
    before: float
    after: float
    source: str

    @property
    def share(self) -> float:
        """Share of what was lost that it won back."""
        return (self.after - self.before) / (self.whole - self.before)

    def __str__(self) -> str:
        return (
            f"{self.what}: {self.before:.2f} → {self.after:.2f} %, float {self.whole:.2f} % "
            f"({self.source})"
        )


@dataclass(frozen=True, slots=True)
class Action:
    """A call of the session.

    Attributes:
        id: of the recipe, and what tells it from others of the same recipe.
        label: for a button.
        call: name of the method, ``""`` where it takes code of the user's.
        arguments: (name, value) of its keyword arguments.
        code: what a script writes to have the same; for what takes the user's own code, what to do.
    """

    id: str
    label: str
    code: str
    call: str = ""
    arguments: Change = ()

    def apply(self, session: Any, **more: Any) -> Any:
        """Make the call on ``session`` (``more``: further arguments); raises what it raises."""
        return getattr(session, self.call)(**dict(self.arguments), **more)


@dataclass(frozen=True, slots=True)
class Reason:
    """A fact of this model, with its numbers. ``path`` is of the module, ``""`` for the whole."""

    text: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class Cost:
    """What it takes.

    Attributes:
        batches: forward passes of a batch. epochs: of training.
        passes: all of it in forward passes of a batch; None where the data has no length.
        seconds: estimated from times measured on this model, None where none is known.
        basis: which times; ``""`` for none.
    """

    batches: int = 0
    epochs: int = 0
    passes: float | None = 0.0
    seconds: float | None = None
    basis: str = ""

    @property
    def short(self) -> str:
        """Without what the seconds were estimated from."""
        parts = [f"{self.epochs:,} epoch{'s' * (self.epochs != 1)}"] if self.epochs else []
        if self.batches:
            parts.append(f"{self.batches:,} forward pass{'es' * (self.batches != 1)} of a batch")
        if not parts:
            parts.append("no forward pass" if self.passes == 0.0 else "passes over the data")
        if self.seconds is not None:
            parts.append(f"about {_time(self.seconds)}")
        return ", ".join(parts)

    def __str__(self) -> str:
        return f"{self.short} (from {self.basis})" if self.basis else self.short


@dataclass(frozen=True, slots=True)
class Gain:
    """What it is expected to win: ``share`` of all that is lost, and ``amount``, that in units of
    the metric, toward good. None where neither a measurement nor a figure says so, and for the
    amount where it is not known how much is lost."""

    share: float | None = None
    amount: float | None = None


@dataclass(frozen=True, slots=True)
class Sureness:
    """How sure it is, and ``why``: what that rests on."""

    level: Level
    why: str

    def __str__(self) -> str:
        return f"{self.level}: {self.why}"


@dataclass(frozen=True, slots=True)
class Proposal:
    """Something to try.

    Attributes:
        recipe: that proposes it.
        action: the call. reasons: facts of this model that speak for it.
        cost: what it takes. sureness: how sure it is that it helps.
        gain: what it is expected to win.
        before: what has to be done first; empty where it can be done now.
        phase: see :data:`Phase`.
    """

    recipe: str
    action: Action
    reasons: tuple[Reason, ...]
    cost: Cost
    sureness: Sureness
    gain: Gain = Gain()
    before: tuple[Action, ...] = ()
    phase: Phase = "win"

    @property
    def now(self) -> bool:
        """Whether it can be done at once."""
        return not self.before

    @property
    def next(self) -> Action:
        """What to do now: the action, or what comes before it."""
        return self.before[0] if self.before else self.action

    @property
    def first(self) -> str:
        """What comes before it, in words; ``""`` for nothing."""
        return "; ".join(one.code for one in self.before)

    @property
    def score(self) -> float:
        """What proposals of a phase are ordered by: the share of what is lost that it wins, weighed
        by how sure that is, for each forward pass of a batch; 0 where no gain is known."""
        if self.gain.share is None or self.cost.passes is None:
            return 0.0
        return self.gain.share * WEIGHTS[self.sureness.level] / (1.0 + self.cost.passes)


@dataclass(frozen=True, slots=True)
class _Row:
    """A proposal as a row of a table."""

    recipe: str
    phase: str
    action: str
    now: bool
    before: str
    gain: float | None
    share: float | None
    sureness: str
    rests_on: str
    batches: int
    epochs: int
    passes: float | None
    seconds: float | None
    score: float
    reasons: str


@dataclass(frozen=True)
class Advice(Sequence[Proposal]):
    """What to try with a model, in this order.

    Attributes:
        model: name of its class. stage: where the session stands.
        proposals: the first one first. state: what is known of its accuracy, in a sentence.
        tolerated: what may be lost, in units of the metric; None where the float model's is not
            known.
    """

    model: str
    stage: str
    proposals: tuple[Proposal, ...] = ()
    state: str = ""
    tolerated: float | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.proposals)

    def __iter__(self) -> Iterator[Proposal]:
        return iter(self.proposals)

    @overload
    def __getitem__(self, index: int) -> Proposal: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Proposal, ...]: ...
    def __getitem__(self, index: int | slice) -> Proposal | tuple[Proposal, ...]:
        return self.proposals[index]

    def of(self, recipe: str) -> Proposal | None:
        """The first proposal of a recipe, None if it has none."""
        return next((one for one in self.proposals if one.recipe == recipe), None)

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame``, a row a proposal. Raises InputError without pandas."""
        return table(_Row, map(_row, self.proposals))

    def _head(self) -> str:
        many = len(self.proposals)
        counted = f"{many} proposal{'s' * (many != 1)}"
        return f"Advice for {self.model} at stage {self.stage!r}: {counted}"

    def __repr__(self) -> str:
        lines = [self._head(), *([self.state] if self.state else [])]
        for number, one in enumerate(self.proposals, 1):
            first = "" if one.now else f" (first: {one.first})"
            lines.append(f"{number}. {one.action.code}{first}")
            lines += [f"   {reason.text}" for reason in one.reasons[:1]]
            lines.append(f"   {one.cost.short}; {one.sureness}")
        return at_most(lines, _SHOWN_LINES)

    def _repr_html_(self) -> str:
        """A table in the page's own colours, so it reads well on light and on dark."""
        rows = "".join(
            f"<tr><td>{number}</td><td style='text-align:left'><code>"
            f"{escape(one.action.code)}</code>{_first_html(one)}</td>"
            f"<td style='text-align:left'>{_reasons_html(one)}</td>"
            f"<td style='text-align:left'>{escape(str(one.cost))}</td>"
            f"<td style='text-align:left'>{escape(str(one.sureness))}</td></tr>"
            for number, one in enumerate(self.proposals, 1)
        )
        head = "<tr><th></th><th>what</th><th>why</th><th>cost</th><th>how sure</th></tr>"
        body = f"<table>{head}{rows}</table>" if rows else ""
        state = f"<p>{escape(self.state)}</p>" if self.state else ""
        return f"<div style='overflow-x:auto'><b>{escape(self._head())}</b>{state}{body}</div>"


def _first_html(one: Proposal) -> str:
    return "" if one.now else f"<br>first: {escape(one.first)}"


def _reasons_html(one: Proposal) -> str:
    return "<br>".join(escape(reason.text) for reason in one.reasons[:_SHOWN_REASONS])


def _row(one: Proposal) -> _Row:
    return _Row(
        one.recipe,
        one.phase,
        one.action.code,
        one.now,
        one.first,
        one.gain.amount,
        one.gain.share,
        one.sureness.level,
        one.sureness.why,
        one.cost.batches,
        one.cost.epochs,
        one.cost.passes,
        one.cost.seconds,
        one.score,
        " ".join(reason.text for reason in one.reasons),
    )


def _time(seconds: float) -> str:
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
