"""Comparing on the page: in the background, with progress and stop; rows, charts and selection."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import DeQuantStub, QuantStub

import qatexplorer as qx
from qatexplorer.accuracy.records import CompareRow, Comparison
from qatexplorer.errors import StoppedError
from qatexplorer.views.accuracy.compare_table import COLUMNS, NUMBERS, key_of, position_of
from qatexplorer.widgets.accuracy.compare import CHANNELS, DEPTH, LOST, PAGES, PLACE, ComparePanel
from qatexplorer.widgets.explorer.explorer import Explorer
from tests.support.page_text import visible_text
from tests.support.waiting import until, until_on_loop


@pytest.fixture(autouse=True)
def runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QATEXPLORER_RUNS", str(tmp_path / "runs"))


class Net(nn.Module):
    """Its scores lie close together, so that int8 answers some samples otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv, self.relu = nn.Conv2d(1, 4, 3), nn.ReLU()
        self.fc = nn.Linear(144, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.conv(self.quant(x))).flatten(1)
        return self.dequant(self.fc(y))


def opened(prepared: bool = True) -> Explorer:
    torch.manual_seed(0)
    model = Net()
    x = torch.randn(3, 32, 1, 8, 8)
    with torch.no_grad():
        batches = [(one, model(one).argmax(1)) for one in x]
    explorer = qx.explore(model, x[0], data=[batches, batches])
    session = explorer.session
    assert session is not None
    if prepared:
        session.goto(session.flow.prepared_stage)
        session.calibrate(2)
    explorer.drawer.show_panel(explorer.compare)
    return explorer


def last(explorer: Explorer) -> Comparison:
    assert explorer.session is not None
    found = explorer.session.last_comparison
    assert found is not None
    return found


def press(explorer: Explorer) -> ComparePanel:
    panel = explorer.compare
    panel.compare.click()
    until(lambda: explorer.jobs.current is None)
    return panel


@pytest.fixture
def compared() -> Explorer:
    explorer = opened()
    press(explorer)
    until(lambda: explorer.compare.table.rows)
    return explorer


def figure(slot: Any) -> Any:
    """What a slot shows, None if it is hidden."""
    if slot.layout.display == "none":
        return None
    return slot.plot.figure.value


def pick(slot: Any, key: str) -> None:
    slot.plot._handle_custom_msg({"kind": "picked", "picked": key}, [])


def row_of(explorer: Explorer, path: str) -> str:
    return next(key_of(at) for at, one in enumerate(last(explorer).rows) if one.path == path)


def test_the_table_has_the_numbers_of_the_comparison(compared: Explorer) -> None:
    panel, found = compared.compare, last(compared)
    assert found.batches == 3  # all there are; the field asks for four
    assert len(panel.table.rows) == len(found.rows)
    labels = [column["label"] for column in COLUMNS]
    for row in panel.table.rows:
        record = found.rows[position_of(row["id"]) or 0]
        cells = dict(zip(labels, row["cells"], strict=True))
        assert cells["Place"] == record.path
        assert [cells[one.label] for one in NUMBERS] == [one.text(record) for one in NUMBERS]
    worst = [one.sqnr_int8_db for one in found.rows if one.sqnr_int8_db is not None]
    first = found.rows[position_of(panel.table.rows[0]["id"]) or 0]
    assert first.sqnr_int8_db == min(worst)
    assert f"{found.evaluated:,} evaluation samples" in visible_text(panel.headline.html)
    assert panel.bar.layout.display == "none"
    assert panel.halt.layout.display == "none"


def test_the_number_of_batches_is_that_of_the_field() -> None:
    explorer = opened()
    explorer.compare.batches.value = 2
    press(explorer)
    until(lambda: explorer.compare.table.rows)
    assert last(explorer).batches == 2


def test_choosing_a_row_selects_its_place_and_shows_its_values(compared: Explorer) -> None:
    panel, found = compared.compare, last(compared)
    panel.pages.value = PLACE
    assert "Choose a row" in panel.words.html
    key = row_of(compared, "fc")
    panel.table.selected = key
    assert compared.selection == "module:fc"
    assert compared.panes.tree.selected == "module:fc"
    until(lambda: figure(panel.scatter))
    int8 = next(one for one in figure(panel.scatter)["data"] if one["name"] == "int8")
    assert int8["y"] == pytest.approx(list(found.scatter["fc", 0].int8_values))
    assert int8["x"] == pytest.approx(list(found.scatter["fc", 0].float_values))
    assert "SQNR of int8 against float" in panel.place.html
    assert not panel.words.html
    # A weight has no sample; its page says so.
    panel.table.selected = row_of(compared, "fc.weight_fake_quant")
    assert compared.selection == "site:fc.weight_fake_quant"
    until(lambda: "no sample" in panel.words.html)
    assert figure(panel.scatter) is None


def test_a_selection_elsewhere_chooses_the_row_and_stays_what_it_is(compared: Explorer) -> None:
    panel = compared.compare
    path = next(one.path for one in last(compared).rows if one.kind == "fake quant")
    compared.select(f"site:{path}")
    assert panel.table.selected == row_of(compared, path)
    compared.select("module:relu")
    assert compared.selection == "module:relu"
    chosen = panel.table.selected
    compared.select("module:")  # the whole model has no row: the last one stays chosen
    assert panel.table.selected == chosen
    assert compared.selection == "module:"


def test_a_point_of_a_chart_chooses_its_row_even_where_a_filter_hides_it(
    compared: Explorer,
) -> None:
    panel = compared.compare
    until(lambda: figure(panel.depth))
    points = figure(panel.depth)["data"][0]
    assert panel.pages.value == DEPTH
    panel.table.flag = "weight"
    pick(panel.depth, points["ids"][-1])
    assert panel.table.selected == points["ids"][-1]
    assert panel.table.flag == ""
    until(lambda: figure(panel.depth)["layout"]["shapes"])
    panel.pages.value = CHANNELS
    until(lambda: figure(panel.channels))
    cells = figure(panel.channels)["data"][0]
    pick(panel.channels, cells["customdata"][0][0])
    record = last(compared).rows[position_of(panel.table.selected) or 0]
    assert record.kind == "weight"
    assert compared.selection == f"site:{record.path}"
    panel.kinds.value = True  # of activations
    until(lambda: figure(panel.channels)["data"][0]["customdata"] != cells["customdata"])
    shown = [position_of(line[0]) for line in figure(panel.channels)["data"][0]["customdata"]]
    assert {last(compared).rows[at or 0].kind for at in shown} == {"fake quant"}


def test_each_page_shows_what_is_its_own(compared: Explorer) -> None:
    panel = compared.compare
    panel.table.selected = row_of(compared, "conv")
    own = {
        DEPTH: panel.depth,
        PLACE: panel.scatter,
        CHANNELS: panel.channels,
        LOST: panel.lost,
    }
    for page in PAGES:
        panel.pages.value = page
        until(lambda one=own[page]: one.layout.display == "")  # type: ignore[misc]
        shown = [name for name, widget in own.items() if widget.layout.display != "none"]
        assert shown == [page]


def test_lost_samples_are_shown_as_images(compared: Explorer) -> None:
    panel, found = compared.compare, last(compared)
    assert found.lost_total > 0  # else this tests nothing
    assert (f"{LOST} ({found.lost_total})", LOST) in panel.pages.options
    assert panel.lost.html.count("data:image/png;base64,") == len(found.lost)
    one = found.lost[0]
    text = visible_text(panel.lost.html)
    assert f"sample {one.number}" in text
    assert f"target: {one.target}" in text
    assert f"int8: ✗ {one.int8_answer}" in text


def test_figures_are_drawn_only_in_sight_and_follow_the_theme(compared: Explorer) -> None:
    panel = compared.compare
    until(lambda: figure(panel.depth))
    light = figure(panel.depth)["layout"]["font"]["color"]
    compared.panes.graph.dark = True
    until(lambda: figure(panel.depth)["layout"]["font"]["color"] != light)
    compared.drawer.close_drawer()
    before = panel.depth.plot.figure
    panel.table.selected = row_of(compared, "fc")
    assert panel.depth.plot.figure is before
    compared.drawer.show_panel(panel)
    until(lambda: panel.depth.plot.figure is not before)


def test_what_was_compared_is_gone_when_the_model_has_changed(compared: Explorer) -> None:
    session, panel = compared.session, compared.compare
    assert session is not None
    session.calibrate(1)
    until(lambda: not panel.table.rows)
    assert "compare again" in panel.status.html
    assert panel.parts.layout.display == "none"
    assert not panel.headline.html
    press(compared)
    until(lambda: panel.table.rows)
    assert "3 batches compared" in panel.status.html


def test_a_button_colours_the_graph_by_it(compared: Explorer) -> None:
    found, graph = last(compared), compared.panes.graph
    compared.compare.colour.click()
    until(lambda: graph.overlay.get("values"))
    assert compared.panes.overlays.name == "sqnr_int8"
    conv = next(one for one in found.rows if one.path == "conv")
    assert graph.overlay.value["values"]["n:conv"] == conv.sqnr_int8_db
    # Compared anew, the graph shows the new numbers.
    compared.compare.batches.value = 1
    press(compared)
    until(lambda: last(compared).batches == 1)
    until(lambda: "1 batch " in graph.overlay.get("note", ""))
    conv = next(one for one in last(compared).rows if one.path == "conv")
    assert graph.overlay.value["values"]["n:conv"] == conv.sqnr_int8_db


def test_without_an_int8_model_the_graph_is_coloured_by_fake_quant() -> None:
    explorer = opened()
    found = Comparison(rows=(CompareRow("conv", "module", sqnr_fake_quant_db=20.0),))
    chosen: list[str] = []
    panel = ComparePanel(explorer.bridge, lambda *_: True, explorer.page, chosen.append, list)
    assert explorer.session is not None
    panel._show(explorer.session, found)
    panel.colour.click()
    assert chosen == ["sqnr_fake_quant"]


def test_what_was_compared_without_a_page_is_shown_at_once(compared: Explorer) -> None:
    another = qx.explore(compared.session)
    panel = another.compare
    until(lambda: panel.table.rows)
    assert panel.table.rows == compared.compare.table.rows
    session = another.session
    assert session is not None
    session.goto(session.stages[0])  # at another stage the same rows have places of their own
    until(lambda: another.panes.tree.rows.value)
    panel.table.selected = row_of(another, "fc")
    assert another.selection == "module:fc"
    another.show_session(qx.Session(Net(), torch.randn(2, 1, 8, 8)))
    assert not panel.table.rows
    assert "Nothing compared yet." in panel.status.html


def test_without_fake_quants_a_sentence_says_what_to_do() -> None:
    explorer = opened(prepared=False)
    panel = press(explorer)
    until(lambda: panel.notice.html)
    assert "no fake quants yet" in panel.notice.html
    assert "session.goto(&#x27;" in panel.notice.html
    assert "Traceback" not in panel.notice.html
    assert panel.compare.layout.display == ""
    assert panel.parts.layout.display == "none"


def test_an_error_nobody_expects_is_a_sentence_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_self: qx.Session, *_args: Any, **_given: Any) -> Any:
        raise ZeroDivisionError("<no> comparison")

    explorer = opened()
    monkeypatch.setattr(qx.Session, "compare", fails)
    panel = press(explorer)
    until(lambda: panel.notice.html)
    assert "ZeroDivisionError: &lt;no&gt; comparison" in panel.notice.html
    monkeypatch.undo()
    press(explorer)
    until(lambda: panel.table.rows)
    assert not panel.notice.html


def on_loop(body: Callable[[], Any]) -> None:
    async def whole() -> None:
        await body()
        await until_on_loop(
            lambda: not any(t.name.startswith("qatexplorer-") for t in threading.enumerate()), 20
        )

    asyncio.run(whole())


@pytest.mark.parametrize("by", ["panel", "stage bar"])
def test_it_says_how_far_it_is_and_stops_while_the_page_answers(
    monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    def waits(
        _self: qx.Session,
        batches: int,
        progress: Callable[[str, float], Any],
        should_stop: Callable[[], bool],
    ) -> Any:
        while not should_stop():
            progress(f"float, batch 1 of {batches}", 0.25)
            time.sleep(0.01)
        raise StoppedError("the comparison was stopped.")

    monkeypatch.setattr(qx.Session, "compare", waits)

    async def body() -> None:
        explorer = opened()
        panel = explorer.compare
        panel.compare.click()
        await until_on_loop(lambda: "25 %" in panel.status.html)
        assert "float, batch 1 of 4" in panel.status.html
        assert panel.bar.value == 0.25
        assert panel.halt.layout.display == ""
        assert panel.compare.layout.display == "none"
        assert explorer.bar.can_stop
        # The comparison goes on until it is stopped: on this loop, nothing would come after it.
        for _ in range(40):
            await asyncio.sleep(0)
        assert explorer.jobs.current is not None
        if by == "panel":
            panel.halt.click()
        else:
            explorer._on_action("stop", "")
        await until_on_loop(lambda: explorer.jobs.current is None)
        assert "Stopped" in panel.status.html
        assert panel.halt.layout.display == "none"
        assert panel.compare.layout.display == ""
        assert not panel.notice.html

    on_loop(body)


def test_it_cannot_be_begun_while_another_job_is_going_on() -> None:
    explorer = opened()
    wait = threading.Event()
    explorer.start_job("waiting", lambda _job: wait.wait(60))
    panel = explorer.compare
    assert panel.compare.disabled
    panel.start()
    assert "waiting" in explorer.message.html
    assert panel.halt.layout.display == "none"
    wait.set()
    until(lambda: explorer.jobs.current is None)
    assert not panel.compare.disabled
