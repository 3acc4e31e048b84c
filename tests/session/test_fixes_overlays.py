"""Each fix of overlays, of node data, and of a model whose observers saw nothing, to the letter."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import qatexplorer as qx
from qatexplorer.checks.records import Finding
from qatexplorer.errors import BusyError, OverlayError, QatExplorerError
from qatexplorer.widgets.explorer.explorer import Explorer
from tests.support.models import ConvBnRelu, image, loader
from tests.support.waiting import PATIENCE_S, until

FLOWS = ["eager", "fx"]


def refused(call: Callable[[], Any], kind: type[QatExplorerError] = OverlayError) -> str:
    with pytest.raises(kind) as caught:
        call()
    return caught.value.fix


def coloured(explorer: Explorer, values: Any, **how: Any) -> dict[str, Any]:
    """What the graph is coloured by once ``values`` are painted."""
    explorer.overlay(None)
    explorer.overlay(values, **how)
    until(lambda: explorer.panes.graph.overlay.get("values"))
    painted: dict[str, Any] = explorer.panes.graph.overlay
    assert "error" not in painted
    return painted


def session_of(flow: str = "eager", *, rounds: int = 1) -> qx.Session:
    torch.manual_seed(0)
    x = image()
    data = {"train": rounds * loader(x), "eval": loader(x)}
    session = qx.Session(ConvBnRelu().train(), x, flow=flow, data=data)
    session.warns = False
    return session


@pytest.fixture
def explorer() -> Iterator[Explorer]:
    made = Explorer(ConvBnRelu().train(), image())
    assert made.session is not None
    yield made
    made.close()


# -- your own numbers -----------------------------------------------------------------------------


def test_what_a_high_number_is() -> None:
    fix = refused(lambda: qx.Overlay.of({"fc": 1.0, "conv1": 2.0}, high_is="worse"))  # type: ignore[arg-type]
    assert "Use 'bad', 'good' or ''" in fix
    first = {}
    for word in re.findall("'(.*?)'", fix):
        overlay = qx.Overlay.of({"fc": 1.0, "conv1": 2.0}, high_is=word)
        first[word] = overlay.sorted_items()[0][0]
    assert first == {"bad": "conv1", "good": "fc", "": "conv1"}


def test_what_a_group_shows() -> None:
    fix = refused(lambda: qx.Overlay.of({"fc": 1.0}, groups="mean"))  # type: ignore[arg-type]
    assert "Use 'sum', 'highest' or 'lowest'" in fix
    shown = {
        word: qx.Overlay.of({"fc": 1.0}, groups=word).together([1.0, 2.0])
        for word in re.findall("'(.*?)'", fix)
    }
    assert shown == {"sum": 3.0, "highest": 2.0, "lowest": 1.0}


def test_what_is_no_mapping(explorer: Explorer) -> None:
    fix = refused(lambda: explorer.overlay([("conv1", 0.5)]))  # type: ignore[arg-type]
    assert "Pass a dict such as {'conv1': 0.5, 'fc': 0.1}" in fix
    given = eval(fix.split("such as ")[1].rstrip("."))
    texts = coloured(explorer, given)["texts"]
    assert (texts["n:conv1"], texts["n:fc"]) == ("0.5", "0.1")


PATHS = "Take paths from session.snapshot.by_path or .site_by_path, or ids of its graph.nodes"


def all_of_them_colour(explorer: Explorer) -> None:
    """Whatever PATHS names can be coloured."""
    assert explorer.session is not None
    now = explorer.session.snapshot
    assert now.graph is not None
    ids = [node.id for node in now.graph.nodes]
    for paths in filter(None, (now.by_path, now.site_by_path, ids)):
        picture = coloured(explorer, dict.fromkeys(paths, 4.0))
        assert set(picture["values"].values()) | set(picture["sites"].values()) <= {4.0, "4"}
        assert picture["values"] or picture["sites"]


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("role", ["float", "inserted"])
def test_keys_that_are_no_paths(flow: str, role: Any) -> None:
    explorer = Explorer(session_of(flow))
    session = explorer.session
    assert session is not None
    stage = session.flow.stage_with(role)
    assert stage is not None
    session.goto(stage.name)
    per_module: Any = dict.fromkeys(session.copy_model().children(), 1.0)
    assert PATHS in refused(lambda: explorer.overlay(per_module))
    all_of_them_colour(explorer)
    explorer.close()


def test_numbers_and_words(explorer: Explorer) -> None:
    mixed: dict[str, Any] = {"conv1": 0.5, "fc": "slow", "conv2": 0.25, "pool": "fast"}
    fix = refused(lambda: explorer.overlay(mixed))
    assert "Make two overlays of them" in fix
    numbers = {key: value for key, value in mixed.items() if isinstance(value, float)}
    assert coloured(explorer, numbers)["texts"]["n:conv2"] == "0.25"
    words = {key: value for key, value in mixed.items() if isinstance(value, str)}
    picture = coloured(explorer, words)
    assert picture["categories"] == ["slow", "fast"]
    assert picture["texts"]["n:pool"] == "fast"


@pytest.mark.parametrize("value", [[0.1, 0.2], torch.ones(3), True, {"a": 1}])
def test_what_is_no_number(explorer: Explorer, value: Any) -> None:
    fix = refused(lambda: explorer.overlay({"conv1": value, "fc": 0.5}))
    assert "Give one number (or one word) for each path" in fix
    one = float(torch.as_tensor(value["a"] if isinstance(value, dict) else value).float().mean())
    assert coloured(explorer, {"conv1": one, "fc": 0.5})["values"]["n:conv1"] == one
    assert coloured(explorer, {"conv1": "a", "fc": "b"})["texts"]["n:conv1"] == "a"


def test_a_path_that_the_model_does_not_have(explorer: Explorer) -> None:
    assert explorer.session is not None
    explorer.session.goto("insert")
    # named_modules() gives it, and the observer in a fake quant has no number of its own.
    observer = "conv1.weight_fake_quant.activation_post_process"
    for wrong in ("conv_1", observer):
        fix = refused(lambda wrong=wrong: explorer.overlay({wrong: 1.0}))  # type: ignore[misc]
        assert PATHS in fix
        meant = re.search("Did you mean '(.*?)'", fix)
        assert meant is not None
        explorer.overlay({meant[1]: 1.0})
    all_of_them_colour(explorer)


# -- node data of Model Explorer ------------------------------------------------------------------


def test_one_of_several_graphs_is_chosen(tmp_path: Path) -> None:
    file = tmp_path / "two.json"
    graphs = {name: {"results": {"fc": {"value": i}}} for i, name in enumerate(("main", "other"))}
    file.write_text(json.dumps(graphs))
    for wrong in (None, "third"):
        fix = refused(lambda wrong=wrong: qx.Overlay.from_model_explorer(file, graph_id=wrong))  # type: ignore[misc]
        assert "Choose one with graph_id=: " in fix
        for i, name in enumerate(re.findall("'(.*?)'", fix)):
            overlay = qx.Overlay.from_model_explorer(file, graph_id=name)
            assert overlay.values == {"fc": float(i)}


def test_what_is_no_node_data() -> None:
    fix = refused(lambda: qx.Overlay.from_model_explorer({"fc": 1.0}))
    assert 'Expected: {"<graph id>": {"results": {"<node>": {"value": 1.0}}}}' in fix
    written = fix.split("Expected: ")[1].split(". See")[0]
    data = json.loads(written.replace("<graph id>", "main").replace("<node>", "fc"))
    assert qx.Overlay.from_model_explorer(data).values == {"fc": 1.0}


# -- what a session measures ----------------------------------------------------------------------


def test_the_time_of_a_model_that_is_being_trained() -> None:
    session = session_of(rounds=10**6)
    run = session.start_training(1)
    fix = refused(lambda: session.overlay("time"), BusyError)
    assert "Pause is not enough: stop the run, or wait for it" in fix
    run.pause()
    until(lambda: run.state == "paused")
    refused(lambda: session.overlay("time"), BusyError)
    run.stop(timeout=PATIENCE_S)
    assert session.overlay("time").values[""] > 0
    waited = session_of()
    waited.start_training(1).wait()
    assert waited.overlay("time").values[""] > 0


# -- observers that saw nothing -------------------------------------------------------------------


def never_observed(session: qx.Session) -> Finding | None:
    return next((p for p in session.findings() if p.name == "never-observed"), None)


@pytest.mark.parametrize("way", ["train", "calibrate"])
@pytest.mark.parametrize("converted", [False, True])
@pytest.mark.parametrize("flow", FLOWS)
def test_observers_that_have_seen_nothing(flow: str, converted: bool, way: str) -> None:
    session = session_of(flow)
    session.goto(session.flow.int8_stage if converted else session.flow.train_stage)
    finding = never_observed(session)
    assert finding is not None
    assert finding.severity == ("error" if converted else "info")
    assert "Train, or show the observers some batches: session.calibrate()" in finding.fix
    if way == "train":
        session.train(1, progress=False)
    else:
        exec(finding.fix.split(": ")[1].rstrip("."), {"session": session})
    assert never_observed(session) is None
    session.goto(session.flow.int8_stage)
    assert never_observed(session) is None
    assert all(s.seen != "nothing" for s in session.snapshots[session.flow.train_stage].sites)


def test_observers_that_have_seen_nothing_of_a_session_without_data() -> None:
    x = image()
    session = qx.Session(ConvBnRelu().train(), x)
    session.goto("train")
    finding = never_observed(session)
    assert finding is not None
    assert "Pass data={'train': loader, 'eval': loader} to the session, then train" in finding.fix
    call = re.search(r"data=(\{.*\}) to", finding.fix)
    assert call is not None
    other = qx.Session(ConvBnRelu().train(), x, data=eval(call[1], {"loader": loader(x)}))
    other.warns = False
    other.train(1, progress=False)
    assert never_observed(other) is None
