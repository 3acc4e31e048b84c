"""The scaffolding itself: each guard catches what it must, and widgets really draw and answer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.guard import Guard, GuardError, is_local
from tests.browser.notebook import (
    Shots,
    eventually,
    kernel_alive,
    kernel_of,
    kernel_pid,
    kill_kernel,
    open_notebook,
    run_all_cells,
    set_theme,
    shut_down_kernels,
    until,
    voila_page,
    wait_idle,
    write_notebook,
)
from tests.browser.servers import REPO_ROOT, Server

pytestmark = pytest.mark.browser

STDERR = "<p class='jp-RenderedText' data-mime-type='application/vnd.jupyter.stderr'>{}</p>"
WIDGETS = '''
import asyncio, threading, time
import anywidget, ipywidgets, traitlets
from IPython.display import display

class Tiny(anywidget.AnyWidget):
    _esm = """
    function render({ model, el }) {
      const button = document.createElement("button");
      button.className = "tiny";
      const show = () => { button.textContent = `tiny ${model.get("count")}`; };
      button.addEventListener("click", () => {
        model.set("count", model.get("count") + 1);
        model.save_changes();
      });
      model.on("change:count", show);
      show();
      el.append(button);
    }
    export default { render };
    """
    count = traitlets.Int(0).tag(sync=True)

tiny = Tiny()
button = ipywidgets.Button(description="press me", icon="play")
label = ipywidgets.Label("not pressed")
echo = ipywidgets.Label("tiny says 0")
direct = ipywidgets.Label("direct 0")
marshalled = ipywidgets.Label("marshalled 0")
tiny.observe(lambda change: setattr(echo, "value", f"tiny says {change['new']}"), "count")

loop = asyncio.get_event_loop()
assert loop.is_running()

def work():
    for number in range(1, 6):
        time.sleep(0.1)
        direct.value = f"direct {number}"
        loop.call_soon_threadsafe(setattr, marshalled, "value", f"marshalled {number}")

display(ipywidgets.VBox([button, label, tiny, echo, direct, marshalled]))

def press(_):
    label.value = "pressed"
    threading.Thread(target=work, daemon=True).start()

button.on_click(press)
'''


def use_widgets(page: Page) -> None:
    page.get_by_role("button", name="press me").click()
    expect(page.get_by_text("pressed", exact=True)).to_be_visible()
    page.locator("button.tiny").click()
    expect(page.get_by_text("tiny says 1", exact=True)).to_be_visible()
    expect(page.get_by_text("marshalled 5", exact=True)).to_be_visible()
    expect(page.get_by_text("direct 5", exact=True)).to_be_visible()


class TestGuard:
    def test_a_clean_page_passes(self, page: Page, guard: Guard) -> None:
        page.set_content("<p>fine</p><img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>")
        page.evaluate("() => { console.log('talk'); console.warn('a warning is no error'); }")
        guard.check()

    def test_what_goes_wrong_is_found(self, page: Page, guard: Guard) -> None:
        wrong = (
            ("() => console.error('it broke')", "console", "it broke"),
            ("() => console.assert(false, 'not so')", "console", "not so"),
            (
                "() => setTimeout(() => { throw new Error('thrown late') }, 0)",
                "page",
                "thrown late",
            ),
            ("() => { Promise.reject(new Error('unhandled')) }", "page", "unhandled"),
            ("() => fetch('http://example.com/a').catch(() => 0)", "foreign", "example.com/a"),
            ("() => { new WebSocket('wss://example.com/live') }", "foreign", "example.com/live"),
            ("() => fetch('http://127.0.0.1:1/gone').catch(() => 0)", "failed", "127.0.0.1:1/gone"),
        )
        for script, kind, text in wrong:
            page.evaluate(script)
            until(page, lambda text=text: any(text in str(one) for one in guard.unexcused()))
            with pytest.raises(GuardError, match=text) as caught:
                guard.check()
            assert f"[{kind}]" in str(caught.value)
            page.goto("about:blank")
            guard.findings.clear()

    def test_a_foreign_request_is_aborted_also_from_a_worker(
        self, page: Page, guard: Guard
    ) -> None:
        outcome = page.evaluate(
            """async () => {
                const body = `fetch('https://example.com/worker')
                    .then(() => postMessage('arrived'), () => postMessage('aborted'))`;
                const url = URL.createObjectURL(new Blob([body]));
                const worker = new Worker(url);
                const heard = new Promise((done) => { worker.onmessage = (e) => done(e.data); });
                const [yes, no] = [() => 'arrived', () => 'aborted'];
                const asked = fetch('https://1.1.1.1/page').then(yes, no);
                return [await asked, await heard];
            }"""
        )
        assert outcome == ["aborted", "aborted"]
        found = {finding.text for finding in guard.findings if finding.kind == "foreign"}
        assert any("1.1.1.1/page" in text for text in found)
        assert any("example.com/worker" in text for text in found)
        guard.findings.clear()

    def test_error_outputs_are_found(self, page: Page, guard: Guard) -> None:
        mime = "application/vnd.jupyter.error"
        for html in (
            STDERR.format("Traceback (most recent call last): boom"),
            f"<p class='jp-RenderedText' data-mime-type='{mime}'>boom</p>",
        ):
            page.set_content(html)
            with pytest.raises(GuardError, match="boom"):
                guard.check()
        page.set_content("")

    def test_stderr_without_a_traceback_is_no_error(self, page: Page) -> None:
        page.set_content(STDERR.format("UserWarning: only a warning"))

    def test_an_exception_needs_its_reason_and_excuses_only_its_kind(
        self, page: Page, guard: Guard
    ) -> None:
        with pytest.raises(ValueError, match="reason"):
            guard.allow("console", "known", "")
        guard.allow("console", "known", "seen on purpose in this test")
        page.evaluate("() => console.error('a known noise')")
        guard.check()
        page.evaluate("() => setTimeout(() => { throw new Error('a known noise') }, 0)")
        until(page, lambda: any(one.kind == "page" for one in guard.unexcused()))
        with pytest.raises(GuardError, match=r"\[page\]"):
            guard.check()
        guard.findings.clear()


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:8888/lab", True),
        ("ws://localhost:1/api", True),
        ("data:text/plain,x", True),
        ("blob:http://127.0.0.1/x", True),
        ("http://127.0.0.1.example.com/", False),
        ("http://localhost@example.com/", False),
        ("https://cdn.jsdelivr.net/npm/x", False),
    ],
)
def test_what_counts_as_this_machine(url: str, local: bool) -> None:
    assert is_local(url) is local


DIRTY = """
opened = []

def open_page(page):
    page.set_content("<p>fine</p>")
    opened.append(page)

def test_dirty(page):
    page.evaluate("() => console.error('left behind')")

def test_clean(page):
    page.set_content("<p>fine</p>")

def test_shared(shared):
    shared(open_page)

def test_shared_dirty(shared):
    shared(open_page).evaluate("() => console.error('left in what is shared')")
    assert len(opened) == 1

def test_shared_anew(shared):
    assert shared(open_page) is opened[1]
"""


@pytest.mark.usefixtures("chromium")
def test_a_dirty_page_makes_its_test_fail(tmp_path: Path) -> None:
    """A test whose own asserts all hold still fails, in its call phase, when the page is dirty; a
    page that is shared is the same until then, and a new one afterwards."""
    (tmp_path / "test_dirty.py").write_text(DIRTY)
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(tmp_path)]
    command += ["-p", "tests.browser.conftest", "-p", "no:cacheprovider", str(tmp_path)]
    env = {
        **os.environ,
        "QATEXPLORER_SCREENSHOTS": str(tmp_path / "pictures"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    ran = subprocess.run(command, cwd=REPO_ROOT, env=env, capture_output=True, text=True)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "2 failed, 3 passed" in ran.stdout
    assert "[console] left behind" in ran.stdout
    assert "[console] left in what is shared" in ran.stdout
    assert list((tmp_path / "pictures").glob("failed-test_dirty-*.png"))


def test_a_check_is_repeated_until_it_holds_and_pictures_need_a_folder(page: Page) -> None:
    page.set_content("<p>0</p>")
    page.evaluate(
        "() => { setTimeout(() => { document.querySelector('p').textContent = 1 }, 200) }"
    )

    def check() -> None:
        assert page.inner_text("p") == "1"

    with pytest.raises(AssertionError):
        check()
    eventually(page, check)
    assert Shots(None)(page, "nowhere") == []


@pytest.mark.usefixtures("clean_kernels")
class TestJupyterLab:
    def test_widgets_draw_and_answer(self, page: Page, lab: Server, tmp_path: Path) -> None:
        write_notebook(lab.root / "widgets.ipynb", [WIDGETS], hide_source=True)
        open_notebook(page, lab, "widgets.ipynb")
        run_all_cells(page)
        use_widgets(page)
        shots = Shots(tmp_path)
        for theme in ("light", "dark"):
            set_theme(page, theme)
            pictures = shots(page, f"scaffolding-lab-{theme}")
            assert [path.stat().st_size > 10_000 for path in pictures] == [True, True]
        assert page.viewport_size == {"width": 1280, "height": 900}

    def test_idle_means_that_every_cell_has_run_and_a_killed_kernel_comes_back(
        self, page: Page, lab: Server, guard: Guard
    ) -> None:
        cells = [
            "import time; time.sleep(1.5)",
            "import sys, qatexplorer.errors; print('runs', sys.executable)",
        ]
        write_notebook(lab.root / "slow.ipynb", cells)
        open_notebook(page, lab, "slow.ipynb")
        run_all_cells(page)
        assert page.get_by_text(f"runs {sys.executable}", exact=True).is_visible()

        kernel = kernel_of(lab, "slow.ipynb")
        assert kernel_alive(lab, kernel)
        guard.allow(
            "console",
            "Could not restore the debugger state",
            "JupyterLab asks the killed kernel for its debugger while it restarts",
        )
        killed = kill_kernel(lab, kernel)
        expect(page.get_by_text("Kernel Restarting")).to_be_visible()
        page.get_by_role("button", name="Ok").click()
        wait_idle(page)
        assert kernel_alive(lab, kernel)
        assert kernel_pid(lab, kernel) != killed
        shut_down_kernels(lab)
        assert not kernel_alive(lab, kernel)

    def test_a_failed_cell_is_found(self, page: Page, lab: Server, guard: Guard) -> None:
        write_notebook(lab.root / "failing.ipynb", ["1 / 0"])
        open_notebook(page, lab, "failing.ipynb")
        guard.check()
        run_all_cells(page)
        with pytest.raises(GuardError, match="ZeroDivisionError"):
            guard.check()
        shut_down_kernels(lab)
        page.goto("about:blank")
        guard.findings.clear()


class TestVoila:
    def test_widgets_draw_and_answer(
        self, page: Page, voila: Callable[..., Server], tmp_path: Path
    ) -> None:
        beside = "from pathlib import Path\nPath('beside').touch()"
        server = voila(write_notebook(tmp_path / "widgets.ipynb", [beside, WIDGETS]))
        before = set(server.kernel_processes())
        voila_page(page, server)
        use_widgets(page)
        assert (tmp_path / "beside").exists()  # the kernel runs where the notebook lies
        first = set(server.kernel_processes()) - before
        assert len(first) == 1
        voila_page(page, server, theme="dark")
        use_widgets(page)
        # The kernel of the page that was left ends, so reloading does not eat memory.
        until(page, lambda: not first & set(server.kernel_processes()))
        assert len(set(server.kernel_processes()) - before) == 1

    def test_what_is_wrong_in_the_stock_template_is_found(
        self, page: Page, voila: Callable[..., Server], guard: Guard, tmp_path: Path
    ) -> None:
        """It would leave the machine; and a cell fails."""
        book = write_notebook(tmp_path / "failing.ipynb", ["print('before')", "1 / 0"])
        voila_page(page, voila(book, template=None))
        with pytest.raises(GuardError, match=r"\[foreign\] GET https://cdn\.jsdelivr\.net"):
            guard.check()
        with pytest.raises(GuardError, match="ZeroDivisionError"):
            guard.check()
        page.goto("about:blank")
        guard.findings.clear()


def test_pages_have_separate_guards(new_context: Callable[..., BrowserContext]) -> None:
    wide = new_context(width=1920).new_page()
    assert wide.evaluate("() => window.innerWidth") == 1920
