"""The part of a session that edits its qconfig by rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qatexplorer.errors import QConfigError
from qatexplorer.flows.base import FlowOptions
from qatexplorer.flows.module_rules import (
    QConfigRule,
    QuantSpec,
    require_possible,
    ruled_paths,
    with_rules,
)
from qatexplorer.flows.qconfig import QConfigPlan
from qatexplorer.flows.rules_text import TextFormat, read_rules, rules_text
from qatexplorer.forward.histograms import GridHistogram
from qatexplorer.forward.noise import noise_of
from qatexplorer.forward.sampling import histograms_of
from qatexplorer.session.part import Part
from qatexplorer.snapshot.records import FakeQuantSite, Snapshot

Rules = tuple[QConfigRule, ...]


@dataclass(frozen=True)
class PreviewedSite:
    """One fake quant as it is with the rules in force and as it would be with others, both when
    their observers have seen the example input and nothing else.

    Attributes:
        owner: path in the float model of the module that it belongs to.
        kind: "weight", "input" or "output".
        before_db, after_db: SQNR in dB of its rounding alone; None where it is not there or there
            is no signal.
        site: as it would be, None where the module is left in float.
        histogram: of the values that reach it, on the new grid; None as ``site``.
    """

    owner: str
    kind: str
    before_db: float | None
    after_db: float | None
    site: FakeQuantSite | None = None
    histogram: GridHistogram | None = None


@dataclass
class QConfigHistory:
    """The rules in force, those before them and those that were taken back.

    ``plan`` is the qconfig without rules, ``made`` the plan that the rules made of it: while that
    is in force, so are the rules (None while it is being put in force).
    """

    past: list[Rules] = field(default_factory=list)
    future: list[Rules] = field(default_factory=list)
    now: Rules = ()
    plan: QConfigPlan | None = None
    made: QConfigPlan | None = None
    shown: tuple[FlowOptions, dict[tuple[str, str], _Seen]] | None = None


@dataclass(frozen=True)
class _Seen:
    """A fake quant of a prepared copy that has seen the example input."""

    owner: str
    db: float | None
    site: FakeQuantSite
    histogram: GridHistogram | None


class RulesPart(Part):
    """Rules that give some modules another qconfig than the settings do."""

    _qconfig: QConfigHistory

    @property
    def options(self) -> FlowOptions:
        """Settings in force."""
        raise NotImplementedError

    def _change(self, given: Mapping[str, Any]) -> Snapshot:
        raise NotImplementedError

    @property
    def qconfig_rules(self) -> Rules:
        """The rules in force, in order: the later one wins. None are once the qconfig was changed
        by :meth:`configure`."""
        return self._history().now

    def ruled(self) -> Mapping[str, QConfigRule]:
        """The rule in force of each module of the float model that has one, by path."""
        return ruled_paths(self.qconfig_rules, self._models.base)

    def set_qconfig(
        self,
        where: str | Iterable[str],
        *,
        activation: QuantSpec | None = None,
        weight: QuantSpec | None = None,
        in_float: bool = False,
    ) -> Snapshot:
        """Give modules another qconfig, and start again from the float stage.

        ``where`` is a path (it holds for all below it), ``"type:Conv2d"``, ``"re:layer1.*"`` (the
        paths that match from their begin on), or several of these. ``activation`` and ``weight``
        are what their fake quants shall be, None leaves that as it is; ``in_float`` quantizes
        neither. A rule for the same ``where`` is replaced. :meth:`undo_qconfig` takes it back.

        Raises QConfigError, with the reason, where a rule matches nothing, is none that an int8
        kernel of torch can follow, or does not come through preparing; then nothing changes.
        Raises BusyError.
        """
        return self.use_qconfig_rules(self.with_rule(where, activation, weight, in_float))

    def with_rule(
        self,
        where: str | Iterable[str],
        activation: QuantSpec | None = None,
        weight: QuantSpec | None = None,
        in_float: bool = False,
    ) -> Rules:
        """The rules as they would be after :meth:`set_qconfig`, which are possible. Raises
        QConfigError as it does."""
        places = (where,) if isinstance(where, str) else tuple(where)
        new = [QConfigRule(one, activation, weight, in_float) for one in places]
        for rule in new:
            require_possible(rule, self._models.base, self.options.qconfig.backend)
        rules = (*(r for r in self.qconfig_rules if r.where not in places), *new)
        self._planned(rules)
        return rules

    def use_qconfig_rules(self, rules: Iterable[QConfigRule]) -> Snapshot:
        """Put these rules in force instead of those there are, and start again from the float
        stage; () takes all back. Raises as :meth:`set_qconfig`."""
        with self._lock:
            self._require_idle("change the qconfig")
            history = self._history()
            return self._put(tuple(rules), [*history.past, history.now], [])

    @property
    def can_undo_qconfig(self) -> bool:
        """Whether there are rules before those in force."""
        return bool(self._history().past)

    @property
    def can_redo_qconfig(self) -> bool:
        """Whether rules have been taken back."""
        return bool(self._history().future)

    def undo_qconfig(self) -> Snapshot:
        """The rules as they were before the last change, from the float stage. Raises QConfigError
        where there was none, BusyError."""
        with self._lock:
            self._require_idle("undo a change of the qconfig")
            history = self._history()
            if not history.past:
                raise _nothing_to("undo")
            *past, last = history.past
            return self._put(last, past, [*history.future, history.now])

    def redo_qconfig(self) -> Snapshot:
        """Take back :meth:`undo_qconfig`. Raises as it does."""
        with self._lock:
            self._require_idle("redo a change of the qconfig")
            history = self._history()
            if not history.future:
                raise _nothing_to("redo")
            *future, last = history.future
            return self._put(last, [*history.past, history.now], future)

    def qconfig_text(self, form: TextFormat = "toml") -> str:
        """The rules in force as a text, to be kept in a file."""
        return rules_text(self.qconfig_rules, form)

    def save_qconfig(self, path: str | Path) -> None:
        """Write the rules to a file, as JSON where its name ends in ``.json``, else as TOML."""
        file = Path(path)
        form: TextFormat = "json" if file.suffix == ".json" else "toml"
        file.write_text(self.qconfig_text(form), encoding="utf-8")

    def load_qconfig(self, path: str | Path) -> Snapshot:
        """Put the rules of a file in force, and start again from the float stage. Raises
        QConfigError for a file that cannot be read or understood, and as :meth:`set_qconfig`."""
        file = Path(path)
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise QConfigError(
                f"{file} cannot be read: {type(error).__name__}: {error}",
                fix="Name a file that save_qconfig has written.",
            ) from error
        return self.use_qconfig_rules(read_rules(text, file.name))

    def preview(self, rules: Sequence[QConfigRule], owners: Iterable[str]) -> tuple[
        PreviewedSite, ...
    ]:  # fmt: skip
        """What ``rules`` would do to the fake quants of the modules ``owners`` (paths in the float
        model, and all below them), against those in force; nothing of the session changes.

        Two copies are prepared by torch, and run on the example input; that of the rules in force
        is kept until the settings change. Raises QConfigError, and what preparing raises.
        """
        history, options = self._history(), self.options
        if history.shown is None or history.shown[0] is not options:
            history.shown = (options, self._prepared(options.qconfig))
        before = history.shown[1]
        after = self._prepared(self._planned(tuple(rules)))
        around = tuple(owners)
        rows = []
        for key in dict.fromkeys((*before, *after)):
            old, new = before.get(key), after.get(key)
            owner = (new or old).owner  # type: ignore[union-attr]
            if not any(not a or owner == a or owner.startswith(f"{a}.") for a in around):
                continue
            rows.append(
                PreviewedSite(
                    owner,
                    key[1],
                    old.db if old is not None else None,
                    new.db if new is not None else None,
                    new.site if new is not None else None,
                    new.histogram if new is not None else None,
                )
            )
        return tuple(rows)

    # -- inside ---------------------------------------------------------------------------------

    def _history(self) -> QConfigHistory:
        history = self._qconfig
        changing = history.plan is not None and history.made is None
        if not changing and self.options.qconfig is not history.made:
            # The settings have been changed since: rules for another qconfig are none for this.
            plan = self.options.qconfig
            self._qconfig = history = QConfigHistory(plan=plan, made=plan)
        return history

    def _planned(self, rules: Rules) -> QConfigPlan:
        history, base = self._history(), self._models.base
        for rule in rules:
            require_possible(rule, base, self.options.qconfig.backend)
        assert history.plan is not None
        return with_rules(history.plan, rules, base)

    def _put(self, rules: Rules, past: list[Rules], future: list[Rules]) -> Snapshot:
        before, plan = self._history(), self._planned(rules)
        # What hears of the change asks for the rules at once.
        self._qconfig = QConfigHistory(past, future, rules, before.plan)
        try:
            snapshot = self._change({"qconfig": plan})
        except BaseException:
            self._qconfig = before
            raise
        self._qconfig.made = self.options.qconfig
        return snapshot

    def _prepared(self, plan: QConfigPlan) -> dict[tuple[str, str], _Seen]:
        """Each fake quant that runs in a copy prepared by ``plan``, by module and kind."""
        arguments = self._models.settings.arguments() | {"qconfig": plan}
        with self._lock:  # what runs the float model changes its mode for that time
            other = type(self)(self._models.original, **arguments)  # type: ignore[call-arg]
        other.warns = False  # type: ignore[attr-defined]
        snapshot = other.goto(self.flow.prepared_stage)
        model = other._models.view(other.stage)
        noise = noise_of(model, self.options.example_inputs)
        histograms = histograms_of(model, self.options.example_inputs)
        origins = {record.path: record.origin for record in snapshot.modules}
        found: dict[tuple[str, str], _Seen] = {}
        for site in snapshot.sites:
            owner = origins.get(site.owner, site.owner)
            found[owner, site.kind] = _Seen(
                owner, noise.get(site.path), site, histograms.get(site.path)
            )
        return found


def _nothing_to(what: str) -> QConfigError:
    return QConfigError(
        f"there is nothing to {what}.", fix="Change the qconfig first, with set_qconfig."
    )
