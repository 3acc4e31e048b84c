"""``qatexplorer migrate``: exit codes, and what it prints as text, JSON and HTML."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qatexplorer.app import cli
from qatexplorer.app.migrate import SCHEMA, SCHEMA_VERSION
from tests.support.html_checker import Checker

SOURCE = """
import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        print("forward")
        return self.second(F.relu(self.first(x)))

class Deciding(Net):
    def forward(self, x):
        return super().forward(x) if float(x.sum()) > 9 else super().forward(-x)

def batches():
    return [(torch.randn(8, 6), torch.randint(0, 3, (8,))) for _ in range(2)]

def net(): return Net(), torch.randn(2, 6), {"train": batches(), "eval": batches()}
def deciding(): return Deciding(), torch.randn(2, 6)
def wrong_inputs(): return Net(), torch.randn(2, 5)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "migrate_models.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("migrate_models", None)


def migrate(*arguments: str) -> int:
    return cli.main(["migrate", *arguments])


BOTH = ("--flows", "eager,fx")


def test_as_text(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert migrate("migrate_models:net", *BOTH) == 0
    out, err = capfd.readouterr()
    assert "forward" in err
    assert "forward\n" not in out
    assert out.startswith("Net: ")
    lines = out.splitlines()
    head = next(line for line in lines if line.startswith("place "))
    assert head.split() == ["place", "eager", "fx", "differs", "in"]
    weight = next(line for line in lines if line.startswith("weight of first "))
    assert weight.count("-128…127 8 scales") == 2
    relu = next(line for line in lines if line.startswith("result of relu "))
    assert relu.split()[3] == "–"
    assert "output of first, not in fx: Fused into first: what is rounded is the result of" in out
    assert "float and fx (fake quants)" in out
    assert "in int8" in out


def test_as_json(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert migrate("migrate_models:net", *BOTH, "--format", "json", "--no-int8") == 0
    found = json.loads(capfd.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert (found["schema"], found["schema_version"]) == (SCHEMA, SCHEMA_VERSION)
    assert (found["target"], found["model"]) == ("migrate_models:net", "Net")
    assert [flow["flow"] for flow in found["flows"]] == ["eager", "fx"]
    relu = next(p for p in found["places"] if p["operation"] == "relu")
    assert relu["flows"]["eager"] == {
        "why": "relu is a function or method: this flow works on modules only."
    }
    assert relu["flows"]["fx"]["dtype"] == "torch.quint8"
    assert len(relu["flows"]["fx"]["scale"]) == 1
    assert found["flows"][0]["not_measured"]["parity"] == "int8 was not asked for."
    assert {(gap["first"], gap["second"]) for gap in found["outputs"]} == {
        ("float", "eager"), ("float", "fx"), ("eager", "fx")
    }  # fmt: skip


def test_as_html_in_a_file(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    page = project / "guide.html"
    asked = ("--format", "html", "--output", str(page), "--no-int8")
    assert migrate("migrate_models:net", *BOTH, *asked) == 0
    assert capfd.readouterr().out == ""
    html = page.read_text()
    text = " ".join(Checker(html.partition("<body>")[2].partition("</body>")[0]).words)
    assert "result of relu" in text
    assert "this flow works on modules only" in text
    assert "per_channel_symmetric, axis 0" in text
    assert "default-src &#x27;none&#x27;" in html or "default-src 'none'" in html
    assert "<script" not in html
    assert "prefers-color-scheme:dark" in html


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("migrate_models:net", "--flows", "nope"), 2, "there is no flow 'nope'"),
        (("migrate_models:net", "--qconfig", "tensorrt"), 2, "tensorrt"),
        (("migrate_models:net", "--quantizer", "nope"), 2, "there is no quantizer 'nope'"),
        (("migrate_models:net", *BOTH, "--output", "none/x.html"), 2, "cannot be written"),
        (("migrate_models:nothing", *BOTH), 3, "has no 'nothing'"),
        (("migrate_models:wrong_inputs", *BOTH), 3, "example inputs"),
        (("migrate_models:deciding", "--flows", "fx"), 3, "cannot trace"),
    ],
)
def test_exit_codes(
    project: Path,
    capfd: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    assert migrate(*arguments) == code
    captured = capfd.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err


def test_a_flow_that_refuses_is_said_and_no_end(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert migrate("migrate_models:deciding", *BOTH, "--no-int8") == 0
    captured = capfd.readouterr()
    assert "qatexplorer: fx: " in captured.err
    assert "fx refuses this model" in captured.out
    assert "weight of first" in captured.out
