"""What the page shows is made off the kernel's loop, and handed over as bytes."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import qatexplorer as qx
from qatexplorer.garbage import cycles_collected_later
from qatexplorer.widgets.common.bridge import Bridge
from qatexplorer.widgets.common.packed import Packed
from qatexplorer.widgets.explorer import panes
from qatexplorer.widgets.tree.tree import TreeWidget
from tests.support.waiting import until, until_on_loop


def test_work_is_done_off_the_loop_and_the_newest_is_shown() -> None:
    async def main() -> tuple[list[int], set[bool], list[bool]]:
        bridge, here = Bridge(), threading.get_ident()
        shown: list[int] = []
        done: list[int] = []
        worked: set[bool] = set()
        on_loop: list[bool] = []

        def work(number: int, wait: float) -> int:
            worked.add(threading.get_ident() == here)
            time.sleep(wait)
            done.append(number)
            return number

        def show(number: int) -> None:
            shown.append(number)
            on_loop.append(threading.get_ident() == here)

        bridge.make("page", lambda: work(1, 0.3), show)  # slow, and old when it is done
        bridge.make("page", lambda: work(2, 0.0), show)
        asking = threading.Thread(target=lambda: bridge.make("other", lambda: work(3, 0.0), show))
        asking.start()
        asking.join()
        await until_on_loop(lambda: len(done) == 3 and len(shown) >= 2)
        await asyncio.sleep(0.1)  # what is old would be shown by now
        return sorted(shown), worked, on_loop

    shown, worked, on_loop = asyncio.run(main())
    assert shown == [2, 3]
    assert worked == {False}
    assert all(on_loop)


def test_without_a_loop_it_is_done_at_once() -> None:
    shown: list[int] = []
    Bridge().make("page", lambda: 1, shown.append)
    assert shown == [1]


def test_stepping_makes_tree_scene_and_inspector_on_other_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: dict[str, set[int]] = {}

    def spied(name: str) -> Callable[..., Any]:
        real = getattr(panes, name)

        def spy(*args: Any, **kwargs: Any) -> Any:
            threads.setdefault(name, set()).add(threading.get_ident())
            return real(*args, **kwargs)

        return spy

    for name in ("build_tree", "build_scene", "inspect_html"):
        monkeypatch.setattr(panes, name, spied(name))

    async def main() -> str:
        explorer = qx.explore(example="digits_cnn")
        explorer._on_action("goto", "insert")
        await until_on_loop(lambda: explorer.jobs.current is None)
        explorer.select("site:conv1.weight_fake_quant")
        inspector = explorer.panes.inspector
        await until_on_loop(lambda: "conv1.weight_fake_quant" in inspector.panel.html)
        assert len(explorer.panes.tree.rows) > 10
        return str(explorer.panes.graph.scene["stage"])

    assert asyncio.run(main()) == "insert"
    assert set(threads) == {"build_tree", "build_scene", "inspect_html"}
    assert all(threading.get_ident() not in found for found in threads.values())


def test_packed_data_is_its_json() -> None:
    data = {"nodes": [{"id": "n:1", "label": "<é>"}], "sites": {"a.b": {"off": False}}, "note": ""}
    for value in (data, data["nodes"], {}, []):
        packed = Packed(value)
        assert json.loads(packed.data) == value == packed.value
    assert Packed(data)["nodes"][0]["label"] == "<é>"
    assert Packed(data) == Packed(data) != Packed({})


def test_the_page_gets_bytes_and_the_same_rows_are_not_sent_again() -> None:
    tree = TreeWidget(rows=[{"id": "module:"}])
    assert tree.get_state("rows")["rows"] == b'[{"id": "module:"}]'
    sent: list[Any] = []
    tree.observe(lambda change: sent.append(change["new"]), "rows")
    tree.rows = [{"id": "module:"}]
    assert sent == []
    tree.rows = []
    assert [packed.value for packed in sent] == [[]]


def test_many_objects_are_made_without_a_collection() -> None:
    until(gc.isenabled)  # pages of the tests before may still be at work
    generations: list[int] = []
    gc.callbacks.append(lambda phase, info: generations.append(info["generation"]))
    try:
        with cycles_collected_later():
            kept = [[] for _ in range(200_000)]  # type: ignore[var-annotated]
            assert not gc.isenabled()
        assert generations == []
        until(gc.isenabled)
        assert gc.get_count()[0] < 10_000, "they are not young any more"
        assert gc.get_freeze_count() == 0
    finally:
        gc.callbacks.pop()
    assert len(kept) == 200_000


def test_a_collector_that_is_off_stays_off() -> None:
    gc.disable()
    try:
        with cycles_collected_later():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_page_of_the_stage_before_is_not_shown() -> None:
    """What is inspected may be ready only when the stage has changed."""
    explorer = qx.explore(example="digits_cnn")
    session, shown = explorer.session, explorer.panes
    assert session is not None
    session.goto("insert")
    late = shown._inspected(session, "")
    assert late.stage == "insert"
    session.goto("float")
    explorer.refresh()
    shown._show_inspected(late)
    assert shown.inspector.panel.html != late.html
    assert shown.inspector.panel.html == shown._inspected(session, "").html
