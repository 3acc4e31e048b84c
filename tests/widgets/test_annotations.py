"""The panel "Annotations", its tab, and the flows that the settings offer."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from torch import nn

import qatexplorer as qx
from qatexplorer.widgets.annotations.panel import GROUPS, PATTERNS, AnnotationsPanel
from qatexplorer.widgets.common.page import PageState
from qatexplorer.widgets.explorer.drawer import Drawer
from qatexplorer.widgets.explorer.explorer import Explorer
from qatexplorer.widgets.explorer.settings import SettingsPanel
from tests.support.annotated import IMAGES, Plain, plain, quantizer_of


def panel(session: qx.Session) -> tuple[AnnotationsPanel, list[Any]]:
    painted: list[Any] = []
    made = AnnotationsPanel(PageState(), painted.append, lambda: False)
    made.use(session)
    return made, painted


def fresh(stage: str = "float", **given: Any) -> qx.Session:
    session = qx.Session(Plain().train(), IMAGES, flow="pt2e", **given)
    session.goto(stage)
    return session


def test_the_stage_that_is_annotated_is_coloured_and_the_next_is_not() -> None:
    session = fresh()
    made, painted = panel(session)
    assert "Nothing is annotated yet" in made.summary.html
    assert made.colour.disabled
    session.goto("annotate")
    made.refresh()
    assert made.table.rows
    assert made.colour.value == PATTERNS
    assert painted[-1].title == "Patterns"
    session.goto("insert")
    made.refresh()
    assert made.colour.value == ""
    assert painted[-1] is None
    assert made.table.rows  # it is found again later
    made.colour.value = GROUPS
    made.refresh()
    assert painted[-1].title == "Sharing groups"  # what was chosen stays


def test_other_colours_of_the_graph_are_left_alone() -> None:
    painted: list[Any] = []
    made = AnnotationsPanel(PageState(), painted.append, lambda: True)
    made.use(fresh("annotate"))
    assert made.colour.value == ""
    assert not painted


def test_a_row_selects_and_the_selection_marks_a_row() -> None:
    page = PageState()
    made = AnnotationsPanel(page, lambda _overlay: None, lambda: False)
    made.use(plain())
    made.table.selected = "module:conv"
    assert page.selection == "module:conv"
    page.select("module:fc")
    made.show_selection()
    assert made.table.selected == "module:fc"
    made.below.selected = "module:pool"
    assert page.selection == "module:pool"


def test_no_operation_taken_is_loud() -> None:
    made, _ = panel(fresh("annotate", quantizer=quantizer_of(lambda model: None)))
    assert 'role="alert"' in made.summary.html


def test_a_tab_changes_its_panel() -> None:
    one, two = Drawer({"One": (a := nothing()), "Two": (b := nothing())}, lambda: None), nothing()
    one.exchange(two, b, "Other")
    assert one.strip.titles == ["One", "Other"]
    assert one.pages.children == (a, two)
    one.show_panel(two)
    assert one.in_sight(two)
    with pytest.raises(ValueError, match="not in tuple"):
        one.show_panel(b)


def nothing() -> Any:
    import ipywidgets

    return ipywidgets.Box()


def test_the_tab_of_the_qconfig_is_that_of_the_annotations_where_there_are_some() -> None:
    explorer = Explorer(Plain().train(), IMAGES)
    assert explorer.annotations is None  # an eager page does not carry it
    assert "qconfig" in explorer.drawer.titles
    session = explorer.session
    assert session is not None
    session.configure(flow="pt2e")
    explorer._on_config()
    assert explorer.annotations in explorer.drawer.panels
    assert "Annotations" in explorer.drawer.titles
    assert "qconfig" not in explorer.drawer.titles
    explorer._on_ask("panel:qconfig")
    assert explorer.drawer.in_sight(explorer.annotations)
    session.configure(flow="fx")
    explorer._on_config()
    assert "qconfig" in explorer.drawer.titles
    assert "Annotations" not in explorer.drawer.titles


def settings(session: qx.Session) -> tuple[SettingsPanel, list[Any]]:
    jobs: list[Any] = []
    made = SettingsPanel(lambda _name, work, *_done: jobs.append(work))
    made.use(session)
    return made, jobs


def test_a_flow_that_cannot_run_says_why_and_is_not_applied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torchao" else find(name)
    )
    made, _ = settings(qx.Session(nn.Sequential(nn.Linear(4, 4)).train(), IMAGES[:, 0, :, :4]))
    titles = {name: title for title, name in made.flow.options}
    assert titles["pt2e"].endswith("(cannot run here)")
    assert "cannot" not in titles["eager"]
    assert not made.apply.disabled
    made.flow.value = "pt2e"
    assert "torchao is not installed" in made.cannot.html
    assert made.apply.disabled
    made.set_enabled(True)  # when a job has ended
    assert made.apply.disabled
    made.flow.value = "fx"
    assert made.cannot.html == ""
    assert not made.apply.disabled


def test_the_quantizer_is_chosen_where_one_annotates() -> None:
    session = qx.Session(Plain().train(), IMAGES)
    made, jobs = settings(session)
    assert made.quantizer.layout.display == "none"
    made.flow.value = "pt2e"
    assert made.quantizer.layout.display == ""
    assert made.qconfig.layout.display == "none"
    assert made.engine.layout.display == "none"
    made.quantizer.value = "xnnpack"
    made.apply.click()
    jobs[-1](None)
    assert session.flow.name == "pt2e"
    assert session.options.quantizer == "xnnpack"
    made.refresh()
    assert made.words.html == "In force: quantizer XNNPACK"
    own = quantizer_of(lambda model: None)
    made.use(qx.Session(Plain().train(), IMAGES, flow="pt2e", quantizer=own))
    assert "yours: Own" in dict(made.quantizer.options)
    assert "In force: quantizer Own" in made.words.html
