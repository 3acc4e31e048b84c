"""A comparison on the page: every number is that of the record, and what is missing is said."""

from __future__ import annotations

import base64
import json
import math
import struct
import zlib
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from qatexplorer.accuracy.records import CompareRow, Comparison, Lost, Scatter
from qatexplorer.forward.graph import Graph, GraphNode
from qatexplorer.snapshot.records import FakeQuantSite, ModuleRecord, Snapshot
from qatexplorer.views.accuracy.compare_figures import (
    MAX_CELLS,
    MAX_PLACES,
    MAX_POINTS,
    channels_figure,
    depth_figure,
    scatter_figure,
)
from qatexplorer.views.accuracy.compare_places import Places
from qatexplorer.views.accuracy.compare_table import (
    COLUMNS,
    DASH,
    NUMBERS,
    compare_filters,
    compare_rows,
    key_of,
    position_of,
)
from qatexplorer.views.accuracy.compare_words import (
    cost_words,
    headline_html,
    place_html,
    progress_words,
)
from qatexplorer.views.accuracy.lost import MAX_CARDS, MAX_SIDE, image_of, lost_html, png_uri
from qatexplorer.views.common.names import number, share
from tests.support.comparisons import (
    COMPARISON,
    CONV,
    EQUAL,
    FAKE,
    LATE,
    OUTPUT,
    PICTURE,
    ROWS,
    WEIGHT,
)
from tests.support.page_text import visible_text

LABELS = [column["label"] for column in COLUMNS]


def cells(position: int) -> dict[str, str]:
    row = next(one for one in compare_rows(COMPARISON) if one["id"] == key_of(position))
    return dict(zip(LABELS, row["cells"], strict=True))


def tips(position: int) -> dict[str, str]:
    row = next(one for one in compare_rows(COMPARISON) if one["id"] == key_of(position))
    return {LABELS[int(at)]: tip for at, tip in row["tips"].items()}


# -- table ----------------------------------------------------------------------------------------


def test_every_number_of_the_record_is_a_column() -> None:
    shown = {one.field for one in NUMBERS}
    shown |= {"path", "kind", "type", "owner", "index", "call", "values", "cause"}
    # Channels are many to a row: they have the heat map, and the worst stand in the row's page.
    assert {one.name for one in fields(CompareRow)} - shown == {"channels"}


def test_the_head_of_a_number_says_what_it_is() -> None:
    said = {column["label"]: column.get("tip", "") for column in COLUMNS}
    for one in NUMBERS:
        assert said[one.label].lower() == one.meaning.lower()


def test_cells_are_the_numbers_of_the_record() -> None:
    found = cells(0)
    assert found["int8, dB"] == "30.5"
    assert found["fake quant, dB"] == "31.25"
    assert found["codes equal"] == share(0.91)
    assert found["apart, steps"] == "1"
    assert found["mean apart, steps"] == "0.12"
    assert found["int8, cosine"] == "0.9988"
    assert found["fake quant, cosine"] == "0.9991"
    assert found["max error, steps"] == "3.5"
    assert found["mean error, steps"] == "0.27"
    assert found["KL, nats"] == number(0.0021)
    assert found["step"] == "0.05"
    assert found["Position"] == "1"
    assert found["Values"] == "4,096"
    fake = cells(1)
    assert fake["alone, dB"] == "35.75"
    assert fake["clipped"] == "2 %"
    assert fake["clipping error"] == number(0.0003)
    assert fake["rounding error"] == number(0.0004)
    assert fake["Of"] == "conv1"
    late = cells(4)
    assert late["Cause"] == LATE.cause
    assert late["Call"] == "2"
    assert cells(3)["int8, dB"] == "∞"


def test_what_is_not_known_is_a_dash_with_its_reason() -> None:
    for position, row in enumerate(ROWS):
        found, why = cells(position), tips(position)
        for column in NUMBERS:
            missing = column.value(row) is None
            assert (found[column.label] == DASH) == missing
            assert why.get(column.label, "") == (column.why if missing else "")
    assert all(one.why.startswith("Not known: ") for one in NUMBERS)


def test_without_int8_the_worst_of_fake_quant_is_first() -> None:
    rows = tuple(replace(one, sqnr_int8_db=None) for one in (CONV, LATE, EQUAL))
    order = [position_of(row["id"]) for row in compare_rows(Comparison(rows=rows))]
    assert order == [1, 0, 2]


def test_the_worst_is_first_and_what_has_no_sqnr_last() -> None:
    order = [position_of(row["id"]) for row in compare_rows(COMPARISON)]
    assert [ROWS[at or 0] for at in order] == [LATE, FAKE, CONV, WEIGHT, EQUAL, OUTPUT]
    # Sorted by a column, infinite is more than all others and what is not known is nothing.
    at = LABELS.index("int8, dB")
    sorts = {row["id"]: row["sort"][at] for row in compare_rows(COMPARISON)}
    assert sorts[key_of(3)] > 1e9
    assert sorts[key_of(5)] is None


def test_rows_are_json_even_where_numbers_are_not_finite() -> None:
    odd = replace(CONV, sqnr_int8_db=math.nan, kl=-math.inf)
    rows = compare_rows(Comparison(rows=(odd, *ROWS)))
    json.dumps(rows, allow_nan=False)
    assert next(r for r in rows if r["id"] == key_of(0))["cells"][2] == "NaN"


def test_filters_by_kind_and_by_what_is_apart() -> None:
    flags = {one["flag"]: one["label"] for one in compare_filters(COMPARISON)}
    assert flags == {
        "module": "2 modules",
        "operation": "1 operation",
        "fake-quant": "1 fake quant",
        "weight": "1 weight",
        "outputs": "1 output",
        "apart": "≠ 1 apart",
    }
    rows = {row["id"]: row["flags"] for row in compare_rows(COMPARISON)}
    assert rows[key_of(4)] == ["module", "apart"]
    assert rows[key_of(0)] == ["module"]
    assert compare_filters(Comparison(rows=(CONV,))) == []


def test_keys_are_read_back() -> None:
    assert position_of(key_of(12)) == 12
    assert position_of("") is None
    assert position_of("module:conv1") is None


# -- sentences ------------------------------------------------------------------------------------


def test_headline_says_where_they_part_first_why_and_what_is_lost() -> None:
    html = headline_html(COMPARISON)
    text = visible_text(html)
    assert "int8 and fake quant part first at [Choose this row] fc<1>, call 2" in text
    assert "up to 9 steps of the grid apart. The <kernel> adds before it rounds." in text
    assert "The lowest SQNR of int8 is 12.5 dB, at [Choose this row] fc<1>, call 2." in text
    assert "Of 360 evaluation samples, 3 are right in float and wrong in int8." in text
    cost = "2 batches compared in 1.5 s; forwards: float 2, fake quant 2, int8 2."
    assert cost_words(COMPARISON) == cost
    assert cost_words(Comparison(batches=1)).startswith("1 batch compared")
    assert "2 places <could> not be compared." in text
    assert "<kernel>" not in html
    assert f'data-ask="{key_of(4)}"' in html


@pytest.mark.parametrize(
    ("comparison", "words"),
    [
        (Comparison(), "could not be compared step by step at any place"),
        (Comparison(), "No samples of the evaluation data were compared."),
        (Comparison(rows=(CONV,)), "nowhere more than 1.5 steps of the grid apart, at 1 place"),
        (Comparison(rows=(EQUAL,)), "Int8 equals float at every place compared."),
        (Comparison(rows=(WEIGHT,)), "The lowest SQNR of fake quant is 44 dB"),
        (Comparison(rows=(replace(LATE, cause=""),)), "The cause is not known."),
        (Comparison(evaluated=5), "Of 5 evaluation samples, none is right in float"),
        (Comparison(evaluated=5, lost_total=1), "1 is right in float and wrong in int8"),
    ],
)
def test_headline_says_no_more_than_is_known(comparison: Comparison, words: str) -> None:
    assert words in visible_text(headline_html(comparison))


def test_progress_has_an_estimate_once_there_is_something_to_go_by() -> None:
    assert progress_words("", 0.0, 0.0) == "Comparing, 0 %: beginning …"
    assert progress_words("Float, batch 1 of 4", 0.05, 3.0) == (
        "Comparing, 5 % after 3.0 s: float, batch 1 of 4 …"
    )
    assert progress_words("int8", 0.25, 4.0) == "Comparing, 25 %, about 12 s left: int8 …"


def test_the_page_of_a_place_has_all_its_numbers() -> None:
    text = visible_text(place_html(CONV))
    for column in NUMBERS:
        said = column.why if column.value(CONV) is None else column.meaning
        assert f"{column.label}: {column.text(CONV)} {said}" in text
    weight = visible_text(place_html(WEIGHT))
    assert "worst channels: 1: 40.25 dB, 3: 43 dB, 0: 44.5 dB, 2: ∞ dB" in weight
    late = visible_text(place_html(LATE))
    assert "the <kernel> adds before it rounds." in late
    assert "cause is not known" in visible_text(place_html(replace(LATE, cause="")))
    assert "cause is not known" not in visible_text(place_html(CONV))


# -- figures --------------------------------------------------------------------------------------


def curves(figure: Any) -> dict[str, list[tuple[str, float, float]]]:
    return {
        trace.name: list(zip(trace.ids, trace.x, trace.y, strict=True))
        for trace in figure.data
        if trace.ids is not None
    }


def test_depth_has_the_sqnr_of_each_form_at_its_position() -> None:
    figure = depth_figure(COMPARISON, 4)
    assert figure is not None
    top = 31.25 + 6  # infinite is drawn above all that is not
    assert top > 35.75
    found = curves(figure)
    above = 35.75 + 6.0
    assert found["int8"] == [
        (key_of(0), 1, 30.5),
        (key_of(1), 1, 30.0),
        (key_of(3), 3, above),
        (key_of(4), 7, 12.5),
    ]
    assert found["fake quant, all on"] == [
        (key_of(0), 1, 31.25),
        (key_of(1), 1, 31.0),
        (key_of(4), 7, 29.0),
    ]
    assert found["this fake quant alone"] == [(key_of(1), 1, 35.75)]
    assert figure.data[0].marker.symbol[2] == "triangle-up-open"
    assert "∞ dB" in figure.data[0].customdata[2]
    assert "fc&lt;1&gt;, call 2" in figure.data[0].customdata[3]
    assert [shape.x0 for shape in figure.layout.shapes] == [7]
    assert "lowest 12.5 dB at fc<1>, call 2" in figure.layout.meta["alt"]
    rows = figure.layout.meta["table"]["rows"]
    assert rows[0] == ["fc<1>, call 2", "12.5 dB", "29 dB", DASH]


def test_depth_is_not_drawn_of_nothing() -> None:
    assert depth_figure(Comparison()) is None
    assert depth_figure(Comparison(rows=(WEIGHT, OUTPUT))) is None
    only = depth_figure(Comparison(rows=(EQUAL,)), 0)
    assert only is not None
    assert "lowest ∞ dB" in only.layout.meta["alt"]
    weight = depth_figure(COMPARISON, 2)
    assert weight is not None
    assert not weight.layout.shapes


def test_lines_differ_by_more_than_colour() -> None:
    figure = depth_figure(COMPARISON)
    assert figure is not None
    assert len({trace.line.dash for trace in figure.data}) == 3


def test_scatter_has_the_sampled_values_and_the_line_where_they_are_equal() -> None:
    figure = scatter_figure(COMPARISON, 0)
    assert figure is not None
    line, fake, int8 = figure.data
    assert list(line.x) == list(line.y) == [0.0, 2.0]
    assert (list(int8.x), list(int8.y)) == ([0.0, 1.0, 2.0], [0.125, 1.5, 1.75])
    assert (list(fake.x), list(fake.y)) == ([0.0, 1.0, 2.0], [0.0, 1.25, 2.0])
    assert figure.layout.meta["subtitle"].startswith("3 of 4,096 values")
    assert "int8: 3 values, the farthest from float is 1.5 for 1." in figure.layout.meta["alt"]
    assert figure.layout.meta["table"]["rows"][3] == ["int8", "1", "1.5", "0.5"]


def test_scatter_draws_only_what_there_is() -> None:
    assert scatter_figure(COMPARISON, 1) is None  # nothing sampled
    assert scatter_figure(COMPARISON, 4) is None  # an empty sample
    key = ("conv1", 0)
    no_int8 = replace(COMPARISON, scatter={key: Scatter((1.0, 2.0), (), (1.0, 2.5))})
    figure = scatter_figure(no_int8, 0)
    assert figure is not None
    assert [trace.name for trace in figure.data] == ["equal", "fake quant"]
    assert "int8" not in figure.layout.meta["title"]
    odd = replace(COMPARISON, scatter={key: Scatter((math.nan, 2.0), (1.0, math.inf))})
    assert scatter_figure(odd, 0) is None
    many = tuple(map(float, range(9_000)))
    large = scatter_figure(replace(COMPARISON, scatter={key: Scatter(many, many)}), 0)
    assert large is not None
    assert 1000 < len(large.data[1].x) <= MAX_POINTS
    # Two rows of one path and call: whose sample it is, is not known.
    twice = replace(COMPARISON, rows=(CONV, replace(CONV, kind="output")))
    assert scatter_figure(twice, 0) is None


def test_channels_are_cells_with_their_sqnr() -> None:
    figure = channels_figure(COMPARISON, 2)
    assert figure is not None
    (cells,) = figure.data
    assert [list(line) for line in cells.z] == [[44.5, 40.25, 44.5, 43.0]]  # infinite: the end
    assert cells.text[0][2].endswith("<b>∞ dB</b>")
    assert cells.customdata[0][0] == key_of(2)
    assert figure.layout.yaxis.ticktext[0].startswith("▸ ")
    assert (
        "worst is channel 1 of conv1.weight_fake_quant with 40.25 dB" in (figure.layout.meta["alt"])
    )
    assert figure.layout.meta["table"]["rows"] == [
        ["conv1.weight_fake_quant", "1", "40.25 dB", "∞ dB"]
    ]
    assert channels_figure(COMPARISON, activations=True) is None
    fake = replace(FAKE, channels=(12.5, 30.0))
    both = channels_figure(Comparison(rows=(CONV, fake, WEIGHT)), activations=True)
    assert both is not None
    assert [list(line) for line in both.data[0].z] == [[12.5, 30.0]]
    assert "first sample" in both.layout.meta["subtitle"]
    assert channels_figure(Comparison(rows=(CONV,))) is None
    assert channels_figure(Comparison(rows=(replace(WEIGHT, channels=(math.nan,)),))) is None


def test_many_channels_and_places_leave_the_worst_in_sight() -> None:
    wide = replace(WEIGHT, channels=(*(100.0 + at for at in range(199)), 1.5))
    rows = tuple(
        replace(wide, path=f"w{at}", channels=tuple(c + at for c in wide.channels))
        for at in range(60)
    )
    figure = channels_figure(Comparison(rows=rows), 59)
    assert figure is not None
    (cells,) = figure.data
    assert len(cells.z) == MAX_PLACES
    assert len(cells.z[0]) <= MAX_CELLS
    assert [line[0] for line in cells.customdata] == [
        *(key_of(at) for at in range(MAX_PLACES - 1)),
        key_of(59),
    ]
    assert cells.z[0][-1] == 1.5
    assert "channel 199" in cells.text[0][-1]
    said = figure.layout.meta["subtitle"]
    assert "the 40 worst of 60 places" in said
    assert "the worst of 4 neighbours" in said


# -- lost samples ---------------------------------------------------------------------------------


def pixels(uri: str) -> tuple[tuple[int, int, int], bytes]:
    """((width, height, colour type), the filtered lines) of a PNG."""
    data = base64.b64decode(uri.partition(",")[2])
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, parts = 8, {}
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        (crc,) = struct.unpack(">I", data[at + 8 + size : at + 12 + size])
        assert crc == zlib.crc32(kind + body)
        parts[kind] = body
        at += 12 + size
    width, height, _, colour = struct.unpack(">IIBB", parts[b"IHDR"][:10])
    return (width, height, colour), zlib.decompress(parts[b"IDAT"])


def test_images_keep_their_pixels() -> None:
    grey = image_of(PICTURE[0])
    assert grey is not None
    size, lines = pixels(png_uri(grey))
    assert size == (4, 4, 0)
    rows = np.frombuffer(lines, np.uint8).reshape(4, 5)
    assert (rows[:, 0] == 0).all()
    assert rows[:, 1:].tolist() == np.round(PICTURE[0] / 15 * 255).astype(int).tolist()
    colours = image_of(PICTURE)
    assert colours is not None
    size, lines = pixels(png_uri(colours))
    assert size == (4, 4, 2)
    rows = np.frombuffer(lines, np.uint8).reshape(4, 13)[:, 1:].reshape(4, 4, 3)
    assert rows[0, 0].tolist() == [0, round(16 / 47 * 255), round(32 / 47 * 255)]
    one = image_of(PICTURE[:1])
    assert one is not None
    assert one.shape == (4, 4)


@pytest.mark.parametrize(
    "array",
    [np.zeros(9), np.zeros((2, 8, 8)), np.zeros((3, 8)), np.full((8, 8), np.nan), np.zeros((1, 9))],
)
def test_what_is_no_image_is_not_shown_as_one(array: Any) -> None:
    assert image_of(array) is None


def test_odd_images_are_drawn_all_the_same() -> None:
    flat = image_of(np.full((5, 6), 3.0))
    assert flat is not None
    assert set(flat.reshape(-1).tolist()) == {128}
    large = image_of(np.random.default_rng(0).normal(size=(3, 300, 500)))
    assert large is not None
    assert max(large.shape) <= MAX_SIDE
    broken = PICTURE[0].copy()
    broken[0, 0] = np.nan
    drawn = image_of(broken)
    assert drawn is not None
    assert drawn[0, 0] == 0


def test_lost_samples_are_shown_with_their_answers() -> None:
    html = lost_html(COMPARISON)
    text = visible_text(html)
    assert "3 of 360 evaluation samples: right in float, wrong in int8." in text
    assert html.count("<img") == 1
    for words in ("sample 17", "target: 3", "float: ✓ 3", "int8: ✗ 8", "4 × 4, 0 dark to 15"):
        assert words in text
    assert "3: 0.5, −1.25, 7" in text
    assert "its input cannot be taken out of the batch" in text


def test_lost_samples_that_are_not_shown_are_counted() -> None:
    many = tuple(Lost(at, 1, 1, 0) for at in range(100))
    text = visible_text(lost_html(Comparison(lost=many, lost_total=130, evaluated=900)))
    assert "130 of 900" in text
    assert f"The first {MAX_CARDS} are shown." in text
    assert text.count("✗") == MAX_CARDS
    assert "None of 900 evaluation samples" in lost_html(Comparison(evaluated=900))
    assert "No samples of the evaluation data" in lost_html(Comparison())


def test_inputs_of_several_parts() -> None:
    given = {"<ids>": np.arange(3), "name": np.array(["a"]), "picture": PICTURE}
    one = Comparison(lost=(Lost(0, 1, 1, 0, given),), lost_total=1, evaluated=2)
    html = lost_html(one)
    text = visible_text(html)
    assert "<ids>: 3: 0, 1, 2" in text
    assert "name: ndarray" in text
    assert html.count("<img") == 1
    six = replace(one, lost=(Lost(0, 1, 1, 0, [np.arange(2)] * 6),))
    assert "and 2 more inputs" in visible_text(lost_html(six))


# -- places ---------------------------------------------------------------------------------------


def module(path: str, origin: str | None = None) -> ModuleRecord:
    return ModuleRecord(path, "Conv2d", "Conv2d", path if origin is None else origin, None)


def site(path: str, owner: str) -> FakeQuantSite:
    return FakeQuantSite(
        path, "output", owner, "Conv2d", "insert", "", "forward hook", "FakeQuantize", "", "",
        "never", "torch.quint8", 0, 255, "torch.per_tensor_affine", None, (), (), (), (),
        True, True, 1,
    )  # fmt: skip


def snapshot(*modules: ModuleRecord, sites: tuple[FakeQuantSite, ...] = ()) -> Snapshot:
    node = {"label": "n", "target": "n"}
    nodes = (
        GraphNode(id="add", op="call_function", **node),
        GraphNode(id="result", op="output", **node),
    )
    graph = Graph(nodes=nodes, edges=(), origin="fx")
    return Snapshot("fx", "train", modules, sites, graph)


def test_rows_select_their_place_and_places_choose_their_row() -> None:
    train = snapshot(module(""), module("conv1"), sites=(site(FAKE.path, "conv1"),))
    places = Places(COMPARISON, [train], train)
    wanted = {
        0: "module:conv1",
        1: f"site:{FAKE.path}",
        2: "module:conv1",  # this weight has no fake quant of its own here: its owner
        3: "node:add",
        4: "",
        5: "node:result",
    }
    assert {at: places.selection_of(key_of(at)) for at in wanted} == wanted
    assert places.key_for("module:conv1", "") == key_of(0)
    assert places.key_for("module:conv1", key_of(2)) == key_of(2)  # it stays chosen
    assert places.key_for("node:result", key_of(2)) == key_of(5)
    assert places.key_for("module:other", key_of(2)) == ""
    assert places.key_for("", key_of(4)) == ""


def test_a_module_without_a_row_has_that_of_its_fake_quant() -> None:
    train = snapshot(module("conv1"), sites=(site(FAKE.path, "conv1"),))
    places = Places(Comparison(rows=(FAKE,)), [train], train)
    assert places.key_for("module:conv1", "") == key_of(0)
    assert places.selection_of(key_of(0)) == f"site:{FAKE.path}"


def test_places_follow_to_another_stage() -> None:
    train = snapshot(module("conv1"))
    wrapped = snapshot(module("module"), module("module.conv1", "conv1"))
    places = Places(COMPARISON, [train], wrapped)
    assert places.selection_of(key_of(0)) == "module:module.conv1"
    assert places.key_for("module:module.conv1", "") == key_of(0)
