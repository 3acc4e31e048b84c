"""What came of taking one float model through several flows: records, no tensors."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from qatexplorer.evaluate.metric import MetricValue
from qatexplorer.evaluate.parity import Parity
from qatexplorer.quantizers.types import Mechanism, Seen, SiteKind
from qatexplorer.reports import plain_data, write_report
from qatexplorer.shown import Shown, at_most, columns, listed
from qatexplorer.tables import choose

FLOAT = "float"
"""What stands for the float model where models are named."""

_SAME = 1e-5  # of a scale: sums in another order, and no more


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor of the float model that at least one flow rounds.

    Attributes:
        key: unique, made of the fields after it.
        kind: of what: ``"weight"``, ``"input"`` (of the model) or ``"output"``.
        path: of the module in the float model that holds the weight or makes the result; of an
            operation the module in whose forward it is. ``""`` is the model itself.
        operation: name of the function or method that makes the result, ``""`` where a module does.
        index: number of the input; how many calls of the module, or operations of that name in
            the same forward, come before; of weights 0.
        again: how many fake quants of one flow come before on the very same tensor.
        label: all that for people. source: ``"file.py:12"`` in the user's code, ``""`` if unknown.
        found_in: the flow whose graph has it, where it could not be found in the graph of the float
            model; else ``""``.
    """

    key: str
    kind: SiteKind
    path: str
    operation: str
    index: int
    again: int = 0
    label: str = ""
    source: str = ""
    found_in: str = ""


@dataclass(frozen=True, slots=True)
class Rounding:
    """How one flow rounds the tensor of a place.

    Attributes:
        site: path of the fake quant in the flow's prepared model; class_name of it.
        dtype: e.g. ``"torch.quint8"``; quant_min, quant_max: the codes used.
        qscheme: as torch spells it. ch_axis: None where there is one scale for the whole tensor.
        scale, zero_point: one entry, or one a channel.
        min_val, max_val: the range that the observer has seen; empty where it has seen none.
        seen: what the observer has seen, see :data:`~qatexplorer.quantizers.types.Seen`.
        shared_with: labels of the other places that the same fake quant rounds.
        mechanism: how the fake quant runs, see :data:`~qatexplorer.quantizers.types.Mechanism`.
    """

    site: str
    class_name: str
    dtype: str
    quant_min: int
    quant_max: int
    qscheme: str
    ch_axis: int | None
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    min_val: tuple[float, ...]
    max_val: tuple[float, ...]
    seen: Seen
    shared_with: tuple[str, ...] = ()
    mechanism: Mechanism = "unused"

    @property
    def per_channel(self) -> bool:
        return self.ch_axis is not None

    @property
    def several_scales(self) -> bool:
        """One a channel, or one a group of values."""
        return self.per_channel or len(self.scale) > 1

    @property
    def lowest(self) -> float:
        """The lowest number of the grid, of all channels; NaN without a scale."""
        return min(self._ends(self.quant_min), default=math.nan)

    @property
    def highest(self) -> float:
        """The highest number of the grid, of all channels; NaN without a scale."""
        return max(self._ends(self.quant_max), default=math.nan)

    def _ends(self, code: int) -> list[float]:
        # A qparam per channel and one zero point for all is how torch may store symmetric ones.
        zeros = self.zero_point or (0,)
        zeros = zeros * len(self.scale) if len(zeros) == 1 else zeros
        return [(code - zero) * scale for scale, zero in zip(self.scale, zeros, strict=False)]


@dataclass(frozen=True, slots=True)
class Cell:
    """One place in one flow: how it is rounded there, or in ``why`` a sentence why it is not.

    ``apart``: with all fake quants off, the largest difference of what reaches the fake quant from
    what reaches that of the flow nearest to the float model, as a share of its range; 0.0 where it
    is the same tensor, None where there is nothing to compare it with.
    """

    place: Place
    flow: str
    rounding: Rounding | None
    why: str = ""
    apart: float | None = None


@dataclass(frozen=True, slots=True)
class FlowColumn:
    """What a flow made of the model.

    Attributes:
        flow, title: its name, and what the page calls it. call: that puts the last fake quants in.
        error: why the flow refuses the model, ``""`` if it takes it; where: in the user's model.
        stubs: how eager mode quantizes the input, see :data:`~qatexplorer.flows.base.StubMode`.
        without_stubs: error of the flow with stubs around the model, which made it go without.
        fake_quants: number of them, each object once. places: number of tensors that they round.
        metric: of the model with fake quants; metric_int8: of the int8 model.
        parity: how far int8 is from the fake quants, on the example input.
        not_measured: why one of these is missing, by its name.
        notes: what the flow's stages said.
        unrounded: with all fake quants off, the largest difference of what the model returns from
            the float model, as a share of its range; None where that was not measured.
        departs: how and why it is not the float model then, ``""`` where it is.
    """

    flow: str
    title: str
    call: str
    error: str = ""
    where: str = ""
    stubs: str = "none"
    without_stubs: str = ""
    fake_quants: int = 0
    places: int = 0
    metric: MetricValue | None = None
    metric_int8: MetricValue | None = None
    parity: Parity | None = None
    not_measured: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unrounded: float | None = None
    departs: str = ""


@dataclass(frozen=True, slots=True)
class OutputGap:
    """How far what two models return is apart: ``first`` and ``second`` are names of flows, or
    ``"float"``. ``sqnr_db`` takes the first as the signal: inf where they return the same, None
    where they cannot be compared. ``samples`` is the number of batches."""

    first: str
    second: str
    sqnr_db: float | None
    batches: int


Difference = Literal["codes", "scheme", "channels", "scale", "zero point"]


@dataclass(frozen=True, repr=False)
class Migration(Shown):
    """One float model through several flows, place by place: a guide for moving it from one to
    another.

    Iterates over its ``cells``; ``places`` are in the order of the float model's forward.

    Attributes:
        model: name of the user's class. flows: a column each, in the order asked for.
        cells: every place in every flow that takes the model.
        outputs: what the models return, pair by pair, fake quants on.
        metric: of the float model, None without data.
        batches: that the observers of every flow were shown, the same in the same order.
        on: what they were shown and what the outputs were compared on.
        notes: what is to be said of all of it.
    """

    model: str
    flows: tuple[FlowColumn, ...]
    places: tuple[Place, ...]
    cells: tuple[Cell, ...]
    outputs: tuple[OutputGap, ...] = ()
    metric: MetricValue | None = None
    batches: int = 0
    on: str = ""
    notes: tuple[str, ...] = ()

    @property
    def taken(self) -> tuple[FlowColumn, ...]:
        """The flows that take the model."""
        return tuple(column for column in self.flows if not column.error)

    @cached_property
    def by_place(self) -> Mapping[str, Mapping[str, Cell]]:
        """Cells by key of the place and name of the flow."""
        found: dict[str, dict[str, Cell]] = {place.key: {} for place in self.places}
        for cell in self.cells:
            found[cell.place.key][cell.flow] = cell
        return MappingProxyType(found)

    def differences(self, key: str) -> tuple[Difference, ...]:
        """What is not the same in all flows that round the place: codes, scheme, one scale or one
        a channel, scale, zero point. Empty where one flow at most rounds it."""
        cells = self.by_place[key].values()
        found = [cell.rounding for cell in cells if cell.rounding is not None]
        if len(found) < 2:
            return ()
        first, *others = found
        checks: dict[Difference, bool] = {
            "codes": all(_codes(first) == _codes(other) for other in others),
            "scheme": all(_symmetric(first) == _symmetric(other) for other in others),
            "channels": all(first.ch_axis == other.ch_axis for other in others),
            "scale": all(_near(first.scale, other.scale) for other in others),
            "zero point": all(_zeros(first) == _zeros(other) for other in others),
        }
        return tuple(name for name, same in checks.items() if not same)

    def other_tensor_in(self, key: str) -> tuple[str, ...]:
        """The flows in which another tensor reaches the fake quant, also without any rounding."""
        return tuple(name for name, cell in self.by_place[key].items() if cell.apart)

    def agree(self, key: str) -> bool:
        """Whether all flows that take the model round the place, and to the same grid."""
        cells = self.by_place[key].values()
        return all(cell.rounding is not None for cell in cells) and not self.differences(key)

    def only_in(self, key: str) -> str:
        """The one flow of several that rounds the place, ``""`` where two do, or one is left."""
        having = [name for name, cell in self.by_place[key].items() if cell.rounding is not None]
        return having[0] if len(having) == 1 < len(self.by_place[key]) else ""

    def gap(self, first: str, second: str) -> OutputGap | None:
        """What was found of these two models' outputs."""
        return next((g for g in self.outputs if (g.first, g.second) == (first, second)), None)

    def summary(self) -> str:
        """How many places there are, and in how many the flows agree."""
        taken = [column.flow for column in self.taken]
        if not taken:
            return "No flow takes this model."
        head = f"{_count(len(self.places), 'place')} rounded"
        if len(taken) == 1:
            return f"{head} in {taken[0]}, the only flow that takes this model."
        keys = [place.key for place in self.places]
        alike = sum(map(self.agree, keys))
        differ = sum(bool(self.differences(key)) for key in keys)
        alone = {flow: sum(self.only_in(key) == flow for key in keys) for flow in taken}
        some = len(keys) - alike - differ - sum(alone.values())
        parts = [f"{alike:,} alike in {listed(taken, None)}"]
        parts += [f"{differ:,} not to the same grid"] if differ else []
        parts += [f"{some:,} alike in some of them"] if some else []
        parts += [f"{number:,} in {flow} only" for flow, number in alone.items() if number]
        return f"{head}: {', '.join(parts)}."

    def __iter__(self) -> Any:
        return iter(self.cells)

    def __len__(self) -> int:
        return len(self.cells)

    def __repr__(self) -> str:
        lines = [f"Migration of {self.model}: {self.summary()}"]
        lines += [f"{c.flow} refuses it: {c.error}" for c in self.flows if c.error]
        names = [column.flow for column in self.taken]
        table = [("place", *names)]
        table += [
            (place.label, *(_mark(self.by_place[place.key][name]) for name in names))
            for place in self.places
        ]
        return at_most([*lines, *columns(table)] if self.places else lines)

    def to_pandas(self, records: Literal["cells", "places", "outputs"] = "cells") -> Any:
        """A ``pandas.DataFrame`` of the cells (or of the places, or the pairs of outputs).

        Columns are the fields of :class:`Cell`, as ``place.key`` and ``rounding.scale`` (or those
        of :class:`Place`, :class:`OutputGap`). Raises InputError for another choice, and if pandas
        is not installed.
        """
        return choose(
            records,
            {
                "cells": (Cell, self.cells),
                "places": (Place, self.places),
                "outputs": (OutputGap, self.outputs),
            },
        )

    def report(
        self, path: str | os.PathLike[str] = "migration.html", *, overwrite: bool = False
    ) -> Path:
        """Write it to one HTML file that needs no network and no script.

        Returns the absolute path. Raises ReportError; an older file then stays as it was.
        """
        return write_report(self, path, overwrite)

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON: numbers that JSON does not have are None (NaN) or text (``"inf"``).

        ``places`` have ``flows``, by name: how it is rounded there, or ``{"why": …}``.
        """
        result = {
            "model": self.model,
            "summary": self.summary(),
            "on": self.on,
            "batches": self.batches,
            "flows": [_column(column) for column in self.flows],
            "places": [self._place(place) for place in self.places],
            "outputs": [asdict(gap) for gap in self.outputs],
            "metric": None if self.metric is None else asdict(self.metric),
            "notes": list(self.notes),
        }
        plain: dict[str, Any] = plain_data(result)
        return plain

    def _place(self, place: Place) -> dict[str, Any]:
        cells = self.by_place[place.key]
        flows = {
            name: {"why": cell.why}
            if cell.rounding is None
            else {**asdict(cell.rounding), "lowest": cell.rounding.lowest,
                  "highest": cell.rounding.highest}
            for name, cell in cells.items()
        }  # fmt: skip
        return {**asdict(place), "differences": self.differences(place.key), "flows": flows}


def _column(column: FlowColumn) -> dict[str, Any]:
    made = {name: getattr(column, name) for name in FlowColumn.__dataclass_fields__}
    for name in ("metric", "metric_int8", "parity"):
        made[name] = None if made[name] is None else asdict(made[name])
    parity = column.parity
    if parity is not None:
        made["parity"] |= {"summary": parity.summary(), "far": parity.far, "half": parity.half}
    return made


def _codes(one: Rounding) -> tuple[int, int]:
    # torch.quint8 and torch.uint8 are two names of the same codes.
    return one.quant_min, one.quant_max


def _symmetric(one: Rounding) -> bool:
    return "symmetric" in one.qscheme


def _zeros(one: Rounding) -> set[int] | tuple[int, ...]:
    return one.zero_point if len(set(one.zero_point)) > 1 else set(one.zero_point)


def _near(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return len(first) == len(second) and all(
        math.isclose(a, b, rel_tol=_SAME) for a, b in zip(first, second, strict=True)
    )


def _mark(cell: Cell) -> str:
    if cell.rounding is None:
        return "–"
    one = cell.rounding
    channels = f"{len(one.scale):,} scales" if one.several_scales else f"{one.scale[0]:.4g}" \
        if one.scale else "no scale"  # fmt: skip
    return f"{one.quant_min}…{one.quant_max} {channels}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")
