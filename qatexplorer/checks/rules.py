"""Rules: each is one small function in a family's file, and the texts of its page.

A rule's docstring *is* its page: the first line is the title; the sections ``Symptom:``,
``Cause:``, ``Fix:`` and ``Sources:`` follow, each indented below its heading.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from qatexplorer.checks.records import Finding, Fix, Severity
from qatexplorer.errors import InputError
from qatexplorer.flows.base import Flow, FlowKind, Role

if TYPE_CHECKING:
    from qatexplorer.checks.subject import Subject

DOCS = "docs/rules/{id}.md"
_ID = re.compile(r"QX\d{3}")
_SECTIONS = ("Symptom", "Cause", "Fix", "Sources")


QCONFIGS: tuple[FlowKind, ...] = ("modules",)
"""A rule on modules, their qconfigs and torch's int8 kernels: eager mode and FX."""
EVERY: tuple[FlowKind, ...] = get_args(FlowKind)
"""A rule on what all flows have: data, weights, fake quants, a training."""


@dataclass(frozen=True)
class Found:
    """What a rule yields: a :class:`Finding` without what is the same for all of the rule.

    ``severity`` and ``stage`` are the rule's where they are None.
    """

    path: str
    message: str
    fix: str = ""
    fixes: tuple[Fix, ...] = ()
    source: str = ""
    severity: Severity | None = None
    stage: str | None = None


Ask = Callable[["Subject"], Iterable[Found]]


@dataclass(frozen=True)
class Rule:
    """One thing that can be wrong.

    Attributes:
        id: stable, ``"QX"`` and three digits. name: in words with hyphens.
        severity: of its findings, if they do not say otherwise.
        role: of the stage at which it bites.
        title: one line. symptom: what the user sees, with torch's text. cause, fix: paragraphs.
        sources: addresses.
        ask: finds it in a subject; None for what the session itself finds while stepping.
        family: name of the module that holds it.
        flows: the kinds of flow that it is about; it is not asked in others.
    """

    id: str
    name: str
    severity: Severity
    role: Role
    title: str
    symptom: str
    cause: str
    fix: str
    sources: tuple[str, ...]
    ask: Ask | None
    family: str
    flows: tuple[FlowKind, ...] = QCONFIGS

    def is_about(self, flow: Flow | type[Flow]) -> bool:
        """Whether it means anything in ``flow``."""
        return flow.kind() in self.flows

    @property
    def docs(self) -> str:
        """The rule's page, relative to the project."""
        return DOCS.format(id=self.id)

    def finding(self, found: Found, stage: str) -> Finding:
        """The finding of it, at ``stage`` if ``found`` names none."""
        return Finding(
            self.id,
            self.name,
            found.severity or self.severity,
            found.path,
            found.stage if found.stage is not None else stage,
            found.message,
            found.fix,
            found.fixes,
            found.source,
            self.docs,
        )


RULES: dict[str, Rule] = {}
"""Every rule by id."""


def rule(
    id: str, name: str, severity: Severity, role: Role, flows: tuple[FlowKind, ...] = QCONFIGS
) -> Callable[[Ask], Ask]:
    """Register a function that looks for one thing. See the module's docstring for its own."""

    def register(ask: Ask) -> Ask:
        _add(id, name, severity, role, inspect.getdoc(ask) or "", ask, ask.__module__, flows)
        return ask

    return register


def declare(id: str, name: str, severity: Severity, role: Role, title: str, text: str) -> None:
    """Register a rule whose findings the session makes itself; ``text`` has its sections."""
    whole = f"{title}\n{inspect.cleandoc(text)}"
    _add(id, name, severity, role, whole, None, "qatexplorer.session.known", EVERY)


def _add(
    id: str, name: str, severity: Severity, role: Role, text: str, ask: Ask | None, module: str,
    flows: tuple[FlowKind, ...],
) -> None:  # fmt: skip
    if not _ID.fullmatch(id) or id in RULES or any(one.name == name for one in RULES.values()):
        raise InputError(f"rule {id} {name!r} has no good id, or one that is taken.")
    title, parts = sections(text)
    sources = tuple(line.strip() for line in parts["Sources"].splitlines() if line.strip())
    family = module.rpartition(".")[2]
    RULES[id] = Rule(id, name, severity, role, title, parts["Symptom"], parts["Cause"],
                     parts["Fix"], sources, ask, family, flows)  # fmt: skip


def sections(text: str) -> tuple[str, dict[str, str]]:
    """Title and sections of a rule's docstring; those that are missing are ``""``."""
    title, _, rest = text.partition("\n")
    parts = dict.fromkeys(_SECTIONS, "")
    current, lines = "", []
    for line in [*rest.splitlines(), "end:"]:
        heading = re.fullmatch(r"(\w+):", line)
        if heading is None:
            lines.append(line)
            continue
        if current in parts:
            parts[current] = inspect.cleandoc("\n".join(["", *lines])).strip()
        current, lines = heading.group(1), []
    return title.strip().rstrip("."), parts


def rule_named(name: str) -> Rule:
    """The rule of an id or a name. Raises InputError for none."""
    for one in RULES.values():
        if name in (one.id, one.name):
            return one
    raise InputError(
        f"There is no rule {name!r}.", fix=f"The rules are {', '.join(sorted(RULES))}."
    )
