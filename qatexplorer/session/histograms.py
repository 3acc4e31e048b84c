"""Histograms of the stage in view, made in one forward and kept while the model is the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from torch import nn

from qatexplorer.errors import StageError
from qatexplorer.forward.histograms import GridHistogram
from qatexplorer.forward.sampling import histograms_of
from qatexplorer.garbage import cycles_collected_later
from qatexplorer.session.models import Models
from qatexplorer.session.stages import Stages
from qatexplorer.snapshot.records import Snapshot
from qatexplorer.training.run import TrainingRun


class Histograms:
    """What each fake quant of the stage in view sees in a forward of the example input.

    ``require_still`` raises while running the model would disturb a training.
    """

    def __init__(
        self, models: Models, stages: Stages, require_still: Callable[[nn.Module], None]
    ) -> None:
        self._models, self._stages = models, stages
        self._require_still = require_still
        self._kept: tuple[Snapshot, Mapping[str, GridHistogram]] | None = None

    @property
    def ready(self) -> bool:
        """Whether :meth:`all` will answer without running the model."""
        return self.known is not None

    @property
    def known(self) -> Mapping[str, GridHistogram] | None:
        """What :meth:`all` answers without running the model, None if it has to."""
        kept = self._kept
        return kept[1] if kept is not None and kept[0] is self._stages.snapshot else None

    def one(
        self, site: str, run: TrainingRun | None, made: Callable[[], Mapping[str, GridHistogram]]
    ) -> GridHistogram:
        """That of fake quant ``site``: the newest sample of ``run``, a training that goes on, else
        one of those ``made``."""
        if run is not None:
            samples = [s for s in run.history.samples(site) if s.histogram is not None]
            if samples:
                return cast(GridHistogram, samples[-1].histogram)
        known = self._stages.snapshot.site_by_path.get(site)
        if known is None:
            stage = self._stages.current
            raise StageError(f"stage {stage!r} has no fake quant {site!r}.", where=site)
        if known.quant_min >= known.quant_max:
            raise StageError(
                f"this fake quant rounds to {known.dtype.removeprefix('torch.')}, whose values do "
                "not lie at even distances: there is no grid of codes to count on.",
                where=site,
            )
        found = made().get(known.path)
        if found is None:
            raise StageError(
                "this fake quant does not run in a forward of the example input.",
                where=site,
                why="It sits in the model, but no data reaches it.",
                fix="If its layer runs only sometimes, choose example inputs that reach it.",
            )
        return found

    def all(self) -> Mapping[str, GridHistogram]:
        """Those of all fake quants that run, by path. Ask with the session's lock held."""
        snapshot, inputs = self._stages.snapshot, self._models.options.example_inputs
        if self._kept is None or self._kept[0] is not snapshot:
            model = self._models.view(self._stages.current)
            self._require_still(model)
            with cycles_collected_later():
                made = histograms_of(model, inputs) if snapshot.sites else {}
            self._kept = (snapshot, made)
        return self._kept[1]

    def of(self, stage: str) -> Mapping[str, GridHistogram]:
        """The same at any stage that was reached; those of the stage in view are kept. Ask with the
        session's lock held."""
        if stage == self._stages.current:
            return self.all()
        model = self._models.view(stage)
        self._require_still(model)
        if not self._stages.snapshots[stage].sites:
            return {}
        with cycles_collected_later():
            return histograms_of(model, self._models.options.example_inputs)
