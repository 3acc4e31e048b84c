"""What the ledger says: who put each fake quant there, what stays float, what is one too many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

from qatexplorer.quantizers.types import Seen
from qatexplorer.shown import Shown, at_most, columns
from qatexplorer.tables import choose

Role = Literal["fake quant", "observer", "inner observer"]
RedundancyKind = Literal["double", "twice", "shared"]

Reason = Literal[
    "no_qconfig",
    "type_not_in_mapping",
    "subclass_not_in_mapping",
    "functional_op",
    "not_fused",
    "not_matched",
    "dtype_not_in_backend_config",
    "below_non_traceable",
    "never_executed",
    "custom_without_entry",
    "root_module",
    "float_input",
    "not_annotated",
    "no_int8_kernel",
]

Cause = Literal[
    "none", "never_observed", "fused_formula", "moving_average", "stale", "fixed", "unexplained"
]


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """The tensor that a fake quant quantizes, named so that two flows can be compared.

    Attributes:
        key: ``"input:0"``, ``"module:<path>:<port>"``, ``"op:<name>:<n-th of that name>"``,
            ``"param:<name>"``, or ``""`` if it was never seen.
        label: the same for a user.
        module, port: path of the module whose raw output it is, and which output; ``""``, 0 else.
        shape: of the tensor, None if it never ran.
    """

    key: str = ""
    label: str = ""
    module: str = ""
    port: int = 0
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One fake quant or observer module: a row for each object, inner observers too.

    Attributes:
        path: of the module; ``part_of`` the fake quant that an inner observer sits in, else "".
        role: fake quant, bare observer, or the observer inside a fake quant.
        kind: ``"weight"``, ``"input"`` or ``"output"``.
        class_name: e.g. ``"FusedMovingAvgObsFakeQuantize"``.
        stage, call: which stage and torch call made it.
        mechanism: ``"forward"``, ``"hook"``, ``"node"``, ``"fused kernel"`` (an inner observer
            whose buffers the fused C++ op writes) or ``"unused"``.
        calls_per_forward: how often its ``forward`` was called in one forward of the example.
        observer_runs: of the observer inside: ``"module"``, ``"fused kernel"`` or ``"never"``.
        owner, owner_type: the module that it works for; of an inner observer, the fake quant.
        tensor: what it quantizes. tensors: all of them, if it runs on several.
        shared_with: other names of this object, and the other places it serves.
        redundant_with: paths of fake quants that quantize the same values right before or after.
        scale: as stored, one entry per channel or one. recomputed_scale: what the module's own
            ``calculate_qparams()`` returns now.
        scale_difference: ``recomputed / stored - 1`` of the channel where it is largest, None if
            either is missing. cause, cause_text: why, from the values and not from the class.
        fresh_scale: what the module's observer would compute from nothing but the tensor of the
            example forward; fresh_difference and fresh_cause the same way.
        ghost: it is in the model and not on the path of the data; ghost_text says how.
        seen: what its observer has seen, see :data:`~qatexplorer.quantizers.types.Seen`.
        observer_enabled, fake_quant_enabled: the flags.
        selection: selection string of the row.
    """

    path: str
    role: Role
    kind: str
    class_name: str
    stage: str
    call: str
    mechanism: str
    calls_per_forward: int
    observer_runs: str
    owner: str
    owner_type: str
    tensor: TensorPlace = TensorPlace()
    tensors: tuple[TensorPlace, ...] = ()
    part_of: str = ""
    shared_with: tuple[str, ...] = ()
    redundant_with: tuple[str, ...] = ()
    scale: tuple[float, ...] = ()
    recomputed_scale: tuple[float, ...] = ()
    scale_difference: float | None = None
    cause: Cause = "none"
    cause_text: str = ""
    fresh_scale: tuple[float, ...] = ()
    fresh_difference: float | None = None
    fresh_cause: Cause = "none"
    ghost: bool = False
    ghost_text: str = ""
    seen: Seen = "nothing"
    observer_enabled: bool = True
    fake_quant_enabled: bool = True
    selection: str = ""


@dataclass(frozen=True, slots=True)
class FloatRow:
    """A module or an operation that stays float in the int8 model.

    ``what`` is ``"module"`` or ``"op"``; ``path`` the module, or for an op the module whose
    forward calls it; ``params`` and ``macs`` what it holds and computes in one forward of the
    example input; ``source`` the line of an op in the user's code.
    """

    what: Literal["module", "op"]
    path: str
    name: str
    reason: Reason
    sentence: str
    fix: str
    params: int = 0
    macs: int = 0
    source: str = ""
    selection: str = ""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the model will run in int8.

    MACs are multiply-accumulates of one forward of the example input, with the shapes that really
    occurred: half of what the formulas of ``torch.utils.flop_counter`` give for convolutions and
    matrix products. ``basis`` says how it was found out: ``"int8 run"`` (a converted copy ran),
    ``"converted types"`` (a copy was converted and does not run), ``"structure"`` or ``"exported
    graph"`` (the graph of an exported model says so).
    """

    params_total: int
    params_int8: int
    macs_total: int
    macs_int8: int
    basis: str

    @property
    def params_share(self) -> float:
        """0 to 1."""
        return self.params_int8 / self.params_total if self.params_total else 0.0

    @property
    def macs_share(self) -> float:
        """0 to 1."""
        return self.macs_int8 / self.macs_total if self.macs_total else 0.0


@dataclass(frozen=True, slots=True)
class RedundancyNumbers:
    """A redundancy on the example input, in eval mode with observers off.

    Attributes:
        values, changed: elements that reach the second fake quant, and those it changes.
        max_steps: the largest change, in steps of the second one's grid.
        sqnr_db: signal to noise that the second one adds to the tensor, inf if it changes nothing.
        output_sqnr_db: the same at the model's output, with the second one against without it.
            That takes a forward for each redundancy: None unless it was asked for, or it is the
            only one. What all of them do together is in :class:`Ledger`.
        scale_first, scale_second: stored scales (the first channel's).
        observed_for_this: no data had been seen, so the observers were shown the example first.
    """

    values: int
    changed: int
    max_steps: float
    sqnr_db: float
    output_sqnr_db: float | None
    scale_first: float
    scale_second: float
    observed_for_this: bool = False

    @property
    def changed_share(self) -> float:
        return self.changed / self.values if self.values else 0.0

    @property
    def scale_difference(self) -> float:
        """``second / first - 1``."""
        return self.scale_second / self.scale_first - 1 if self.scale_first else float("nan")


@dataclass(frozen=True, slots=True)
class StepCost:
    """Forward and backward with the second fake quant and without, measured by turns, in seconds.

    ``with_s`` is the median of whole steps, ``taken_s`` the median of the differences of the pairs
    and ``spread_s`` half of their interquartile range: a difference below it is noise.
    """

    with_s: float
    taken_s: float
    spread_s: float
    rounds: int

    @property
    def share(self) -> float:
        """Part of the step's time that the second one takes."""
        return self.taken_s / self.with_s if self.with_s else 0.0

    @property
    def measurable(self) -> bool:
        """Whether the difference stands out of the noise."""
        return self.taken_s > self.spread_s


@dataclass(frozen=True, slots=True)
class Redundancy:
    """Values that are fake-quantized more than once, or one fake quant that serves several.

    Attributes:
        kind: ``"double"`` (two modules on the same values), ``"twice"`` (one module runs again on
            its own output) or ``"shared"`` (one module for several tensors).
        fault: whether it costs something and should go; sharing on purpose is none.
        first, second: paths of the fake quants (the same path if it is one module).
        places: what the first and the second, or all the shared uses, quantize.
        through: value-keeping operations between the two.
        edges: selection strings of the graph's edges between the two.
        evidence: what was seen that proves it by structure.
        numbers: what it does to the values, None for sharing. step: what it costs in time.
        drift: (training step, second scale / first scale - 1) from the run's telemetry.
        cost, fix: for a user.
    """

    kind: RedundancyKind
    fault: bool
    first: str
    second: str
    places: tuple[TensorPlace, ...]
    through: tuple[str, ...]
    evidence: str
    fix: str
    edges: tuple[str, ...] = ()
    numbers: RedundancyNumbers | None = None
    step: StepCost | None = None
    drift: tuple[tuple[int, float], ...] = ()
    cost: str = ""

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.first, self.second)))


@dataclass(frozen=True, repr=False)
class Ledger(Shown):
    """The whole account of one prepared model. ``warnings`` are loud, ``notes`` are not.

    Iterates over its ``rows``, and its length is their number.

    ``together_sqnr_db`` is the signal to noise at the model's output, with all redundant calls
    against without any of them, from one forward each: what they do together, not a sum of what
    each does. None if there is none.
    """

    flow: str
    stage: str
    rows: tuple[LedgerRow, ...]
    floats: tuple[FloatRow, ...]
    redundancies: tuple[Redundancy, ...]
    coverage: Coverage
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    together_sqnr_db: float | None = None

    def __iter__(self) -> Iterator[LedgerRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        shown = self.coverage
        roles = Counter(row.role for row in self.rows)
        reasons = Counter(row.reason for row in self.floats)
        lines = [
            f"Ledger of flow {self.flow} at stage {self.stage!r}: "
            + (", ".join(f"{n:,} × {role}" for role, n in roles.items()) or "no fake quant"),
        ]
        share = f"{shown.params_share:.1%} of parameters, {shown.macs_share:.1%} of MACs"
        lines.append(f"in int8: {share} ({shown.basis})")
        if reasons:
            why = ", ".join(f"{reason} × {n:,}" for reason, n in reasons.most_common())
            lines.append(f"stays float: {len(self.floats):,} ({why})")
        lines += [f"warning: {warning}" for warning in self.warnings[:3]]
        faults = Counter((f.kind, f.first, f.second) for f in self.faults)
        lines += [f"{kind}: {one}, {two}" for kind, one, two in list(faults)[:3]]
        if self.ghosts:
            lines.append(f"not on the path of the data: {len(self.ghosts):,}")
        table = [("fake quant", "kind", "runs by", "calls", "stage", "made by")]
        table += [
            (r.path, r.kind, r.mechanism, str(r.calls_per_forward), r.stage, r.call.split("(")[0])
            for r in self.sites
        ]
        return at_most([*lines, *columns(table, right=(3,))] if self.sites else lines)

    def to_pandas(self, records: Literal["rows", "floats", "redundancies"] = "rows") -> Any:
        """A ``pandas.DataFrame`` of the rows (or of what stays float, or the redundancies).

        Columns are the fields of :class:`LedgerRow` (or :class:`FloatRow`, :class:`Redundancy`);
        a record in a record has its own, as ``tensor.label`` and ``numbers.sqnr_db``. Raises
        InputError for another choice, and if pandas is not installed.
        """
        return choose(
            records,
            {
                "rows": (LedgerRow, self.rows),
                "floats": (FloatRow, self.floats),
                "redundancies": (Redundancy, self.redundancies),
            },
        )

    @cached_property
    def by_path(self) -> Mapping[str, LedgerRow]:
        """Rows by path."""
        return MappingProxyType({row.path: row for row in self.rows})

    def of(self, owner: str) -> tuple[LedgerRow, ...]:
        """Rows of the fake quants that module ``owner`` has, inner observers after theirs."""
        mine = {row.path for row in self.rows if row.owner == owner and not row.part_of}
        return tuple(row for row in self.rows if row.path in mine or row.part_of in mine)

    @property
    def sites(self) -> tuple[LedgerRow, ...]:
        """Fake quants and bare observers, without the observers inside."""
        return tuple(row for row in self.rows if not row.part_of)

    @property
    def ghosts(self) -> tuple[LedgerRow, ...]:
        """Fake quants that are not on the path of the data."""
        return tuple(row for row in self.sites if row.ghost)

    @property
    def faults(self) -> tuple[Redundancy, ...]:
        """Redundancies that should go."""
        return tuple(found for found in self.redundancies if found.fault)
