"""A benchmark on the page: words, table, bars and rows say what the records say."""

from __future__ import annotations

import re
from dataclasses import replace

import plotly.graph_objects as go
import pytest

from qatexplorer.evaluate.benchmark_records import Benchmark, BenchmarkRow, ModuleTime
from qatexplorer.evaluate.measure import Latency
from qatexplorer.evaluate.profiled import OUTSIDE, OperatorTime
from qatexplorer.views.common import latency as views


def latency(median: float, spread: float, batch: int) -> Latency:
    low, high = median - spread / 2, median + spread / 2
    return Latency(median, low, high, 40, 2, "onednn", batch, low, high, 12)


def row(form: str, batch: int, median: float) -> BenchmarkRow:
    timed = latency(median, median / 10, batch)
    return BenchmarkRow(form, batch, timed, timed.per_second, 4_000, 65_000)


MADE = Benchmark(
    rows=(
        row("float", 1, 0.002),
        row("float", 8, 0.004),
        BenchmarkRow("compiled", 1, note="torch.compile finds <no> C++ compiler"),
        BenchmarkRow("compiled", 8, note="torch.compile finds <no> C++ compiler"),
        row("int8", 1, 0.006),
        row("int8", 8, 0.001),
    ),
    modules=(
        ModuleTime("float", "", "Net", 0.004, 0.001, 0.25),
        ModuleTime("float", "conv", "Conv2d", 0.003, 0.003, 0.75),
        ModuleTime("int8", "", "Net", 0.0011, 0.0001, 0.1),
        ModuleTime("int8", "conv", "ConvReLU2d", 0.001, 0.001, 0.9),
        ModuleTime("int8", "quant", "Quantize", 0.0001, 0.0001, 0.1),
    ),
    operators=(
        OperatorTime("float", "conv", "aten::mkldnn_convolution", 1, 0.003, 0.7),
        OperatorTime("int8", "", OUTSIDE, 0, 0.0002, 0.2),
    ),
    cpu="A <CPU>",
    threads=2,
    engine="onednn",
    torch="2.13",
)


def test_faster_and_slower_are_said_with_numbers() -> None:
    html = views.benchmark_html(MADE)
    words = re.findall("<li>(.*?)</li>", html)
    assert words == [
        "int8 is slower than float at a batch of 1: 6.00 ms and 2.00 ms, 3 times as long.",
        "int8 is faster than float at a batch of 8: 1.00 ms and 4.00 ms, 4 times as fast.",
    ]
    assert html.count("<tr") == 7
    assert "torch.compile finds &lt;no&gt; C++ compiler" in html
    assert "On A &lt;CPU&gt;, 2 threads, int8 engine onednn, torch 2.13." in html
    assert "40 measurements by turns, each the mean of 12 forwards" in html
    assert "Stopped" not in html
    assert "Stopped before all was measured." in views.benchmark_html(replace(MADE, complete=False))


def test_bars_are_in_proportion_within_a_batch() -> None:
    widths = re.findall(r"width:([\d.]+)%", views.benchmark_html(MADE))
    assert [float(width) for width in widths] == [33.3, 100.0, 100.0, 25.0]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_figure_has_medians_and_spreads(theme: str) -> None:
    figure = views.latency_figure(MADE, theme)  # type: ignore[arg-type]
    assert figure is not None
    go.Figure(figure.to_dict())  # plotly checks it
    first, second = figure.data
    assert list(first.y) == list(second.y) == ["float", "int8"]
    assert list(first.x) == pytest.approx([2.0, 6.0])
    assert list(second.x) == pytest.approx([4.0, 1.0])
    assert list(first.error_x.array) == pytest.approx([0.1, 0.3])
    assert list(first.error_x.arrayminus) == pytest.approx([0.1, 0.3])
    assert "batch of 8" in figure.layout.xaxis2.title.text
    meta = figure.layout.meta
    assert "int8 is slower than float" in meta["alt"]
    assert len(meta["table"]["rows"]) == 4


def test_nothing_timed_is_no_figure() -> None:
    assert views.latency_figure(Benchmark(rows=MADE.rows[2:4])) is None
    assert "<table" in views.benchmark_html(Benchmark())
    assert views.module_rows(Benchmark()) == views.operator_rows(Benchmark()) == []
    assert views.detail_words(Benchmark(), False) == ""


def test_modules_stand_side_by_side() -> None:
    rows = {row["id"]: row for row in views.module_rows(MADE)}
    assert list(rows) == ["root", "conv", "quant"]
    conv = rows["conv"]
    assert conv["sel"] == "module:conv"
    assert conv["cells"] == ["conv", "Conv2d", "3", "75.0", "ConvReLU2d", "1", "90.0", "3"]
    assert conv["sort"][7] == pytest.approx(3)
    assert conv["tips"] == {}
    assert rows["root"]["tips"] == {2: "4 ms with all below it", 5: "1.1 ms with all below it"}
    assert rows["quant"]["cells"][1:4] == ["", "", ""]
    assert rows["quant"]["sort"][7] is None
    assert len(conv["cells"]) == len(conv["sort"]) == len(views.module_columns("int8"))


def test_operators_lead_to_their_module() -> None:
    first, outside = views.operator_rows(MADE)
    assert (first["sel"], first["flags"]) == ("module:conv", ["float"])
    assert first["cells"][3:] == ["1", "3", "70.0"]
    assert outside["cells"][2:4] == ["the model itself", ""]
    assert len(first["cells"]) == len(first["sort"]) == len(views.OPERATOR_COLUMNS)
    assert "batch of 8" in views.detail_words(MADE, True)
    assert "float 4.00 ms and int8 1.00 ms" in views.detail_words(MADE, False)


def test_progress_says_how_long_it_takes() -> None:
    assert views.progress_words("timing", 0.5, 6.0) == (
        "measuring: timing, 50%, about 6.0 s left …"
    )
    assert views.progress_words("timing", 0.0, 6.0) == "measuring: timing, 0% …"
