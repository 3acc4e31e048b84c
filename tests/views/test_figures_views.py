"""Figures show the numbers they are given, are small, and escape what users write."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go
import pytest
import torch

from qatexplorer.evaluate.evaluation import Evaluation, ModelResult
from qatexplorer.evaluate.measure import Latency
from qatexplorer.evaluate.metric import MetricValue
from qatexplorer.forward.histograms import GridHistogram, grid_histogram
from qatexplorer.runs.records import EpochRecord, History, Marker, StepRecord
from qatexplorer.snapshot.records import FakeQuantSite
from qatexplorer.views.common.results import results_html
from qatexplorer.views.inspector.figures import channel_figure, histogram_figure
from qatexplorer.views.training.figures import curves_figure
from qatexplorer.widgets.inspector.inspector import FigureSlot, InspectorWidget
from tests.support.view_snapshots import walk

INPUT = "quant.activation_post_process"
WEIGHT = "stem.weight_fake_quant"


def site(path: str) -> FakeQuantSite:
    return walk()[0]["train"].site_by_path[path]


def bars(figure: go.Figure) -> tuple[int, int]:
    """(values in bars on the grid, values in clipped bars)."""
    return sum(figure.data[0].y), sum(figure.data[1].y)


def texts(figure: go.Figure) -> str:
    return " | ".join(a.text for a in figure.layout.annotations)


def test_bars_hold_all_values_and_the_clipped_ones_apart() -> None:
    hist = walk()[1][INPUT]
    assert hist.clipped_low > 0
    figure = histogram_figure(hist, site(INPUT))
    clipped = hist.clipped_low + hist.clipped_high
    assert bars(figure) == (hist.sampled - clipped, clipped)
    assert figure.data[1].marker.pattern.shape == "/"  # not by colour alone
    assert "clipped" in texts(figure)
    assert "quant_min 0" in texts(figure)
    assert "quant_max 255" in texts(figure)


def test_a_histogram_is_laid_out_once() -> None:
    layout = histogram_figure(walk()[1][INPUT], site(INPUT)).layout
    assert [layout[axis].automargin for axis in ("xaxis", "xaxis2", "yaxis")] == [False] * 3


def test_axis_is_in_real_values_and_codes_lie_on_top() -> None:
    hist = grid_histogram(torch.linspace(0, 1.5, 500), 0.1, 3, 0, 15)
    figure = histogram_figure(hist, site(INPUT))
    low, high = figure.layout.xaxis.range
    code_low, code_high = figure.layout.xaxis2.range
    assert low == pytest.approx((code_low - 3) * 0.1)
    assert high == pytest.approx((code_high - 3) * 0.1)
    assert figure.layout.xaxis2.minor.showgrid  # 16 codes: a line between any two
    assert [s.x0 for s in figure.layout.shapes] == pytest.approx([-0.35, 1.25])
    wide = histogram_figure(grid_histogram(torch.randn(9999), 0.02, 128, 0, 255), site(INPUT))
    assert not wide.layout.xaxis2.minor.showgrid


def test_per_channel_axis_is_in_codes_only() -> None:
    figure = histogram_figure(walk()[1][WEIGHT], site(WEIGHT))
    assert figure.layout.xaxis.range == pytest.approx(figure.layout.xaxis2.range)
    assert not figure.layout.xaxis2.visible
    assert "its own scale" in figure.layout.xaxis.title.text


@pytest.mark.parametrize("n", [3, 40, 1000, 100_000])
@pytest.mark.parametrize("grid", [(0, 255), (-127, 127), (0, 127), (-8, 7)])
def test_merged_bars_keep_every_value_and_both_borders(n: int, grid: tuple[int, int]) -> None:
    x = torch.randn(n, generator=torch.Generator().manual_seed(n)) * (grid[1] - grid[0]) / 4
    middle = (grid[0] + grid[1]) // 2
    hist = grid_histogram(x, 1.0, middle, *grid)
    figure = histogram_figure(hist, site(INPUT))
    clipped = hist.clipped_low + hist.clipped_high
    assert bars(figure) == (n - clipped, clipped)
    assert len(figure.data[0].y) + len(figure.data[1].y) <= 640
    for x_mid, width in zip(figure.data[0].x, figure.data[0].width, strict=True):
        assert x_mid - width / 2 >= grid[0] - 0.5 - middle - 1e-6
        assert x_mid + width / 2 <= grid[1] + 0.5 - middle + 1e-6


def test_a_far_tail_does_not_squeeze_the_grid() -> None:
    hist = grid_histogram(torch.tensor([0.0] * 50 + [1e6]), 0.1, 0, -128, 127)
    figure = histogram_figure(hist, site(INPUT))
    low, high = figure.layout.xaxis.range
    assert high - low < 60
    assert bars(figure) == (50, 1)


@pytest.mark.parametrize(
    "hist",
    [
        grid_histogram(torch.empty(0), 0.1, 0, 0, 255),
        grid_histogram(torch.randn(9), 0.0, 0, 0, 255),
        grid_histogram(torch.full((4,), math.nan), 0.1, 0, 0, 255),
        grid_histogram(torch.zeros(4), 0.1, 0, 0, 255),
        grid_histogram(torch.randn(4), 1e-8, 0, -(2**31), 2**31 - 1),
    ],
)
@pytest.mark.parametrize("log", [False, True])
def test_histograms_with_little_in_them(hist: GridHistogram, log: bool) -> None:
    figure = histogram_figure(hist, site(INPUT), log=log)
    if not hist.edges:
        assert hist.note in texts(figure)
    assert sum(bars(figure)) == sum(hist.counts)


def test_zeros_after_a_relu_leave_the_others_to_be_seen() -> None:
    generator = torch.Generator().manual_seed(0)
    relu = torch.randn(20_000, generator=generator).relu()
    crowded = histogram_figure(grid_histogram(relu, 4 / 255, 0, 0, 255), site(INPUT))
    assert crowded.layout.yaxis.type == "log"
    assert crowded.layout.yaxis.title.text == "values (log)"
    zeros = 100 * float((relu < 2 / 255).double().mean())
    words = f"log heights, as one bar holds {zeros:.0f} % of the values"
    assert words in crowded.layout.meta["subtitle"]
    plain = grid_histogram(torch.randn(20_000, generator=generator), 8 / 255, 128, 0, 255)
    assert histogram_figure(plain, site(INPUT)).layout.yaxis.type == "linear"
    assert "log" not in histogram_figure(plain, site(INPUT)).layout.meta["subtitle"]
    # Who asks for one gets it, whatever the values.
    assert histogram_figure(plain, site(INPUT), log=True).layout.yaxis.type == "log"


def test_what_a_figure_says_are_its_numbers() -> None:
    x = torch.cat([torch.linspace(0, 1, 900), torch.full((90,), 3.0), torch.full((10,), -2.0)])
    figure = histogram_figure(grid_histogram(x, 0.01, 0, 0, 255), site(INPUT))
    said = figure.layout.meta["alt"]
    assert said.startswith(INPUT)
    assert "Histogram of 1,000 values of the input on codes 0 to 255, 0 to 2.55 in real" in said
    assert "Values −2 to 3, 0.1 % of them 0." in said
    assert "Clipped 1 % below and 9 % above the grid." in said
    shares = [float(row[2].rstrip(" %")) for row in figure.layout.meta["table"]["rows"]]
    assert sum(shares) == pytest.approx(100, abs=0.5)
    assert [row[3] for row in figure.layout.meta["table"]["rows"]].count("clipped") >= 2
    scales = replace(site(WEIGHT), scale=(0.3, 0.1, 0.2), zero_point=(0,) * 3,
                     min_val=(-1.0, -4.0, -2.0), max_val=(1.0, 2.0, 5.0))  # fmt: skip
    said = channel_figure(scales).layout.meta["alt"]
    assert "Scale of 3 channels (axis 0): 0.1 to 0.3, median 0.2." in said
    assert "Least at channel 1, largest at 0. Observed values −4 to 5." in said
    said = curves_figure(history()).layout.meta["alt"]
    assert "Loss over 300 steps: 1.952 in the first tenth of them, 1.052 in the last." in said
    assert "accuracy: 0.8 after epoch 1, 0.9 after epoch 3, highest 0.9 after epoch 3." in said
    assert "Float model: 0.94. observers frozen at step 200; BN frozen at step 200." in said
    slot = FigureSlot()
    slot.show(figure)
    assert slot.plot.label == figure.layout.meta["alt"]


def test_all_histograms_have_the_same_traces() -> None:
    one, other = (histogram_figure(walk()[1][p], site(p)) for p in (INPUT, WEIGHT))
    assert [t.type for t in one.data] == [t.type for t in other.data]


def test_channels_show_every_scale_and_can_be_ordered() -> None:
    figure = channel_figure(site(WEIGHT))
    assert list(figure.data[0].y) == list(site(WEIGHT).scale)
    by_index, by_scale = figure.layout.updatemenus[0].buttons
    assert list(by_scale.args[0]["y"][0]) == sorted(site(WEIGHT).scale)
    assert list(by_index.args[0]["y"][0]) == list(site(WEIGHT).scale)
    assert not figure.layout.yaxis3.visible  # zero points are all 0
    several = replace(site(WEIGHT), zero_point=tuple(range(8)))
    assert channel_figure(several).layout.yaxis3.visible


def test_many_channels_are_thinned_and_wide_ones_get_a_log_axis() -> None:
    scales = tuple(0.001 * (1 + i) for i in range(5000))
    figure = channel_figure(replace(site(WEIGHT), scale=scales, zero_point=(0,) * 5000))
    assert len(figure.data[0].y) <= 1024
    assert figure.layout.yaxis.type == "log"
    assert "One scale" in texts(channel_figure(site(INPUT)))


def history(steps: int = 300) -> History:
    found = History(baseline=0.94)
    for i in range(steps):
        found.add_step(StepRecord(i, i * 3 // steps, 2.0 - i / steps, 0.01, 32))
    for epoch in range(3):
        found.add_epoch(EpochRecord(epoch, 1.5 - epoch / 4, 0.8 + epoch / 20, 1, False, False, 0.1))
    found.add_marker(Marker(200, 2, "observers frozen"))
    found.add_marker(Marker(200, 2, "batch-norm statistics frozen"))
    found.add_marker(Marker(210, 2, "paused"))
    return found


def test_curves() -> None:
    figure = curves_figure(history())
    loss, mean, metric, baseline = figure.data
    assert len(loss.y) == 300
    assert list(mean.x) == [100, 200, 300]
    assert list(metric.y) == pytest.approx([0.8, 0.85, 0.9])
    assert set(baseline.y) == {0.94}
    assert baseline.line.dash == "dash"
    assert [s.x0 for s in figure.layout.shapes] == [200]
    assert "observers frozen, BN frozen" in texts(figure)


def test_curves_of_a_long_and_of_an_empty_run() -> None:
    loss = curves_figure(history(15_000)).data[0]
    assert len(loss.y) <= 600
    assert sum(loss.y) / len(loss.y) == pytest.approx(1.5, abs=0.01)
    assert len(curves_figure(History()).data) == 4


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_users_write_is_escaped(theme: Any) -> None:
    evil = "<a href='https://example.org'>x</a>"
    bad = replace(site(INPUT), path=evil)
    made = [
        histogram_figure(walk()[1][INPUT], bad, theme),
        channel_figure(replace(site(WEIGHT), path=evil), theme),
        curves_figure(History(metric_name=evil), theme),
    ]
    for figure in made:
        drawn = json.loads(figure.to_json())
        # The page writes these as text, not as markup: see plot.js.
        assert "<a " in json.dumps(drawn["layout"].pop("meta"))
        assert "<a " not in json.dumps(drawn)


def test_results_table_has_bars_in_proportion_and_dashes_for_what_is_missing() -> None:
    latency = Latency(0.004, 0.003, 0.005, 30, 1, "onednn", 32)
    evaluation = Evaluation(
        {
            "float": ModelResult("float", MetricValue("accuracy", 0.9, 360, 1.0), 4000, latency),
            "int8": ModelResult("int8", MetricValue("accuracy", 0.45, 360, 1.0), 1000, None, "a<b"),
        }
    )
    html = results_html(evaluation)
    assert 'style="width:50.0%"' in html
    assert 'style="width:25.0%"' in html
    assert "<td>–</td>" in html
    assert "a&lt;b" in html
    assert 'scope="row"' in html
    assert "median of 30 runs, batch of 32, 1 thread, int8 engine onednn" in html
    assert "Nothing was measured" in results_html(Evaluation({"float": ModelResult("float")}))


def filled(value: Any) -> Any:
    """Without what is empty: [] or {} and nothing at all are the same to plotly."""
    if isinstance(value, dict):
        found = {key: filled(inner) for key, inner in value.items()}
        return {key: inner for key, inner in found.items() if inner not in (None, {}, [])}
    if isinstance(value, (list, tuple)):
        return [filled(inner) for inner in value]
    return value


def test_slot_holds_the_whole_of_any_figure_as_state() -> None:
    # State, not changes: a page that comes late, reloads or reconnects draws the newest figure.
    slot = FigureSlot()
    hists = walk()[1]
    generator = random.Random(0)
    wanted = [histogram_figure(hists[p], site(p)) for p in (INPUT, WEIGHT)]
    wanted += [histogram_figure(hists[INPUT], site(INPUT), "dark", log=True)]
    wanted += [histogram_figure(grid_histogram(torch.empty(0), 1, 0, 0, 1), site(INPUT))]
    wanted += [channel_figure(site(WEIGHT)), curves_figure(history())]
    for _ in range(12):
        figure = generator.choice(wanted)
        slot.show(figure)
        assert slot.plot.figure.value == json.loads(figure.to_json())
        assert slot.layout.display == ""
    slot.show(None)
    assert slot.layout.display == "none"
    assert slot.plot.figure.value == {}


def test_inspector_widget_shows_page_and_figures_and_reports_clicks() -> None:
    widget = InspectorWidget()
    widget.show("<p>x</p>", {"histogram": histogram_figure(walk()[1][INPUT], site(INPUT))})
    assert widget.panel.html == "<p>x</p>"
    assert widget.slots["histogram"].layout.display == ""
    assert widget.slots["channels"].layout.display == "none"
    widget.panel.selected = "module:fc"  # what a click on a link does
    assert widget.selected == "module:fc"
    with pytest.raises(KeyError, match="nope"):
        widget.show("", {"nope": None})
