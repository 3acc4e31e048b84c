"""The probe: what it says of this CPU, of the kernels without VNNI, and that it leaves no trace."""

from __future__ import annotations

import json
import time
import warnings
from typing import Any

import pytest
import torch

from qatexplorer.errors import UnknownEngineError
from qatexplorer.quantizers import engine_probe
from qatexplorer.quantizers.engine import available_engines
from qatexplorer.quantizers.engine_probe import probe_engine, probe_engines
from tests.support.engines import can_do_without_vnni, faked, run_without_vnni

pytestmark = pytest.mark.filterwarnings("error::UserWarning")


@pytest.fixture(scope="module")
def without_vnni() -> dict[str, Any]:
    """What ``tests.support.saturating`` prints on the kernels of a CPU without VNNI."""
    if not can_do_without_vnni():
        pytest.skip("no x86 CPU: its kernels cannot be asked for")
    reported: dict[str, Any] = json.loads(run_without_vnni("tests.support.saturating"))
    return reported


def test_every_engine_is_probed_with_conv_and_linear() -> None:
    probes = probe_engines()
    assert [probe.engine for probe in probes] == list(available_engines())
    for probe in probes:
        assert not probe.error
        assert set(probe.full) == set(probe.half) == {"conv", "linear"}
        assert probe.top == 255
        assert probe.trained == (127 if probe.engine in ("x86", "fbgemm") else 255)
        # Two products of halved activations fit into 16 bits on any CPU.
        assert probe.holds(127)


@pytest.mark.skipif("qnnpack" not in available_engines(), reason="no engine qnnpack")
def test_qnnpack_adds_in_32_bits_everywhere() -> None:
    assert probe_engine("qnnpack").verdict == "exact"
    assert probe_engine("qnnpack").error_at(255) == 0


def test_an_engine_is_run_once_and_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    probe_engines()
    started = time.process_time()
    first = probe_engines()
    assert time.process_time() - started < 0.01
    assert all(a is b for a, b in zip(first, probe_engines(), strict=True))
    started = time.process_time()
    for engine in available_engines():
        probe_engine.__wrapped__(engine)
    assert time.process_time() - started < 0.1


def test_nothing_of_the_process_is_changed() -> None:
    torch.manual_seed(3)
    before = (
        torch.backends.quantized.engine,
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        list(warnings.filters),
    )
    state = torch.get_rng_state()
    for engine in available_engines():
        probe_engine.__wrapped__(engine)
    assert torch.equal(state, torch.get_rng_state())
    assert before == (
        torch.backends.quantized.engine,
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        list(warnings.filters),
    )


def test_an_engine_that_raises_says_so_and_the_engine_is_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: Any) -> torch.Tensor:
        raise RuntimeError("no int8 here\nsecond line")

    before = torch.backends.quantized.engine
    monkeypatch.setitem(engine_probe._RUNS, "linear", broken)
    probe = probe_engine.__wrapped__(available_engines()[0])
    assert (probe.verdict, probe.error) == ("fails", "RuntimeError: no int8 here")
    assert not probe.holds(127)
    assert torch.backends.quantized.engine == before


def test_a_kernel_that_is_wrong_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As wrong as one that cuts off in 16 bits, in one of the two operations."""
    right = engine_probe._linear

    def wrong(*arguments: Any) -> torch.Tensor:
        codes = right(*arguments)
        return torch.where(codes > 200, 200, codes)

    monkeypatch.setitem(engine_probe._RUNS, "linear", wrong)
    probe = probe_engine.__wrapped__(available_engines()[0])
    assert probe.full["linear"] == pytest.approx(55, abs=1)
    assert probe.verdict == "saturates"


def test_an_engine_that_torch_does_not_have() -> None:
    with pytest.raises(UnknownEngineError, match="cudnn"):
        probe_engine("cudnn")


def test_verdicts() -> None:
    assert faked("onednn").verdict == "exact"
    assert faked("onednn", full=1).verdict == "exact"
    assert faked("onednn", full=2).verdict == "saturates"
    # Its own qconfig trains on 0..127: there it is right, whatever it does beyond.
    assert faked("x86").verdict == faked("x86", full=63).verdict == "clamps"
    assert faked("x86", full=63, half=20).verdict == "saturates"
    assert faked("x86", error="RuntimeError: no").verdict == "fails"


@pytest.mark.slow
@pytest.mark.slow
def test_kernels_without_vnni_are_seen_to_saturate(without_vnni: dict[str, Any]) -> None:
    """No name tells: torch's own flag still says that this CPU has VNNI."""
    for engine, verdict in {"onednn": "saturates", "x86": "clamps", "qnnpack": "exact"}.items():
        if engine not in without_vnni["probes"]:
            continue
        found, full, half, _ = without_vnni["probes"][engine]
        assert found == verdict
        off = 0 if engine == "qnnpack" else 60
        assert full["conv"] >= off
        assert full["linear"] >= off
        assert max(half.values()) == 0


@pytest.mark.slow
def test_the_default_is_right_without_vnni(without_vnni: dict[str, Any]) -> None:
    """The model of pytorch#103646, 194 steps off with onednn there: 4 with what is chosen."""
    chosen = without_vnni["choices"]["default"]
    assert chosen["engine"] != "onednn"
    assert chosen["steps"] < 6
    assert chosen["output"] < 0.02
    assert "onednn" in chosen["reason"]
    assert "saturate" in chosen["reason"]
    assert (chosen["concern"], chosen["warned in all"], chosen["int8 row"]) == (None, [], "")
    fx = without_vnni["choices"]["default, fx"]
    assert fx["engine"] == chosen["engine"]
    assert fx["output"] < 0.02


@pytest.mark.slow
def test_an_engine_that_saturates_is_reported_at_the_start_and_at_int8(
    without_vnni: dict[str, Any],
) -> None:
    asked = without_vnni["choices"]["onednn"]
    assert (asked["engine"], asked["concern"]) == ("onednn", "saturates")
    assert asked["steps"] > 50
    assert len(asked["warned at the start"]) == 1
    assert len(asked["warned in all"]) == 2
    for text in (*asked["warned in all"], asked["int8 notes"][-1], asked["int8 row"]):
        assert "engine onednn saturates on this CPU" in text
        assert "engine='qnnpack' computes right here" in text


@pytest.mark.slow
def test_the_halved_range_clamps_elsewhere_without_a_warning(without_vnni: dict[str, Any]) -> None:
    halved = without_vnni["choices"]["x86"]
    assert halved["concern"] == "clamps"
    assert halved["warned in all"] == []
    assert "clamp at code 127" in halved["int8 row"]
    assert without_vnni["choices"]["default"]["steps"] < halved["steps"] < 60
