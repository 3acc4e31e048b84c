"""The panel "Take home": what it writes and shows of it, and each bad input in one sentence."""

from __future__ import annotations

import errno
import gzip
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import qatexplorer as qx
from qatexplorer import reports
from qatexplorer.session.session import Session
from qatexplorer.takehome import export as exporting
from qatexplorer.views.takehome.words import NO_DOWNLOAD
from qatexplorer.widgets.common.download import HeldDownload
from qatexplorer.widgets.explorer.explorer import Explorer
from qatexplorer.widgets.takehome.panel import EXPORT, JOBS, REPORT, SCRIPT
from tests.support.page_text import visible_text
from tests.support.training_models import SmallNet, batches, data, one_thread  # noqa: F401
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QATEXPLORER_RUNS", str(tmp_path / "runs"))
    return tmp_path


def opened(session: Session) -> Explorer:
    explorer = qx.explore(session)
    explorer.drawer.show_panel(explorer.takehome)
    return explorer


def small() -> Session:
    torch.manual_seed(0)
    session = Session(SmallNet().train(), batches(1)[0][0], qconfig="onednn", data=data(2))
    session.calibrate(1)
    return session


@pytest.fixture
def explorer() -> Iterator[Explorer]:
    made = opened(small())
    yield made
    until(lambda: made.jobs.current is None)


def press(explorer: Explorer, job: str) -> str:
    """Click the button of ``job``; what its part says then."""
    part = explorer.takehome.parts[job]
    part.start.click()
    until(lambda: explorer.jobs.current is None and (part.result.html or part.status.html))
    return visible_text(part.result.html)


def saved(explorer: Explorer, job: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the browser is given for a click on its button."""
    download = explorer.takehome.parts[job].download
    sent: list[Any] = []
    assert download is not None
    monkeypatch.setattr(
        download, "send", lambda content, buffers=None: sent.append((content, buffers))
    )
    download._handle_custom_msg({"ask": "a1"}, [])
    ((content, (packed,)),) = sent
    assert content == {"answers": "a1"}
    return gzip.decompress(packed).decode()


def test_nothing_is_made_before_it_is_seen() -> None:
    explorer = qx.explore(small())
    assert explorer.takehome.children == ()
    explorer.drawer.show_panel(explorer.takehome)
    assert set(explorer.takehome.parts) == set(JOBS)


def test_it_writes_what_the_session_writes(
    explorer: Explorer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, panel = explorer.session, explorer.takehome
    assert session is not None
    names = {job: part.path.value for job, part in panel.parts.items()}
    assert names == {
        SCRIPT: "SmallNet-walk.py",
        EXPORT: "SmallNet-int8",
        REPORT: "SmallNet-report.html",
    }
    text = press(explorer, SCRIPT)
    script = place / names[SCRIPT]
    assert script.read_text(encoding="utf-8") == session.script()
    assert f"Written: {script} ({script.stat().st_size / 1000:.1f} kB)." in text
    assert saved(explorer, SCRIPT, monkeypatch) == session.script()

    text = press(explorer, EXPORT)
    folder = place / names[EXPORT]
    for file in folder.iterdir():
        assert f"{file.name} {file.stat().st_size / 1000:.1f} kB" in text
    assert "ONNX Runtime" in text
    assert " samples: outputs at most " in text
    assert "No exported.pt2" in text
    assert session.stage == session.flow.int8_stage

    press(explorer, REPORT)
    page = (place / names[REPORT]).read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert saved(explorer, REPORT, monkeypatch) == page
    # What is there is known to the next page, and to another session of this one.
    explorer.show_session(small())
    assert [part.path.value for part in panel.parts.values()] == [
        "SmallNet-walk-2.py",
        "SmallNet-int8-2",
        "SmallNet-report-2.html",
    ]
    assert not any(part.result.html for part in panel.parts.values())
    assert not any(part.download.held for part in panel.parts.values() if part.download)


@pytest.mark.parametrize("job", JOBS)
def test_what_is_there_is_left_alone(job: str, explorer: Explorer, place: Path) -> None:
    (place / "theirs").mkdir()
    (place / "theirs" / "a.txt").write_text("mine")
    (place / "file").write_text("mine")
    part = explorer.takehome.parts[job]
    for name in ("theirs", "file", "file/below", "x" * 300):
        part.path.value = name
        text = press(explorer, job)
        assert str(place / name.partition("/")[0]) in text
        assert "What to do" in text
        assert "Traceback" not in text
        assert "unexpected" not in text
        assert "overwrite" not in text
    assert (place / "file").read_text() == "mine"
    assert sorted(one.name for one in place.rglob("*")) == ["a.txt", "file", "theirs"]
    part.path.value = "deep/new"
    assert "Written" in press(explorer, job)


@pytest.mark.parametrize("job", JOBS)
def test_a_full_disk(
    job: str, explorer: Explorer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(Path, "write_bytes", full)
        disk.setattr(reports.os, "replace", full)  # all of it is on the disk but for its name
        text = press(explorer, job)
    assert "cannot be written: No space left on device." in text
    assert list(place.iterdir()) == []
    assert "Written" in press(explorer, job)


def test_what_onnx_cannot_express_is_said(place: Path) -> None:
    class Strange(nn.Module):
        def __init__(self, functional: bool) -> None:
            super().__init__()
            self.fc, self.functional = nn.Linear(4, 4), functional

        def forward(self, x: Tensor) -> Tensor:
            if self.functional:
                return F.linear(x, self.fc.weight, self.fc.bias)
            return torch.special.bessel_j0(self.fc(x))

    x = torch.randn(2, 4)
    pairs = [(x, x)]

    def export(functional: bool) -> str:
        session = Session(Strange(functional).train(), x, flow="fx", qconfig="onednn",
                          data=(pairs, pairs), metric=lambda output, target: 0.0)  # fmt: skip
        session.calibrate(1)
        return press(opened(session), EXPORT)

    text = export(False)
    assert "No model.onnx: torch cannot write this int8 model as ONNX" in text
    assert "bessel_j0" in text
    assert "model.onnx" not in [one.name for one in (place / "Strange-int8").iterdir()]
    text = export(True)
    assert "Call the layer as a module (nn.Linear)" in text
    assert not (place / "Strange-int8-2").exists()


def test_it_stops_and_leaves_nothing(
    explorer: Explorer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, go_on = threading.Event(), threading.Event()

    def slow(*_: Any) -> None:
        there.set()
        assert go_on.wait(30)

    monkeypatch.setattr(exporting, "write_onnx", slow)
    panel, part = explorer.takehome, explorer.takehome.parts[EXPORT]
    part.start.click()
    assert there.wait(30)
    assert part.halt.layout.display == ""
    assert "ONNX" in visible_text(part.status.html)
    assert explorer.bar.can_stop
    assert all(one.start.disabled for one in panel.parts.values())
    part.halt.click()
    go_on.set()
    until(lambda: explorer.jobs.current is None)
    assert "Stopped; nothing was written." in part.status.html
    assert part.halt.layout.display == "none"
    assert list(place.iterdir()) == []
    assert not part.start.disabled


def test_while_a_run_trains_it_says_so(place: Path) -> None:
    session = small()
    explorer = opened(session)
    run = session.start_training(100_000)
    try:
        for job in JOBS:
            assert "is going on" in press(explorer, job)
    finally:
        run.stop(timeout=30)
    assert not [one for one in place.iterdir() if one.name != "runs"]


def test_a_run_of_several_processes(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    from qatexplorer.takehome.records import Walk

    monkeypatch.setattr(Walk, "processes", 2)
    assert "made by 2 processes" in press(explorer, SCRIPT)


def test_an_error_nobody_expects_is_a_sentence(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> str:
        raise ZeroDivisionError("<no> walk")

    monkeypatch.setattr(Session, "script", fails)
    text = press(explorer, SCRIPT)
    assert "ZeroDivisionError: <no> walk" in text
    assert "Traceback" not in text


def test_what_is_too_large_for_the_browser_is_said(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HeldDownload, "MOST", 100)
    assert NO_DOWNLOAD in press(explorer, SCRIPT)
    download = explorer.takehome.parts[SCRIPT].download
    assert download is not None
    assert not download.held
    assert download.layout.display == "none"
