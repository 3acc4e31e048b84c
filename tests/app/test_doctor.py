"""``qatexplorer doctor``: what it reports, and that it does so where things are missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from qatexplorer import _tested
from qatexplorer.app import cli, doctor
from qatexplorer.quantizers import engine_choice, engine_probe
from qatexplorer.quantizers.engine import available_engines
from qatexplorer.quantizers.engine_choice import default_backend
from tests.support.engines import (
    ROOT,
    WITHOUT_VNNI,
    can_do_without_vnni,
    fake_machine,
    faked,
)

WIDGETS = ("ipywidgets", "anywidget", "plotly", "jupyterlab", "voila", "ipykernel")


def test_json_holds_what_a_bug_report_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cli.main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["schema"], report["schema_version"]) == ("qatexplorer.doctor", 1)
    assert report["python"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert report["torch"]["version"] == torch.__version__
    assert report["torch"]["tested"] == _tested.is_tested()
    assert report["torch"]["threads"] == torch.get_num_threads()
    assert [row["engine"] for row in report["engines"]] == list(available_engines())
    best = default_backend()
    assert report["default"] == {
        "engine": best.engine,
        "qconfig": best.qconfig,
        "reason": best.reason,
    }
    assert report["cpu"]["environment"]["OMP_NUM_THREADS"] == "3"
    assert report["cpu"]["name"]
    for name in WIDGETS:
        assert report["packages"][name]["version"][0].isdigit()
        assert report["packages"][name]["error"] == ""
    assert report["runs"]["free_bytes"] > 0
    assert report["problems"] == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="read from /proc")
def test_cpu_features_are_those_of_the_cpu() -> None:
    found = doctor.examine()["cpu"]["features"]
    assert ("avx2" in found) == torch.cpu._is_avx2_supported()
    assert ("avx512_vnni" in found) == torch.cpu._is_vnni_supported()


def test_text_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("qatexplorer ")
    assert any(line.startswith(f"torch {torch.__version__} (") for line in lines)
    for engine in available_engines():
        row = next(line for line in lines if line.startswith(f"  {engine} "))
        assert engine_probe.probe_engine(engine).verdict in row
    assert any(default_backend().reason in line for line in lines)
    for name in WIDGETS:
        assert any(line.split()[:1] == [name] for line in lines)
    assert any("GB free for" in line for line in lines)
    assert lines[-1] == "Nothing is wrong."


def test_a_machine_where_no_engine_is_right(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    probes = (faked("onednn", full=63), faked("x86", error="RuntimeError: no kernel"))
    fake_machine(monkeypatch, *probes)
    monkeypatch.setattr(engine_probe, "probe_engines", lambda: probes)
    assert cli.main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "onednn   saturates  codes 0..255: 63" in text
    assert "x86      fails: RuntimeError: no kernel" in text
    assert "PROBLEM: No int8 engine computes right on this CPU." in text


def test_an_engine_passed_over_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    probes = (faked("onednn", full=63), faked("qnnpack"))
    fake_machine(monkeypatch, *probes)
    monkeypatch.setattr(engine_probe, "probe_engines", lambda: probes)
    report = doctor.examine()
    assert report["notes"] == ["onednn saturates on this CPU, and is not the default here."]
    assert report["problems"] == []
    assert report["default"]["engine"] == "qnnpack"


def test_an_untested_torch_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "is_tested", lambda version: False)
    report = doctor.examine()
    assert any("not one of those tested" in note for note in report["notes"])
    assert "(not tested" in doctor.as_text(report)


def test_no_engine_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_choice, "available_engines", lambda: ())
    report = doctor.examine()
    assert (report["default"], report["engines"]) == (None, [])
    assert any("no quantized engine" in problem for problem in report["problems"])
    doctor.as_text(report)


def test_a_full_disk_and_a_folder_that_is_no_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("QATEXPLORER_RUNS", str(tmp_path / "not" / "there" / "yet"))
    assert doctor.examine()["runs"]["free_bytes"] > 0
    monkeypatch.setattr(doctor, "_FULL_DISK", 10**18)
    assert any("Little room" in problem for problem in doctor.examine()["problems"])
    (tmp_path / "file").touch()
    monkeypatch.setenv("QATEXPLORER_RUNS", str(tmp_path / "file" / "runs"))
    assert any("file is no folder" in problem for problem in doctor.examine()["problems"])
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: 1 / 0)
    report = doctor.examine()
    assert any("ZeroDivisionError" in problem for problem in report["problems"])
    assert "unknown free" in doctor.as_text(report)


def _doctor_beside(folder: Path, **modules: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, JSON and text of the command with modules of these sources found first."""
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    command = [sys.executable, "-m", "qatexplorer.app.cli", "doctor"]
    reported = subprocess.run([*command, "--json"], env=env, capture_output=True, text=True)
    assert "Traceback" not in reported.stderr, reported.stderr
    text = subprocess.run(command, env=env, capture_output=True, text=True)
    assert text.returncode == reported.returncode
    return reported.returncode, json.loads(reported.stdout), text.stdout


@pytest.mark.slow
def test_a_torch_that_does_not_load_and_widgets_that_are_missing(tmp_path: Path) -> None:
    code, report, text = _doctor_beside(
        tmp_path,
        torch="raise OSError('libtorch_cpu.so: cannot open shared object file')",
        voila="raise ModuleNotFoundError(\"No module named 'voila'\", name='voila')",
        anywidget="import nowhere_at_all",
        plotly="print('hello'); 1 / 0",
    )
    assert code == 1
    assert report["engines"] == []
    assert report["default"] is None
    problems = report["problems"]
    assert "torch cannot be imported: OSError: libtorch_cpu.so" in problems[0]
    assert "voila is not installed" in problems
    assert any(p.startswith("anywidget cannot be imported: ModuleNotFound") for p in problems)
    assert "plotly cannot be imported: ZeroDivisionError: division by zero" in problems
    assert report["packages"]["ipykernel"]["error"] == ""
    for problem in problems:
        assert f"PROBLEM: {problem}" in text
    assert "Nothing is wrong" not in text


def test_a_package_of_the_wrong_version(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = doctor.metadata.version
    monkeypatch.setattr(
        doctor.metadata, "version", lambda name: "7.8.1" if name == "ipywidgets" else versions(name)
    )
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: ["ipywidgets<9,>=8.1", "plotly>=1"])
    problems = doctor.examine()["problems"]
    assert "ipywidgets is 7.8.1, and qatexplorer needs <9,>=8.1" in problems
    assert len(problems) == 1


@pytest.mark.slow
@pytest.mark.skipif(not can_do_without_vnni(), reason="no x86 CPU")
def test_the_kernels_without_vnni_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in WITHOUT_VNNI.items():
        monkeypatch.setenv(name, value)
    code, report, text = _doctor_beside(tmp_path)
    verdicts = {row["engine"]: row["verdict"] for row in report["engines"]}
    assert (code, verdicts["onednn"]) == (0, "saturates")
    assert report["default"]["engine"] != "onednn"
    assert "ONEDNN_MAX_CPU_ISA=AVX2" in text
