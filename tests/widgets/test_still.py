"""What an explorer leaves in a notebook: the page, and a picture for where no page can be."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import nbclient
import nbformat
import pytest

import qatexplorer as qx
from qatexplorer.widgets.explorer.explorer import Explorer
from qatexplorer.widgets.explorer.still import front_end
from tests.support.waiting import until

WIDGET = "application/vnd.jupyter.widget-view+json"
FRONT_ENDS = ("VOILA_KERNEL_ID", "VOILA_SERVER_URL", "VSCODE_PID", "JPY_SESSION_NAME")


class Shown:
    """Stands in for IPython's display of one output: what was shown, and its updates."""

    def __init__(self) -> None:
        self.bundles: list[dict[str, Any]] = []
        self.metadata: list[dict[str, Any]] = []
        self.updates: list[dict[str, Any]] = []

    def __call__(self, bundle: dict[str, Any], **more: Any) -> Any:
        assert more.pop("raw")
        self.bundles.append(bundle)
        self.metadata.append(more.get("metadata") or {})
        return self if more.get("display_id") else None

    display = __call__

    def update(self, bundle: dict[str, Any], **_more: Any) -> None:
        self.updates.append(bundle)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    for name in FRONT_ENDS:
        monkeypatch.delenv(name, raising=False)
    made = Shown()
    monkeypatch.setattr("IPython.display.display", made)
    return made


def test_jupyterlab_gets_the_page_and_a_picture_that_follows(shown: Shown) -> None:
    explorer = qx.explore()
    explorer._ipython_display_()
    page, picture = shown.bundles
    assert WIDGET in page
    assert "text/html" not in page
    assert WIDGET not in picture
    assert "qx-still" in picture["text/html"]
    assert explorer.session is not None
    explorer.session.goto("insert")
    title = explorer.session.flow.stage("insert").title
    # Threads that have found more draw it as well: only the newest picture counts.
    until(lambda: shown.updates and title in shown.updates[-1]["text/html"])
    assert "qat.ConvBnReLU2d" in shown.updates[-1]["text/html"]
    explorer._ipython_display_()  # another cell
    assert len(shown.bundles) == 4
    explorer.still.update("<p>one id for both cells</p>")
    told = [one for one in shown.updates if "one id for both cells" in one["text/html"]]
    assert len(told) == 1


def test_voila_gets_the_page_alone(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOILA_KERNEL_ID", "1")
    qx.explore()._ipython_display_()
    (page,) = shown.bundles
    assert set(page) == {"text/plain", WIDGET}


def test_vs_code_gets_one_output_with_both(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSCODE_PID", "1")
    qx.explore()._ipython_display_()
    (page,) = shown.bundles
    assert "qx-still" in page["text/html"]
    assert WIDGET in page
    # JupyterLab that was started in a terminal of VS Code is JupyterLab.
    monkeypatch.setenv("JPY_SESSION_NAME", "a.ipynb")
    assert front_end() == "lab"


def test_colab_is_told_to_load_widgets(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    from anywidget import _util

    asked: list[bool] = []
    output = ModuleType("google.colab.output")
    vars(output).update(
        enable_custom_widget_manager=lambda: asked.append(True),
        _widgets=type("Widgets", (), {"_installed_url": "https://colab.example/manager.js"}),
    )
    for name, module in (("google", ModuleType("google")), ("google.colab", ModuleType("c"))):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    _util.enable_custom_widget_manager_once.cache_clear()
    try:
        qx.explore()._ipython_display_()
    finally:
        _util.enable_custom_widget_manager_once.cache_clear()
    assert asked == [True]
    (page,) = shown.bundles
    assert "qx-still" in page["text/html"]
    assert "custom_widget_manager" in shown.metadata[0][WIDGET]["colab"]


def test_the_bundle_itself_has_the_picture() -> None:
    bundle = qx.explore()._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", WIDGET}
    assert "conv1" in bundle["text/html"]


def test_without_a_model_the_picture_says_why() -> None:
    explorer = Explorer("no model")
    assert "torch.nn.Module" in explorer.static_html()


def test_a_notebook_that_is_run_keeps_the_last_stage(tmp_path: Path) -> None:
    book = nbformat.v4.new_notebook()
    book.cells = [
        nbformat.v4.new_code_cell("import qatexplorer as qx\nexplorer = qx.explore()\nexplorer"),
        nbformat.v4.new_code_cell("explorer.session.goto('insert')"),
        nbformat.v4.new_code_cell("import asyncio\nawait asyncio.sleep(3)"),
    ]
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3").execute()
    page, picture = book.cells[0].outputs
    assert WIDGET in page.data
    assert "Insert" in picture.data["text/html"]
    assert "activation_post_process" in picture.data["text/html"]
    from nbconvert import HTMLExporter

    html, _ = HTMLExporter().from_notebook_node(book)
    assert "data:image/svg+xml;base64," in html
