"""What a benchmark has measured, as records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qatexplorer.evaluate.evaluation import format_latency, format_size
from qatexplorer.evaluate.measure import Latency
from qatexplorer.evaluate.profiled import OperatorTime
from qatexplorer.shown import Shown, at_most, columns
from qatexplorer.tables import choose

FEWEST = 3
"""Measurements of each form at the least: fewer have no spread to tell a difference by."""

FORMS = ("float", "compiled", "int8")
FORM_LABELS = {"float": "float", "compiled": "compiled float", "int8": "int8"}


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """One form of the model at one batch size.

    Attributes:
        form: one of :data:`FORMS`. batch_size: length of the inputs' first dimension.
        latency: of one forward, None where ``note`` says why there is none.
        per_second: samples a second at the median.
        peak_bytes: what torch's CPU allocator holds at most during a forward beside weights and
            inputs: activations, output and buffers of operators.
        size_bytes: of the state_dict, written by ``torch.save``.
        note: what is to be known of this row.
    """

    form: str
    batch_size: int
    latency: Latency | None = None
    per_second: float | None = None
    peak_bytes: int | None = None
    size_bytes: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class ModuleTime:
    """One module in one form of the model, in one forward of the largest batch.

    Attributes:
        path: of the module, ``""`` for the model. type: its class.
        seconds: in the module and all below it, median. own_s: of that, not in the modules below.
        share: ``own_s`` of the model's forward as the hooks see it, 0 to 1.
    """

    form: str
    path: str
    type: str
    seconds: float
    own_s: float
    share: float


@dataclass(frozen=True)
class Benchmark(Shown):
    """Latency, throughput, size and memory of float, compiled float and int8 on this machine.

    Attributes:
        rows: by form, then batch size. modules: of float and int8, in the order of the model.
        operators: of float and int8, the longest first.
        cpu: its name. threads: that torch computed with. engine: of the int8 kernels.
        form: what the form ``"int8"`` is called, where it holds other numbers.
        torch: version. load: mean number of processes that wanted a CPU in the minute before, None
            where the system does not say. seconds: that the whole took.
        complete: False if it was stopped; what was not measured is missing then.
        notes: what else is to be known.
    """

    rows: tuple[BenchmarkRow, ...] = ()
    modules: tuple[ModuleTime, ...] = ()
    operators: tuple[OperatorTime, ...] = ()
    cpu: str = ""
    threads: int = 0
    engine: str = ""
    form: str = FORM_LABELS["int8"]
    torch: str = ""
    load: float | None = None
    seconds: float = 0.0
    complete: bool = True
    notes: tuple[str, ...] = ()

    def words(self, form: str) -> str:
        """What a form of :data:`FORMS` is called."""
        return self.form if form == "int8" else FORM_LABELS.get(form, form)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Those of :attr:`rows`, in order."""
        return tuple(dict.fromkeys(row.batch_size for row in self.rows))

    def row(self, form: str, batch_size: int) -> BenchmarkRow | None:
        """The row of one form at one batch size, None if there is none."""
        for row in self.rows:
            if (row.form, row.batch_size) == (form, batch_size):
                return row
        return None

    def compared(self, batch_size: int, form: str = "int8", with_form: str = "float") -> str:
        """Which of two forms is faster, in words with the numbers; ``""`` where one is missing.

        Two whose middle halves overlap (the quartiles) are not told apart.
        """
        mine, other = self.row(form, batch_size), self.row(with_form, batch_size)
        if mine is None or other is None or mine.latency is None or other.latency is None:
            return ""
        a, b = mine.latency, other.latency
        one, two = self.words(form), self.words(with_form)
        numbers = f"{format_latency(a)} and {format_latency(b)}"
        where = f"at a batch of {batch_size}"
        if min(a.repeats, b.repeats) < FEWEST:
            return f"{one} and {two} were measured too few times to compare {where}: {numbers}."
        if a.q1_s <= b.q3_s and b.q1_s <= a.q3_s:
            return (
                f"{one} and {two} cannot be told apart {where}: {numbers}, and the spreads overlap."
            )
        slower = a.median_s > b.median_s
        ratio = max(a.median_s, b.median_s) / max(min(a.median_s, b.median_s), 1e-12)
        times = f"{ratio:.3g}" if ratio < 1.1 else f"{ratio:.2g}"
        if slower:
            return f"{one} is slower than {two} {where}: {numbers}, {times} times as long."
        return f"{one} is faster than {two} {where}: {numbers}, {times} times as fast."

    @property
    def sentences(self) -> tuple[str, ...]:
        """int8 and compiled float against float, int8 against compiled float, by batch size."""
        pairs = (("int8", "float"), ("compiled", "float"), ("int8", "compiled"))
        found = (self.compared(n, a, b) for n in self.batch_sizes for a, b in pairs)
        return tuple(filter(None, found))

    @property
    def conditions(self) -> str:
        """Where and how it was measured, one line."""
        parts = [self.cpu, f"{self.threads} thread{'s' if self.threads != 1 else ''}"]
        parts += [f"int8 engine {self.engine}"] if self.engine else []
        parts += [f"torch {self.torch}"] if self.torch else []
        parts += [f"load {self.load:.1f} before"] if self.load is not None else []
        return ", ".join(filter(None, parts))

    @property
    def method(self) -> str:
        """How many measurements each number is of, one sentence; ``""`` without any."""
        timed = [row.latency for row in self.rows if row.latency is not None]
        if not timed:
            return ""
        low, high = min(one.repeats for one in timed), max(one.repeats for one in timed)
        several = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        runs = [one.runs_each for one in timed]
        each = f"{min(runs):,}" if min(runs) == max(runs) else f"{min(runs):,} to {max(runs):,}"
        return (
            f"Median and spread (IQR) of {several} measurements by turns, each the mean of {each} "
            f"forward{'s' if each != '1' else ''}."
        )

    def to_pandas(self, what: str = "rows") -> Any:
        """A ``pandas.DataFrame`` of ``"rows"``, ``"modules"`` or ``"operators"``.

        Raises InputError for another name, and without pandas.
        """
        return choose(
            what,
            {
                "rows": (BenchmarkRow, self.rows),
                "modules": (ModuleTime, self.modules),
                "operators": (OperatorTime, self.operators),
            },
        )

    def row_texts(self, row: BenchmarkRow) -> tuple[str, ...]:
        """Form, batch, latency, spread, throughput, peak memory, size and note as text."""
        return (
            self.words(row.form),
            str(row.batch_size),
            format_latency(row.latency),
            "–" if row.latency is None else f"{row.latency.iqr_s * 1_000:.2g} ms",
            "–" if row.per_second is None else f"{row.per_second:,.0f}",
            format_size(row.peak_bytes),
            format_size(row.size_bytes),
            row.note,
        )

    def __repr__(self) -> str:
        head = ("model", "batch", "latency", "IQR", "samples/s", "peak memory", "size", "note")
        body = [self.row_texts(row) for row in self.rows]
        lines = [f"latency on {self.conditions}", *columns([head, *body], right=(1, 2, 3, 4, 5, 6))]
        lines += self.sentences
        lines += [self.method] if self.method else []
        for form in ("float", "int8"):
            top = sorted((m for m in self.modules if m.form == form), key=lambda m: -m.own_s)[:3]
            shown = ", ".join(f"{m.path or 'the model itself'} {m.share:.0%}" for m in top)
            lines += [f"most time of {self.words(form)}: {shown}"] if shown else []
        lines += self.notes
        lines += [] if self.complete else ["Stopped before all was measured."]
        return at_most(lines)
