"""What studies have measured, and its tables: Markdown that a terminal shows well too."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from qatexplorer.studies.base import Study
from qatexplorer.studies.effort import Effort
from qatexplorer.studies.verdict import Spread, spread, verdict

_WIDTH = 100
_NONE = "–"


@dataclass(frozen=True)
class Results:
    """What was measured for some studies.

    Attributes:
        studies, effort, seeds: what was asked for.
        values: by seed, then by the name of the value, in per cent.
        seconds: that the jobs took, all together. on: what they ran on: different ones by name.
        done, total: jobs. headed: its text begins with what holds for all studies.
    """

    studies: tuple[Study, ...]
    effort: Effort
    seeds: int
    values: Mapping[int, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    seconds: float = 0.0
    on: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    done: int = 0
    total: int = 0
    headed: bool = True

    def of(self, study: Study, value: str) -> dict[int, float]:
        """The value of a study by seed, for the seeds that have it."""
        arms = {arm.name for arm in study.arms}
        return {
            seed: found[value]
            for seed, by_arm in sorted(self.values.items())
            for name, found in by_arm.items()
            if name in arms and value in found
        }

    def __getitem__(self, name: str) -> Results:
        """The same of one study, by its id, for its table alone. Raises KeyError."""
        found = tuple(study for study in self.studies if study.id == name)
        if not found:
            raise KeyError(name)
        return replace(self, studies=found, headed=False)

    def __repr__(self) -> str:
        """The tables, as Markdown."""
        return as_markdown(self)

    def _repr_markdown_(self) -> str:
        return repr(self)


def as_markdown(results: Results) -> str:
    """All tables of ``results``, with what they were measured on."""
    head = [_head(results)] if results.headed else []
    parts = [*head, *(_study(results, study) for study in results.studies)]
    return "\n\n".join(parts)


def _head(results: Results) -> str:
    seeds = f"{results.seeds} seed{'' if results.seeds == 1 else 's'}"
    text = (
        f"{results.done} of {results.total} jobs (an arm with a seed) are done, "
        f"{seeds}, and took {results.seconds / 60:,.1f} minutes altogether. "
        "Each seed trains its float nets anew. Values are the accuracy on 540 images, unless they "
        "are said to be something else: mean ± standard deviation of n seeds. A part of a claim "
        "comes out (yes) or does not (no) "
        "where the mean of the differences, seed by seed, lies farther from zero, or from the "
        "limit, than they spread."
    )
    lines = [text, *_smaller(results.effort)]
    on = [f"{name}: {', '.join(texts)}" for name, texts in results.on.items()]
    if on:
        lines.append("; ".join(on) + ".")
    return "\n\n".join(textwrap.fill(line, _WIDTH, break_on_hyphens=False) for line in lines)


def _smaller(effort: Effort) -> list[str]:
    """What is to be said of results with less than full effort."""
    less = [f"{effort.share:.0%} of the epochs"] if effort.share != 1 else []
    less += [f"{effort.samples} training images"] if effort.samples is not None else []
    if not less:
        return []
    said = f"**Smaller than the studies are meant to be ({effort.name}): {' and '.join(less)}.**"
    return [f"{said} What comes out here says little of them."]


def _study(results: Results, study: Study) -> str:
    values = [("value, %", "published, large net", "here", "n")]
    for row in study.rows:
        found = spread(results.of(study, row.value))
        count = str(found.count) if found else "0"
        values.append((row.title, row.published or _NONE, _shown(found), count))
    parts = [("claim", "published", "here, points", "comes out here")]
    for reading in study.readings:
        got = verdict(reading, results.of(study, reading.of), results.of(study, reading.against))
        text = reading.text
        if reading.claim == "at most":
            text += f" (at most {reading.limit:g}: {reading.why})"
        difference = _shown(got.difference, signed=True)
        parts.append((text, reading.published or _NONE, difference, str(got)))
    texts = (
        f"{study.claim} Source: {study.source}.",
        f"Here: {study.nets}.",
        f"Why sizes differ: {study.sizes}",
    )
    tables = [_table(values), _table(parts)]
    if not results.headed:
        tables += _smaller(results.effort)
    filled = [textwrap.fill(text, _WIDTH, break_on_hyphens=False) for text in texts]
    return "\n\n".join([f"## {study.id}: {study.title}", *filled[:2], *tables, filled[2]])


def _shown(found: Spread | None, signed: bool = False) -> str:
    if found is None:
        return "not run"
    mean = f"{found.mean:+.2f}" if signed else f"{found.mean:.2f}"
    mean = mean.replace("-", "−")
    return mean if found.deviation is None else f"{mean} ± {found.deviation:.2f}"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
