"""The ledger as rows, cards and answers; marks on the graph; the panel."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization.quantization_mappings import get_default_qat_module_mappings

import qatexplorer as qx
from qatexplorer.ledger import Ledger, ledger_of
from qatexplorer.ledger.answers import QUESTIONS
from qatexplorer.views.graph.scene import build_scene, redundant_edges
from qatexplorer.views.ledger import tables as views
from qatexplorer.widgets.common.bridge import Bridge, Job
from qatexplorer.widgets.common.page import PageState
from qatexplorer.widgets.ledger.ledger import LedgerPanel
from tests.support.ledger_models import Flat, OwnName, TwoLinear, old_style_fx, seen
from tests.support.models import SMALL, PlainAdd


def vector() -> Tensor:
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(1))


def session_of(model: nn.Module, x: Tensor, **settings: Any) -> qx.Session:
    session = qx.Session(model.train(), x, **settings)
    session.goto("insert")
    seen(session.model, x)
    return session


@pytest.fixture(scope="module")
def doubled() -> tuple[qx.Session, Ledger]:
    mapping = {**get_default_qat_module_mappings(), nn.Linear: OwnName}
    session = session_of(TwoLinear(), vector(), qat_mapping=mapping, fusion=[])
    return session, session.ledger()


def test_table_rows_fit_the_columns_and_travel(doubled: tuple[qx.Session, Ledger]) -> None:
    _, ledger = doubled
    rows = views.site_table(ledger)
    assert json.loads(json.dumps(rows)) == rows
    assert len(rows) == len(ledger.rows)
    for row, record in zip(rows, ledger.rows, strict=True):
        assert len(row["cells"]) == len(row["sort"]) == len(views.SITE_COLUMNS)
        assert all(isinstance(cell, str) for cell in row["cells"])
        assert row["sel"] == record.selection
        assert ("inner" in row["flags"]) == bool(record.part_of)
    flags = {flag for row in rows for flag in row["flags"]}
    assert {"weight", "redundant", "inner"} <= flags
    second = next(r for r in rows if r["id"] == "fc1.activation_post_process")
    assert "fc1.out_fake_quant" in second["cells"][-1]
    weight = next(r for r in rows if r["id"] == "fc1.weight_fake_quant")
    record = ledger.by_path["fc1.weight_fake_quant"]
    assert weight["cells"][8].endswith(" %")
    assert weight["sort"][8] == abs(record.scale_difference or 0.0) > 0.003


def test_float_rows_fit_their_columns() -> None:
    session = session_of(PlainAdd(), torch.randn(4, 6))
    (row,) = views.float_table(session.ledger())
    assert len(row["cells"]) == len(row["sort"]) == len(views.FLOAT_COLUMNS)
    assert row["cells"][1:3] == ["add()", "functional_op"]
    assert "models.py" in row["cells"][0]
    assert row["flags"] == ["op"]


def test_cards_name_both_and_what_to_do(doubled: tuple[qx.Session, Ledger]) -> None:
    _, ledger = doubled
    page = views.redundancies_html(ledger)
    for found in ledger.redundancies:
        assert f'data-select="site:{found.first}"' in page
        assert found.cost.split("%")[0] in page
    assert page.index("⚠") < len(page)
    empty = session_of(TwoLinear(), vector()).ledger()
    assert "No value of this model is fake-quantized twice" in views.redundancies_html(empty)


def test_summary_is_loud_when_nothing_is_quantized() -> None:
    session = session_of(nn.Linear(6, 4), torch.randn(4, 6))
    page = views.summary_html(session.ledger())
    assert 'role="alert"' in page
    assert "NO WEIGHT OF THIS MODEL WILL BE INT8" in page
    assert "Parameters in int8: 0 %" in page


def test_no_fake_quant_at_all_is_a_finding_once_prepared() -> None:
    for flow in ("eager", "fx"):
        session = qx.Session(TwoLinear().train(), vector(), flow=flow, qconfig={"": None})
        session.goto("insert")
        ledger = session.ledger()
        assert ledger.rows == ()
        assert ledger.warnings[0].startswith("NO WEIGHT OF THIS MODEL WILL BE INT8")
        assert {row.reason for row in ledger.floats if row.params} == {"no_qconfig"}
        assert len(session.answers()) == 7


def test_names_of_users_are_escaped() -> None:
    class Evil(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("<b>fc</b>", OwnName.from_float(_with_qconfig(nn.Linear(6, 6))))

        def forward(self, x: Tensor) -> Tensor:
            return getattr(self, "<b>fc</b>")(x)

    from torch.ao.quantization import prepare_qat

    from tests.support.ledger_models import eager

    ledger = ledger_of(prepare_qat(eager(Evil())), vector())
    pages = views.redundancies_html(ledger) + views.summary_html(ledger)
    assert "<b>" not in pages
    assert "&lt;b&gt;fc" in pages


def _with_qconfig(module: nn.Module) -> nn.Module:
    from torch.ao.quantization import get_default_qat_qconfig

    module.qconfig = get_default_qat_qconfig("onednn")
    return module


# -- the graph ----------------------------------------------------------------------------------


def test_doubles_are_marked_on_their_edge(doubled: tuple[qx.Session, Ledger]) -> None:
    session, ledger = doubled
    edges = redundant_edges(session.known_ledger)
    assert edges == {edge for found in ledger.faults for edge in found.edges} != frozenset()
    scene = build_scene(session.snapshot, redundant=edges)
    marked = {
        "edge:" + ":".join(scene["nodes"][i]["id"][2:] for i in scene["edges"][at][:2])
        for at in scene["redundant"]
    }
    assert marked == edges
    assert build_scene(session.snapshot)["redundant"] == []


def test_marks_of_an_fx_graph() -> None:
    x = torch.randn(4, 1, 8, 8)
    session = session_of(Flat("method"), x, flow="fx")
    assert redundant_edges(session.known_ledger) == frozenset(), "asking makes no ledger"
    session.ledger()
    assert redundant_edges(session.known_ledger) == {"edge:pool:flatten"}
    scene = build_scene(session.snapshot, redundant=redundant_edges(session.known_ledger))
    assert len(scene["redundant"]) == 1


# -- answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_answers_carry_this_models_numbers(flow: str) -> None:
    x = torch.randn(4, 1, 8, 8)
    session = session_of(SMALL[0].make()[0], x, flow=flow)
    ledger = session.ledger()
    reported = {a.key: a for a in session.answers()}
    assert len(reported) == len(QUESTIONS) == 7
    weights = [r for r in ledger.sites if r.kind == "weight"]
    assert f"made {len(weights)} fake quants" in reported["three_calls"].text
    assert f"the other {len(ledger.sites) - len(weights)}" in reported["three_calls"].text
    rows = [r for r in ledger.rows if r.path.startswith("fc.")]
    if flow == "eager":
        ran = sum(r.calls_per_forward > 0 for r in rows)
        assert f"{len(rows)} modules match a search by name, {ran} of them" in (
            reported["two_observers"].text
        )
    assert "2 different tensors" in reported["two_observers"].text
    fused = [r for r in ledger.sites if r.cause == "fused_formula"]
    assert f"{len(fused)} differ (weight)" in reported["scales_twice"].text
    assert "0.39 %" in reported["scales_twice"].text
    share = f"{ledger.coverage.macs_share:.1%}"
    assert f"{share} of the multiply-accumulates" in reported["two_converts"].text
    assert "1 input of this model has one" in reported["input"].text
    page = views.answers_html(reported.values())
    assert page.count("<h4>") == 7
    assert f'data-select="{reported["input"].selection}"' in page


def test_answers_change_with_the_model(doubled: tuple[qx.Session, Ledger]) -> None:
    session, _ = doubled
    reported = {a.key: a.text for a in session.answers()}
    assert "2 modules of this model fake-quantize their own output" in reported["fx_redundant"]
    assert "fc1.out_fake_quant" in reported["fx_redundant"] or "fc2.out" in reported["fx_redundant"]
    unseen = qx.Session(TwoLinear(stubs=False).train(), vector())
    unseen.goto("insert")
    reported = {a.key: a.text for a in unseen.answers()}
    assert "has seen data" in reported["scales_twice"]
    assert reported["input"].startswith("Nobody")


# -- the panel ----------------------------------------------------------------------------------


def run_now(_name: str, work: Callable[[Any], Any], done: Callable[[Any], Any]) -> bool:
    done(work(Job("test")))
    return True


def panel_of(session: qx.Session) -> tuple[LedgerPanel, PageState, list[int]]:
    page = PageState()
    ready: list[int] = []
    panel = LedgerPanel(Bridge(), run_now, page, lambda: ready.append(1))
    panel.use(session)
    return panel, page, ready


def settle() -> None:
    for thread in threading.enumerate():
        if thread.name == "qatexplorer-ledger":
            thread.join(30)


def test_panel_makes_its_ledger_when_it_is_looked_at(doubled: tuple[qx.Session, Ledger]) -> None:
    session, ledger = doubled
    panel, page, ready = panel_of(session)
    picked: list[str] = []
    page.signal.subscribe(picked.append)
    settle()
    assert panel.sites.rows == []
    panel.active = True
    settle()
    assert panel.sites.rows == views.site_table(ledger)
    assert panel.floats.rows == views.float_table(ledger)
    assert "⚠" in panel.redundancies.html
    assert panel.answers.html.count("<h4>") == 7
    assert ready == [1]
    panel.sites.selected = "site:fc1.weight_fake_quant"
    assert picked == ["site:fc1.weight_fake_quant"]
    page.select("site:fc2.weight_fake_quant")
    panel.show_selection()
    assert panel.floats.selected == panel.sites.selected == "site:fc2.weight_fake_quant"
    assert picked == [f"site:fc{n}.weight_fake_quant" for n in (1, 2)], "marking is no click"


def test_panel_measures_time(doubled: tuple[qx.Session, Ledger]) -> None:
    session, _ = doubled
    panel, _, _ = panel_of(session)
    panel.active = True
    settle()
    panel.time.click()
    assert "of a step of" in panel.redundancies.html


def test_panel_says_where_there_is_nothing_to_account_for() -> None:
    session = qx.Session(TwoLinear().train(), vector())
    panel, _, _ = panel_of(session)
    panel.active = True
    settle()
    assert "no fake quants to account for" in panel.message.html
    session.goto("insert")
    panel.refresh()
    settle()
    assert panel.message.html == ""
    assert panel.sites.rows


def test_old_style_fx_model_shows_its_double() -> None:
    x = vector()
    page = views.redundancies_html(ledger_of(old_style_fx(x), x))
    assert "fc1.activation_post_process" in page
    assert "call out of the module&#x27;s forward" in page


def test_progress_in_words() -> None:
    from qatexplorer.ledger.forwards import LedgerProgress
    from qatexplorer.views.ledger.progress import progress_words

    assert progress_words(LedgerProgress("Recording", 0.0, 2)) == "Recording: forward 1 of 2"
    running = LedgerProgress("Running", 2.5, 4, 12.0)
    assert progress_words(running) == "Running: forward 3 of 4, about 12 s left"
    assert progress_words(LedgerProgress("Putting it together", 4.0, 4, 0.0)).endswith("…")
