"""What the form asks for: a rule, and for which modules."""

from __future__ import annotations

from dataclasses import dataclass

from qatexplorer.flows.module_rules import PATTERN, TYPE, QConfigRule, QuantSpec
from qatexplorer.session.session import Session
from qatexplorer.views.qconfig.scopes import Scope


@dataclass(frozen=True)
class Request:
    """A change of the qconfig as the form has it; see :meth:`Session.set_qconfig`."""

    scope: Scope
    activation: QuantSpec | None
    weight: QuantSpec | None
    in_float: bool

    @property
    def where(self) -> tuple[str, ...]:
        """Of the rules that it makes."""
        if self.scope.kind == "modules":
            return self.scope.paths
        before = TYPE if self.scope.kind == "type" else PATTERN
        return (f"{before}{self.scope.text}",)

    def rules(self, session: Session) -> tuple[QConfigRule, ...]:
        """All rules as they would be. Raises QConfigError where it is refused."""
        return session.with_rule(self.where, self.activation, self.weight, self.in_float)
