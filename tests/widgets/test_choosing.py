"""Many modules selected in the tree, one of which is what all views show."""

from __future__ import annotations

from pathlib import Path

import pytest

import qatexplorer as qx
from qatexplorer.widgets.common.page import PageState
from qatexplorer.widgets.explorer.explorer import Explorer


@pytest.fixture(autouse=True)
def runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QATEXPLORER_RUNS", str(tmp_path / "runs"))


@pytest.fixture
def explorer() -> Explorer:
    return qx.explore(example="digits_cnn")


def layers(explorer: Explorer) -> tuple[str, str]:
    ids = [row["id"] for row in explorer.panes.tree.rows.value if row["type"] == "Conv2d"]
    return ids[0], ids[1]


def from_the_page(explorer: Explorer, selected: str, chosen: list[str]) -> None:
    """What a browser sends when rows are selected in the tree."""
    explorer.panes.tree.set_state({"selected": selected, "chosen": chosen})


def test_a_selection_alone_and_several_together() -> None:
    page, heard = PageState(), []
    page.signal.subscribe(heard.append)
    page.select("module:a")
    assert page.chosen == ("module:a",)
    page.select("module:b", ["module:a", "module:b"])
    assert (page.selection, page.chosen) == ("module:b", ("module:a", "module:b"))
    page.select("module:b")  # a view that follows says so
    assert page.chosen == ("module:a", "module:b")
    page.select("module:b", ["module:b"])
    assert page.chosen == ("module:b",)
    page.select("module:c", ["module:a"])  # older than the selection
    assert page.chosen == ("module:c",)
    page.select("")
    assert page.chosen == ()
    assert heard == ["module:a", "module:b", "module:b", "module:c", ""]


def test_several_rows_are_chosen_and_the_other_views_show_one(explorer: Explorer) -> None:
    one, two = layers(explorer)
    from_the_page(explorer, two, [one, two])
    assert explorer.page.chosen == (one, two)
    assert explorer.selection == two
    assert explorer.panes.graph.selected == explorer.panes.inspector.selected == two
    assert explorer.panes.tree.chosen == [one, two]


def test_a_click_in_the_graph_selects_that_alone(explorer: Explorer) -> None:
    one, two = layers(explorer)
    from_the_page(explorer, two, [one, two])
    explorer.panes.graph.selected = one
    assert explorer.page.chosen == (one,)
    assert (explorer.panes.tree.selected, explorer.panes.tree.chosen) == (one, [one])


def test_what_is_chosen_is_followed_through_the_stages(explorer: Explorer) -> None:
    one, two = layers(explorer)
    from_the_page(explorer, two, [one, two])
    session = explorer.session
    assert session is not None
    session.configure(stubs="model")  # puts another module around them
    session.goto("insert")
    assert explorer.page.chosen == tuple(
        f"module:module.{row.partition(':')[2]}" for row in (one, two)
    )
    assert explorer.panes.tree.chosen == list(explorer.page.chosen)


def test_another_session_has_nothing_chosen(explorer: Explorer) -> None:
    one, two = layers(explorer)
    from_the_page(explorer, two, [one, two])
    assert explorer.session is not None
    explorer.show_session(explorer.session)
    assert explorer.page.chosen == ()
