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
from qatexplorer.runs.records import TrainingConfig
from qatexplorer.runs.samples import FakeQuantInfo, Overhead
from qatexplorer.telemetry import Telemetry
from qatexplorer.training.run import TrainingRun
from qatexplorer.views.training.multiples import ORDERS, multiples, summary_words
from qatexplorer.views.training.ridges import ridges_figure
from qatexplorer.views.training.scales import scales_figure
from qatexplorer.views.training.telemetry import oscillation_figure, overhead_words
from qatexplorer.widgets.common.bridge import Bridge
from qatexplorer.widgets.common.page import PageState
from qatexplorer.widgets.training.live import LivePanel
from tests.support.training_models import batches, data, one_thread, prepared  # noqa: F401


@pytest.fixture(scope="module")
def telemetry() -> Telemetry:
    torch.manual_seed(0)
    model = prepared()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with qx.watch(model, every=1, oscillation="every step") as w:
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


def test_oscillation_shows_the_worst_weights(telemetry: Telemetry) -> None:
    figure = oscillation_figure(telemetry)
    assert figure is not None
    assert {trace.name for trace in figure.data} == {
        "conv.weight_fake_quant",
        "fc.weight_fake_quant",
    }
    last = [trace.y[-1] for trace in figure.data if trace.line.dash == "solid"]
    assert len(last) == 2
    assert last == sorted(last, reverse=True)
    with qx.watch(prepared(), every=1, paths=["quant.activation_post_process"]) as w:
        pass
    assert oscillation_figure(w.telemetry) is None


def test_the_published_measure_stands_beside_ours_with_what_it_costs() -> None:
    settings: Any = {"epochs": 2, "lr": 5e-2, "telemetry_every": 2, "oscillation": "every step"}
    run = TrainingRun(prepared(), data(), TrainingConfig(**settings)).run()
    assert run.telemetry is not None
    figure = oscillation_figure(run.telemetry)
    assert figure is not None
    assert [trace.line.dash for trace in figure.data] == ["solid", "dash"] * 2
    for ours, published in zip(figure.data[::2], figure.data[1::2], strict=True):
        assert list(ours.y) == run.telemetry.series(ours.name, "oscillating")[1]
        assert list(published.y) == run.telemetry.series(ours.name, "reversing")[1]
        assert published.line.color == ours.line.color
    assert "dashed: rate of reversals above 0.005" in figure.to_json()
    words = overhead_words(run.telemetry)
    assert re.search(
        r"The codes of all weights are taken in every step, in \S+ ms: \S+ % of step time", words
    )


@pytest.mark.parametrize("order", ORDERS)
def test_small_multiples_are_sorted_with_the_worst_first(telemetry: Telemetry, order: str) -> None:
    rows = multiples(telemetry, order)
    assert sorted(row["path"] for row in rows) == sorted(telemetry.paths)
    chosen = ORDERS[order]
    sizes = []
    for row in rows:
        columns = [telemetry.series(row["path"], name)[1] for name in chosen.metrics]
        newest = sum(column[-1] for column in columns) if all(columns) else math.nan
        if chosen.from_first and columns[0]:
            newest = columns[0][-1] / columns[0][0] - 1
        assert row["value"] == ("–" if math.isnan(newest) else chosen.write(newest))
        assert f"{chosen.words} {row['value']}" in row["label"]
        sizes.append(abs(newest) if chosen.from_first else newest)
    known = [v for v in sizes if not math.isnan(v)]
    assert known
    assert known == sorted(known, reverse=chosen.largest_first)
    assert all(math.isnan(v) for v in sizes[len(known) :])
    forbidden = [row["path"] for row in rows if row["bad"]]
    assert sorted(forbidden) == ["fc.activation_post_process", "fc.weight_fake_quant"]
    assert all("⚠ fake quant off while its observer" in r["label"] for r in rows if r["bad"])


def test_cards_show_the_course_and_the_newest_histogram(telemetry: Telemetry) -> None:
    rows = {row["path"]: row for row in multiples(telemetry, "sqnr")}
    for path, row in rows.items():
        _, values = telemetry.series(path, "sqnr_db")
        low, high = min(values), max(values)
        wanted = [100 * (v - low) / (high - low or 1) for v in values]
        assert row["line"] == pytest.approx(wanted, abs=0.51)
        histogram = telemetry.histogram(path)
        assert histogram is not None
        assert len(row["bars"]) == 26
        assert (row["bars"][0] > 0) == (histogram.clipped_low > 0)
        assert (row["bars"][-1] > 0) == (histogram.clipped_high > 0)
        # Of the grid: the values in each twenty-fourth of its codes, counted anew.
        levels = histogram.quant_max - histogram.quant_min + 1
        found = [0] * 24
        for index, n in enumerate(histogram.counts):
            code = round(histogram.edges[index + 1] - 0.5)
            if histogram.quant_min <= code <= histogram.quant_max:
                place = code - histogram.quant_min
                found[max(i for i in range(24) if i * levels // 24 <= place)] += n
        assert [v > 0 for v in row["bars"][1:-1]] == [n > 0 for n in found]
        if not row["log"]:
            top = max([*found, histogram.clipped_low, histogram.clipped_high])
            for bar, n in zip(row["bars"][1:-1], found, strict=True):
                assert bar == pytest.approx(100 * n / top, abs=4)
    assert rows["conv.weight_fake_quant"]["name"] == "weight of conv"
    assert rows["quant.activation_post_process"]["mark"] == "▲"
    # The line may have fewer points than there were samples; it ends at the newest.
    steps, table = telemetry.table("sqnr_db", most=5)
    assert steps == [2, 5, 8, 11]
    assert table[-1, 0] == telemetry.series(telemetry.paths[0], "sqnr_db")[1][-1]


def test_what_the_session_knows_of_a_tensor_gives_the_name() -> None:
    infos = [
        FakeQuantInfo(f"activation_post_process_{i}", "output", "", "", 0, 255, "quint8", None)
        for i in range(3)
    ]
    telemetry = Telemetry(infos, 320)
    known = ["output of layer1.0.conv1", "output of twice", "output of twice"]
    tensors = dict(zip(telemetry.paths, known, strict=True))
    names = [row["name"] for row in multiples(telemetry, tensors=tensors)]
    # Two of the same name would be none.
    assert names == ["output of layer1.0.conv1", infos[1].path, infos[2].path]


def overhead(**known: Any) -> Overhead:
    values = {"steps": 100, "sampled_steps": 10, "train_s": 0.5, "spent_s": 0.02, "budget": 0.02,
              "every": 10.0, "sampled": 9, "total": 9, "largest_sample": 1024,
              "largest_total": 131_072, "pace": "steady"}  # fmt: skip
    return Overhead(**{**values, **known})


def test_what_sampling_costs_is_said_with_its_reason() -> None:
    telemetry = Telemetry([], 320)
    assert overhead_words(telemetry) == "What sampling cost is not known."

    def words(**known: Any) -> str:
        telemetry.set_overhead(lambda: overhead(**known))
        return overhead_words(telemetry)

    text = words()
    assert "1 step in 10, of the largest tensor 1,024 of 131,072 values, shares ± 6 %" in text
    assert "A sample takes 2 ms, a step 5 ms: 4 % of step time." in text
    # 2 ms of 5 ms in every 20th step are 2 %.
    assert text.endswith("On steps this short a sample weighs much. 1 step in 20 would be 2 %.")
    assert "short" not in words(train_s=50.0, spent_s=2.0)
    assert words(spent_s=0.009).endswith("1.8 % of step time.")
    held = words(pace="auto")
    assert held.endswith("The budget is 2 %; the next samples come later.")
    assert words(sampled_steps=0) == "No sample yet."
    assert words(train_s=0.0).endswith("not timed yet.")
    assert "above the budget" not in overhead().words()
    assert "above the budget of 2 %" in overhead(pace="auto").words()


def test_names_are_escaped() -> None:
    model = nn.ModuleDict({"<b>x": torch.ao.quantization.FakeQuantize()})
    with qx.watch(model, every=1) as w:
        for _ in range(3):
            model["<b>x"](torch.rand(4, 4))
            w.step()
    for figure in (ridges_figure(w.telemetry, "<b>x"), scales_figure(w.telemetry, "<b>x")):
        assert "<b>x" not in figure.layout.title.text
        assert "&lt;b&gt;x" in figure.layout.title.text


def test_a_run_that_was_opened_shows_the_same(tmp_path: Path) -> None:
    model = prepared()
    with qx.watch(model, every=1, folder=tmp_path / "run") as w:
        for x, _ in batches(4):
            model(x)
            w.step()
    read = qx.open_run(tmp_path / "run").telemetry
    assert read is not None
    path = "fc.weight_fake_quant"
    assert multiples(read) == multiples(w.telemetry)
    assert ridges_figure(read, path) == ridges_figure(w.telemetry, path)
    assert scales_figure(read, path) == scales_figure(w.telemetry, path)
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
    assert "1 step in 5" in panel.cost.html
    shown = [row["path"] for row in panel.multiples.rows]
    assert sorted(shown) == sorted(telemetry.paths)
    assert "weight of conv1" in [row["name"] for row in panel.multiples.rows]
    panel.multiples.picked = f"site:{shown[-1]}"  # what a click does
    assert panel.multiples.picked == ""
    assert panel.multiples.selected == f"site:{shown[-1]}"
    assert page.selection == f"site:{shown[-1]}"
    assert panel.path == shown[-1]
    shown_title = panel.histograms.plot.figure["layout"]["title"]["text"]
    assert ridges_figure(telemetry, shown[-1]).layout.title.text == shown_title
    before = panel.multiples.rows
    panel.order.value = "sqnr"
    assert panel.multiples.rows != before
    assert panel.multiples.title == "Fake quants, worst first by SQNR"
    values = panel.histograms.plot.figure["data"]
    panel.show_as.value = "change"
    assert panel.histograms.plot.figure["data"] != values
    assert "less those of the first" in panel.histograms.plot.figure["layout"]["title"]["text"]
    panel.show(None)
    assert list(panel.multiples.rows) == []
    assert panel.scales.layout.display == "none"


def test_a_run_without_samples_says_why(tmp_path: Path) -> None:
    example = qx.zoo.load("digits_mlp")
    session = qx.Session(example.model, example.example_inputs, data=example.data, stubs="model")
    session.goto("insert")
    panel = LivePanel(Bridge(), PageState())
    panel.use(session)
    assert "train, and the fake quants show here" in panel.words.value
    session.train(epochs=1, telemetry_every=0, run_dir=tmp_path / "none")
    panel.draw()
    assert "“Sample every … steps” (in Schedules) is 0" in panel.words.value
    panel.show(qx.open_run(tmp_path / "none"))
    assert panel.words.value == "none: no sample of a fake quant was taken in this run."
    assert list(panel.multiples.rows) == []
