"""The part of a session that edits its qconfig, rule by rule."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from qatexplorer.accuracy.conflicts import first_refused
from qatexplorer.accuracy.preview import Preview, output_of, preview
from qatexplorer.errors import QConfigError
from qatexplorer.flows.qconfig_rules import By, Effective, QConfigRule
from qatexplorer.flows.quant_spec import QuantSpec
from qatexplorer.flows.rules_file import TextFormat, read_rules, rules_text, write_rules
from qatexplorer.session.part import Part
from qatexplorer.snapshot.records import Snapshot

Rules = tuple[QConfigRule, ...]
Place = str | type[nn.Module]


class QConfigPart(Part):
    """Rules laid over the qconfig that the session was made with. Each change of them starts again
    from the float stage, as :meth:`configure` does."""

    _undo: tuple[Rules, ...] = ()
    _redo: tuple[Rules, ...] = ()
    _left: Rules = ()
    """The rules as the last change of them left them."""

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

        Where fewer than 8 bits are asked for, a note of the snapshot says what int8 makes of them.
        Raises QConfigError for a place that the model does not have and for what torch or the
        backend refuses (nothing changes then), and BusyError.
        """
        return self.use_qconfig_rules(self.with_rule(where, by, activation, weight, to_float))

    def with_rule(
        self,
        where: Place | Iterable[Place],
        by: By = "path",
        activation: QuantSpec | None = None,
        weight: QuantSpec | None = None,
        to_float: bool = False,
    ) -> Rules:
        """The rules as they would be after :meth:`set_qconfig`, which nothing is asked about yet.
        Raises QConfigError for a rule that says nothing or two things."""
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
        return rules

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
            if not self.flow.offers_qconfig:
                raise QConfigError(
                    f"in flow {self.flow.name!r} a rule of the qconfig decides nothing.",
                    why=f"How a tensor is rounded is decided by {self.flow.decided_by}.",
                )
            self._refuse_what_has_no_kernel(wanted)
            return self._put(wanted, (*self._past, before), ())

    def _put(self, wanted: Rules, undo: tuple[Rules, ...], redo: tuple[Rules, ...]) -> Snapshot:
        before = self._undo, self._redo, self._left
        # What hears of the change asks for the rules and what can be undone at once.
        self._undo, self._redo, self._left = undo, redo, wanted
        try:
            return self._change({"rules": wanted})
        except BaseException:
            self._undo, self._redo, self._left = before
            raise

    @property
    def _past(self) -> tuple[Rules, ...]:
        # Rules that something else has changed are not those that an undo would lead back from.
        return self._undo if self.qconfig_rules == self._left else ()

    @property
    def _future(self) -> tuple[Rules, ...]:
        return self._redo if self.qconfig_rules == self._left else ()

    def _refuse_what_has_no_kernel(self, rules: Rules) -> None:
        base, options = self._models.base, self._models.options
        plan = replace(options.qconfig, rules=rules)
        config = options.backend_config if self.flow.by_graph else None
        refused = first_refused(base, plan, config)
        if refused is not None:
            raise QConfigError(
                f"int8 has no kernel for the qconfig of this layer: {refused.reason}",
                where=refused.path,
                why=f"A copy of the layer alone was prepared, converted and run on {plan.backend}.",
                fix="Give weights signed symmetric codes, activations unsigned codes per tensor, "
                "or leave the layer in float.",
            )

    def preview(
        self, path: str, spec: QuantSpec, part: Literal["activation", "weight"] | None = None
    ) -> Preview:
        """What ``spec`` would do to a weight, or to the output of a module in one forward of the
        example input: the values on its grid, and SQNR. Nothing is prepared.

        Args:
            path: of a module of the float model, or of a fake quant of the stage in view.
            part: None is what the fake quant at ``path`` quantizes, the output for a module.

        Raises QConfigError for what is not there, and whatever the forward raises.
        """
        site = self.snapshot.site_by_path.get(path)
        if site is not None:
            part = part or ("weight" if site.kind == "weight" else "activation")
            record = self.snapshot.by_path.get(site.owner)
            path = record.origin if record is not None and record.origin else site.owner
        base = self._models.base
        module: Any = dict(base.named_modules()).get(path)
        weight: Any = getattr(module, "weight", None)
        if module is None or (part == "weight" and not isinstance(weight, Tensor)):
            raise QConfigError(
                f"there is no {part or 'module'} at {path!r} of the float model.",
                where=path,
                fix="Preview a path of the float stage whose module has a weight, or an output.",
            )
        with self._lock:
            if part == "weight":
                return preview(weight, spec)
            return preview(output_of(base, path, self._models.options.example_inputs), spec)

    @property
    def can_undo_qconfig(self) -> bool:
        """Whether there is a change of the rules to take back."""
        return bool(self._past)

    @property
    def can_redo_qconfig(self) -> bool:
        """Whether there is a change to make again."""
        return bool(self._future)

    def undo_qconfig(self) -> Snapshot:
        """Take back the last change of the rules; without one nothing happens. Raises BusyError."""
        with self._lock:
            self._require_idle("change the qconfig")
            past, now = self._past, self.qconfig_rules
            return self._put(past[-1], past[:-1], (*self._future, now)) if past else self.snapshot

    def redo_qconfig(self) -> Snapshot:
        """Make again what :meth:`undo_qconfig` took back. Raises BusyError."""
        with self._lock:
            self._require_idle("change the qconfig")
            future, now = self._future, self.qconfig_rules
            return (
                self._put(future[-1], (*self._past, now), future[:-1]) if future else self.snapshot
            )

    def save_qconfig(self, path: str | os.PathLike[str]) -> Path:
        """Write the rules to a ``.toml`` or ``.json`` file. Raises QConfigError."""
        return write_rules(path, self.qconfig_rules)

    def qconfig_text(self, form: TextFormat = "toml") -> str:
        """The rules as :meth:`save_qconfig` writes them."""
        return rules_text(self.qconfig_rules, form)

    def load_qconfig(self, path: str | os.PathLike[str]) -> Snapshot:
        """Put the rules of a file in place of those in force; nothing in it is run. Raises
        QConfigError that names rule and key, and as :meth:`set_qconfig`."""
        return self.use_qconfig_rules(read_rules(path))


def _named(place: Place, by: By) -> tuple[str, By]:
    if isinstance(place, type):
        return f"{place.__module__}.{place.__qualname__}", "type"
    return (place, by) if place else ("", "model")
