"""A whole session on a device that is not the CPU: one made for that, since CI has no GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch.utils.backend_registration

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"),
        reason="this torch cannot make a device in Python",
    ),
]


def on_another_device(what: str) -> dict[str, Any]:
    """In a process of its own: the device belongs to the whole process."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.support.session_on_a_device", what]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_a_session_trains_there_and_converts_on_the_cpu(flow: str) -> None:
    found = on_another_device(flow)
    assert found["trained on"] == found["float stays on"] == "npy:0"
    assert found["int8 on"] == ["cpu"]
    assert found["rows"] == ["float", "ptq", "fake_quant", "int8"]
    assert found["preflight"] is True
    assert found["sites"] == found["histograms"] == (5 if flow == "eager" else 7)
    assert found["ledger"] >= 5
    assert found["resumed"] == pytest.approx(found["losses"], rel=1e-5)


def test_watching_asks_the_device_for_no_value() -> None:
    found = on_another_device("watch")
    assert found["unseen"] == {}
    assert found["looks"] == 4
    assert found["bare"] == []
    # Results are copied to the host, which on CUDA goes on beside the training.
    assert set(found["watched"]) == {"aten::_to_copy to the CPU"}


def test_a_step_of_training_waits_for_the_device_once() -> None:
    found = on_another_device("train")
    assert found["losses"] == 8
    assert found["of four steps"] == 4, found["what"]
