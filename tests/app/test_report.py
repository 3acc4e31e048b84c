"""``qatexplorer report`` and ``qatexplorer compare``: what they write, and their exit codes."""

from __future__ import annotations

import json
import math
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

import qatexplorer as qx
from qatexplorer.accuracy.records import CompareRow, Comparison
from qatexplorer.app import compare as comparing
from qatexplorer.app import report as reporting
from qatexplorer.app.cli import main
from qatexplorer.errors import QatExplorerError
from tests.support.report_text import ReportText
from tests.support.training_models import SmallNet, batches, data, one_thread  # noqa: F401

SOURCE = """
import torch
from tests.support.training_models import SmallNet, batches, data
print("imported")
def good():
    torch.manual_seed(0)
    return SmallNet().train(), batches(1)[0][0], data(2)
def bare():
    torch.manual_seed(0)
    return SmallNet().train(), batches(1)[0][0]
def broken(): raise ValueError("not today")
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "report_models.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("report_models", None)


@pytest.fixture
def run_dir(project: Path) -> Path:
    session = qx.Session(SmallNet().train(), batches(1)[0][0], qconfig="onednn", data=data(2))
    session.train(1, run_dir=project / "run", progress=False)
    return project / "run"


def test_a_report_of_a_model(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["report", "report_models:good", "--qconfig", "onednn", "--calibrate", "1"]
    assert main([*command, "--measure", "compare,shadow"]) == 0
    out, err = capfd.readouterr()
    assert out.startswith(f"{project / 'report.html'} (")
    assert "imported" in err
    text = ReportText((project / "report.html").read_text(encoding="utf-8"))
    assert "Calibrated on 8 samples; not trained." in text.sections["training"]
    assert text.table("Places, the lowest SQNR first").rows
    assert text.table("Fake quants by noise over").rows
    assert "session.evaluate()" in text.sections["accuracy"]
    assert main(command) == 2, "the file is there now"
    assert "is there already" in capfd.readouterr().err


def test_a_report_of_a_kept_run_alone(
    run_dir: Path, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "run", "--to", "out.html"]) == 0
    text = ReportText((project / "out.html").read_text(encoding="utf-8"))
    epoch = qx.open_run(run_dir).history.epochs[0]
    assert float(text.table("Epochs").rows[0][1]) == pytest.approx(epoch.train_loss, rel=1e-3)
    assert main(["report", "run", "--to", "out.html", "--force"]) == 0


def test_a_report_of_a_model_with_its_run(run_dir: Path, project: Path) -> None:
    command = ["report", "report_models:bare", "--qconfig", "onednn", "--run-dir", "run"]
    assert main([*command, "--to", "out.html"]) == 0
    text = ReportText((project / "out.html").read_text(encoding="utf-8"))
    assert text.table("Epochs").rows
    assert "not reached" not in text.sections["stages"]


def test_exit_codes_of_report(
    run_dir: Path, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (project / "empty").mkdir()
    about = json.loads((run_dir / "run.json").read_text())
    (project / "old").mkdir()
    (project / "old" / "run.json").write_text(json.dumps({**about, "format": 1}))
    for target, code, words in (
        ("empty", 2, "holds no run"),
        ("old", 2, "in format 1"),
        ("nowhere", 2, "neither the folder of a run nor a factory"),
        ("report_models:broken", 3, "not today"),
    ):
        assert main(["report", target, "--to", "out.html"]) == code
        captured = capfd.readouterr()
        assert words in captured.err
        assert captured.out == ""
        assert not (project / "out.html").exists()


def test_what_cannot_be_measured_is_left_out_and_said(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["report", "report_models:bare", "--qconfig", "onednn", "--measure", "evaluate"]
    assert main(command) == 0
    assert "evaluate was left out" in capfd.readouterr().err


def test_names_of_what_is_measured() -> None:
    assert reporting.measures("none") == ()
    assert reporting.measures("compare, exact,compare") == ("compare", "exact")
    with pytest.raises(SystemExit) as caught:
        main(["report", "x:y", "--measure", "speed"])
    assert caught.value.code == 2


def test_compare_prints_rows_and_judges(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["compare", "report_models:good", "--qconfig", "onednn", "--calibrate", "1",
               "--batches", "1"]  # fmt: skip
    assert main([*command, "--json", "--min-agreement", "0.5", "--min-sqnr-int8", "1"]) == 0
    reported = json.loads(capfd.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert (reported["schema"], reported["exit_code"]) == ("qatexplorer.compare", 0)
    assert [one["holds"] for one in reported["thresholds"]] == [True, True]
    shown = [row["agreement"] for row in reported["rows"] if row["agreement"] is not None]
    assert reported["thresholds"][1]["value"] == min(shown)
    outputs = [row["sqnr_int8_db"] for row in reported["rows"] if row["kind"] == "output"]
    assert reported["thresholds"][0]["value"] == min(outputs)
    hard = [*command, "--max-drop", "-2", "--report", "out.html"]
    assert main(hard) == 1
    out, err = capfd.readouterr()
    assert "--max-drop -2 does not hold" in out
    assert "--max-drop -2 does not hold" in err
    text = ReportText((project / "out.html").read_text(encoding="utf-8"))
    assert text.table("Places, the lowest SQNR first").rows
    assert main(hard) == 2, "the report is there now"
    assert main(["compare", "report_models:broken"]) == 3


def thresholds(**given: float | None) -> Namespace:
    none = {"min_sqnr_int8": None, "min_agreement": None, "max_drop": None, "metric_mode": "max"}
    return Namespace(**{**none, **given})


ROWS = Comparison(
    (
        CompareRow("a", "module", agreement=0.9, sqnr_int8_db=5.0),
        CompareRow("b", "module", agreement=1.0, sqnr_int8_db=50.0),
        CompareRow("output", "output", sqnr_int8_db=30.0),
    )
)


@pytest.mark.parametrize(
    ("given", "holds", "code"),
    [
        ({}, [], 0),
        ({"min_sqnr_int8": 30.0}, [True], 0),
        ({"min_sqnr_int8": 30.1}, [False], 1),
        ({"min_agreement": 0.9}, [True], 0),
        ({"min_agreement": 0.95}, [False], 1),
        ({"min_sqnr_int8": 30.1, "max_drop": 0.1}, [False, None], 1),
        ({"max_drop": 0.1}, [None], 3),
    ],
)
def test_thresholds(given: dict[str, float], holds: list[bool | None], code: int) -> None:
    judged = comparing.judge(thresholds(**given), ROWS, None)
    assert [one.holds for one in judged] == holds
    assert comparing.exit_code(judged) == code
    assert all(one.option in one.text for one in judged)


def test_a_number_that_is_none_does_not_hold() -> None:
    rows = Comparison((CompareRow("output", "output", sqnr_int8_db=math.nan),))
    (judged,) = comparing.judge(thresholds(min_sqnr_int8=-100.0), rows, None)
    assert judged.holds is False
    (judged,) = comparing.judge(thresholds(min_agreement=0.0), rows, None)
    assert judged.holds is None


def test_a_low_metric_may_be_the_good_one() -> None:
    session = qx.Session(SmallNet().train(), batches(1)[0][0], qconfig="onednn", data=data(1))
    session.calibrate(1)
    session.goto(session.flow.int8_stage)
    found = session.evaluate(latency=False)
    first, last = found["float"].metric, found["int8"].metric
    assert first is not None
    assert last is not None
    for mode, sign in (("max", 1), ("min", -1)):
        (judged,) = comparing.judge(thresholds(max_drop=9.0, metric_mode=mode), ROWS, found)
        assert judged.value == pytest.approx(sign * (first.value - last.value))


def test_json_has_no_number_that_json_has_not() -> None:
    rows = Comparison((CompareRow("a", "module", sqnr_int8_db=math.inf, kl=math.nan),))
    compared = comparing.Compared("x:y", "eager", rows, None)
    (row,) = comparing.as_json(compared, (), 0)["rows"]
    assert (row["sqnr_int8_db"], row["kl"]) == ("inf", None)


def test_no_int8_model_is_no_end(
    project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from qatexplorer.session.session import Session

    real = Session.goto

    def refuse(self: Session, stage: str) -> object:
        if stage == self.flow.int8_stage:
            raise QatExplorerError("it cannot be converted today.")
        return real(self, stage)

    monkeypatch.setattr(Session, "goto", refuse)
    command = ["report", "report_models:good", "--qconfig", "onednn", "--calibrate", "1"]
    assert main([*command, "--measure", "none"]) == 0
    assert "no int8 model: it cannot be converted today." in capfd.readouterr().err


def test_the_document_has_codes_thresholds_and_keys() -> None:
    root = Path(qx.__file__).parents[1]
    text = (root / "docs" / "reports.md").read_text(encoding="utf-8")
    for code in (0, 1, 2, 3, 130):
        assert f"| `{code}` |" in text
    for option in ("--min-sqnr-int8", "--min-agreement", "--max-drop"):
        assert f"`{option}" in text
    known = comparing.as_json(comparing.Compared("x:y", "eager", ROWS, None), (), 0)
    assert not [key for key in known if f"`{key}`" not in text]
    assert all(name in text for name in reporting.MEASURES)
