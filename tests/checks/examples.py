"""Rules by example: a model that breaks a rule, the same put right, what torch does to both.

A file ``examples_<family>.py`` beside this one adds examples by calling :func:`example`;
``test_rules.py`` runs all of them, and fails for a rule that has none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import qatexplorer as qx
from qatexplorer.checks.records import Findings

Made = tuple[Any, Any]
"""A model in train mode, and its example inputs."""


@dataclass(frozen=True)
class Example:
    """One situation of a rule.

    Attributes:
        rule: its id. name: of the situation.
        broken, fixed: make a model that breaks the rule, and one that does not.
        misbehaves: what torch alone does to such a model, by torch's own calls only, without
            qatexplorer: True for the broken one, False for the fixed one.
        settings: of the session of the broken model; fixed_settings: of the other one (None: same).
        walk: brings a session to where the rule bites, None: nowhere.
        paths: that the findings must name, None for any.
        thorough: the check is.
    """

    rule: str
    name: str
    broken: Callable[[], Made]
    fixed: Callable[[], Made]
    misbehaves: Callable[[Any, Any], bool]
    settings: dict[str, Any] = field(default_factory=dict)
    fixed_settings: dict[str, Any] | None = None
    walk: Callable[[qx.Session], Any] | None = None
    paths: tuple[str, ...] | None = None
    thorough: bool = False

    def check(self, *, broken: bool) -> Findings:
        """The findings in one of the two."""
        model, inputs = self.broken() if broken else self.fixed()
        settings = self.settings
        if not broken and self.fixed_settings is not None:
            settings = self.fixed_settings
        session = qx.Session(model, inputs, **settings)
        session.warns = False
        if self.walk is not None:
            self.walk(session)
        return session.check(thorough=self.thorough)


EXAMPLES: list[Example] = []


def example(*arguments: Any, **named: Any) -> None:
    """Add an :class:`Example`."""
    EXAMPLES.append(Example(*arguments, **named))
