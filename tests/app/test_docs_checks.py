"""``docs/checks.md`` is true: commands, exit codes, keys, YAML, TOML and the Python in it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

import qatexplorer as qx
from qatexplorer.app import check, jobs
from qatexplorer.app.cli import main
from qatexplorer.checks.records import Finding
from qatexplorer.checks.silence import read_silences
from tests.support.rooms import ROOT

TEXT = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8")
WORDS = "qatexplorer check"
HOOKS = ROOT / ".pre-commit-hooks.yaml"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def commands() -> list[str]:
    lines = "\n".join([*blocks("sh"), *blocks("yaml")]).splitlines()
    return [
        line[line.index("qatexplorer check") :] for line in lines if "qatexplorer check" in line
    ]


@pytest.mark.parametrize("command", commands())
def test_every_command_is_one(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "run", lambda args: 77)
    assert main(shlex.split(command, comments=True)[1:]) == 77


def test_the_commands_show_each_way_of_use() -> None:
    text = " ".join(commands())
    assert all(f"--{name}" in text for name in ("sarif", "output", "fail-on", "quiet", "rules"))


def test_the_exit_codes_are_those_of_the_command() -> None:
    section = TEXT.partition("## Exit codes")[2].partition("## ")[0]
    codes = {jobs.OK, jobs.FOUND, jobs.USAGE, jobs.FAILED, jobs.STOPPED}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)} == codes
    assert all(f"`{level}`" in section for level in check.FAIL_ON)


def test_every_key_of_the_json_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "zoo:digits_mlp", "--json", "--fail-on", "never"]) == 0
    section = TEXT.partition("## JSON")[2].partition("## ")[0]
    reported = json.loads(capsys.readouterr().out)
    table = set(re.findall(r"`(\w+)`", section.partition("Each finding")[0]))
    assert set(reported) <= table
    assert set(reported["findings"][0]) == {field.name for field in fields(Finding)}
    described = set(re.findall(r"`(\w+)`", section.partition("Each finding")[2]))
    assert set(reported["findings"][0]) <= described


def test_the_silence_list_is_read(tmp_path: Path) -> None:
    (block,) = blocks("toml")
    file = tmp_path / "pyproject.toml"
    file.write_text(block)
    assert [entry.id for entry in read_silences(file)] == ["QX914"]


def test_the_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks("python")
    names: dict[str, Any] = {}
    exec(compile(block, "checks.md", "exec"), names)
    found = names["findings"]
    assert isinstance(found, qx.Findings)
    assert found.with_id("QX907")
    assert [one.name for one in names["quiet"].silenced] == ["no-stub"]
    assert repr(found) in capsys.readouterr().out
    assert not names["session"].check().errors, "the fix was applied"


def test_the_action_uploads_the_file_that_the_command_writes() -> None:
    action = next(block for block in map(yaml.safe_load, blocks("yaml")) if "jobs" in block)
    assert action["permissions"]["security-events"] == "write"
    steps = action["jobs"]["check"]["steps"]
    upload = next(step for step in steps if "upload-sarif" in step.get("uses", ""))
    file = upload["with"]["sarif_file"]
    assert any(f"--sarif --output {file}" in step.get("run", "") for step in steps)
    assert file in upload["if"]
    assert "cancelled" in upload["if"], "findings make the step before fail"


def test_the_hook_is_one_that_pre_commit_takes() -> None:
    (hook,) = yaml.safe_load(HOOKS.read_text())
    config = next(block for block in map(yaml.safe_load, blocks("yaml")) if "repos" in block)
    (used,) = config["repos"][0]["hooks"]
    assert used["id"] == hook["id"]
    command = [*shlex.split(hook["entry"]), *used["args"]]
    assert command[:2] == ["qatexplorer", "check"]
    assert hook["pass_filenames"] is False, "files of a commit are no models"
    assert hook["language"] == "system", "the model's own environment"
    clientlib = pytest.importorskip("pre_commit.clientlib")
    assert [one["id"] for one in clientlib.load_manifest(str(HOOKS))] == [hook["id"]]


def committed(folder: Path) -> str:
    """Make the folder a git repository with all that is in it; its revision."""
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.example", "-C", str(folder)]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "All", "--no-verify"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    done = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.slow
def test_pre_commit_runs_the_hook_on_a_project(tmp_path: Path) -> None:
    pytest.importorskip("pre_commit")
    ours, project, programs = (tmp_path / name for name in ("ours", "project", "bin"))
    for folder in (ours, project, programs):
        folder.mkdir()
    shutil.copy(HOOKS, ours)
    (project / "hooked.py").write_text(
        "import torch\n"
        "def broken(): return torch.nn.Sequential(torch.nn.Linear(4, 2)), torch.zeros(2, 4)\n"
    )
    program = programs / "qatexplorer"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m qatexplorer.app.cli "$@"\n')
    program.chmod(0o755)
    hook = {"id": "qatexplorer-check", "args": ["hooked:broken", "--quiet"]}
    repo = {"repo": str(ours), "rev": committed(ours), "hooks": [hook]}
    (project / ".pre-commit-config.yaml").write_text(yaml.safe_dump({"repos": [repo]}))
    committed(project)
    env = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PRE_COMMIT_HOME": str(tmp_path / "home"),
    }
    command = [sys.executable, "-m", "pre_commit", "run", "--all-files"]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "exit code: 1" in done.stdout
    assert "error QX907 no-stub" in done.stdout
