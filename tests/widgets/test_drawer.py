"""The drawer and what lies over the panes, without a page."""

from __future__ import annotations

from pathlib import Path

import ipywidgets
import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.widgets.common.controls import Message, Note
from qatexplorer.widgets.explorer.drawer import Drawer
from qatexplorer.widgets.explorer.explorer import Explorer
from qatexplorer.widgets.explorer.splitter import PARTS, Splitter


@pytest.fixture(autouse=True)
def runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QATEXPLORER_RUNS", str(tmp_path / "runs"))


def test_a_panel_is_in_sight_only_while_the_drawer_is_open_on_it() -> None:
    changes: list[bool] = []
    one, two = ipywidgets.Box(), ipywidgets.Box()
    drawer = Drawer({"One": one, "Two": two}, lambda: changes.append(True))
    assert not drawer.in_sight(one)
    drawer.show_panel(two)
    assert drawer.in_sight(two)
    assert not drawer.in_sight(one)
    assert changes
    assert drawer.strip.settled  # the browser does not put back what it remembers any more
    drawer.close_drawer()
    assert not drawer.in_sight(two)
    assert drawer.strip.selected == 1
    with pytest.raises(ValueError, match=r"not in tuple|tuple\.index"):
        drawer.show_panel(ipywidgets.Box())


def test_the_ledger_is_made_only_while_it_is_in_sight() -> None:
    explorer = qx.explore(example="digits_cnn")
    assert explorer.ledger.active is False
    explorer.drawer.show_panel(explorer.ledger)
    assert explorer.ledger.active is True
    explorer.drawer.close_drawer()
    assert explorer.ledger.active is False
    explorer.drawer.show_panel(explorer.training)
    assert explorer.training.in_sight is True


def test_the_panel_that_trains_opens_once_where_training_begins() -> None:
    explorer = qx.explore(example="digits_cnn")
    session = explorer.session
    assert session is not None
    assert not explorer.drawer.strip.opened
    session.goto("train")
    assert explorer.drawer.in_sight(explorer.training)
    explorer.drawer.close_drawer()
    session.goto("insert")
    session.goto("train")
    assert not explorer.drawer.strip.opened


def test_every_part_has_a_bar_with_a_name() -> None:
    explorer = qx.explore(example="digits_cnn")
    seen: list[ipywidgets.Widget] = [explorer]
    for widget in seen:
        seen += [c for c in getattr(widget, "children", ()) if c not in seen]
    bars = [w for w in seen if isinstance(w, Splitter)]
    assert sorted(bar.part for bar in bars) == sorted(PARTS)
    assert all(bar.label for bar in bars)


def test_what_lies_over_the_panes_says_what_is_going_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "No model is open" in qx.explore(3).panes.cover.html
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    explorer = qx.explore(model, torch.randn(1, 1, 8, 8))
    assert explorer.panes.cover.html == ""

    def fails(_self: Explorer, _session: qx.Session) -> None:
        raise ZeroDivisionError("<no> picture")

    monkeypatch.setattr(Explorer, "_stage_page", fails)
    explorer.refresh()
    assert "This stage cannot be drawn" in explorer.panes.cover.html
    assert "&lt;no&gt; picture" in explorer.panes.cover.html
    monkeypatch.undo()
    explorer.refresh()
    assert explorer.panes.cover.html == ""


def test_an_error_opens_by_itself_and_a_note_does_not() -> None:
    message = Message()
    message.error(qx.errors.StageError("it is so", where="conv1", why="because", fix="do this"))
    assert message.opens
    assert message.role == "alert"
    assert "What to do" in message.html
    assert not Note(html="<p>a text</p>").opens
    message.clear()
    assert message.html == ""
