"""The commands that train, compare and report, in the PT2E flow."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

import qatexplorer as qx
from qatexplorer.app import cli
from tests.support.training_models import one_thread  # noqa: F401

MODEL = "tests.support.train_factory:without_stubs"
FLOW = ("--flow", "pt2e", "--quantizer", "arm")


def call(*arguments: object) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cli.main([*map(str, arguments)])


def test_train_compare_and_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, page = tmp_path / "run", tmp_path / "out.html"
    assert call("train", MODEL, *FLOW, "--run-dir", run, "--epochs", 1) == 0
    assert "int8" in capsys.readouterr().out
    assert len(qx.open_run(run).history.epochs) == 1
    kept = ("--run-dir", run, "--quiet")
    assert call("compare", MODEL, *FLOW, *kept, "--json") == 0
    assert json.loads(capsys.readouterr().out)["flow"] == "pt2e"
    assert call("report", MODEL, *FLOW, *kept, "--to", page, "--measure", "none") == 0
    html = page.read_text(encoding="utf-8")
    assert "<dd>arm</dd>" in html


@pytest.mark.parametrize("command", ["compare", "train"])
def test_a_quantizer_in_a_flow_that_has_none(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(command, MODEL, "--quantizer", "arm") == 2
    assert "--quantizer arm means nothing in flow eager" in capsys.readouterr().err
