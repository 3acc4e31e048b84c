"""Kernels that wait for a page: what they have done before, what a page gets, what fails."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from qatexplorer.app import warm_up
from qatexplorer.app.dashboard import MODEL_VARIABLE
from qatexplorer.app.warm import WarmKernels

_PATIENCE_S = 90.0


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(int(_PATIENCE_S * 10)):
        if condition():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it did not come to that")


async def answer(manager: Any, kernel_id: str, code: str) -> str:
    """What ``code`` gives in the kernel."""
    client = manager.get_kernel(kernel_id).client()
    client.start_channels()
    try:
        request = client.execute("", user_expressions={"it": code}, reply=True)
        reply = await asyncio.wait_for(request, _PATIENCE_S)
        return str(reply["content"]["user_expressions"]["it"]["data"]["text/plain"])
    finally:
        client.stop_channels()


def with_manager(folder: Path, test: Callable[[Any], Awaitable[None]], **settings: Any) -> None:
    async def body() -> None:
        manager: Any = WarmKernels(
            root_dir=str(folder), connection_dir=str(folder), refill_delay=0.2, **settings
        )
        try:
            await test(manager)
        finally:
            await manager.shutdown_all(now=True)

    asyncio.run(body())


def page_env(**more: str) -> dict[str, str]:
    return {**os.environ, **more}


def test_a_page_gets_the_kernel_that_waits_with_its_own_environment(tmp_path: Path) -> None:
    async def test(manager: Any) -> None:
        await until(lambda: bool(manager._waiting))
        (waiting,) = manager._waiting
        env = page_env(QUERY_STRING="model=é 😀", VOILA_REQUEST_URL="http://127.0.0.1/?x")
        taken = await manager.start_kernel(kernel_name="python3", path="", env=env)
        assert taken == waiting
        code = (
            "__import__('os').environ['QUERY_STRING'], "
            "'qatexplorer.widgets.explorer.explorer' in __import__('sys').modules, "
            "len(__import__('ipywidgets').widgets.widget._instances), '_w' in globals()"
        )
        assert await answer(manager, taken, code) == "('model=é 😀', True, 0, False)"
        # The next page finds another one.
        await until(lambda: bool(manager._waiting))
        assert manager._waiting != [taken]

    with_manager(tmp_path, test)


def test_what_does_not_fit_or_live_is_started_anew(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()

    async def test(manager: Any) -> None:
        await until(lambda: bool(manager._waiting))
        (waiting,) = manager._waiting
        other = await manager.start_kernel(kernel_name="python3", path="elsewhere", env=page_env())
        assert other != waiting
        assert manager._waiting == [waiting]
        manager.refill_delay = 60
        await manager.get_kernel(waiting).signal_kernel(9)
        manager.hand_over_s = 3.0
        fresh = await manager.start_kernel(kernel_name="python3", path="", env=page_env())
        assert fresh not in (waiting, other)
        assert waiting not in manager
        assert await answer(manager, fresh, "1 + 1") == "2"

    with_manager(tmp_path, test)


def test_none_waits_where_none_is_wanted(tmp_path: Path) -> None:
    async def test(manager: Any) -> None:
        await asyncio.sleep(0.5)
        assert manager._waiting == []
        assert len(manager.list_kernel_ids()) == 0

    with_manager(tmp_path, test, size=0)


def test_warming_up_imports_packages_of_the_model_and_not_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "warmed_project"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('the package was imported')\n")
    source = "import wave, expecttest\nimport no_such_package\nfrom . import x\nraise SystemExit\n"
    (package / "models.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(MODEL_VARIABLE, "warmed_project.models:make")
    monkeypatch.setattr(warm_up, "_make_a_page", lambda: 1 / 0)
    sys.modules.pop("expecttest", None)
    warm_up.warm_up()
    assert "expecttest" in sys.modules
    assert "warmed_project" not in sys.modules
    monkeypatch.setenv(MODEL_VARIABLE, "nowhere.at_all:make")
    warm_up.warm_up()  # what cannot be found is the page's to report


def test_warming_up_leaves_random_numbers_and_no_widget() -> None:
    import torch
    from ipywidgets.widgets.widget import _instances

    torch.manual_seed(5)
    before = torch.get_rng_state()
    warm_up.warm_up()
    assert torch.equal(before, torch.get_rng_state())
    assert not _instances
