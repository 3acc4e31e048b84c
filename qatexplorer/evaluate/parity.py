"""How far the int8 model is from the fake-quant model that it was made of, place by place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from qatexplorer.data import call_model, cloned
from qatexplorer.evaluate.pairs import Pair, by_nodes, on_grid, pairs_of
from qatexplorer.forward.hooks import hooked
from qatexplorer.forward.preserve import preserved_state
from qatexplorer.forward.trace import tensors_in
from qatexplorer.forward.visit import Place, Sample, Visit, sample_of, visited
from qatexplorer.quantizers.facts import fake_quants, kinds_of, switch
from qatexplorer.shown import Shown, at_most, columns
from qatexplorer.tables import table

HALF, FAR = 0.5, 1.5
"""Steps of the output's grid. Less than half a step is the same code; up to one step is what
rounding the other way makes."""
_HAIR = 1e-3  # of a step, for float32
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class ParityRow:
    """What one int8 result differs by from what the fake quant gave there.

    Attributes:
        path: of the module, or name of the operation's node in an FX graph.
        call: how many calls of it came before in the same forward.
        step: of the int8 result's grid. outputs: number of values; compared: of them.
        half, far: share of those compared that are more than :data:`HALF` and :data:`FAR` steps
            apart. largest: difference, in steps.
        step_trained: of the fake quant's grid, 0.0 where that is not known.
    """

    path: str
    call: int
    step: float
    outputs: int
    compared: int
    half: float
    far: float
    largest: float
    step_trained: float = 0.0


@dataclass(frozen=True)
class Parity(Shown):
    """Fake-quant and int8 model on the same input.

    Attributes:
        rows: one a place whose int8 result is on a grid, in the order of the forward.
        output: largest difference of what the models return, as a share of the range of what the
            fake-quant model returns; None where they cannot be compared.
    """

    rows: tuple[ParityRow, ...] = ()
    output: float | None = None

    @property
    def half(self) -> float:
        """Share of all outputs of :attr:`rows` that are more than half a step apart."""
        return self._mean([row.half for row in self.rows])

    @property
    def far(self) -> float:
        """Share of all outputs of :attr:`rows` that are more than 1.5 steps apart."""
        return self._mean([row.far for row in self.rows])

    @property
    def largest(self) -> float:
        """The largest difference in steps of its place's grid; 0.0 without rows."""
        return max((row.largest for row in self.rows), default=0.0)

    @property
    def first(self) -> ParityRow | None:
        """The first place where any output is more than 1.5 steps apart, None for none."""
        return next((row for row in self.rows if row.far > 0), None)

    def _mean(self, shares: list[float]) -> float:
        sizes = [row.outputs for row in self.rows]
        total = sum(sizes)
        return sum(s * n for s, n in zip(shares, sizes, strict=True)) / total if total else 0.0

    def summary(self) -> str:
        """``"fake quant and int8: 0.4 % of outputs more than 1.5 steps apart, largest 3 steps"``"""
        if not self.rows:
            return "fake quant and int8: no output that both have on one grid"
        share = "no output is" if self.largest <= FAR else f"{percent(self.far)} of outputs"
        return f"fake quant and int8: {share} more than 1.5 steps apart, largest {steps(self)}"

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame``, a row a place. Raises InputError without pandas."""
        return table(ParityRow, self.rows)

    def __repr__(self) -> str:
        lines = [f"{self.summary()} (on the example input)"]
        if self.output is not None:
            lines.append(f"the model's output: at most {percent(self.output)} of its range apart")
        far = sorted(self.rows, key=lambda row: -row.largest)[:_SHOWN]
        if far:
            body = [
                (row.path, percent(row.half), percent(row.far), f"{row.largest:.3g}") for row in far
            ]
            head = ("the furthest apart", "> 0.5 steps", "> 1.5 steps", "largest")
            lines += columns([head, *body], right=(1, 2, 3))
        return at_most(lines)


def percent(share: float) -> str:
    """A share with one digit, two for a small one, ``"less than 0.01 %"`` for a tiny one."""
    value = share * 100
    if value == 0:
        return "0 %"
    if value < 0.01:
        return "less than 0.01 %"
    return f"{value:.2f} %" if value < 0.1 else f"{value:.1f} %"


def steps(parity: Parity | ParityRow) -> str:
    """Its largest difference in words, e.g. ``"3 steps"``."""
    text = f"{parity.largest:.3g}"
    return f"{text} step" if text == "1" else f"{text} steps"


OnRow = Callable[[ParityRow, Pair, Visit], object]
"""Sees a row as soon as it is known, within the int8 forward."""


class ParityRun:
    """Runs a prepared model with its fake quants on, then watches the int8 one.

    Args:
        prepared: is run once, in eval mode, with observers off, and put back as it was.
        inputs: for one forward. on_row: see :data:`OnRow`.
        weights_observe: leaves on the observers of weights, as a training step does: torch's fused
            fake quant computes its scale in no other way.

    Raises what the forward raises.
    """

    def __init__(
        self,
        prepared: nn.Module,
        inputs: Any,
        on_row: OnRow | None = None,
        weights_observe: bool = False,
    ) -> None:
        self.prepared, self.inputs = prepared, inputs
        self.on_row = on_row
        self._nodes = by_nodes(prepared)
        self._fake: dict[Place, Sample] = {}
        self._rows: list[ParityRow] = []
        self._output: float | None = None
        with preserved_state(prepared), torch.no_grad():
            prepared.eval()
            kinds = kinds_of(prepared) if weights_observe else {}
            for path, module in fake_quants(prepared).items():
                switch(module, observer=kinds.get(path) == "weight", fake_quant=True)
            self._outputs = run(prepared, inputs, self._fake, nodes=self._nodes)

    @property
    def parity(self) -> Parity:
        """What was found so far."""
        return Parity(tuple(self._rows), self._output)

    def watching(self, int8: nn.Module) -> AbstractContextManager[None]:
        """Within this, one forward of ``int8`` is compared."""
        return self._watching(int8)

    @contextmanager
    def _watching(self, int8: nn.Module) -> Iterator[None]:
        pairs = pairs_of(self.prepared, int8)

        def visit(visit: Visit) -> None:
            if visit.node is not None and visit.node.op == "output":
                self._compare_outputs(visit.result)
                return
            pair = pairs.of(visit)
            visit = on_grid(visit, pair)
            here = sample_of(visit.result) if pair is not None else None
            if pair is None or here is None or here.scale is None:
                return
            fake = self._fake.get(pair.fake)
            if fake is None or fake.values.shape != here.values.shape:
                return
            row = row_of(pair, fake.values, here)
            self._rows.append(row)
            if self.on_row is not None:
                self.on_row(row, pair, visit)

        def over(_path: str, _model: nn.Module, _args: Any, _kwargs: Any, result: Any) -> None:
            self._compare_outputs(result)

        by_node = self._nodes and isinstance(int8, fx.GraphModule)  # its output is a node
        watched = hooked([] if by_node else [("", int8)], left=over)
        with watched, visited(int8, visit, nodes=self._nodes):
            yield

    def _compare_outputs(self, result: Any) -> None:
        gap = apart(self._outputs, outputs_of(result))
        self._output = gap if gap == gap else None


def run(model: nn.Module, inputs: Any, into: dict[Place, Sample], *, nodes: bool) -> list[Tensor]:
    """Run ``model`` once, keep a sample of each result in ``into``; returns its outputs. ``nodes``
    is that of :func:`~qatexplorer.forward.visit.visited`.

    The caller sets its mode, and preserves its state.
    """

    def keep(visit: Visit) -> None:
        found = sample_of(visit.result)
        if found is not None:
            into[visit.place] = found

    with visited(model, keep, nodes=nodes):
        return outputs_of(call_model(model, cloned(inputs)))


def outputs_of(result: Any) -> list[Tensor]:
    """The tensors of numbers that a model returns, as float32 on the CPU."""
    found = (t.dequantize() if t.is_quantized else t for t in tensors_in(result))
    return [t.detach().float().cpu().clone() for t in found if t.is_floating_point()]


def apart(wanted: list[Tensor], found: list[Tensor]) -> float:
    """Largest difference as a share of the range of what is wanted; infinite where one of them is
    not finite and the other is; NaN where they cannot be compared."""
    if len(wanted) != len(found) or any(a.shape != b.shape for a, b in zip(wanted, found)):  # noqa: B905
        return float("nan")
    shares = []
    for a, b in zip(wanted, found, strict=True):
        if not a.numel():
            continue
        good, same = a.isfinite(), a.isfinite() & b.isfinite()
        if bool((good & ~b.isfinite()).any()):
            return float("inf")
        if bool(same.any()):
            a, b = a[same].double(), b[same].double()
            spread = max(float(a.max() - a.min()), float(a.abs().max()), 1e-12)
            shares.append(float((a - b).abs().max()) / spread)
    return max(shares, default=float("nan"))


def row_of(pair: Pair, fake: Tensor, here: Sample) -> ParityRow:
    """The row of one place. Values of the fake quant that are not finite count as far apart."""
    assert here.scale is not None
    gap = ((fake - here.values).abs() / here.scale).nan_to_num(float("inf"))
    path, call = pair.name
    return ParityRow(
        path,
        call,
        here.scale,
        here.size,
        gap.numel(),
        float((gap > HALF + _HAIR).float().mean()),
        float((gap > FAR + _HAIR).float().mean()),
        float(gap.max()),
        pair.trained_step,
    )
