"""Ridges, scales and ranges over the steps show what was recorded, counted here anew by numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from torch.ao.quantization import disable_fake_quant, disable_observer, enable_fake_quant
from torch.nn import functional as F

import qatexplorer as qx
from qatexplorer.forward.histograms import grid_histogram
from qatexplorer.runs.records import Marker
from qatexplorer.runs.samples import FakeQuantInfo
from qatexplorer.telemetry import Telemetry
from qatexplorer.views.common.alt import trend
from qatexplorer.views.common.bars import Layout, heights, is_crowded, shares
from qatexplorer.views.training.events import events_of
from qatexplorer.views.training.ridges import Ridge, Ridges, picked, ridges_figure, ridges_of
from qatexplorer.views.training.scales import scales_figure
from tests.support.training_models import batches, one_thread, prepared  # noqa: F401

WEIGHT, OUTPUT = "fc.weight_fake_quant", "conv.activation_post_process"


@dataclass
class Recorded:
    telemetry: Telemetry
    weights: list[np.ndarray]
    outputs: list[np.ndarray]


@pytest.fixture(scope="module")
def run() -> Recorded:
    """Twelve steps, each sampled; what reached two fake quants was kept beside."""
    torch.manual_seed(0)
    model: Any = prepared()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    weights, outputs = [], []
    hook = model.conv.activation_post_process.register_forward_pre_hook(
        lambda _module, args: outputs.append(args[0].detach().numpy().copy())
    )
    with qx.watch(model, every=1) as w:
        for step, (x, y) in enumerate(batches(12)):
            if step == 4:
                model.fc.apply(disable_fake_quant)
            if step == 6:
                model.fc.apply(enable_fake_quant)
            if step == 8:
                model.fc.apply(disable_observer)
            weights.append(model.fc.weight.detach().numpy().copy())
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            w.step()
    hook.remove()
    return Recorded(w.telemetry, weights, outputs)


def ridges(telemetry: Telemetry, path: str, **more: Any) -> Ridges:
    found = ridges_of(telemetry, path, **more)
    assert found is not None
    return found


def area(figure: go.Figure, name: str, index: int) -> float:
    """Of the ridge ``index``, the part of that name, above its base line."""
    trace = [t for t in figure.data if t.name == name][index]
    total, before = 0.0, None
    for x, y in zip(trace.x, trace.y, strict=True):
        if x is None:
            before = None
            continue
        if before is not None:
            total += (x - before) * (y + index)
        before = x
    return total


def test_weights_are_counted_on_the_grid_of_their_channels(run: Recorded) -> None:
    found = ridges(run.telemetry, WEIGHT)
    assert not found.real
    channels = dict(run.telemetry.channels(WEIGHT))
    assert [row.step for row in found.rows] == list(range(12))
    for row in found.rows:
        scale = np.array(channels[row.step].scale, np.float32)[:, None]
        codes = np.round(run.weights[row.step] / scale)
        wanted, _ = np.histogram(codes, found.layout.edges)
        # A weight on the border between two codes may be rounded to either of them.
        assert np.abs(row.bars * codes.size - wanted).sum() <= 2
        assert row.borders == (-128.5, 127.5)


def test_outputs_are_drawn_as_values_with_the_borders_of_each_step(run: Recorded) -> None:
    found = ridges(run.telemetry, OUTPUT)
    figure = ridges_figure(run.telemetry, OUTPUT)
    assert found.real
    marks = next(t for t in figure.data if t.name == "borders of the grid")
    for index, row in enumerate(found.rows):
        sample = run.telemetry.samples(OUTPUT)[index]
        low = (-0.5 - sample.zero_point) * sample.scale_median
        high = (255.5 - sample.zero_point) * sample.scale_median
        assert row.borders == pytest.approx((low, high), rel=1e-5)
        assert marks.x[6 * index] == pytest.approx(low, rel=1e-4)
        assert marks.x[6 * index + 3] == pytest.approx(high, rel=1e-4)
        values = run.outputs[row.step]
        clipped = np.mean((values < low) | (values > high))
        assert row.clipped == pytest.approx(clipped, abs=2 / values.size)
    words = list(figure.layout.yaxis2.ticktext)
    assert words[0] == "none"
    assert len(words) == len(figure.layout.yaxis.ticktext) == 12


def test_area_is_the_share_of_the_values(run: Recorded) -> None:
    figure = ridges_figure(run.telemetry, WEIGHT)
    assert "linear heights" in figure.layout.meta["subtitle"]
    found = ridges(run.telemetry, WEIGHT)
    areas = [area(figure, "on the grid", i) + area(figure, "clipped", i) for i in range(12)]
    assert areas == pytest.approx([areas[0]] * 12, rel=1e-3)
    for index, row in enumerate(found.rows):
        assert area(figure, "clipped", index) / areas[index] == pytest.approx(row.clipped, abs=1e-4)
    tail = next(t for t in figure.data if t.name == "clipped")
    assert tail.fillpattern.shape == "/"  # not by colour alone
    assert tail.line.color != figure.data[0].line.color


def test_zeros_after_a_relu_do_not_hide_the_others(run: Recorded) -> None:
    found = ridges(run.telemetry, OUTPUT)
    assert found.log
    assert (
        "log heights, as one bar holds"
        in ridges_figure(run.telemetry, OUTPUT).layout.meta["subtitle"]
    )
    drawn = heights(found.densities, log=True)[-1]
    assert np.median(drawn[drawn > 0]) > 0.2
    assert drawn.max() <= 1.0
    assert not is_crowded([1, 5, 20, 40, 40, 20, 5, 1])
    assert not is_crowded([0, 0, 900])
    assert is_crowded([500, *[4] * 125])


def test_change_is_the_difference_to_the_first(run: Recorded) -> None:
    found = ridges(run.telemetry, OUTPUT, show="change")
    assert not found.real  # compared code by code, whatever the scale
    figure = ridges_figure(run.telemetry, OUTPUT, show="change")
    assert figure.layout.xaxis.title.text.startswith("code")
    assert all(row.bars.sum() == pytest.approx(1.0) for row in found.rows)
    # As much goes up as goes down, up to the narrower bar at the end of the grid.
    for index in range(12):
        net = area(figure, "on the grid", index) + area(figure, "clipped", index)
        assert abs(net) < 0.1
    weights = ridges(run.telemetry, WEIGHT, show="change")
    counted = []
    for row in (weights.rows[0], weights.rows[-1]):
        scale = np.array(dict(run.telemetry.channels(WEIGHT))[row.step].scale, np.float32)
        codes = np.round(run.weights[row.step] / scale[:, None])
        counted.append(np.histogram(codes, weights.layout.edges)[0] / codes.size)
    moved = np.abs(counted[1] - counted[0]).sum() / 2
    assert moved > 0.05
    assert weights.moved == pytest.approx(moved, abs=4 / 864)
    assert weights.noise == 0  # every weight is taken
    assert found.noise > 0
    assert "less those of the first" in figure.layout.title.text
    one = Telemetry(run.telemetry.infos, 320)
    assert ridges_of(one, OUTPUT) is None
    assert "no sample yet" in ridges_figure(one, OUTPUT).layout.meta["subtitle"]


def test_noise_of_sampling_is_told_from_a_change() -> None:
    generator = np.random.default_rng(0)
    info = FakeQuantInfo("x", "output", "", "", 0, 255, "quint8", None)
    moved, noise = [], []
    for _ in range(40):
        rows = []
        for _ in range(2):
            x = torch.tensor(generator.normal(128, 30, 4096), dtype=torch.float32)
            one = grid_histogram(x, 1.0, 0, 0, 255)
            rows.append(type(one)(*[
                getattr(one, n) if n != "total" else 100_000 for n in one.__slots__
            ]))  # fmt: skip
        layout = Layout.of(rows)
        found = Ridges(
            info,
            tuple(Ridge(i, h, shares(h, layout), layout.edges, (0, 1)) for i, h in enumerate(rows)),
            layout,
            False,
            2,
        )
        moved.append(found.moved)
        noise.append(found.noise)
    assert np.mean(moved) == pytest.approx(np.mean(noise), rel=0.1)


@pytest.mark.parametrize("grid", [(0, 255), (-128, 127), (0, 127), (-8, 7), (0, 1)])
def test_bars_keep_every_value_and_both_borders(grid: tuple[int, int]) -> None:
    x = torch.randn(30_000, generator=torch.Generator().manual_seed(1))
    x = x * (grid[1] - grid[0]) / 3 + (grid[0] + grid[1]) / 2
    histogram = grid_histogram(x, 1.0, 0, *grid)
    layout = Layout.of([histogram])
    bars = shares(histogram, layout)
    assert bars.sum() == pytest.approx(1.0)
    inside = layout.inside
    assert layout.edges[inside.start] == grid[0] - 0.5
    assert layout.edges[inside.stop] == grid[1] + 0.5
    assert bars[: inside.start].sum() == pytest.approx(histogram.clipped_low_share)
    assert bars[inside.stop :].sum() == pytest.approx(histogram.clipped_high_share)
    assert len(bars[inside]) <= 96


def test_ridges_are_picked_evenly_with_the_first_and_the_newest() -> None:
    assert picked([3, 5, 9]) == [0, 1, 2]
    steps = [*range(0, 1000, 100), *range(1000, 1100)]
    found = [steps[i] for i in picked(steps)]
    assert found[0] == 0
    assert found[-1] == 1099
    assert len(found) <= 14
    assert np.diff(found).max() <= 200
    # Not the newest ones only, of which more are kept.
    assert sum(step < 1000 for step in found) >= 9


def test_ridges_say_their_numbers(run: Recorded) -> None:
    meta = ridges_figure(run.telemetry, WEIGHT).layout.meta
    first, newest = run.weights[0], run.weights[-1]
    said = meta["alt"]
    assert said.startswith(f"{WEIGHT}: values over the steps. Histograms of the weight at 12 steps")
    assert f"to {newest.max():.4g}".replace("-", "−") in said
    assert f"Values {first.min():.4g} to".replace("-", "−") in said
    assert "on codes −128 to 127" in said
    rows = meta["table"]["rows"]
    assert [row[0] for row in rows] == [str(i) for i in range(12)]
    assert rows[-1][2] == f"{newest.max():.4g}"


def test_a_grid_that_nothing_has_fitted_does_not_squeeze_the_values() -> None:
    torch.manual_seed(0)
    model: Any = prepared()
    model.apply(disable_fake_quant)  # torch leaves its scale at 1 meanwhile
    with qx.watch(model, every=1) as w:
        for step, (x, _) in enumerate(batches(8)):
            if step == 4:
                model.apply(enable_fake_quant)
            model(x)
            w.step()
    figure = ridges_figure(w.telemetry, OUTPUT)
    low, high = figure.layout.xaxis.range
    scale = w.telemetry.series(OUTPUT, "scale_median")[1]
    assert scale[0] == 1.0
    assert high - low < 30
    assert "the grid of 4 steps reaches beyond the view" in figure.layout.meta["subtitle"]
    low, high = scales_figure(w.telemetry, OUTPUT).layout.yaxis2.range
    assert high - low < 30
    assert scales_figure(w.telemetry, OUTPUT).layout.yaxis.type == "log"


def test_scale_range_and_grid_are_those_recorded(run: Recorded) -> None:
    figure = scales_figure(run.telemetry, WEIGHT)
    traces = {trace.name: trace for trace in figure.data}
    series = {name: run.telemetry.series(WEIGHT, name)[1] for name in
              ("scale_median", "scale_min", "scale_max", "min_val", "batch_max")}  # fmt: skip
    assert list(traces["median"].y) == series["scale_median"]
    assert list(traces["least of the channels"].y) == series["scale_min"]
    assert list(traces["min_val"].y) == series["min_val"]
    assert list(traces["largest of the batch"].y) == series["batch_max"]
    assert traces["max_val"].fill == "tonexty"
    channels = run.telemetry.channels(WEIGHT)
    wanted = [np.quantile(c.scale, 0.75) for _, c in channels]
    assert list(traces["upper quartile"].y) == pytest.approx(wanted)
    low = [-128 * max(c.scale) for _, c in channels]
    assert list(traces["quant_min"].y) == pytest.approx(low, rel=1e-6)
    band = next(shape for shape in figure.layout.shapes if shape.type == "rect")
    assert (band.x0, band.x1) == (4, 6)
    assert any("fake quant off while its observer" in a.text for a in figure.layout.annotations)
    said = figure.layout.meta["alt"]
    assert trend(series["scale_median"][0], series["scale_median"][-1]) in said
    assert "fake quant off from step 4; fake quant on from step 6; observer frozen from step 8" in (
        said
    )


def test_freezes_are_marked_with_a_shape_and_words(run: Recorded) -> None:
    figure = scales_figure(run.telemetry, WEIGHT)
    marks = next(trace for trace in figure.data if trace.name == "events")
    assert list(marks.x) == [4, 6, 8]
    assert list(marks.text) == ["fake quant off", "fake quant on", "observer frozen"]
    assert list(marks.marker.symbol) == ["circle", "circle-open", "square"]
    words = {a.text: a.x for a in figure.layout.annotations}
    assert words["observer frozen"] == 8
    places = [(a.x, a.y) for a in figure.layout.annotations if a.yref == "y3"]
    assert len({y for _, y in places}) == 3  # neighbours do not run into each other
    none = scales_figure(run.telemetry, "quant.activation_post_process")
    assert "Nothing was frozen or switched." in none.layout.meta["alt"]


def test_a_freeze_is_at_its_own_step_not_at_the_one_that_saw_it() -> None:
    example = qx.zoo.load("digits_mlp")
    session = qx.Session(example.model, example.example_inputs, data=example.data, stubs="model")
    session.goto("insert")
    session.train(epochs=2, freeze_observer_epoch=1, telemetry_every=7, seed=0)
    assert session.run is not None
    telemetry, markers = session.run.telemetry, session.run.history.markers
    assert telemetry is not None
    exact = next(m.step for m in markers if m.kind == "observers frozen")
    path = next(i.path for i in telemetry.infos if i.kind == "weight")
    assert exact % 7
    assert [e.step for e in events_of(telemetry, path)] == [7 * math.ceil(exact / 7)]
    assert [e.step for e in events_of(telemetry, path, markers)] == [exact]
    # A marker of something else, or of another time, moves nothing.
    other = [Marker(exact, 1, "paused"), Marker(2, 0, "observers frozen")]
    assert events_of(telemetry, path, other)[0].step == 7 * math.ceil(exact / 7)
