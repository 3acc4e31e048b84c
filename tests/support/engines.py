"""What tests need of the int8 engines, asked of the CPU they run on."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from qatexplorer.quantizers import engine_choice
from qatexplorer.quantizers.engine_probe import FULL_CODES, EngineProbe, probe_engine

ROOT = Path(__file__).resolve().parents[2]

WITHOUT_VNNI = {"ONEDNN_MAX_CPU_ISA": "AVX2", "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2"}
"""Makes oneDNN and fbgemm take the kernels of a CPU without VNNI, which really saturate."""


def need_exact(engine: str) -> str:
    """Skip the test where ``engine`` is missing or its int8 is not exact on this CPU."""
    if engine not in engine_choice.available_engines():
        pytest.skip(f"this build of torch has no engine {engine}")
    probe = probe_engine(engine)
    if not probe.holds(FULL_CODES):
        pytest.skip(f"{engine} is not exact on this CPU: {probe.verdict}")
    return engine


def faked(engine: str, full: float = 0.0, half: float = 0.0, error: str = "") -> EngineProbe:
    """What a probe would say of ``engine`` on a CPU where it is that many steps off."""
    trained = 127 if engine in ("x86", "fbgemm") else 255
    errors = ({}, {}) if error else ({"conv": full, "linear": 0.0}, {"conv": half, "linear": 0.0})
    return EngineProbe(engine, *errors, trained, None if error else 255, error)


def fake_machine(
    monkeypatch: pytest.MonkeyPatch, *probes: EngineProbe, machine: str = "x86_64"
) -> None:
    """Let the choice of an engine see these probes, and no other engine."""
    found = {probe.engine: probe for probe in probes}
    monkeypatch.setattr(engine_choice, "available_engines", lambda: tuple(found))
    monkeypatch.setattr(engine_choice, "probe_engine", found.__getitem__)
    monkeypatch.setattr(engine_choice.platform, "machine", lambda: machine)


def run_without_vnni(module: str, *arguments: str) -> str:
    """Standard output of ``python -m module`` on the kernels of a CPU without VNNI."""
    env = {**os.environ, **WITHOUT_VNNI, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def can_do_without_vnni() -> bool:
    """Whether this is an x86 CPU, where the kernels without VNNI can be asked for."""
    return platform.machine().lower() in ("x86_64", "amd64")
