"""The table of models and flows: made by its script, complete, and true of what it says."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from qatexplorer.flows import FLOWS
from tests.support.models_pt2e import every_case
from tests.tools import model_flow_table
from tests.tools.model_flow_table import RESULTS, TABLE, TooLongError, at_most, table

MODELS = ("branching", "bare_linear")


def test_the_script_on_two_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, out = tmp_path / "found.json", tmp_path / "table.md"
    common = ["--flows", "eager", "fx", "--results", str(results), "--table", str(out)]
    model_flow_table.main([*common, "--models", *MODELS])
    cells = json.loads(results.read_text())["models"]
    assert {name: cells[name]["fx"]["result"] for name in MODELS} == {
        "branching": "refused",
        "bare_linear": "trains",
    }
    text = out.read_text()
    assert "| branching | trains 4 | refused |" in text
    assert "| branching | fx | torch.fx cannot trace Branching.forward at models.py:" in text
    # What has a result is left as it is.
    capsys.readouterr()
    model_flow_table.main([*common, "--models", *MODELS])
    assert capsys.readouterr().out == ""
    model_flow_table.main([*common, "--models", "bare_linear", "--stage", "int8", "--again"])
    assert json.loads(results.read_text())["models"]["bare_linear"]["fx"]["result"] == "int8"


def test_a_model_that_takes_too_long_ends_itself_alone() -> None:
    def waits(seconds: float) -> None:
        with at_most(seconds):
            time.sleep(0.05)

    with pytest.raises(TooLongError):
        waits(0.01)
    waits(5.0)


def test_the_table_is_complete() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    models = results["models"]
    assert TABLE.read_text(encoding="utf-8") == table(results)
    assert set(models) <= {case.name for case in every_case()}
    assert len(models) >= 44
    for name, cells in models.items():
        assert {"eager", "fx", "pt2e", "torchao"} <= set(cells), name
        assert set(cells) <= {*FLOWS, "torchao"}
        for cell in cells.values():
            assert cell["result"] in ("int8", "trains", "refused")
            # Nothing is left without a word, and no word is ours by accident.
            assert bool(cell["message"]) == (cell["result"] != "int8")
            assert not cell.get("untyped"), (name, cell)
