"""The part of a session that edits its qconfig, rule by rule."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from qatexplorer.errors import QConfigError
from qatexplorer.flows.qconfig_rules import By, Effective, QConfigRule
from qatexplorer.flows.quant_spec import QuantSpec
from qatexplorer.flows.rules_file import read_rules, write_rules
from qatexplorer.session.part import Part
from qatexplorer.snapshot.records import Snapshot

Rules = tuple[QConfigRule, ...]
Place = str | type[nn.Module]


class QConfigPart(Part):
    """Rules laid over the qconfig that the session was made with. Each change of them starts again
    from the float stage, as :meth:`configure` does."""

    _undo: tuple[Rules, ...] = ()
    _redo: tuple[Rules, ...] = ()

    def _change(self, given: Mapping[str, Any]) -> Snapshot:
        raise NotImplementedError

    @property
    def qconfig_rules(self) -> Rules:
        """The rules in force. Of two patterns that fit a module the first counts."""
        return self._models.options.qconfig.rules

    def qconfig_at(self, path: str = "") -> Effective:
        """What the qconfig and the rules come to for the module at ``path`` of the float model.
        Raises QConfigError for a path that it does not have."""
        base = self._models.base
        if path not in dict(base.named_modules()):
            raise QConfigError(
                f"the model has no module {path!r}.",
                where=path,
                fix="Paths are those of the float stage's model.named_modules().",
            )
        return self._models.options.qconfig.effective(base, path, self.flow.by_graph)

    def set_qconfig(
        self,
        where: Place | Iterable[Place],
        *,
        by: By = "path",
        activation: QuantSpec | None = None,
        weight: QuantSpec | None = None,
        to_float: bool = False,
    ) -> Snapshot:
        """Say how one place or many are quantized, and start again from the float stage.

        Args:
            where: path, pattern, name of a type, a module class, or several of them; ``""`` for the
                whole model.
            by: what ``where`` is: ``"path"``, ``"glob"``, ``"regex"`` or ``"type"``.
            activation, weight: fake quants; None keeps what an earlier rule for the same place
                says, or leaves it to what comes next (path, pattern, type, whole model).
            to_float: leave it in float.

        Raises QConfigError for a place that the model does not have and for what torch or the
        backend refuses (nothing changes then), and BusyError.
        """
        places = [where] if isinstance(where, (str, type)) else list(where)
        named = [_named(place, by) for place in places]
        rules = self.qconfig_rules
        for name, kind in named:
            old = next((r for r in rules if r.key == (kind, name)), None)
            kept = old if old is not None and not to_float and not old.to_float else None
            new = QConfigRule(
                name,
                kind,
                activation or (kept.activation if kept else None),
                weight or (kept.weight if kept else None),
                to_float,
            )
            # The first of two patterns counts, and what is said last is what is meant.
            rules = (new, *(r for r in rules if r.key != new.key))
        return self.use_qconfig_rules(rules)

    def remove_qconfig(self, *rules: QConfigRule) -> Snapshot:
        """Take rules back: all of them where none is named. Raises BusyError."""
        gone = {rule.key for rule in rules or self.qconfig_rules}
        return self.use_qconfig_rules(r for r in self.qconfig_rules if r.key not in gone)

    def use_qconfig_rules(self, rules: Iterable[QConfigRule]) -> Snapshot:
        """Put these in place of the rules in force. Raises as :meth:`set_qconfig`."""
        wanted = tuple(rules)
        with self._lock:
            self._require_idle("change the qconfig")
            before = self.qconfig_rules
            if wanted == before:
                return self.snapshot
            snapshot = self._change({"rules": wanted})
            self._undo, self._redo = (*self._undo, before), ()
            return snapshot

    @property
    def can_undo_qconfig(self) -> bool:
        """Whether there is a change of the rules to take back."""
        return bool(self._undo)

    @property
    def can_redo_qconfig(self) -> bool:
        """Whether there is a change to make again."""
        return bool(self._redo)

    def undo_qconfig(self) -> Snapshot:
        """Take back the last change of the rules; without one nothing happens. Raises BusyError."""
        with self._lock:
            self._require_idle("change the qconfig")
            if not self._undo:
                return self.snapshot
            now, wanted = self.qconfig_rules, self._undo[-1]
            snapshot = self._change({"rules": wanted})
            self._undo, self._redo = self._undo[:-1], (*self._redo, now)
            return snapshot

    def redo_qconfig(self) -> Snapshot:
        """Make again what :meth:`undo_qconfig` took back. Raises BusyError."""
        with self._lock:
            self._require_idle("change the qconfig")
            if not self._redo:
                return self.snapshot
            now, wanted = self.qconfig_rules, self._redo[-1]
            snapshot = self._change({"rules": wanted})
            self._undo, self._redo = (*self._undo, now), self._redo[:-1]
            return snapshot

    def save_qconfig(self, path: str | os.PathLike[str]) -> Path:
        """Write the rules to a ``.toml`` or ``.json`` file. Raises QConfigError."""
        return write_rules(path, self.qconfig_rules)

    def load_qconfig(self, path: str | os.PathLike[str]) -> Snapshot:
        """Put the rules of a file in place of those in force; nothing in it is run. Raises
        QConfigError that names rule and key, and as :meth:`set_qconfig`."""
        return self.use_qconfig_rules(read_rules(path))


def _named(place: Place, by: By) -> tuple[str, By]:
    if isinstance(place, type):
        return f"{place.__module__}.{place.__qualname__}", "type"
    return (place, by) if place else ("", "model")
