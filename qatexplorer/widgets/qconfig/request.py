"""What the form asks for: a rule, and for which modules."""

from __future__ import annotations

from dataclasses import dataclass

from qatexplorer.flows.qconfig_rules import By, QConfigRule
from qatexplorer.flows.quant_spec import QuantSpec
from qatexplorer.session.session import Session
from qatexplorer.views.qconfig.scopes import Scope, ScopeKind

_BY: dict[ScopeKind, By] = {"modules": "path", "type": "type", "pattern": "regex"}


@dataclass(frozen=True)
class Request:
    """A change of the qconfig as the form has it; see :meth:`Session.set_qconfig`."""

    scope: Scope
    activation: QuantSpec | None
    weight: QuantSpec | None
    to_float: bool

    @property
    def where(self) -> tuple[str, ...]:
        """Of the rules that it makes."""
        return self.scope.paths if self.scope.kind == "modules" else (self.scope.text,)

    @property
    def by(self) -> By:
        """What :attr:`where` is."""
        return _BY[self.scope.kind]

    def rules(self, session: Session) -> tuple[QConfigRule, ...]:
        """All rules as they would be."""
        return session.with_rule(self.where, self.by, self.activation, self.weight, self.to_float)
