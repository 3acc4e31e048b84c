"""The part of a session that shows what rules of the qconfig would do, before they are in force."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from qatexplorer.flows.base import FlowOptions
from qatexplorer.flows.qconfig import QConfigPlan
from qatexplorer.flows.qconfig_rules import Part as SpecPart
from qatexplorer.flows.qconfig_rules import QConfigRule
from qatexplorer.forward.histograms import GridHistogram
from qatexplorer.forward.noise import noise_of
from qatexplorer.forward.sampling import histograms_of
from qatexplorer.session.part import Part
from qatexplorer.snapshot.records import FakeQuantSite


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


@dataclass(frozen=True)
class _Seen:
    """A fake quant of a prepared copy that has seen the example input."""

    owner: str
    db: float | None
    site: FakeQuantSite
    histogram: GridHistogram | None


_Sites = dict[tuple[str, str], _Seen]


class PreviewPart(Part):
    """What rules say of each module, and what other rules would do to its fake quants."""

    _seen_with: tuple[FlowOptions, _Sites] | None = None
    """Fake quants with the settings in force, for the preview after this one."""

    def _refuse_what_has_no_kernel(self, rules: tuple[QConfigRule, ...]) -> None:
        raise NotImplementedError

    def ruled(self) -> Mapping[str, Mapping[SpecPart, QConfigRule]]:
        """The rules in force that say what activation and weight of each module of the float model
        are, by path; without the modules of which none says anything."""
        plan = self._models.options.qconfig
        if not plan.rules:
            return {}
        return plan.resolver(self._models.base).ruling()

    def preview_rules(
        self, rules: Iterable[QConfigRule], owners: Iterable[str]
    ) -> tuple[PreviewedSite, ...]:
        """What ``rules`` in place of those in force would do to the fake quants of the modules
        ``owners`` (paths in the float model, and all below them); nothing of the session changes.

        Two copies are prepared by torch, and run on the example input; that of the rules in force
        is kept until the settings change. Raises QConfigError as :meth:`use_qconfig_rules`, and
        what preparing raises.
        """
        wanted, options = tuple(rules), self._models.options
        with self._lock:
            self._refuse_what_has_no_kernel(wanted)
        if self._seen_with is None or self._seen_with[0] is not options:
            self._seen_with = (options, self._prepared(options.qconfig))
        before = self._seen_with[1]
        after = self._prepared(replace(options.qconfig, rules=wanted))
        around = tuple(owners)
        rows = []
        for key in dict.fromkeys((*before, *after)):
            old, new = before.get(key), after.get(key)
            owner, kind = key
            if not any(not a or owner == a or owner.startswith(f"{a}.") for a in around):
                continue
            rows.append(
                PreviewedSite(
                    owner,
                    kind,
                    old.db if old is not None else None,
                    new.db if new is not None else None,
                    new.site if new is not None else None,
                    new.histogram if new is not None else None,
                )
            )
        return tuple(rows)

    def _prepared(self, plan: QConfigPlan) -> _Sites:
        """Each fake quant that runs in a copy prepared by ``plan``, by module and kind."""
        arguments: Any = self._models.settings.arguments() | {"qconfig": plan}
        options = self._models.options
        with self._lock:  # what runs the float model changes its mode for that time
            kind: Any = type(self)
            other: Any = kind(self._models.original, **arguments)
        other.warns = False
        snapshot = other.goto(self.flow.prepared_stage)
        model = other._models.view(other.stage)
        noise = noise_of(model, options.example_inputs)
        histograms = histograms_of(model, options.example_inputs)
        origins = {record.path: record.origin for record in snapshot.modules}
        found: _Sites = {}
        for site in snapshot.sites:
            owner = origins.get(site.owner, site.owner)
            histogram = histograms.get(site.path)
            found[owner, site.kind] = _Seen(owner, noise.get(site.path), site, histogram)
        return found
