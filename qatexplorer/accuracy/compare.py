"""Float, fake quant and int8 on the same inputs, in one forward of each a batch."""

from __future__ import annotations

import functools
import math
import time
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from qatexplorer.accuracy.causes import Probe
from qatexplorer.accuracy.int8_results import Int8Result, Int8Results, Looked
from qatexplorer.accuracy.kept import Kept, unwatched
from qatexplorer.accuracy.matching import Head, Match, Matcher, Source
from qatexplorer.accuracy.records import CompareRow, Comparison, Scatter
from qatexplorer.accuracy.spread import POINTS, Points, Spread, picked
from qatexplorer.accuracy.structure import leaves, numbers_in
from qatexplorer.accuracy.sums import (
    Alone,
    Apart,
    ByChannel,
    InSteps,
    Known,
    OneGrid,
    Scratch,
    Sums,
    add_up,
    codes_of,
    flat_alike,
)
from qatexplorer.accuracy.weights import WeightRows
from qatexplorer.data import call_model, cloned, on_device
from qatexplorer.errors import StoppedError
from qatexplorer.evaluate.pairs import Pairs, by_nodes, pairs_of
from qatexplorer.forward.preserve import preserved_state
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
    channels: ByChannel = field(default_factory=ByChannel)
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


@dataclass
class Batch:
    """What is known of the batch that is being compared.

    Attributes:
        floats, int8: results of those forwards, by place.
        compared: the spot of each tensor of the fake-quant model, with the version it had.
            ``begun`` and ``with_int8`` are ids of spots.
        waiting: a spot of which the next call may tell what int8 calls it. Its tensor is in
            ``kept``, as it was.
        looked: what the probe may look at, and when in the int8 forward it was.
        known: what has been found of a tensor of ``floats`` alone, as several spots may have one.
    """

    floats: Kept[Any]
    int8: Int8Results | None
    compared: dict[int, tuple[weakref.ref[Tensor], int, Spot]] = field(default_factory=dict)
    begun: set[int] = field(default_factory=set)
    with_int8: set[int] = field(default_factory=set)
    waiting: Spot | None = None
    kept: Kept[int] = field(default_factory=Kept)
    looked: list[tuple[int, Spot, Looked]] = field(default_factory=list)
    known: dict[Hashable, dict[int, Known]] = field(default_factory=dict)

    def begin(self, spot: Spot, tensor: Tensor) -> None:
        self.begun.add(id(spot))
        self.compared[id(tensor)] = weakref.ref(tensor), _version(tensor), spot

    def spot_of(self, tensor: Tensor) -> Spot | None:
        """The one that this very tensor, not written to since, has been compared for."""
        found = self.compared.get(id(tensor))
        if found is None or found[0]() is not tensor or found[1] != _version(tensor):
            return None
        return found[2]

    def known_of(self, source: Source) -> dict[int, Known]:
        """What is known of its float values: one for all places that handed on the same memory,
        which no longer changes."""
        x = self.floats.get(source.key)
        if x is None:
            return {}
        key = x.device, x.data_ptr(), x.dtype, x.shape, x.stride(), source.relu
        return self.known.setdefault(key, {})

    def taken(self) -> Tensor:
        """The tensor that waits, which then does so no longer."""
        tensor = self.kept.get(0)
        assert tensor is not None
        self.waiting = None
        self.kept.clear()
        return tensor


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


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
    first batch. Of int8 and float the results of one batch are held, those that will be asked for;
    of fake quant none, as each is compared as soon as it is there.
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
        self._order: dict[tuple[Place, bool], int] = {}
        self._scratch = Scratch()
        self._weights: tuple[CompareRow, ...] = ()
        self._probe = Probe(forms.prepared, forms.engine)
        self._pairs: Pairs | None = None
        self._failed: Exception | None = None
        self._unlike: set[str] = set()
        self._first = True

    def passes(self, inputs: Any) -> Iterator[str]:
        """Yields what comes next before it is run; a batch that is left before its last forward
        does not count."""
        int8: Int8Results | None = None
        outputs: list[dict[str, Tensor]] = []
        if self.forms.int8 is not None:
            yield "int8 model"
            int8, found = self._run_int8(inputs)
            outputs.append(found)
        yield "float model"
        floats, found = self._run_float(inputs)
        outputs.append(found)
        yield "fake-quant model"
        batch = Batch(floats, int8)
        self._compare_outputs(self._run_fake(inputs, batch), *reversed(outputs))
        if self._first:
            self._look(batch)
        self._first = False

    # -- the three forwards ---------------------------------------------------------------------

    def _run_int8(self, inputs: Any) -> tuple[Int8Results, dict[str, Tensor]]:
        int8 = self.forms.int8
        assert int8 is not None
        if self._pairs is None:
            self._pairs = pairs_of(self.forms.prepared, int8)
        results = Int8Results(self._pairs, self.forms.matcher.places, looked=self._first)
        with quantized_engine(self.forms.engine):
            given = on_device(inputs, _CPU)
            output = self._forward(int8, given, results.see, results.kept, "int8")
        return results, dict(leaves(output))

    def _run_float(self, inputs: Any) -> tuple[Kept[Any], dict[str, Tensor]]:
        kept: Kept[Any] = Kept()
        matcher = self.forms.matcher

        def keep(visit: Visit) -> None:
            path = visit.place[0]
            for given, result in ((False, visit.result), (True, visit.args)):
                key = visit.place, given
                tensor = numbers_in(result) if not given or path in matcher.wanted_given else None
                if tensor is None:
                    continue
                self._order.setdefault(key, len(self._order))
                if given or path in matcher.asked:
                    kept.keep(key, tensor)

        output = self._forward(self.forms.floats, inputs, keep, kept, "float")
        return kept, dict(leaves(output))

    def _run_fake(self, inputs: Any, batch: Batch) -> dict[str, Tensor]:
        def watch(visit: Visit) -> None:
            tensor = numbers_in(visit.result)
            if tensor is None:
                return
            spot = self._spot_of(visit, tensor, batch)
            if spot is None:
                return
            if batch.waiting is not None and batch.waiting is not spot:
                self._compare_waiting(batch)
            self._meet(visit.place, spot, tensor, batch)

        prepared = self.forms.prepared
        weights = WeightRows(prepared, self.forms.int8) if self._first else None
        with weights.watching() if weights is not None else nullcontext():
            output = self._forward(prepared, inputs, watch, batch.kept, "fake quant")
        self._compare_waiting(batch)
        if weights is not None:
            self._weights = weights.rows()
        return dict(leaves(output))

    def _meet(self, place: Place, spot: Spot, tensor: Tensor, batch: Batch) -> None:
        """Compare what the fake-quant model gave at ``place``, once a batch; a place more of the
        same may be the one that int8 has a result of."""
        found = None
        if batch.int8 is not None and id(spot) not in batch.with_int8:
            # In a graph it may be quantized by a node of its own.
            quantized = self._nodes and spot.quantizer is not None
            found = batch.int8.at(place, quantized=quantized)
        begun = id(spot) in batch.begun
        if not begun:
            batch.begin(spot, tensor)
            if found is None and batch.int8 is not None:
                batch.waiting = spot
                batch.kept.keep(0, tensor)
                return
        elif found is None:
            return
        elif batch.waiting is spot:
            tensor, begun = batch.taken(), False
        self._add(spot, tensor, found, batch, fake=not begun)

    def _compare_waiting(self, batch: Batch) -> None:
        """No other name of it has come: int8 has no such result."""
        spot = batch.waiting
        if spot is not None:
            self._add(spot, batch.taken(), None, batch)

    def _compare_outputs(
        self,
        fakes: dict[str, Tensor],
        floats: dict[str, Tensor],
        int8: dict[str, Tensor] | None = None,
    ) -> None:
        for path, tensor in fakes.items():
            x, found = floats.get(path), (int8 or {}).get(path)
            if x is None or numbers_in(x) is None or numbers_in(tensor) is None:
                continue
            spot = self._outputs.setdefault(path, Spot(Source((path, 0)), []))
            z = found if found is not None and numbers_in(found) is not None else None
            self._add_tensors(spot, _plain(x), tensor, z, {})

    def _look(self, batch: Batch) -> None:
        """At what made int8 part, in the order of its forward."""
        with torch.no_grad(), quantized_engine(self.forms.engine):
            for _, spot, looked in sorted(batch.looked, key=lambda one: one[0]):
                if spot.steps.values:
                    assert batch.int8 is not None
                    visit = functools.partial(batch.int8.visit_of, looked)
                    spot.cause = self._probe.look(looked.pair, visit, spot.steps, looked.step)

    def _forward(
        self,
        model: nn.Module,
        inputs: Any,
        watch: Callable[[Visit], None],
        kept: Kept[Any],
        name: str,
    ) -> Any:
        """One forward in eval mode; what ``watch`` raises is raised after it, since a model or a
        graph's interpreter may catch it."""

        def guarded(visit: Visit) -> None:
            if self._failed is None:
                try:
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
                with kept:
                    output = call_model(model, cloned(inputs))
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed
        return output

    # -- which place it is ----------------------------------------------------------------------

    def _spot_of(self, visit: Visit, tensor: Tensor, batch: Batch) -> Spot | None:
        if visit.place in self._spots:
            return self._spots[visit.place]
        match = self.forms.matcher.of(visit)
        known = batch.spot_of(tensor)
        spot: Spot | None = None
        if match is not None and known is not None:
            spot = known
            if not match.container:
                spot.heads += match.heads
        elif match is not None:
            spot = self._new_spot(match)
        self._spots[visit.place] = spot
        return spot

    def _new_spot(self, match: Match) -> Spot:
        spot = Spot(match.source, [*match.heads], match.quantizer, match.container)
        with unwatched():
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

    def _add(
        self,
        spot: Spot,
        y: Tensor,
        found: Int8Result | None,
        batch: Batch,
        *,
        fake: bool = True,
    ) -> None:
        z = None
        if found is not None:
            assert batch.int8 is not None
            z = batch.int8.tensor(found)
            batch.with_int8.add(id(spot))
            if found.looked is not None:
                batch.looked.append((found.number, spot, found.looked))
        with unwatched():
            x = self._float_of(spot.source, batch.floats)
            self._add_tensors(spot, x, y, z, batch.known_of(spot.source), fake=fake)

    def _add_tensors(
        self,
        spot: Spot,
        x: Tensor | None,
        y: Tensor,
        z: Tensor | None,
        known: dict[int, Known],
        *,
        fake: bool = True,
    ) -> None:
        """A tensor in float, fake quant and int8, where they are there and of one shape; without
        ``fake`` float and fake quant have been compared before. ``known`` is of ``x``."""
        y = _plain(y)
        if x is not None and x.shape != y.shape:
            self._unlike.update(head.path for head in spot.heads)
            x = None
        if z is not None and z.is_quantized and z.qscheme() not in _ONE_SCALE:
            z = None
        if z is not None and z.shape != y.shape:
            z = None
        if y.numel() and not (x is None and z is None):
            self._add_alike(spot, x, y, z, known, fake and x is not None)

    def _add_alike(
        self,
        spot: Spot,
        x: Tensor | None,
        y: Tensor,
        z: Tensor | None,
        known: dict[int, Known],
        fake: bool,
    ) -> None:
        alone, one_grid = (spot.alone, spot.one_grid) if fake else (None, None)
        if alone is not None and one_grid is None and x is not None:
            alone.add_whole(x, self._alone(spot, x))
        grid = (z.q_scale(), z.q_zero_point()) if z is not None and z.is_quantized else None
        codes = None if z is None else codes_of(z) if z.is_quantized else _plain(z)
        flat_x, flat_y, flat_z = flat_alike(x, y, codes)
        sums = Sums(
            spot.fake if fake else None,
            alone if one_grid is not None else None,
            one_grid,
            spot.int8 if z is not None else None,
            spot.steps if z is not None else None,
        )
        add_up(flat_x, flat_y, flat_z, grid, sums, self._scratch, known)
        if fake and one_grid is not None and flat_x is not None and flat_y is not None:
            spot.spread.add(picked(flat_x), picked(flat_y), one_grid)
        if fake and spot.quantizer is not None and x is not None:
            spot.channels.add(x, y)
        if self._first and flat_x is not None:
            self._take_points(spot, flat_x, flat_y if fake else None, flat_z, grid)

    def _take_points(
        self,
        spot: Spot,
        x: Tensor,
        y: Tensor | None,
        z: Tensor | None,
        grid: tuple[float, int] | None,
    ) -> None:
        if y is not None:
            spot.points.floats = picked(x, POINTS).tolist()
            spot.points.fakes = picked(y, POINTS).tolist()
        if z is not None:
            sample = picked(z, POINTS).float()
            values = sample if grid is None else (sample - grid[1]) * grid[0]
            spot.points.int8 = values.tolist()

    def _alone(self, spot: Spot, x: Tensor) -> Tensor:
        assert spot.quantizer is not None
        given = x.to(spot.grid.scale.device) if spot.grid is not None else x
        result: Tensor = spot.quantizer.forward(given)  # called, it would be visited again
        return result.detach().cpu()

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
            channels=spot.channels.decibels if head.kind == "fake quant" else (),
            cause=spot.cause,
        )


_ONE_SCALE = (torch.per_tensor_affine, torch.per_tensor_symmetric)


def _plain(tensor: Tensor) -> Tensor:
    """As float32 on the CPU."""
    tensor = tensor.detach()
    tensor = tensor.dequantize() if tensor.is_quantized else tensor
    return tensor.to(_CPU, torch.float32)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _scatter(points: Points) -> Scatter:
    return Scatter(tuple(points.floats), tuple(points.int8), tuple(points.fakes))
