"""``qatexplorer check``: exit codes, and what it prints for people, scripts and code hosts."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

import qatexplorer as qx
from qatexplorer.app import cli
from qatexplorer.app.check import SCHEMA, SCHEMA_VERSION, exit_code
from qatexplorer.app.check_text import as_text
from qatexplorer.app.load_model import load_model
from qatexplorer.app.places import Places, repository
from qatexplorer.checks.records import Finding, Findings, Skipped
from qatexplorer.checks.rules import RULES
from qatexplorer.checks.sarif import split_place
from qatexplorer.flows.eager import EagerFlow

ROOT = Path(qx.__file__).resolve().parents[1]
SARIF = json.loads((ROOT / "tests" / "checks" / "sarif-schema-2.1.0.json").read_text())
SOURCE = """
import os
import sys
import torch
from torch import nn
from torch.ao.quantization import DeQuantStub, QuantStub

print("imported")

class Net(nn.Module):
    def __init__(self, stubs):
        super().__init__()
        self.quant = QuantStub() if stubs else nn.Identity()
        self.fc = nn.Linear(4, 2)
        self.dequant = DeQuantStub() if stubs else nn.Identity()

    def forward(self, x):
        print("forward")
        os.write(1, b"below Python\\n")
        return self.dequant(self.fc(self.quant(x)))

def good(): return Net(True), torch.randn(2, 4)
def unmarked(): return Net(False), torch.randn(2, 4)
def asleep(): return Net(False).eval(), torch.randn(2, 4)
def wrong_inputs(): return Net(True), torch.randn(2, 5)
def raises(): raise ValueError("boom")
def leaves(): sys.exit(5)
def no_model(): return 3
class Leaving(nn.Module):
    def forward(self, x): sys.exit(5)
def leaves_later(): return Leaving(), torch.randn(2, 4)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "check_models.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("check_models", None)


def check(*arguments: str) -> int:
    return cli.main(["check", *arguments])


def own_process(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "qatexplorer.app.cli", "check", *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["check_models:good", "--json"], 0),
        (["check_models:unmarked", "--sarif"], 1),
        pytest.param(
            ["check_models:good", "--json", "--qconfig", "tensorrt"], 2, marks=pytest.mark.slow
        ),
        pytest.param(["check_models:wrong_inputs", "--json"], 3, marks=pytest.mark.slow),
    ],
)
def test_each_exit_code_in_a_process_of_its_own(
    project: Path, arguments: list[str], code: int
) -> None:
    done = own_process(project, *arguments)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if code > 1:
        assert done.stdout == ""
        assert done.stderr.partition("imported\n")[2 * (code == 3)].lstrip()
        assert "What to do:" in done.stderr
        return
    reported = json.loads(done.stdout)
    assert "imported" in done.stderr
    assert "below Python" in done.stderr
    if code == 0:
        assert (reported["schema"], reported["exit_code"]) == (SCHEMA, 0)
    else:
        jsonschema.Draft4Validator(SARIF).validate(reported)


def test_json_is_pure_and_says_what_was_found(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert check("check_models:unmarked", "--json") == 1
    captured = capfd.readouterr()
    assert "below Python" in captured.err
    reported = json.loads(captured.out, parse_constant=lambda name: pytest.fail(name))
    assert (reported["schema"], reported["schema_version"]) == (SCHEMA, SCHEMA_VERSION)
    assert (reported["target"], reported["model"]) == ("check_models:unmarked", "Net")
    assert (reported["flow"], reported["fail_on"], reported["exit_code"]) == ("eager", "error", 1)
    assert reported["counts"]["error"] == 1
    found = {one["name"]: one for one in reported["findings"]}
    stub = found["no-stub"]
    assert (stub["id"], stub["severity"], stub["stage"]) == ("QX907", "error", "convert")
    assert {one["code"] for one in stub["fixes"]} >= {"session.configure(stubs='model')"}
    asked = {id for id, rule in RULES.items() if rule.is_about(EagerFlow)}
    assert asked - {one["id"] for one in reported["skipped"]} == set(reported["checked"])


@pytest.mark.parametrize(
    ("severities", "codes"),
    [
        ((), (0, 0, 0, 0)),
        (("info",), (0, 0, 1, 0)),
        (("warning", "info"), (0, 1, 1, 0)),
        (("error",), (1, 1, 1, 0)),
    ],
)
def test_the_exit_code_is_that_of_the_worst_finding(
    severities: tuple[Any, ...], codes: tuple[int, ...]
) -> None:
    found = tuple(Finding("QX907", "no-stub", one, "", "convert", "m") for one in severities)
    levels = ("error", "warning", "info", "never")
    assert tuple(exit_code(Findings(found), one) for one in levels) == codes
    assert {exit_code(Findings((), found), one) for one in levels} == {0}, "silenced ones"


def test_a_model_in_eval_mode_is_told_all_at_once(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = '[tool.qatexplorer.check]\nsilence = [{ id = "eval-mode", reason = "CI alone" }]\n'
    assert check("check_models:asleep", "--json") == 1
    found = [one["name"] for one in json.loads(capsys.readouterr().out)["findings"]]
    assert found[:2] == ["eval-mode", "no-stub"]
    (project / "pyproject.toml").write_text(text)
    assert check("check_models:asleep", "--json") == 1
    reported = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in reported["silenced"]] == ["eval-mode"]
    assert reported["findings"][0]["name"] == "no-stub"


def test_fail_on_is_heard(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("check_models:unmarked", "--fail-on", "never") == 0
    assert "QX907 no-stub" in capsys.readouterr().out


@pytest.mark.parametrize(("flow", "stubs"), [("fx", "none"), ("eager", "model")])
def test_flow_and_stubs_are_used(
    project: Path, flow: str, stubs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check("check_models:unmarked", "--flow", flow, "--stubs", stubs, "--json") == 0
    reported = json.loads(capsys.readouterr().out)
    assert reported["flow"] == flow
    assert "no-stub" not in {one["name"] for one in reported["findings"]}


def test_the_qconfig_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert check("zoo:digits_cnn", "--qconfig", "x86", "--json", "--fail-on", "never") == 0
    named = json.loads(capsys.readouterr().out)
    session = qx.Session(*_example("digits_cnn"), qconfig="x86")
    assert {one["id"] for one in named["findings"]} == {one.id for one in session.check()}


def _example(name: str) -> tuple[Any, Any]:
    example = qx.zoo.load(name)
    return example.model, example.example_inputs


def test_the_text_has_place_sentence_fix_and_page(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check("check_models:unmarked") == 1
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].startswith("check_models:unmarked (Net), flow eager: 1 error")
    assert any(line.startswith("✖ 1 error") for line in lines)
    entry = next(i for i, line in enumerate(lines) if "QX907 no-stub: " in line)
    assert "stage convert" in lines[entry]
    assert "No QuantStub" in lines[entry + 1]
    assert lines[entry + 2].strip().startswith("Fix: ")
    assert any("qatexplorer check --explain QX907" in line for line in lines)
    assert "rules were asked." in captured.out
    assert "\x1b" not in captured.out + captured.err, "no terminal, no progress"


def test_rules_that_could_not_be_asked_stand_by_reason() -> None:
    skipped = [Skipped(id, "n", why) for id, why in (("QX1", "a"), ("QX2", "b"), ("QX3", "a"))]
    text = as_text("m:f", "fx", Findings(skipped=tuple(skipped), checked=("QX4",)))
    assert text.splitlines()[-3:] == [
        "1 rule was asked.",
        "Could not be asked: QX1, QX3: a",
        "Could not be asked: QX2: b",
    ]


def test_lines_fit_the_terminal() -> None:
    long = Finding("QX907", "no-stub", "error", "a", "s", "word " * 40, "fix " * 40)
    lines = as_text("m:f", "fx", Findings((long,)), width=50).splitlines()
    assert max(len(line) for line in lines[2:] if "Docs: " not in line) <= 50
    assert sum("word" in line for line in lines) > 3
    assert sum("word" in line for line in as_text("m:f", "fx", Findings((long,))).splitlines()) == 1


@pytest.mark.parametrize("thorough", [True, False])
def test_thorough_asks_what_needs_more_runs(
    thorough: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--thorough"] if thorough else []
    assert check("zoo:digits_cnn", "--json", "--fail-on", "never", *more) == 0
    assert ("QX431" in json.loads(capsys.readouterr().out)["checked"]) == thorough


def test_fake_quants_are_looked_at_too(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("check_models:good", "--json") == 0
    skipped = json.loads(capsys.readouterr().out)["skipped"]
    assert not [one for one in skipped if "from stage" in one["why"].lower()]


def test_quiet_is_a_line_a_finding(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("check_models:unmarked", "--quiet") == 1
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("fc: error QX907 no-stub: ")
    assert check("check_models:good", "--quiet") == 0
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if ": error " in line]


@pytest.mark.slow
def test_progress_is_shown_on_a_terminal_and_nowhere_else(project: Path) -> None:
    mine, its = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    command = [sys.executable, "-m", "qatexplorer.app.cli", "check", "check_models:good"]
    done = subprocess.run(command, cwd=project, env=env, stdout=subprocess.PIPE, stderr=its)
    os.close(its)
    shown = os.read(mine, 65536).decode()
    os.close(mine)
    assert done.returncode == 0
    assert "loading check_models:good" in shown
    assert shown.rstrip("\r\n").endswith("\r\x1b[K"), "it leaves no trace"
    assert b"\x1b" not in done.stdout


@pytest.mark.parametrize("form", ["--json", "--sarif"])
def test_a_file_gets_the_result_and_people_the_text(
    project: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "out").mkdir()
    assert check("check_models:unmarked", form, "--output", "out/result") == 1
    assert json.loads((project / "out" / "result").read_text())
    assert "QX907 no-stub: " in capsys.readouterr().out


def test_the_text_goes_to_a_file(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("check_models:unmarked", "--output", "result.txt") == 1
    assert capsys.readouterr().out == ""
    assert "QX907 no-stub: " in (project / "result.txt").read_text(encoding="utf-8")


def test_sarif_names_the_users_file_and_line(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check("check_models:unmarked", "--sarif") == 1
    log = json.loads(capsys.readouterr().out)
    jsonschema.Draft4Validator(SARIF).validate(log)
    result = next(r for r in log["runs"][0]["results"] if r["ruleId"] == "QX907")
    physical = result["locations"][0]["physicalLocation"]
    assert physical["artifactLocation"] == {"uri": "check_models.py", "uriBaseId": "%SRCROOT%"}
    assert SOURCE.splitlines()[physical["region"]["startLine"] - 1] == "class Net(nn.Module):"


def test_a_line_of_the_users_is_found_by_the_name_of_its_file(project: Path) -> None:
    loaded = load_model("check_models:unmarked")
    places = Places(loaded.model, loaded.source)

    def of(path: str, source: str = "") -> tuple[str, str]:
        file, line = split_place(places.of(Finding("QX907", "n", "error", path, "s", "m", "", (),
                                                   source)))  # fmt: skip
        return Path(file).name, SOURCE.splitlines()[line - 1]

    assert of("fc", "check_models.py:3") == ("check_models.py", "import sys")
    assert of("fc", "somewhere_else.py:3") == ("check_models.py", "class Net(nn.Module):")
    assert of("fc.weight_fake_quant") == ("check_models.py", "class Net(nn.Module):")
    library = Places(torch.nn.Sequential(torch.nn.Linear(1, 1)), loaded.source)
    assert library.of(Finding("QX907", "n", "error", "0", "s", "m")) == loaded.source
    factory = SOURCE.splitlines()[int(loaded.source.rpartition(":")[2]) - 1]
    assert factory.startswith("def unmarked()")
    assert Places(torch.nn.Linear(1, 1), "").of(Finding("QX907", "n", "error", "", "s", "m")) == ""


def test_paths_are_relative_to_the_repository(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert repository() == project
    (project / "below").mkdir()
    (project / ".git").mkdir()
    monkeypatch.chdir(project / "below")
    assert repository() == project


def test_rules_go_to_a_file_too(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("--rules", "--json", "--output", "rules.json") == 0
    assert capsys.readouterr().out == ""
    assert len(json.loads((project / "rules.json").read_text())) == len(RULES)


def test_what_is_silenced_does_not_count(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = '{ id = "QX907", path = "*", reason = "it is wrapped in the deployment" }'
    text = f"[tool.qatexplorer.check]\nsilence = [{entry}, {entry.replace('QX907', 'QX913')}]\n"
    (project / "pyproject.toml").write_text(text)
    (project / "below").mkdir()
    assert check("check_models:unmarked", "--json") == 0
    reported = json.loads(capsys.readouterr().out)
    assert [one["silenced"] for one in reported["silenced"]] == ["it is wrapped in the deployment"]
    unused = [one for one in reported["findings"] if one["id"] == "QX990"]
    assert [(one["source"], "QX913" in one["message"]) for one in unused] == [
        ("pyproject.toml", True)
    ]
    assert check("check_models:unmarked") == 0
    assert "Silenced: QX907 no-stub: fc (it is wrapped in the deployment)" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("nowhere_at_all:make", "no module 'nowhere_at_all'"),
        ("zoo:digit", "no embedded example 'digit'"),
        ("check_models:goood", "Did you mean good"),
        ("check_models.py:good", "Write check_models:good"),
        ("check_models", "does not name a factory"),
        ("check_models:raises", "ValueError: boom"),
        ("check_models:leaves", "SystemExit: 5"),
        ("check_models:no_model", "returned a int"),
        ("check_models:wrong_inputs", "forward raises on the example inputs"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_3(
    project: Path, model: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(model, "--json") == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert says in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no model is named"),
        (["check_models:good", "--flow", "fy"], "no flow 'fy'"),
        (["check_models:good", "--qconfig", "tpu"], "no quantized engine 'tpu'"),
        (["check_models:good", "--flow", "fx", "--stubs", "model"], "means nothing in flow fx"),
        (["check_models:good", "--output", "no/such/file"], "cannot be written"),
        (["--explain", "QX000"], "There is no rule 'QX000'"),
    ],
)
def test_wrong_usage_is_2_and_loads_nothing(
    project: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert says in captured.err
    assert "imported" not in captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["check_models:good", "--json", "--sarif"],
        ["check_models:good", "--fail-on", "all"],
        ["check_models:good", "--stubs", "some"],
        ["--rules", "--explain", "QX901"],
        ["--explain"],
    ],
)
def test_options_that_do_not_fit_are_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        check(*arguments)
    assert left.value.code == 2


def test_a_silence_list_that_is_wrong_is_2(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "pyproject.toml").write_text(
        '[tool.qatexplorer.check]\nsilence = [{ id = "QX000", reason = "why" }]\n'
    )
    assert check("check_models:good") == 2
    assert "pyproject.toml, entry 1 of silence: There is no rule 'QX000'" in capsys.readouterr().err


def test_a_file_that_becomes_unwritable_is_2(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check("check_models:good", "--output", str(project)) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_ctrl_c_is_no_traceback(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(qx.Session, "check", stopped)
    assert check("check_models:good") == 130
    assert capsys.readouterr().err.endswith("qatexplorer: stopped.\n")


def test_all_rules_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert check("--rules") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines] == [
        [id, RULES[id].severity, RULES[id].name] for id in sorted(RULES)
    ]
    assert check("--rules", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in rows] == sorted(RULES)
    row = next(row for row in rows if row["id"] == "QX901")
    assert row["stages"]["eager"] == "insert"
    assert row["stages"]["fx"] == "trace"
    assert row["stages"]["pt2e"] == "transform"


@pytest.mark.parametrize("name", ["QX908", "int8-fails"])
def test_a_rule_is_explained_by_its_page(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("--explain", name) == 0
    page = (ROOT / "docs" / "rules" / "QX908.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() == page.strip()


def test_what_stdout_cannot_spell_is_no_error(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    assert check("check_models:unmarked") == 1
    stdout.flush()
    assert "? 1 error" in stdout.buffer.getvalue().decode()  # type: ignore[attr-defined]
