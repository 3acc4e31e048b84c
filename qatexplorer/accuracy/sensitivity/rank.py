"""From what was measured to a ranking."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Literal

import torch

from qatexplorer.accuracy.records import Method, Sensitivity, SensitivityRow
from qatexplorer.accuracy.sensitivity.exact import (
    ACTIVATIONS,
    FLOAT,
    QUANTIZED,
    WEIGHTS,
    Exact,
    only,
    without,
)
from qatexplorer.accuracy.sensitivity.job import Job
from qatexplorer.accuracy.sensitivity.kept import BatchResult, Pair
from qatexplorer.accuracy.sensitivity.local import Approximate
from qatexplorer.accuracy.sensitivity.ranks import spearman
from qatexplorer.accuracy.sensitivity.sites import Site, Subject
from qatexplorer.data import Batch
from qatexplorer.forward.preserve import preserved_rng

MetricMode = Literal["max", "min"]


def measure(
    subject: Subject,
    data: Iterable[Batch],
    job: Job,
    method: Method,
    *,
    limit: int = 1 << 30,
    totals: bool = False,
    mode: MetricMode = "max",
) -> Sensitivity:
    """Measure what is not known yet, and rank what is.

    Args:
        subject: its model is changed for good, and cannot be measured again.
        data: (input, target) batches. limit: bytes of module results to keep at a time (exact).
        totals: for the other two methods, also the metrics that take forwards of their own.
        mode: whether a high or a low metric is good.

    Raises whatever the model, the metric and the loss raise; what was measured by then is in
    ``job.kept``, and in its folder.
    """
    taken: Exact | Approximate
    try:
        with torch.no_grad(), preserved_rng():
            if method == "exact":
                taken = Exact(subject, job, limit=limit)
            else:
                taken = Approximate(subject, job, gradient=method == "gradient", totals=totals)
            taken.measure(data)
    finally:
        if job.folder is not None:
            job.folder.write(job.kept)
    made = ranking(subject.sites, job, method, mode)
    return replace(made, notes=(*subject.notes, *made.notes))


def ranking(sites: Sequence[Site], job: Job, method: Method, mode: MetricMode) -> Sensitivity:
    """Of all batches that are complete; of what there is of the first one, if none is."""
    kept = job.kept
    wanted = kept.batches if job.batches is None else kept.batches[: job.batches]
    done = [batch for batch in wanted if batch.complete]
    batches = done or wanted[:1]

    def pair(name: str) -> tuple[float | None, float | None]:
        return _mean(batches, name)

    base, loss = pair(FLOAT)
    rows = []
    for site in sites:
        found = _row(site, batches, method, mode, (base, loss))
        rows += [found] if found is not None else []
    rows.sort(key=_costly_first)
    full = pair(QUANTIZED)
    return Sensitivity(
        method,
        tuple(rows),
        complete=not job.stopped,
        forwards=sum(batch.forwards for batch in batches) / max(len(batches), 1),
        seconds=kept.seconds,
        metric_name=job.judge.name,
        float_metric=base,
        quantized_metric=full[0],
        weights_only=pair(WEIGHTS)[0],
        activations_only=pair(ACTIVATIONS)[0],
        samples=sum(batch.samples for batch in batches if batch.values),
        notes=tuple(kept.notes),
        loss_name=job.judge.loss_name,
        float_loss=loss,
        quantized_loss=full[1],
        metric_mode=mode,
        batches=len(batches),
    )


def _row(
    site: Site,
    batches: Sequence[BatchResult],
    method: Method,
    mode: MetricMode,
    base: tuple[float | None, float | None],
) -> SensitivityRow | None:
    found = [batch for batch in batches if site.path in batch.order]
    if not found or only(site.path) not in found[0].values:
        return None
    place = min(batch.order[site.path] for batch in found)
    if method == "exact":
        # Where it does not run, nothing changes with it.
        alone = _mean(batches, only(site.path), FLOAT)
        others = _mean(batches, without(site.path), QUANTIZED)
        if alone[0] is None or base[0] is None:
            return None
        score = base[0] - alone[0] if mode == "max" else alone[0] - base[0]
        return SensitivityRow(
            site.path, site.owner, site.kind, score, alone[0], others[0], alone[1], others[1],
            index=place, loss_increase=_minus(alone[1], base[1]),
        )  # fmt: skip
    error, signal = (
        sum(batch.values[only(site.path)][part] or 0.0 for batch in found) for part in (0, 1)
    )
    if method == "shadow":
        error = error / signal if signal else math.inf if error else 0.0
    return SensitivityRow(site.path, site.owner, site.kind, error, index=place)


def _mean(
    batches: Sequence[BatchResult], name: str, instead: str = ""
) -> tuple[float | None, float | None]:
    """Means of (metric, loss) over the samples; None where a batch lacks it."""
    pairs: list[tuple[Pair, int]] = []
    for batch in batches:
        found = batch.values.get(name, batch.values.get(instead))
        if found is None:
            return None, None
        pairs.append((found, batch.samples))
    samples = sum(count for _, count in pairs)
    if not samples:
        return None, None
    metric = sum(value[0] * count for value, count in pairs) / samples
    losses = [value[1] * count for value, count in pairs if value[1] is not None]
    return metric, sum(losses) / samples if len(losses) == len(pairs) else None


def _minus(one: float | None, two: float | None) -> float | None:
    return one - two if one is not None and two is not None else None


def _costly_first(row: SensitivityRow) -> tuple[float, float, int]:
    """Where metrics are equal the loss decides. What is not a number stands first: it costs all."""
    loss = row.loss_increase or 0.0
    return (
        -math.inf if math.isnan(row.score) else -row.score,
        -math.inf if math.isnan(loss) else -loss,
        row.index,
    )


def compared(made: Sensitivity, exact: Sensitivity | None) -> Sensitivity:
    """``made`` with its rank correlations with ``exact``, over the fake quants that both have."""
    if exact is None or made.method == "exact":
        return made
    theirs = {row.path: row for row in exact.rows}
    common = [row for row in made.rows if row.path in theirs]
    scores = [row.score for row in common]

    def with_exact(value: Callable[[SensitivityRow], float | None]) -> float | None:
        values = [value(theirs[row.path]) for row in common]
        known = [v for v in values if v is not None]
        return spearman(scores, known) if len(known) == len(values) else None

    return replace(
        made,
        spearman=with_exact(lambda row: row.score),
        spearman_loss=with_exact(lambda row: row.loss_increase),
    )
