"""Pictures without a browser: what they show of a stage; well-formed, small and escaped."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import pytest

import qatexplorer as qx
from qatexplorer.views.common.theme import LIGHT, make_figure
from qatexplorer.views.graph.scene import build_scene
from qatexplorer.views.inspector.channels import channel_figure
from qatexplorer.views.inspector.figures import histogram_figure
from qatexplorer.views.static.figure import figure_svg
from qatexplorer.views.static.graph import MAX_MARKS, graph_svg
from qatexplorer.views.static.page import StillPage, still_html
from qatexplorer.views.static.tree import tree_table
from qatexplorer.views.tree import build_tree
from qatexplorer.widgets.explorer.still import still_of
from tests.support.models import NARROW, load_timm

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def session() -> qx.Session:
    example = qx.zoo.load("digits_cnn")
    made = qx.Session(example.model, example.example_inputs, data=example.data)
    made.goto("insert")
    made.histograms()
    return made


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def rects(svg: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(f"{SVG}rect"))


def images(html: str) -> Iterator[str]:
    for data in re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", html):
        yield base64.b64decode(data).decode()


def test_the_graph_shows_every_operation_of_a_small_model(session: qx.Session) -> None:
    scene = build_scene(session.snapshot)
    svg = graph_svg(scene)
    found = texts(svg)
    for name in ("conv1", "conv2", "conv3", "fc", "pool"):
        assert name in found
    assert {"W", "A", "I"} <= set(found)
    assert f"{len(scene['nodes'])} operations" in ElementTree.fromstring(svg).get("aria-label", "")


def test_no_two_boxes_of_the_graph_lie_on_each_other(session: qx.Session) -> None:
    model, inputs = load_timm("resnet18", 64, 1, **NARROW)
    large = qx.Session(model, inputs)
    for snapshot in (session.snapshot, large.snapshot):
        boxes = [r for r in rects(graph_svg(build_scene(snapshot))) if r.get("height") == "34"]
        assert 5 < len(boxes) <= MAX_MARKS
        places = [(float(b.get("x", 0)), float(b.get("y", 0))) for b in boxes]
        for index, (x, y) in enumerate(places):
            for other_x, other_y in places[index + 1 :]:
                assert abs(x - other_x) >= 168 or abs(y - other_y) >= 34


def test_a_large_graph_is_drawn_with_closed_groups() -> None:
    model, inputs = load_timm("resnet50", 64, 1, **NARROW)
    session = qx.Session(model, inputs)
    svg = graph_svg(build_scene(session.snapshot))
    assert len(svg) < 60_000
    assert any(re.fullmatch(r"\d+ operations", words) for words in texts(svg))
    assert "closed groups" in ElementTree.fromstring(svg).get("aria-label", "")


def test_a_stage_without_a_graph_draws_nothing_and_says_why() -> None:
    scene = {"nodes": [], "groups": [], "edges": [], "reason": "No graph <here>."}
    assert graph_svg(scene) == ""
    html = still_html(StillPage("M", "", "s", "", "", [], scene))
    assert "No graph &lt;here&gt;." in html


def test_the_tree_is_a_table_of_all_rows(session: qx.Session) -> None:
    rows = build_tree(session.snapshot, session.diff)
    html = tree_table(rows)
    assert html.count("<tr") == len(rows) + 1
    for row in rows:
        assert f">{row['name']}</" in html or f"{row['name']}<" in html
    assert "qat.ConvBnReLU2d" in html


def test_a_tree_with_too_many_rows_is_cut_at_a_depth_and_counted(session: qx.Session) -> None:
    rows = build_tree(session.snapshot)
    top = [row for row in rows if row["depth"] <= 1]
    html = tree_table(rows, most=len(top))
    assert html.count("<tr") == len(top) + 1
    assert f"{len(rows) - len(top)} more below" in html


def test_a_histogram_has_a_bar_for_each_bar(session: qx.Session) -> None:
    site = next(s for s in session.snapshot.sites if s.kind == "weight")
    figure = histogram_figure(session.histogram(site.path), site).to_plotly_json()
    svg = figure_svg(figure)
    bars = sum(len(trace["x"]) for trace in figure["data"] if trace["type"] == "bar")
    assert sum(1 for r in rects(svg) if r.get("fill") not in ("#ffffff", "none")) >= bars > 4
    assert any(words.startswith("quant_min") for words in texts(svg))


@pytest.mark.parametrize("kind", ["linear", "log"])
def test_bars_that_lie_are_as_long_as_their_numbers(kind: str) -> None:
    trace = {"type": "bar", "orientation": "h", "y": [0, 1, 2], "x": [1, 10, 100], "width": 0.5}
    names = ["a", "b", "a very long name of a fake quant"]
    layout = {
        "xaxis": {"type": kind, "range": [0, 2 if kind == "log" else 100]},
        "yaxis": {"tickvals": [0, 1, 2], "ticktext": names, "range": [2.6, -0.6]},
    }
    svg = figure_svg({"data": [trace], "layout": layout})
    bars = [r for r in rects(svg) if r.get("fill") == LIGHT.series[0]]
    widths = [float(r.get("width", 0)) for r in bars]
    assert float(bars[0].get("x", 0)) > 5 * len(names[2]), "there is room for the words"
    shares = (0, 0.5, 1) if kind == "log" else (0.01, 0.1, 1)
    assert widths == pytest.approx([share * widths[2] for share in shares], abs=0.1)
    tops = [float(r.get("y", 0)) for r in bars]
    assert tops == sorted(tops)
    assert len({r.get("height") for r in bars}) == 1


def test_every_figure_of_a_walk_is_valid_svg(session: qx.Session) -> None:
    for site in session.snapshot.sites:
        for figure in (histogram_figure(session.histogram(site.path), site), channel_figure(site)):
            ElementTree.fromstring(figure_svg(figure.to_plotly_json()))


@pytest.mark.parametrize(
    ("trace", "tag", "number"),
    [
        ({"type": "scatter", "x": [0, 1, None, 2, 3], "y": [0, 1, 2, 3, 4]}, "path", 2),
        ({"type": "scatter", "x": [1, 2], "y": [3, 4], "mode": "markers"}, "circle", 2),
        ({"type": "scatter", "x": [0, 1], "y": [1, 1], "fill": "tozeroy"}, "path", 2),
        ({"type": "heatmap", "z": [[1, 2, 3], [4, None, 6]]}, "rect", 6),
        ({"type": "pie", "values": [1, 2]}, "path", 0),
    ],
)
def test_traces(trace: dict[str, Any], tag: str, number: int) -> None:
    svg = figure_svg({"data": [trace], "layout": {"showlegend": False}})
    assert len(list(ElementTree.fromstring(svg).iter(f"{SVG}{tag}"))) == number


def test_cells_have_the_colours_of_the_scale_and_stay_inside_the_axes() -> None:
    trace = {"type": "heatmap", "z": [[1, 2], [5, 9]], "colorscale": "Cividis"}
    layout = {"showlegend": False, "margin": {"l": 100, "r": 20}}
    svg = ElementTree.fromstring(figure_svg({"data": [trace], "layout": layout}, 400))
    cells = [r for r in svg.iter(f"{SVG}rect") if r.get("fill") not in ("#ffffff", None)]
    low, high = cells[0].get("fill"), cells[-1].get("fill")
    assert (low, high) == ("#00224e", "#fee838")  # dark is low, as plotly draws it
    assert min(float(r.attrib["x"]) for r in cells) == pytest.approx(100)
    ends = [float(r.attrib["x"]) + float(r.attrib["width"]) for r in cells]
    assert max(ends) == pytest.approx(380)
    turned = figure_svg({"data": [{**trace, "reversescale": True}], "layout": layout})
    assert turned.index("#fee838") < turned.index("#00224e")


def test_words_that_are_too_long_for_a_line_take_more_of_them() -> None:
    names = [f"layer{n}.downsample.weight_fake_quant" for n in range(4)]
    data = [{"type": "scatter", "x": [0, 1], "y": [0, 1], "name": name} for name in names]
    under = " ".join(["as many words as there are"] * 10)
    layout = {"title": {"text": "Weights", "subtitle": {"text": under}}, "height": 300}
    svg = ElementTree.fromstring(figure_svg({"data": data, "layout": layout}, 640))
    lines = [(t.text or "", float(t.attrib["x"]), float(t.attrib["y"]))
             for t in svg.iter(f"{SVG}text")]  # fmt: skip
    keys = [line for line in lines if line[0] in names]
    assert {words for words, _, _ in keys} == set(names)
    assert min(x for _, x, _ in keys) > 14
    subtitle = [line for line in lines if line[0] and line[0] in under]
    assert " ".join(words for words, _, _ in subtitle) == under
    assert max(6.1 * len(words) for words, _, _ in subtitle) < 632
    assert max(y for _, _, y in subtitle) < min(y for _, _, y in keys)
    assert len({round(y) for _, _, y in subtitle + keys}) >= 5
    assert float(svg.attrib["height"]) > 300


def test_a_title_on_the_right_stands_past_the_words_of_its_axis() -> None:
    layout = {"showlegend": False, "yaxis": {
        "side": "right", "title": {"text": "clipped"}, "tickvals": [0, 1],
        "ticktext": ["12.34 % of it", "none"]}}  # fmt: skip
    data = [{"type": "scatter", "x": [0, 1], "y": [0, 1]}]
    svg = ElementTree.fromstring(figure_svg({"data": data, "layout": layout}, 640))
    at = {t.text: float(t.attrib["x"]) for t in svg.iter(f"{SVG}text")}
    assert at["12.34 % of it"] + 5.9 * len("12.34 % of it") < at["clipped"] - 5
    assert at["clipped"] < 640


def test_a_log_axis_leaves_out_what_it_cannot_show() -> None:
    trace = {"type": "scatter", "x": [0, 1, 2], "y": [0, 10, 1000], "mode": "markers"}
    layout = {"yaxis": {"type": "log"}}
    svg = figure_svg({"data": [trace], "layout": layout})
    assert len(list(ElementTree.fromstring(svg).iter(f"{SVG}circle"))) == 2
    assert "100" in texts(svg)


def test_the_page_shows_the_stage_and_is_small(session: qx.Session) -> None:
    html = still_html(still_of(session, "module:conv2", None))
    ElementTree.fromstring(html.replace("&nbsp;", " ").replace('height:auto">', 'height:auto"/>'))
    assert "DigitsCNN" in html
    assert session.flow.stage("insert").title in html
    pictures = list(images(html))
    assert len(pictures) >= 2
    assert "conv2" in " ".join(texts(pictures[1]))
    assert len(html) < 100_000
    for word in ("<script", "<svg", "http://", "https://"):
        assert word not in html


def test_names_from_a_model_are_escaped() -> None:
    row = {"id": "module:<b>", "kind": "module", "path": "<b>", "name": "<b>", "depth": 0,
           "type": "<i>", "what": [], "marks": [0, 0, 0]}  # fmt: skip
    html = still_html(StillPage("<u>", "<u>", "<u>", "<u>", "<u>", [row], {"nodes": []}))
    assert "<u>" not in html
    assert "<i>" not in html
    assert html.count("&lt;b&gt;") == 2


def test_a_figure_that_plotly_would_refuse_fails_the_tests_here() -> None:
    with pytest.raises(ValueError, match="no_such"):
        make_figure(LIGHT, "t", "s", 100, [{"type": "bar", "no_such": 1}], {})
