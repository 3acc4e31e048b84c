"""An interpreter that ends waits for the page's threads."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from qatexplorer.widgets.common import plot


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )


def test_a_script_that_ends_waits_for_what_has_begun(tmp_path: Path) -> None:
    done = tmp_path / "done"
    script = (
        "import time, pathlib\n"
        "from qatexplorer.widgets.common.background import in_background\n"
        f"in_background(lambda: (time.sleep(1), pathlib.Path({str(done)!r}).touch()), 'work')\n"
    )
    ended = run(script)
    assert ended.returncode == 0, ended.stderr
    assert done.exists()


def test_a_script_may_end_right_after_a_step() -> None:
    script = (
        "import qatexplorer as qx\n"
        "explorer = qx.explore(example='digits_cnn')\n"
        "explorer.session.goto('convert')\n"
    )
    ended = run(script)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "Aborted" not in ended.stderr


def test_what_two_threads_would_import_is_there_before_the_warm_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    monkeypatch.setattr(plot, "_warming", threading.Lock())
    monkeypatch.setattr(plot.importlib, "import_module", done.append)
    monkeypatch.setattr(plot, "in_background", lambda _body, name: done.append(name))
    plot._start_warm_up()
    plot._start_warm_up()
    assert done == ["narwhals.stable", "warm-up"]
