"""Trainings from one start with different settings: what came of each, as records."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from qatexplorer.errors import InputError
from qatexplorer.shown import Shown, at_most, columns
from qatexplorer.tables import table_of_columns
from qatexplorer.training.trials import Trial


@dataclass(frozen=True)
class SweptSettings:
    """What came of one combination.

    Attributes:
        settings: those that were swept over. seeds: of its trainings, in order.
        metrics: at the end of each; None where it diverged. losses: mean of the last epoch.
        seconds: of all its trainings. problems: what ended those that have no metric.
    """

    settings: Mapping[str, Any]
    seeds: tuple[int, ...]
    metrics: tuple[float | None, ...]
    losses: tuple[float | None, ...]
    seconds: float
    problems: tuple[str, ...] = ()

    @property
    def mean(self) -> float | None:
        """Of the metrics; None if a training has none."""
        known = [one for one in self.metrics if one is not None]
        return statistics.fmean(known) if known and len(known) == len(self.metrics) else None

    @property
    def spread(self) -> float | None:
        """Standard deviation of the metrics from seed to seed; None for fewer than two."""
        known = [one for one in self.metrics if one is not None]
        return statistics.stdev(known) if len(known) > 1 else None

    def words(self) -> str:
        """The settings in one line."""
        return ", ".join(f"{name} {said(value)}" for name, value in self.settings.items())


@dataclass(frozen=True, repr=False)
class Sweep(Shown):
    """What :meth:`Session.sweep` gives.

    Attributes:
        rows: a combination each, in the order that was asked for; those of which no training is
            done are left out.
        metric_name, metric_mode: whether ``"max"`` or ``"min"`` is the best.
        float_metric: of the float model. before: of the start with its fake quants on; None where
            they had seen no data yet.
        trainings: how many there were to do; complete: whether all are done.
    """

    rows: tuple[SweptSettings, ...]
    metric_name: str
    metric_mode: Literal["max", "min"]
    float_metric: float | None
    before: float | None
    trainings: int
    complete: bool

    @property
    def best(self) -> SweptSettings:
        """The row with the best mean, the first of equal ones. Raises InputError where no
        combination was trained to its end."""
        known = [(row.mean, row) for row in self.rows if row.mean is not None]
        if not known:
            raise InputError("no combination of this sweep was trained to its end.")
        sign = -1 if self.metric_mode == "max" else 1
        return min(known, key=lambda pair: sign * pair[0])[1]

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame``, a row a combination: the settings as text, mean, spread, seeds,
        seconds. Raises InputError without pandas."""
        names = list(self.rows[0].settings) if self.rows else []
        cells: list[tuple[str, Any, list[Any]]] = [
            (name, str, [said(row.settings[name]) for row in self.rows]) for name in names
        ]
        cells += [
            ("mean", float, [row.mean for row in self.rows]),
            ("spread", float, [row.spread for row in self.rows]),
            ("seeds", int, [len(row.seeds) for row in self.rows]),
            ("seconds", float, [row.seconds for row in self.rows]),
        ]
        return table_of_columns(cells)

    def __repr__(self) -> str:
        done = sum(len(row.seeds) for row in self.rows)
        head = f"Sweep of {self.trainings:,} trainings"
        lines = [head if self.complete else f"{head}, {done:,} done"]
        known = (("float", self.float_metric), ("before", self.before))
        lines += [f"{self.metric_name} {what}: {value:.4g}" for what, value in known if value]
        if not self.rows:
            return at_most(lines)
        names = list(self.rows[0].settings)
        best = self.best if any(row.mean is not None for row in self.rows) else None
        cells = [(*names, self.metric_name, "spread", "seeds", "")]
        for row in self.rows:
            numbers = ("–" if v is None else f"{v:.4g}" for v in (row.mean, row.spread))
            chosen = [said(row.settings[name]) for name in names]
            note = "best" if row is best else row.problems[0] if row.problems else ""
            cells.append((*chosen, *numbers, str(len(row.seeds)), note))
        return at_most([*lines, *columns(cells)])


def said(value: Any) -> str:
    """A setting as text: None is never, a function goes by its name."""
    if value is None:
        return "never"
    return str(getattr(value, "__qualname__", value))


def combinations(over: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
    """Every combination of the values, the last name changing first. Raises InputError for a name
    without values."""
    values = {name: list(of) for name, of in over.items()}
    for name, of in values.items():
        if not of:
            raise InputError(f"there is no value of {name} to sweep over.")
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


def rows_of(
    wanted: Sequence[tuple[Mapping[str, Any], Sequence[tuple[int, Mapping[str, Any]]]]],
    done: Sequence[Trial],
) -> tuple[SweptSettings, ...]:
    """The rows of settings with (seed, key) of their jobs, of what was ``done``."""
    by_key = [(dict(trial.key), trial) for trial in done]
    rows = []
    for settings, jobs in wanted:
        found = [
            (seed, trial) for seed, key in jobs for known, trial in by_key if known == dict(key)
        ]
        if not found:
            continue
        results = [trial.result for _, trial in found]
        rows.append(
            SweptSettings(
                settings,
                tuple(seed for seed, _ in found),
                tuple(result["metric"] for result in results),
                tuple(result["loss"] for result in results),
                sum(trial.seconds for _, trial in found),
                tuple(result["problem"] for result in results if result["problem"]),
            )
        )
    return tuple(rows)
