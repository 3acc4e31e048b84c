"""Fixtures of the browser tests: one JupyterLab per session, guarded pages, pictures on failure."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page, expect, sync_playwright

from tests.browser.guard import Guard
from tests.browser.notebook import (
    HEIGHT,
    PATIENCE_MS,
    WIDTHS,
    Shots,
    leave,
    screenshot,
    shut_down_kernels,
)
from tests.browser.servers import (
    CHROMIUM_ARGS,
    CHROMIUM_NAMES,
    Server,
    find_chromium,
    start_lab,
    start_voila,
    voila_path,
)

GUARDS = pytest.StashKey[list[Guard]]()
_SERVERS = pytest.StashKey[list[Server]]()
_KEPT = pytest.StashKey["Kept"]()
_TIMEOUT_S = 900
"""Of a whole test: several waits may each take long on a slow machine, and none of them failed."""

expect.set_options(timeout=PATIENCE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.timeout(_TIMEOUT_S))


def _pictures() -> Path | None:
    named = os.environ.get("QATEXPLORER_SCREENSHOTS")
    return Path(named) if named else None


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the machine's Chromium; what needs it is skipped where there is none."""
    path = find_chromium()
    if path is None:
        names = ", ".join(CHROMIUM_NAMES)
        pytest.skip(f"no Chromium: none of {names} on PATH and QATEXPLORER_CHROMIUM not usable")
    return path


# Package scope, not session: while Playwright's sync API is started the main thread has a running
# event loop, in which asyncio.run() and nbclient of other tests would refuse to work.
@pytest.fixture(scope="package")
def browser(chromium: str) -> Iterator[Browser]:
    """Headless Chromium of the machine, one for all tests of this folder."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_ARGS))
        yield started
        started.close()


@pytest.fixture(scope="session")
def lab(
    chromium: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Server]:
    """The session's JupyterLab; write notebooks below ``lab.root``."""
    server = start_lab(tmp_path_factory.mktemp("lab"))
    request.session.stash.setdefault(_SERVERS, []).append(server)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def voila(
    chromium: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Server]]:
    """``voila(notebook)`` gives a Voila whose ``page`` is that notebook: one server for all of a
    template, started when it is needed first."""
    servers: dict[str | None, Server] = {}

    def serve(notebook: Path, template: str | None = "offline") -> Server:
        if template not in servers:
            home = tmp_path_factory.mktemp("voila")
            (home / "notebooks").mkdir()
            servers[template] = start_voila(home / "notebooks", home, template=template)
            request.session.stash.setdefault(_SERVERS, []).append(servers[template])
        server = servers[template]
        folder = notebook.resolve().parent
        # A link, not a copy: what the kernel writes beside its notebook is found there.
        link = server.root / hashlib.sha256(str(folder).encode()).hexdigest()[:8]
        if not link.exists():
            link.symlink_to(folder)
        return replace(server, page=voila_path(f"{link.name}/{notebook.name}"))

    yield serve
    for server in servers.values():
        server.stop()


def _new_context(
    browser: Browser, width: int = WIDTHS[0], height: int = HEIGHT, **options: Any
) -> BrowserContext:
    context = browser.new_context(
        viewport={"width": width, "height": height}, service_workers="block", **options
    )
    context.set_default_timeout(PATIENCE_MS)
    return context


@pytest.fixture
def new_context(
    browser: Browser, request: pytest.FixtureRequest
) -> Iterator[Callable[..., BrowserContext]]:
    """Make guarded browser contexts; each guard is checked when the test's body has ended."""
    contexts: list[BrowserContext] = []
    request.node.stash[GUARDS] = []  # a test that is run once more has those of its first run

    def make(width: int = WIDTHS[0], height: int = HEIGHT, **options: Any) -> BrowserContext:
        context = _new_context(browser, width, height, **options)
        contexts.append(context)
        request.node.stash.setdefault(GUARDS, []).append(Guard(context))
        return context

    yield make
    for context in contexts:
        leave(context)


@pytest.fixture
def page(new_context: Callable[..., BrowserContext], request: pytest.FixtureRequest) -> Page:
    """A guarded page of 1280 px; ``@pytest.mark.parametrize("page", [1920], indirect=True)``."""
    return new_context(width=getattr(request, "param", WIDTHS[0])).new_page()


@dataclass
class Kept:
    """The page that the tests of a module share, from the first that opens it on."""

    guard: Guard | None = None

    def close(self) -> None:
        """The next test opens a new one."""
        if self.guard is not None:
            leave(self.guard.context)
            self.guard = None


@pytest.fixture(scope="module")
def kept() -> Iterator[Kept]:
    """What :func:`shared` keeps from test to test."""
    kept = Kept()
    yield kept
    kept.close()


@pytest.fixture
def shared(
    kept: Kept, browser: Browser, request: pytest.FixtureRequest
) -> Callable[[Callable[[Page], None]], Page]:
    """``shared(open)``: a guarded page of 1280 px that ``open(page)`` has opened, once for all
    tests of the module: a kernel that imports torch is most of what a test here costs.

    After a test that failed the next one opens a new page.
    """

    def page_of(open_page: Callable[[Page], None]) -> Page:
        request.node.stash[_KEPT] = kept
        if kept.guard is None:
            kept.guard = Guard(_new_context(browser))
            try:
                open_page(kept.guard.context.new_page())
            except BaseException:
                kept.close()
                raise
        request.node.stash[GUARDS] = [kept.guard]
        return kept.guard.context.pages[0]

    return page_of


@pytest.fixture
def guard(page: Page, request: pytest.FixtureRequest) -> Guard:
    """The guard of ``page``: to allow something with its reason, or to check in the middle."""
    found: Guard = next(g for g in request.node.stash[GUARDS] if g.context == page.context)
    return found


@pytest.fixture
def clean_kernels(lab: Server) -> Iterator[None]:
    """Shut down JupyterLab's kernels after the test, so that memory does not pile up."""
    yield
    shut_down_kernels(lab)


@pytest.fixture
def shots() -> Shots:
    """``shots(page, "name")`` saves 1280 and 1920 px pictures in QATEXPLORER_SCREENSHOTS."""
    return Shots(_pictures())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Check every guard as part of the test: a dirty page is a failure, not an error."""
    try:
        yield
        for guard in item.stash.get(GUARDS, []):
            guard.check()
    except pytest.skip.Exception:
        raise
    except BaseException:
        _add_evidence(item)
        if _KEPT in item.stash:
            item.stash[_KEPT].close()
        raise


def _add_evidence(item: pytest.Item) -> None:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", item.name)
    folder = _pictures() or item.config.rootpath / ".pytest_cache" / "browser"
    guards: list[Guard] = item.stash.get(GUARDS, [])
    for index, guard in enumerate(guards):
        try:
            seen = "\n".join(str(finding) for finding in guard.unexcused()) or "nothing"
            item.add_report_section("call", f"guard {index}", seen)
            for page in guard.context.pages:
                path = screenshot(page, f"failed-{name}-{index}", folder)
                item.add_report_section("call", "picture", str(path))
        except Error as error:
            item.add_report_section("call", f"guard {index}", f"page lost: {error}")
    for server in item.session.stash.get(_SERVERS, []):
        item.add_report_section("call", f"log of {server.name}", server.log_tail())
