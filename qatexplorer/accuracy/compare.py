"""Float, fake quant and int8 on the same inputs, in one forward of each a batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from qatexplorer.accuracy.causes import Probe
from qatexplorer.accuracy.kept import Kept, unwatched
from qatexplorer.accuracy.matching import Head, Match, Matcher, Source
from qatexplorer.accuracy.records import CompareRow, Comparison, Scatter
from qatexplorer.accuracy.spread import POINTS, Points, Spread, picked
from qatexplorer.accuracy.structure import leaves
from qatexplorer.accuracy.sums import (
    Alone,
    Apart,
    InSteps,
    OneGrid,
    Scratch,
    add_fake_quant,
    add_int8,
    flat_alike,
)
from qatexplorer.accuracy.weights import WeightRows
from qatexplorer.data import call_model, cloned, on_device
from qatexplorer.errors import StoppedError
from qatexplorer.evaluate.pairs import Pairs, by_nodes, pairs_of
from qatexplorer.forward.preserve import preserved_state
from qatexplorer.forward.trace import tensors_in
from qatexplorer.forward.visit import Place, Visit, visited
from qatexplorer.garbage import cycles_collected_later
from qatexplorer.quantizers.engine import quantized_engine
from qatexplorer.quantizers.facts import Grid, fake_quants, grid_of, has_grid, switch

Progress = Callable[[str, float], Any]
_CPU = torch.device("cpu")


@dataclass
class Spot:
    """A result of the fake-quant model, with all that is summed up of it."""

    source: Source
    heads: list[Head]
    quantizer: nn.Module | None = None
    container: bool = False
    grid: Grid | None = None
    one_grid: OneGrid | None = None
    fake: Apart = field(default_factory=Apart)
    int8: Apart = field(default_factory=Apart)
    steps: InSteps = field(default_factory=InSteps)
    alone: Alone | None = None
    spread: Spread = field(default_factory=Spread)
    kl: float | None = None
    points: Points = field(default_factory=Points)
    cause: str = ""

    def take_grid(self) -> None:
        """Look at the fake quant once its scale is what rounds."""
        if self.quantizer is not None and has_grid(self.quantizer):
            self.grid = grid_of(self.quantizer)
            self.one_grid = OneGrid.of(self.grid)
            self.alone = Alone()

    @property
    def step(self) -> float | None:
        if self.grid is None:
            return None
        value = float(self.grid.scale.detach().float().mean())
        return value if math.isfinite(value) and value > 0 else None


@dataclass(frozen=True)
class Forms:
    """The three models. They are put back as they were.

    Attributes:
        floats: the float model (in FX the traced one). prepared: with fake quants that have seen
            data. int8: made of ``prepared``, None where there is none.
        matcher: which result of ``floats`` one of ``prepared`` stands for.
        engine: of the int8 model.
    """

    floats: nn.Module
    prepared: nn.Module
    int8: nn.Module | None
    matcher: Matcher
    engine: str


def compare(
    forms: Forms,
    batches: list[Any],
    *,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Comparison:
    """Compare the forms on ``batches`` of inputs; see :class:`Comparing`.

    ``progress`` is called with what is done and the share of the work before it; ``should_stop``
    is asked between forwards: what whole batches have given is returned then, with a note. Raises
    StoppedError before the first is done, and whatever the models raise.
    """
    started = time.perf_counter()
    report = progress or (lambda _what, _share: None)
    stop = should_stop or (lambda: False)
    comparing = Comparing(forms)
    done = 0
    notes: list[str] = []
    for number, inputs in enumerate(batches):
        try:
            with cycles_collected_later():
                for part, what in enumerate(comparing.passes(inputs)):
                    if stop():
                        raise StoppedError("the comparison was stopped.")
                    share = (number + part / len(comparing.forwards)) / len(batches)
                    report(f"{what}, batch {number + 1} of {len(batches)}", share)
        except StoppedError:
            if not done:
                raise
            notes.append(f"It was stopped after {done} of {len(batches)} batches.")
            break
        done += 1
    found = comparing.result()
    return replace(
        found,
        batches=done,
        seconds=time.perf_counter() - started,
        notes=(*found.notes, *notes),
    )


class Comparing:
    """Runs the forms batch by batch and sums up how they differ.

    All sums (SQNR, cosine, errors in steps, agreement, clipped share, the parts of the error) are
    over all values of all batches. Histograms (KL) are of at most
    :data:`~qatexplorer.accuracy.spread.SAMPLED` values of each tensor and batch, scatters of the
    first batch. Of float and fake quant the results of one batch are held, of int8 none.
    """

    def __init__(self, forms: Forms) -> None:
        self.forms = forms
        self.forwards = dict.fromkeys(("float", "fake quant", "int8"), 0)
        if forms.int8 is None:
            del self.forwards["int8"]
        self._nodes = by_nodes(forms.prepared)
        self._spots: dict[Place, Spot | None] = {}
        self._rows: list[Spot] = []  # in the order of the fake-quant forward
        self._outputs: dict[str, Spot] = {}
        self._wanted: set[tuple[Place, bool]] | None = None  # None keeps all: the first batch
        self._order: dict[tuple[Place, bool], int] = {}
        self._scratch = Scratch()
        self._weights: tuple[CompareRow, ...] = ()
        self._probe = Probe(forms.prepared, forms.engine)
        self._pairs: Pairs | None = None
        self._failed: Exception | None = None
        self._unlike: set[str] = set()
        self._first = True

    def passes(self, inputs: Any) -> Iterator[str]:
        """Yields what comes next before it is run; a batch that is left half way counts only
        where it got to."""
        yield "float model"
        floats, float_outputs = self._run_float(inputs)
        yield "fake-quant model"
        fakes, fake_outputs = self._run_fake(inputs, floats, float_outputs)
        if self.forms.int8 is not None:
            yield "int8 model"
            self._run_int8(inputs, floats, fakes, float_outputs, fake_outputs)
        self._first = False
        self._wanted = {spot.source.key for spot in self._rows}

    # -- the three forwards ---------------------------------------------------------------------

    def _run_float(self, inputs: Any) -> tuple[Kept[Any], dict[str, Tensor]]:
        kept: Kept[Any] = Kept()
        given = self.forms.matcher.wanted_given

        def keep(visit: Visit) -> None:
            key = visit.place, False
            if self._wanted is None or key in self._wanted:
                self._keep(kept, key, visit.result)
            if visit.place[0] in given:
                self._keep(kept, (visit.place, True), visit.args)

        output = self._forward(self.forms.floats, inputs, keep, kept, "float")
        return kept, dict(leaves(output))

    def _keep(self, kept: Kept[Any], key: tuple[Place, bool], result: Any) -> None:
        tensor = _numbers(result)
        if tensor is not None:
            kept.keep(key, tensor)
            self._order.setdefault(key, len(self._order))

    def _run_fake(
        self, inputs: Any, floats: Kept[Any], float_outputs: dict[str, Tensor]
    ) -> tuple[Kept[Place], dict[str, Tensor]]:
        kept: Kept[Place] = Kept()
        prepared = self.forms.prepared
        compared: dict[int, tuple[Tensor, Spot]] = {}  # in this batch, by the tensor

        def watch(visit: Visit) -> None:
            tensor = _numbers(visit.result)
            if tensor is None:
                return
            spot = self._spot_of(visit, tensor, compared)
            if spot is None or visit.place in kept:
                return
            kept.keep(visit.place, tensor)
            if id(tensor) in compared:
                return  # a name more of what has been compared
            compared[id(tensor)] = tensor, spot
            x = self._float_of(spot.source, floats)
            if x is not None:
                self._add_fake(spot, x, tensor)

        weights = WeightRows(prepared, self.forms.int8) if self._first else None
        with weights.watching() if weights is not None else nullcontext():
            output = self._forward(prepared, inputs, watch, kept, "fake quant")
        if weights is not None:
            self._weights = weights.rows()
        outputs = dict(leaves(output))
        for path, tensor in outputs.items():
            x = float_outputs.get(path)
            if x is None or _numbers(x) is None or _numbers(tensor) is None:
                continue
            spot = self._outputs.setdefault(path, Spot(Source((path, 0)), []))
            self._add_fake(spot, _plain(x), tensor)
        return kept, outputs

    def _run_int8(
        self,
        inputs: Any,
        floats: Kept[Any],
        fakes: Kept[Place],
        float_outputs: dict[str, Tensor],
        fake_outputs: dict[str, Tensor],
    ) -> None:
        int8 = self.forms.int8
        assert int8 is not None
        if self._pairs is None:
            self._pairs = pairs_of(self.forms.prepared, int8)
        pairs = self._pairs
        done: set[int] = set()

        def watch(visit: Visit) -> None:
            pair = pairs.of(visit)
            place = pair.fake if pair is not None else visit.place
            spot = self._spots.get(place)
            tensor = _numbers(visit.result)
            if spot is None or tensor is None or id(spot) in done:
                return
            if self._nodes and spot.quantizer is not None and not tensor.is_quantized:
                return  # it is quantized by a node of its own after this
            done.add(id(spot))
            before = replace(spot.steps)
            self._add_int8(spot, self._float_of(spot.source, floats), fakes.get(place), tensor)
            if self._first and pair is not None and tensor.is_quantized:
                now = spot.steps
                if now.values > before.values:
                    spot.cause = self._probe.look(pair, visit, now, _step_of(tensor))

        with quantized_engine(self.forms.engine):
            output = self._forward(int8, on_device(inputs, _CPU), watch, None, "int8")
        for path, tensor in leaves(output):
            spot = self._outputs.get(path)
            if spot is not None and _numbers(tensor) is not None:
                x, fake = float_outputs[path], fake_outputs[path]
                self._add_int8(spot, _plain(x), fake, tensor)

    def _forward(
        self,
        model: nn.Module,
        inputs: Any,
        watch: Callable[[Visit], None],
        kept: Kept[Any] | None,
        name: str,
    ) -> Any:
        """One forward in eval mode; what ``watch`` raises is raised after it, since a model or a
        graph's interpreter may catch it."""

        def guarded(visit: Visit) -> None:
            if self._failed is None:
                try:
                    with unwatched():
                        watch(visit)
                except Exception as error:
                    self._failed = error

        with preserved_state(model), torch.no_grad():
            model.eval()
            if name == "fake quant":
                for module in fake_quants(model).values():
                    switch(module, observer=False, fake_quant=True)
            with visited(model, guarded, nodes=self._nodes):
                self.forwards[name] += 1
                if kept is None:
                    output = call_model(model, cloned(inputs))
                else:
                    with kept:
                        output = call_model(model, cloned(inputs))
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed
        return output

    # -- which place it is ----------------------------------------------------------------------

    def _spot_of(
        self, visit: Visit, tensor: Tensor, compared: dict[int, tuple[Tensor, Spot]]
    ) -> Spot | None:
        if visit.place in self._spots:
            return self._spots[visit.place]
        match = self.forms.matcher.of(visit)
        known = compared.get(id(tensor))
        spot: Spot | None = None
        if match is not None and known is not None:
            spot = known[1]
            if not match.container:
                spot.heads += match.heads
        elif match is not None:
            spot = self._new_spot(match)
        self._spots[visit.place] = spot
        return spot

    def _new_spot(self, match: Match) -> Spot:
        spot = Spot(match.source, [*match.heads], match.quantizer, match.container)
        spot.take_grid()
        self._rows.append(spot)
        return spot

    def _float_of(self, source: Source, floats: Kept[Any]) -> Tensor | None:
        found = floats.get(source.key)
        if found is None:
            return None
        found = _plain(found)
        return found.clamp(min=0) if source.relu else found

    # -- sums -----------------------------------------------------------------------------------

    def _add_fake(self, spot: Spot, x: Tensor, y: Tensor) -> None:
        y = _plain(y)
        if x.shape != y.shape:
            self._unlike.update(head.path for head in spot.heads)
            return
        if not x.numel():
            return
        if spot.alone is not None and spot.one_grid is None:
            spot.alone.add_whole(x, self._alone(spot, x))
        flat_x, flat_y = flat_alike(x, y)
        grid = spot.one_grid
        add_fake_quant(flat_x, flat_y, spot.fake, spot.alone if grid else None, grid, self._scratch)
        sample_x, sample_y = picked(flat_x), picked(flat_y)
        if grid is not None:
            spot.spread.add(sample_x, sample_y, grid)
        if self._first:
            spot.points.floats = sample_x[:POINTS].tolist()
            spot.points.fakes = sample_y[:POINTS].tolist()

    def _alone(self, spot: Spot, x: Tensor) -> Tensor:
        assert spot.quantizer is not None
        given = x.to(spot.grid.scale.device) if spot.grid is not None else x
        result: Tensor = spot.quantizer.forward(given)  # called, it would be visited again
        return result.detach().cpu()

    def _add_int8(self, spot: Spot, x: Tensor | None, fake: Tensor | None, found: Tensor) -> None:
        if found.is_quantized and found.qscheme() not in _ONE_SCALE:
            return
        grid = (found.q_scale(), found.q_zero_point()) if found.is_quantized else None
        values = found.int_repr() if found.is_quantized else _plain(found)
        x = x if x is not None and x.shape == found.shape else None
        fake = _plain(fake) if fake is not None and fake.shape == found.shape else None
        if not values.numel():
            return
        others = [one for one in (x, fake) if one is not None]
        if not others:
            return
        first, *rest = flat_alike(*others, values)
        flat_x = first if x is not None else None
        flat_fake = None if fake is None else rest[0] if x is not None else first
        flat = rest[-1]
        add_int8(flat_x, flat_fake, flat, grid, spot.int8, spot.steps, self._scratch)
        if self._first and x is not None:
            sample = picked(flat)[:POINTS].float()
            values = sample if grid is None else (sample - grid[1]) * grid[0]
            spot.points.int8 = values.tolist()

    # -- what it came to ------------------------------------------------------------------------

    def result(self) -> Comparison:
        """Rows in the order of the float forward, weights after their module, outputs last."""
        rows: list[CompareRow] = []
        scatter: dict[tuple[str, int], Scatter] = {}
        weights: dict[str, list[CompareRow]] = {}
        for weight in self._weights:
            weights.setdefault(weight.owner, []).append(weight)
        ordered = sorted(self._rows, key=lambda spot: self._order.get(spot.source.key, 1 << 60))
        lost = [spot for spot in ordered if not spot.fake.values]
        for spot in ordered:
            if not spot.fake.values and not spot.int8.values:
                continue
            spot.kl = spot.spread.kl
            for head in sorted(spot.heads, key=lambda one: one.kind == "fake quant"):
                rows.append(self._row(spot, head))
                scatter[head.path, head.call] = _scatter(spot.points)
                for one in weights.pop(head.path, ()):
                    rows.append(replace(one, index=rows[-1].index))
        rows += [one for left in weights.values() for one in left]
        for path, spot in self._outputs.items():
            rows.append(self._row(spot, Head(path, "output", "", call=0), len(self._order)))
            scatter[path, 0] = _scatter(spot.points)
        return Comparison(
            rows=tuple(rows),
            passes=dict(self.forwards),
            scatter=scatter,
            notes=self._notes(lost),
        )

    def _notes(self, lost: list[Spot]) -> tuple[str, ...]:
        notes = []
        paths = [head.path for spot in lost for head in spot.heads]
        if paths:
            notes.append(
                f"{len(paths):,} places of the fake-quant model have no counterpart in the float "
                f"model: {', '.join(paths[:3])}{' …' if len(paths) > 3 else ''}."
            )
        unlike = sorted(self._unlike)
        if unlike:
            notes.append(
                f"{len(unlike):,} places have another shape in float: {', '.join(unlike[:3])}"
                f"{' …' if len(unlike) > 3 else ''}."
            )
        return tuple(notes)

    def _row(self, spot: Spot, head: Head, index: int | None = None) -> CompareRow:
        fake, int8, steps, alone, step = spot.fake, spot.int8, spot.steps, spot.alone, spot.step
        own = alone if head.kind == "fake quant" else None
        compared = steps.values > 0
        return CompareRow(
            path=head.path,
            kind=head.kind,
            type=head.type,
            owner=head.owner,
            index=self._order.get(spot.source.key, 0) if index is None else index,
            call=head.call,
            values=fake.values or int8.values,
            sqnr_fake_quant_db=fake.sqnr_db,
            sqnr_int8_db=int8.sqnr_db,
            isolated_sqnr_db=own.sqnr_db if own else None,
            cosine_fake_quant=fake.cosine,
            cosine_int8=int8.cosine,
            mean_error_steps=_finite(fake.distance / fake.values / step)
            if step and fake.values
            else None,
            max_error_steps=fake.largest / step if step and fake.values else None,
            mean_steps=steps.distance / steps.values if compared else None,
            max_steps=steps.largest if compared else None,
            agreement=steps.agreement,
            kl=spot.kl,
            clipped=own.share(own.clipped) if own and spot.one_grid else None,
            clipping_error=own.share(own.clipping) if own else None,
            rounding_error=own.share(own.noise - own.clipping) if own else None,
            step=step,
            cause=spot.cause,
        )


_ONE_SCALE = (torch.per_tensor_affine, torch.per_tensor_symmetric)


def _numbers(result: Any) -> Tensor | None:
    """The first tensor of a result, if it is one of real numbers."""
    tensor = next(tensors_in(result), None)
    if tensor is None or tensor.is_sparse or tensor.is_meta:
        return None
    return tensor if tensor.is_quantized or tensor.is_floating_point() else None


def _plain(tensor: Tensor) -> Tensor:
    """As float32 on the CPU."""
    tensor = tensor.detach()
    tensor = tensor.dequantize() if tensor.is_quantized else tensor
    return tensor.to(_CPU, torch.float32)


def _step_of(tensor: Tensor) -> float:
    return float(tensor.q_scale())


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _scatter(points: Points) -> Scatter:
    return Scatter(tuple(points.floats), tuple(points.int8), tuple(points.fakes))
