"""Overlays that a session measures itself: what a model's graph can be coloured by."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from qatexplorer.accuracy.records import Comparison, Method, Sensitivity
from qatexplorer.errors import BusyError, OverlayError, StageError
from qatexplorer.forward.costs import time_modules
from qatexplorer.forward.histograms import GridHistogram
from qatexplorer.forward.noise import noise_of
from qatexplorer.forward.sampling import histograms_of
from qatexplorer.quantizers.engine import quantized_engine
from qatexplorer.runs.samples import Sample
from qatexplorer.session.compared import Compared
from qatexplorer.session.models import Models
from qatexplorer.session.stages import Stages
from qatexplorer.snapshot.overlay import Overlay
from qatexplorer.snapshot.records import Snapshot
from qatexplorer.training.run import TrainingRun

_HOW = {
    "clipped": Overlay({}, "Clipped share", "share", "bad", "highest", name="clipped"),
    "sqnr": Overlay({}, "SQNR", "dB", "good", "lowest", name="sqnr"),
    "scale_drift": Overlay({}, "Scale drift", "share", "bad", "highest", name="scale_drift"),
    "macs": Overlay({}, "MACs", "MACs", "", "sum", name="macs"),
    "parameters": Overlay({}, "Parameters", "parameters", "", "sum", name="parameters"),
    "time": Overlay({}, "Time", "ms", "bad", "sum", name="time"),
    "sqnr_fake_quant": Overlay(
        {}, "SQNR of fake quant", "dB", "good", "lowest", name="sqnr_fake_quant"
    ),
    "sqnr_int8": Overlay({}, "SQNR of int8", "dB", "good", "lowest", name="sqnr_int8"),
    "agreement": Overlay({}, "Int8 agreement", "share", "good", "lowest", name="agreement"),
    "precision": Overlay(
        {}, "Float or int8", categories=("float", "int8", "mixed"), name="precision"
    ),
    "sensitivity": Overlay({}, "Sensitivity", "", "bad", "highest", name="sensitivity"),
}

NAMES: Mapping[str, str] = {name: overlay.title for name, overlay in _HOW.items()}
"""Titles of the built-in overlays by name, in a flow that comes to int8."""


def how_of(name: str, result: str) -> Overlay:
    """The overlay ``name`` without its numbers, in a flow that comes to ``result``."""
    how = _HOW[name]
    if result == "int8":
        return how
    if how.categories:
        return replace(how, title="Float or integers", categories=("float", "integers", "mixed"))
    title = how.title.replace("int8", result).replace("Int8", result.capitalize())
    return replace(how, title=title)


def titles_of(result: str) -> dict[str, str]:
    """:data:`NAMES` in a flow that comes to ``result``."""
    return {name: how_of(name, result).title for name in NAMES}


SLOW = frozenset({"time"})
"""Overlays that are measured over several forwards, by request and not at every change."""


COMPARED: Mapping[str, str] = {
    "sqnr_fake_quant": "sqnr_fake_quant_db",
    "sqnr_int8": "sqnr_int8_db",
    "agreement": "agreement",
}
"""Overlays of the last comparison, with the field of its rows that they show."""


def checked_name(name: str) -> str:
    """``name``. Raises OverlayError if no built-in overlay is called so."""
    if name not in NAMES:
        names = ", ".join(map(repr, NAMES))
        raise OverlayError(f"there is no overlay {name!r}.", fix=f"They are: {names}.")
    return name


_NO_FAKE_QUANTS = "There are no fake quants at this stage."


@dataclass(frozen=True)
class Asked:
    """What is measured and how: ``progress`` gets the share of the work done, 0 to 1;
    ``should_stop`` is asked between forwards."""

    progress: Callable[[float], Any] | None = None
    should_stop: Callable[[], bool] | None = None


class Overlays:
    """Makes the overlays of the stages, and keeps those that are still true."""

    def __init__(
        self,
        models: Models,
        stages: Stages,
        histograms: Callable[[], Mapping[str, GridHistogram]],
        compared: Compared,
        sensitivities: Callable[[], Mapping[Method, Sensitivity]],
    ) -> None:
        self._models, self._stages, self._compared = models, stages, compared
        self._sensitivities = sensitivities
        self._histograms = histograms  # of the stage in view: the inspector has them already
        self._kept: dict[tuple[str, str], tuple[Snapshot, Overlay]] = {}

    def of(
        self, name: str, stage: str | None, run: TrainingRun | None, running: bool, asked: Asked
    ) -> Overlay:
        """See :meth:`~qatexplorer.session.session.Session.overlay`."""
        checked_name(name)
        chosen = self._stages.current if stage is None else stage
        self._stages.index(chosen)
        snapshot = self._stages.snapshots.get(chosen)
        if snapshot is None:
            raise StageError(
                f"stage {chosen!r} has not been reached.",
                fix=f"Call session.goto({chosen!r}) first.",
            )
        if name in COMPARED:
            return _of_comparison(self._how(name), self._compared.last).at(chosen)
        if name == "sensitivity":
            return _sensitivity(self._how(name), snapshot, self._sensitivities()).at(chosen)
        kept = self._kept.get((name, chosen))
        if kept is not None and kept[0] is snapshot and name != "scale_drift":
            return kept[1]
        trains = running and chosen == self._models.flow.train_stage
        made = self._make(name, chosen, snapshot, run, trains, asked).at(chosen)
        if not trains:
            self._kept[name, chosen] = (snapshot, made)
        return made

    def _how(self, name: str) -> Overlay:
        return how_of(name, self._models.flow.result)

    def _make(
        self,
        name: str,
        stage: str,
        snapshot: Snapshot,
        run: TrainingRun | None,
        trains: bool,
        asked: Asked,
    ) -> Overlay:
        how = self._how(name)
        if name in ("clipped", "sqnr", "scale_drift") and not snapshot.sites:
            return replace(how, note=_NO_FAKE_QUANTS)
        if name == "scale_drift":
            return _drift(how, snapshot, run)
        if name in ("clipped", "sqnr") and trains:
            return _newest(how, snapshot, run)
        if name == "macs":
            return self._macs(how, snapshot)
        if name == "parameters":
            return self._parameters(how, snapshot)
        if name == "precision":
            return _precision(how, snapshot)
        if trains:
            raise BusyError(
                "cannot run the model while it is being trained.",
                fix="Pause is not enough: stop the run, or wait for it.",
            )
        model = self._models.view(stage)
        inputs = self._models.options.example_inputs
        if name == "clipped":
            in_view = stage == self._stages.current
            return _clipped(how, self._histograms() if in_view else histograms_of(model, inputs))
        if name == "sqnr":
            values = noise_of(model, inputs)
            left = [s for s in snapshot.sites if s.calls_per_forward and s.path not in values]
            note = "Of all values in one forward of the example input." + _left_out(len(left))
            return replace(how, values=values, note=note)
        return self._time(how, model, inputs, asked)

    def _macs(self, how: Overlay, snapshot: Snapshot) -> Overlay:
        counted = self._models.macs
        # Modules that fusion or convert added have no place in the float model.
        places = {m.path: m.origin or m.path for m in snapshot.modules if m.origin or not m.path}
        if snapshot.modules and snapshot.modules[0].path == "":
            places[""] = ""
        values = {path: counted[at] for path, at in places.items() if at in counted}
        note = "Of one forward of the example input in float; a module's contain those below it."
        return replace(how, values=values, note=note)

    def _parameters(self, how: Overlay, snapshot: Snapshot) -> Overlay:
        values = {m.path: float(m.param_count) for m in snapshot.modules}
        for site in snapshot.sites:
            values.pop(site.path, None)
        note = "A module's contain those below it."
        if snapshot.is_from("reference"):
            # Int8 modules pack their weights away: they are no parameters of torch's any more.
            prepared = self._stages.snapshots[self._models.flow.train_stage]
            values = {
                path: float(prepared.by_path[path].param_count)
                for path in values
                if path in prepared.by_path
            }
            note = "Of the model before convert; a module's contain those below it."
        return replace(how, values=values, note=note)

    def _time(self, how: Overlay, model: nn.Module, inputs: Any, asked: Asked) -> Overlay:
        with quantized_engine(self._models.options.qconfig.backend):
            found = time_modules(
                model, inputs, progress=asked.progress, should_stop=asked.should_stop
            )
        note = (
            f"Median of {found.repeats} forwards of the example input in eval mode; a module's "
            f"contains that of those below it. A forward without measuring takes "
            f"{1000 * found.forward_s:.3g} ms."
        )
        return replace(how, values={path: 1000 * s for path, s in found.seconds.items()}, note=note)


def _clipped(how: Overlay, found: Mapping[str, GridHistogram]) -> Overlay:
    values = {
        path: histogram.clipped_low_share + histogram.clipped_high_share
        for path, histogram in found.items()
        # Of values without a code none is clipped, and nothing is known.
        if histogram.sampled > histogram.nonfinite + histogram.off_grid
    }
    note = "In one forward of the example input." + _left_out(len(found) - len(values))
    return replace(how, values=values, note=note)


def _left_out(count: int) -> str:
    if not count:
        return ""
    return f" Not known of {count:,} more that run: no finite values, no scale, or only zeros."


def _newest(how: Overlay, snapshot: Snapshot, run: TrainingRun | None) -> Overlay:
    samples: dict[str, Sample] = {}
    telemetry = run.telemetry if run is not None else None
    for path in telemetry.paths if telemetry is not None else ():
        sample = telemetry.sample(path, details=False) if telemetry is not None else None
        if sample is not None and path in snapshot.site_by_path:
            samples[path] = sample
    values = {p: s.clipped if how.name == "clipped" else s.sqnr_db for p, s in samples.items()}
    values = {path: value for path, value in values.items() if not math.isnan(value)}
    steps = sorted({sample.step for sample in samples.values()})
    note = f"Sampled at step {steps[-1]:,} of the training." if steps else "No sample yet."
    return replace(how, values=values, note=note)


def _drift(how: Overlay, snapshot: Snapshot, run: TrainingRun | None) -> Overlay:
    """How far each scale is from what it was in the run's first sample, as a share of that."""
    telemetry = run.telemetry if run is not None else None
    if telemetry is None:
        return replace(how, note="Nothing has been trained yet: scales are compared over a run.")
    values: dict[str, float] = {}
    steps: set[int] = set()
    for path in telemetry.paths:
        at, scales = telemetry.series(path, "scale_median")
        known = [(s, x) for s, x in zip(at, scales, strict=True) if math.isfinite(x) and x > 0]
        if len(known) > 1 and path in snapshot.site_by_path:
            values[path] = abs(known[-1][1] / known[0][1] - 1)
            steps |= {known[0][0], known[-1][0]}
    if not values:
        return replace(how, note="Fewer than two samples of the run: nothing to compare yet.")
    note = (
        f"Change of the scale (the median over its channels) from step {min(steps):,} to "
        f"{max(steps):,} of the run, as a share of the first."
    )
    return replace(how, values=values, note=note)


def _of_comparison(how: Overlay, found: Comparison | None) -> Overlay:
    """The worst call of each place."""
    if found is None:
        return replace(how, note="Nothing has been compared yet: session.compare() does.")
    values: dict[str, float] = {}
    for row in found:
        value = getattr(row, COMPARED[how.name])
        if value is not None and row.kind != "output":
            values[row.path] = min(value, values.get(row.path, math.inf))
    batches = "1 batch" if found.batches == 1 else f"{found.batches:,} batches"
    return replace(how, values=values, note=f"Of all values in {batches} that were compared.")


def _sensitivity(how: Overlay, snapshot: Snapshot, made: Mapping[Method, Sensitivity]) -> Overlay:
    """Scores of the best method that has been measured; nothing is measured for it."""
    if not snapshot.sites:
        return replace(how, note=_NO_FAKE_QUANTS)
    one = next((made[method] for method in _BEST_FIRST if method in made), None)
    if one is None:
        return replace(how, note="Nothing has been measured yet: call session.sensitivity().")
    # Where one fake quant stands under several names, its row has the first.
    here = {site.path for site in snapshot.sites}
    values = {row.path: row.score for row in one.rows if row.path in here}
    values = {path: value for path, value in values.items() if math.isfinite(value)}
    share = one.method == "exact" and one.metric_name == "accuracy"
    note = _SCORES[one.method].format(metric=one.metric_name, samples=f"{one.samples:,}")
    return replace(how, values=values, unit="share" if share else "", note=note)


_BEST_FIRST: tuple[Method, ...] = ("exact", "gradient", "shadow")
_SCORES: Mapping[Method, str] = {
    "exact": "What {metric} loses with only this fake quant on, over {samples} samples.",
    "gradient": "Error of the module's output, squared and weighed by the squared gradient of the "
    "loss, over {samples} samples.",
    "shadow": "Noise over signal at the module's output, in power, over {samples} samples.",
}


def _precision(how: Overlay, snapshot: Snapshot) -> Overlay:
    sites = snapshot.site_by_path
    values = {
        m.path: float(_HOW["precision"].categories.index(m.state))
        for m in snapshot.modules
        if m.state and m.path not in sites
    }
    if not values:
        return replace(how, note="Known from the stage on that has fake quants.")
    converted = snapshot.is_from("reference")
    model = "int8" if how.categories == _HOW["precision"].categories else "converted"
    note = "As converted." if converted else f"What each module will be in the {model} model."
    return replace(how, values=values, note=note)
