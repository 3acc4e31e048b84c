"""The thread's notebook runs from top to bottom and shows what it promises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "notebooks" / "anatomy_of_prepare_qat.ipynb"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("anatomy")
    book = nbformat.read(PATH, as_version=4)  # type: ignore[no-untyped-call]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        client = NotebookClient(
            book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        )
        client.execute()
    return book


def printed(book: Any, part: str) -> str:
    """What the first code cell with ``part`` in its source has printed."""
    cell = next(c for c in book.cells if c.cell_type == "code" and part in c.source)
    return "".join(output.get("text", "") for output in cell.outputs)


def test_committed_without_outputs() -> None:
    book = nbformat.read(PATH, as_version=4)  # type: ignore[no-untyped-call]
    assert all(c.outputs == [] for c in book.cells if c.cell_type == "code")


def test_each_step_shows_what_its_text_says(ran: Any) -> None:
    counts = re.findall(r"fake quants now: (\{.*\})", printed(ran, "session.step()"))
    assert counts[-2] == "{'weight': 2, 'input': 0, 'output': 0}"
    assert counts[-1] == "{'weight': 2, 'input': 1, 'output': 2}"
    rows = printed(ran, 'ledger.of("fc1")').splitlines()
    assert sum("called 1 time" in line for line in rows) == 2
    assert sum("called 0 time" in line for line in rows) == 2
    scales = printed(ran, "row.scale_difference")
    assert "0.39" in scales
    assert "fused_formula" in scales


def test_redundancy_is_shown_with_numbers(ran: Any) -> None:
    old = printed(ran, "with_old_linear()")
    assert len(re.findall(r"changes [\d,]+ of [\d,]+ values", old)) == 2
    assert "out of the module's forward" in old
    assert "registered 2 times" in printed(ran, "prepare(prepare_qat")
    ways = printed(ran, '"torch.flatten(x, 1)"):')
    assert re.search(r"x\.flatten\(1\)\s+1 double", ways)
    assert re.search(r"nn\.Flatten\(\)\s+1 double", ways)
    assert re.search(r"torch\.flatten\(x, 1\)\s+0 double", ways)
    assert "In training the difference went from" in ways


def test_widgets_and_answers_are_there(ran: Any) -> None:
    shown = [o for c in ran.cells if c.cell_type == "code" for o in c.outputs]
    drawn = [
        o.data for o in shown if "application/vnd.jupyter.widget-view+json" in o.get("data", {})
    ]
    ours = [data for data in drawn if "qatexplorer.widgets" in data["text/plain"]]
    assert len(ours) == 3  # beside tqdm's progress bars
    assert printed(ran, "mine.answers()").count("?\n") == 7
    assert "output of fc2" in printed(ran, "qx.migrate(session")
