"""What the live panel shows is what was recorded."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.ao.quantization import disable_fake_quant, enable_fake_quant
from torch.nn import functional as F

import qatexplorer as qx
from qatexplorer.telemetry import Telemetry
from qatexplorer.views.training.sites import ORDERS, sites_html, sparkline, summary_words
from qatexplorer.views.training.telemetry import (
    histograms_figure,
    oscillation_figure,
    overhead_words,
    scales_figure,
)
from qatexplorer.widgets.common.bridge import Bridge
from qatexplorer.widgets.common.page import PageState
from qatexplorer.widgets.training.live import LivePanel
from tests.support.training_models import batches, one_thread, prepared  # noqa: F401


@pytest.fixture(scope="module")
def telemetry() -> Telemetry:
    torch.manual_seed(0)
    model = prepared()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with qx.watch(model, every=1) as w:
        for step, (x, y) in enumerate(batches(12)):
            if step == 4:
                model.fc.apply(disable_fake_quant)  # type: ignore[union-attr]
            if step == 6:
                model.fc.apply(enable_fake_quant)  # type: ignore[union-attr]
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            w.step()
    return w.telemetry


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_heat_map_is_the_histograms(telemetry: Telemetry, theme: Any) -> None:
    path = "fc.activation_post_process"
    figure = histograms_figure(telemetry, path, theme)
    heat = figure.data[0]
    assert list(heat.x) == [str(step) for step in range(12)]
    for index, (_, histogram) in enumerate(telemetry.histograms(path)):
        column = [row[index] for row in heat.customdata]
        assert sum(column) == pytest.approx(1.0)
        inside = sum(c for c, y in zip(column, heat.y, strict=True) if -0.5 < y < 255.5)
        clipped = histogram.clipped_low_share + histogram.clipped_high_share
        assert inside == pytest.approx(1.0 - clipped)
    assert {shape.y0 for shape in figure.layout.shapes} == {-0.5, 255.5}
    sample = telemetry.sample(path)
    assert sample is not None
    assert f"{sample.sqnr_db:.1f} dB" in figure.layout.title.subtitle.text


def test_scales_and_ranges_over_steps(telemetry: Telemetry) -> None:
    path = "fc.weight_fake_quant"
    figure = scales_figure(telemetry, path)
    by_name = {trace.name: trace for trace in figure.data}
    assert list(by_name["scale"].y) == telemetry.series(path, "scale_median")[1]
    assert list(by_name["largest of the batch"].y) == telemetry.series(path, "batch_max")[1]
    # The forbidden mixture is a band with words, from the step it began to the step it ended.
    band = next(shape for shape in figure.layout.shapes if shape.type == "rect")
    assert (band.x0, band.x1) == (4, 6)
    assert any("fake quant off while its observer" in a.text for a in figure.layout.annotations)


def test_oscillation_shows_the_worst_weights(telemetry: Telemetry) -> None:
    figure = oscillation_figure(telemetry)
    assert figure is not None
    assert {trace.name for trace in figure.data} == {
        "conv.weight_fake_quant",
        "fc.weight_fake_quant",
    }
    last = [trace.y[-1] for trace in figure.data]
    assert last == sorted(last, reverse=True)
    with qx.watch(prepared(), every=1, paths=["quant.activation_post_process"]) as w:
        pass
    assert oscillation_figure(w.telemetry) is None


@pytest.mark.parametrize("order", ORDERS)
def test_small_multiples_are_sorted_with_the_worst_first(telemetry: Telemetry, order: str) -> None:
    html = sites_html(telemetry, order, "fc.weight_fake_quant")
    shown = re.findall(r'data-select="site:([^"]+)"', html)
    assert sorted(shown) == sorted(telemetry.paths)
    _, value, write, largest_first = ORDERS[order]
    newest = [value(telemetry.sample(path)) for path in shown]  # type: ignore[arg-type]
    known = [v for v in newest if not math.isnan(v)]
    assert known == sorted(known, reverse=largest_first)
    assert all(math.isnan(v) for v in newest[len(known) :])
    assert write(known[0]) in html
    assert html.count('aria-current="true"') == 1
    assert overhead_words(telemetry) in html
    assert html.count("⚠") == 2


def test_names_are_escaped() -> None:
    model = nn.ModuleDict({"<b>x": torch.ao.quantization.FakeQuantize()})
    with qx.watch(model, every=1) as w:
        for _ in range(3):
            model["<b>x"](torch.rand(4, 4))
            w.step()
    html = sites_html(w.telemetry)
    assert "<b>x" not in html
    assert "&lt;b&gt;x" in html
    assert "<b>x" not in histograms_figure(w.telemetry, "<b>x").layout.title.text
    assert "<b>x" not in scales_figure(w.telemetry, "<b>x").layout.title.text


def test_sparkline_ends_at_the_newest_value_and_skips_what_is_not_known() -> None:
    def points(html: str) -> list[tuple[str, str]]:
        return re.findall(r"([\d.]+),([\d.]+)", html.partition('points="')[2].partition('"')[0])

    assert len(points(sparkline([1.0, math.nan, 3.0, 2.0]))) == 3
    assert [float(y) for _, y in points(sparkline([1.0, math.nan, 3.0, 2.0]))] == [21.0, 3.0, 12.0]
    assert sparkline([math.nan, 1.0]) == ""
    assert 30 < len(points(sparkline([float(i % 7) for i in range(999)]))) <= 60


def test_a_run_that_was_opened_shows_the_same(tmp_path: Path) -> None:
    model = prepared()
    with qx.watch(model, every=1, folder=tmp_path / "run") as w:
        for x, _ in batches(4):
            model(x)
            w.step()
    read = qx.open_run(tmp_path / "run").telemetry
    assert read is not None
    path = "fc.weight_fake_quant"
    assert sites_html(read) == sites_html(w.telemetry)
    assert histograms_figure(read, path) == histograms_figure(w.telemetry, path)
    assert summary_words(read) == summary_words(w.telemetry)


def test_live_panel_follows_a_run_and_the_selection() -> None:
    example = qx.zoo.load("digits_cnn")
    session = qx.Session(example.model, example.example_inputs, data=example.data)
    session.goto("insert")
    page = PageState()
    panel = LivePanel(Bridge(), page)
    panel.use(session)
    assert "Nothing seen yet" in panel.words.value
    assert panel.histograms.layout.display == "none"
    session.train(epochs=1, telemetry_every=5)
    panel.on_training()
    telemetry = panel.telemetry
    assert telemetry is not None
    assert "fake quants watched" in panel.words.value
    assert "1 step in 5" in panel.sites.html
    shown = re.findall(r'data-select="site:([^"]+)"', panel.sites.html)
    assert sorted(shown) == sorted(telemetry.paths)
    panel.sites.selected = f"site:{shown[-1]}"
    assert page.selection == f"site:{shown[-1]}"
    assert panel.path == shown[-1]
    shown_title = panel.histograms.plot.figure["layout"]["title"]["text"]
    assert histograms_figure(telemetry, shown[-1]).layout.title.text == shown_title
    before = panel.sites.html
    panel.order.value = "sqnr"
    assert panel.sites.html != before
    panel.show(None)
    assert panel.sites.html == ""
