"""Node data of Model Explorer: documents that follow its schema are read, others refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import qatexplorer as qx
from qatexplorer.errors import OverlayError
from qatexplorer.snapshot.model_explorer import GRADIENT, MAX_BYTES, luminance, text_on

# As ``ModelNodeData.save_to_file`` writes it, with defaults kept and None left out.
BY_GRAPH: dict[str, Any] = {
    "main": {
        "results": {
            "conv1": {"value": 0.25, "bgColor": "#aabbcc"},
            "fc": {"value": 3},
        },
        "thresholds": [{"value": 1, "bgColor": "red", "textColor": "white"}],
        "gradient": [{"stop": 0, "bgColor": "#ffffff"}, {"stop": 1, "bgColor": "green"}],
        "hideInAggregatedStatsTable": False,
        "hideInChildrenStatsTable": False,
        "showExpandedSummaryOnGroupNode": False,
        "showLabelCountColumnsInChildrenStatsTable": False,
    }
}


def contrast(one: str, two: str) -> float:
    light, dark = sorted((luminance(one), luminance(two)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_a_file_of_one_graph_is_read(tmp_path: Path) -> None:
    file = tmp_path / "latency.json"
    file.write_text(json.dumps(BY_GRAPH))
    overlay = qx.Overlay.from_model_explorer(file, unit="ms", high_is="bad")
    assert dict(overlay.values) == {"conv1": 0.25, "fc": 3.0}
    assert overlay.title == "latency"  # the file's name, as in Model Explorer
    assert overlay.unit == "ms"


def test_the_data_of_a_graph_alone_is_read_and_its_own_name_goes_first(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps({**BY_GRAPH["main"], "name": "Latency"}))
    assert qx.Overlay.from_model_explorer(str(file)).title == "Latency"
    assert qx.Overlay.from_model_explorer(BY_GRAPH["main"]).values["fc"] == 3


def test_words_become_categories() -> None:
    data = {"g": {"results": {"a": {"value": "cpu"}, "b": {"value": "gpu"}, "c": {"value": "cpu"}}}}
    overlay = qx.Overlay.from_model_explorer(data)
    assert overlay.categories == ("cpu", "gpu")


def test_one_of_several_graphs_is_chosen_by_its_id() -> None:
    data = {**BY_GRAPH, "other": {"results": {"fc": {"value": 7}}}}
    with pytest.raises(OverlayError, match="2 graphs") as caught:
        qx.Overlay.from_model_explorer(data)
    assert "'main', 'other'" in caught.value.fix
    assert qx.Overlay.from_model_explorer(data, graph_id="other").values == {"fc": 7.0}
    with pytest.raises(OverlayError, match="no graph 'third'"):
        qx.Overlay.from_model_explorer(data, graph_id="third")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        "{}",
        '{"main": {}}',
        '{"main": {"results": []}}',
        '{"main": {"results": {"a": 3}}}',
        '{"main": {"results": {"a": {"bgColor": "red"}}}}',
        '{"main": {"results": {"a": {"value": null}}}}',
        '{"main": {"results": {"a": {"value": true}}}}',
        '{"main": {"results": {"a": {"value": [1]}}}}',
        '{"main": {"results": {"a": {"value": NaN}}}}',
        '{"main": {"results": {"a": {"value": 1}, "b": {"value": "x"}}}}',
        '{"main": {"name": 3, "results": {"a": {"value": 1}}}}',
        '{"main": {"results": {"a": {"value": 1' + "0" * 400 + "}}}}",
        "[" * 100_000,
        "\x80\x04\x95",  # how a pickle begins
    ],
)
def test_what_does_not_follow_the_format_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(OverlayError):
        qx.Overlay.from_model_explorer(file)


def test_a_file_that_is_too_large_is_not_parsed(tmp_path: Path) -> None:
    file = tmp_path / "large.json"
    with file.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    with pytest.raises(OverlayError, match="larger than 64 MiB"):
        qx.Overlay.from_model_explorer(file)
    with pytest.raises(OSError, match="none"):
        qx.Overlay.from_model_explorer(tmp_path / "none.json")


def test_what_is_written_follows_the_schema_and_is_read_again(tmp_path: Path) -> None:
    overlay = qx.Overlay.of({"conv1": 12.5, "fc": math.inf}, title="SQNR", unit="dB")
    data = overlay.to_model_explorer(tmp_path / "sqnr.json", graph_id="main")
    assert json.loads((tmp_path / "sqnr.json").read_text()) == data
    graph = data["main"]
    assert graph["name"] == "SQNR (dB)"
    assert graph["results"] == {"conv1": {"value": 12.5}}  # JSON has no infinity
    assert [stop["stop"] for stop in graph["gradient"]][:: len(GRADIENT) - 1] == [0.0, 1.0]
    for stop in graph["gradient"]:
        assert contrast(stop["bgColor"], stop["textColor"]) >= 4.5
    again = qx.Overlay.from_model_explorer(tmp_path / "sqnr.json")
    assert dict(again.values) == {"conv1": 12.5}
    words = qx.Overlay.of({"a": "x", "b": "y"}).to_model_explorer()["graph"]["results"]
    assert words["a"]["value"] == "x"
    assert contrast(words["b"]["bgColor"], words["b"]["textColor"]) >= 4.5


def test_black_or_white_can_be_read_on_every_colour() -> None:
    for grey in range(0, 256, 5):
        colour = f"#{grey:02x}{grey:02x}{grey:02x}"
        assert contrast(colour, text_on(colour)) >= 4.5
