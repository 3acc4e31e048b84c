"""The numbers of an int8 layer in the explorer: they come by themselves and follow the fields."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import qatexplorer as qx
from qatexplorer.widgets.explorer.explorer import Explorer
from tests.support.page_text import visible_text


@pytest.fixture(params=["eager", "fx"])
def explorer(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Explorer:
    monkeypatch.setenv("QATEXPLORER_RUNS", str(tmp_path / "runs"))
    made = qx.explore(example="digits_cnn", flow=request.param)
    session = made.session
    assert session is not None
    session.goto(session.flow.train_stage)
    session.calibrate(2)
    session.goto(session.flow.int8_stage)
    return made


def until(holds: Callable[[], Any], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def section(explorer: Explorer) -> str:
    return visible_text(explorer.panes.inspector.details.html)


def typed_in(explorer: Explorer) -> dict[str, int]:
    """What stands in the fields."""
    fields = r'value="(\d+)"[^>]*data-ask="(int8:[^"]+)"'
    found = re.findall(fields, explorer.panes.inspector.details.html)
    return {name: int(value) for value, name in found}


def ask(explorer: Explorer, wanted: str) -> None:
    """As the browser sends it when something is typed into a field."""
    explorer.panes.inspector.details._handle_custom_msg({"ask": wanted}, [])


def test_the_numbers_come_and_follow_what_is_typed(explorer: Explorer) -> None:
    session = explorer.session
    assert session is not None
    explorer.select("module:conv2")
    until(lambda: "One output by hand" in section(explorer))
    layer = session.int8_layer("conv2")
    assert layer.worked is not None
    assert f"= {layer.worked.steps[0].value:.0f}" in section(explorer)
    for typed in ("int8:output:0:3", "int8:output:1:0", "int8:output:2:1", "int8:sample:1"):
        ask(explorer, typed)
    place = (3, 0, 1)
    other = session.int8_layer("conv2", place, sample=1).worked
    assert other is not None
    until(lambda: f"Products ({len(other.input_codes)})" in section(explorer))
    values = typed_in(explorer)
    assert values["int8:output:0"] == 3
    assert values["int8:output:1"] == 0
    assert values["int8:output:2"] == 1
    assert values["int8:sample"] == 1
    assert f"= {other.steps[0].value:.0f}" in section(explorer)
    # What does not exist is taken to the nearest one; what is no number changes nothing.
    ask(explorer, "int8:output:0:9999")
    ask(explorer, "int8:sample:-4")
    ask(explorer, "int8:output:1:")
    values = typed_in(explorer)
    channels = int(re.search(r"Channels \((\d+)\)", section(explorer)).group(1))  # type: ignore[union-attr]
    assert values["int8:output:0"] == channels - 1
    assert values["int8:sample"] == 0


def test_only_int8_layers_of_the_int8_stage_have_numbers(explorer: Explorer) -> None:
    session = explorer.session
    assert session is not None
    explorer.select("module:conv1")
    until(lambda: "One output by hand" in section(explorer))
    explorer.select("")
    until(lambda: "All numbers" not in section(explorer))
    session.goto(session.flow.prepared_stage)
    explorer.select("module:conv1")
    until(lambda: "conv1" in visible_text(explorer.panes.inspector.panel.html))
    assert "All numbers" not in section(explorer)


def test_every_link_of_the_section_leads_somewhere(explorer: Explorer) -> None:
    session = explorer.session
    assert session is not None
    paths = [m.path for m in session.snapshot.modules if m.compute in ("int8", "boundary")]
    seen: set[str] = set()
    for path in paths:
        explorer.select(f"module:{path}")
        until(lambda: "runs once on the example" not in section(explorer))
        html = explorer.panes.inspector.details.html
        seen |= set(re.findall(r'data-select="([^"]+)"', html))
    assert any(link.startswith("site:") for link in seen)
    for link in seen:
        explorer.select(link)
        until(lambda: explorer.panes.inspector.selected == link)  # noqa: B023
        assert "There is no" not in visible_text(explorer.panes.inspector.panel.html), link


def test_a_layer_whose_numbers_cannot_be_made_says_why(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = explorer.session
    assert session is not None

    def fails(*_args: Any, **_kwargs: Any) -> None:
        raise ValueError("the <kernel> is gone")

    monkeypatch.setattr(session, "int8_layer", fails)
    explorer.select("module:conv1")
    until(lambda: "There are no numbers" in section(explorer))
    assert "ValueError: the <kernel> is gone" in section(explorer)


def test_an_operation_of_an_fx_graph_has_numbers_too(explorer: Explorer) -> None:
    session = explorer.session
    assert session is not None
    if session.flow.name == "eager":
        assert session.int8_place("node:quantize_per_tensor") == ""
        assert session.int8_place("node:conv1") == "conv1"
        return
    explorer.select("node:quantize_per_tensor")
    until(lambda: "Quantization: torch.quantize_per_tensor" in section(explorer))
    assert "One output by hand" in section(explorer)


def test_a_model_that_is_gone_meanwhile_has_no_section(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = explorer.session
    assert session is not None
    place = session.int8_place("module:conv1")
    session.goto(session.flow.prepared_stage)
    session.reset()
    monkeypatch.setattr(session, "int8_place", lambda _selection: place)
    assert explorer.panes.int8.section(session, "module:conv1") is None
