"""Which engine and qconfig are taken when none is named, on every kind of machine."""

from __future__ import annotations

import pytest
import torch

from qatexplorer.errors import UnknownEngineError
from qatexplorer.quantizers.engine import available_engines
from qatexplorer.quantizers.engine_choice import default_backend, engine_concern
from qatexplorer.quantizers.engine_probe import probe_engine
from tests.support.engines import can_do_without_vnni, fake_machine, faked, need_exact
from tests.support.saturating import gaps, new_session


def test_the_default_is_exact_on_this_machine() -> None:
    best = default_backend()
    assert best.engine in available_engines()
    assert probe_engine(best.engine).holds(255)
    assert best.qconfig == "onednn"
    assert engine_concern(best.engine, 255, 255) is None


@pytest.mark.skipif(not can_do_without_vnni(), reason="no x86 CPU")
def test_onednn_is_the_default_where_it_is_exact() -> None:
    need_exact("onednn")
    assert default_backend().engine == "onednn"
    assert gaps(new_session())["steps"] < 6


@pytest.mark.parametrize(
    ("probes", "machine", "engine", "qconfig", "says"),
    [
        (
            [faked("qnnpack"), faked("onednn"), faked("x86"), faked("fbgemm")],
            "x86_64",
            "onednn",
            "onednn",
            "onednn computes sums of all codes 0..255 right",
        ),
        (
            [faked("qnnpack"), faked("onednn", 63), faked("x86", 63), faked("fbgemm", 63)],
            "x86_64",
            "qnnpack",
            "onednn",
            "onednn, x86 and fbgemm saturate",
        ),
        ([faked("onednn", 63), faked("fbgemm")], "x86_64", "fbgemm", "onednn", "onednn saturates"),
        ([faked("x86"), faked("fbgemm")], "AMD64", "x86", "onednn", "x86 computes"),
        (
            [faked("onednn", 63), faked("x86", 63), faked("fbgemm", 63)],
            "x86_64",
            "x86",
            "x86",
            "halved range",
        ),
        ([faked("onednn", 63)], "x86_64", "onednn", "onednn", "No engine here is right"),
        ([faked("qnnpack"), faked("onednn")], "aarch64", "qnnpack", "onednn", "qnnpack computes"),
        ([faked("qnnpack", 9), faked("onednn")], "arm64", "onednn", "onednn", "qnnpack saturates"),
        (
            [faked("onednn", error="RuntimeError: no"), faked("qnnpack")],
            "x86_64",
            "qnnpack",
            "onednn",
            "onednn does not run",
        ),
        ([faked("newcomer")], "riscv64", "newcomer", "onednn", "newcomer computes"),
    ],
)
def test_right_before_fast(
    monkeypatch: pytest.MonkeyPatch,
    probes: list[object],
    machine: str,
    engine: str,
    qconfig: str,
    says: str,
) -> None:
    fake_machine(monkeypatch, *probes, machine=machine)  # type: ignore[arg-type]
    best = default_backend()
    assert (best.engine, best.qconfig) == (engine, qconfig)
    assert says in best.reason


def test_no_engine_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_machine(monkeypatch)
    with pytest.raises(UnknownEngineError, match="no quantized engine"):
        default_backend()


def test_concerns(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_machine(
        monkeypatch,
        faked("qnnpack"),
        faked("onednn", full=63),
        faked("x86", full=63),
        faked("fbgemm", error="RuntimeError: no kernel"),
    )
    assert engine_concern("qnnpack", 255, 255) is None
    for engine in ("onednn", "x86"):
        saturates = engine_concern(engine, 255, 255)
        assert saturates is not None
        assert saturates.kind == "saturates"
        assert f"engine {engine} saturates" in str(saturates)
        assert "63 of 127 steps" in saturates.message
        assert "engine='qnnpack'" in saturates.fix
    # Fake quants that clamp at 127 keep these kernels out of trouble, and clamp elsewhere.
    clamps = engine_concern("x86", 127, 127)
    assert clamps is not None
    assert clamps.kind == "clamps"
    # One part of the model on the full range is enough to saturate.
    mixed = engine_concern("x86", 255, 127)
    assert mixed is not None
    assert mixed.kind == "saturates"
    fails = engine_concern("fbgemm", 255, 255)
    assert fails is not None
    assert (fails.kind, "no kernel" in fails.message) == ("fails", True)


def test_a_machine_with_nothing_better_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_machine(monkeypatch, faked("onednn", full=63))
    concern = engine_concern("onednn", 255, 255)
    assert concern is not None
    assert "No engine here is better" in concern.fix


def test_the_default_qconfig_is_torchs_and_wants_no_engine_of_its_name() -> None:
    """Same fake quants whichever engine is in force: the training is the same everywhere."""
    from torch.ao.quantization import get_default_qat_qconfig

    activation = get_default_qat_qconfig("onednn").activation()
    weight = get_default_qat_qconfig("onednn").weight()
    assert (activation.quant_min, activation.quant_max) == (0, 255)
    assert weight.qscheme == torch.per_channel_symmetric
