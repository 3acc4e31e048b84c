"""Models whose int8 was silently wrong, or whose conversion failed after training."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qatexplorer as qx
from qatexplorer.checks.records import Finding
from qatexplorer.quantizers.engine import quantized_engine
from tests.checks.parity_models import TokenMixer, Unfolded, mixed, tokens
from tests.support.engines import can_do_without_vnni, need_exact, run_without_vnni

FLOWS = ("eager", "fx")
QUIET = pytest.mark.filterwarnings("ignore::qatexplorer.errors.QatExplorerWarning")


# -- an engine that saturates ----------------------------------------------------------------------


@pytest.mark.skipif(not can_do_without_vnni(), reason="no x86 CPU")
def test_saturation_is_named_where_it_was_measured() -> None:
    found = json.loads(run_without_vnni("tests.support.saturating_check"))
    for flow in FLOWS:
        named = [f for f in found[flow]["findings"] if f[0] == "QX502"]
        assert next(path for _, _, path, _, _ in named) == "conv1"  # conv2 inherits its gap
        for _, severity, _, message, fix in named:
            assert severity == "error"
            assert "onednn saturates on this CPU" in message
            assert "qnnpack" in fix
        compared = found[flow]["compared"]
        assert compared["path"].startswith("conv1")
        assert "onednn saturates on this CPU" in compared["cause"]
        assert "QX502" in compared["cause"]
        row = found[flow]["row"]
        assert row["largest"] > 20
        assert not any(f[0] == "QX508" for f in found[flow]["findings"])
    eager = found["eager"]
    assert eager["row"]["largest"] == pytest.approx(eager["torch"]["largest"], abs=1e-3)
    assert eager["row"]["far"] == pytest.approx(eager["torch"]["far"], abs=1e-6)
    assert [f for f in found["default"]["findings"] if f[1] == "error"] == []


# -- a batch norm over tokens ----------------------------------------------------------------------


@QUIET
@pytest.mark.parametrize("engine", ["x86", "qnnpack"])
@pytest.mark.parametrize("flow", FLOWS)
def test_a_batch_norm_over_tokens_is_named_with_the_gap_that_torch_gives(
    flow: str, engine: str
) -> None:
    need_exact(engine)
    session = mixed(TokenMixer(), flow, engine)
    (found,) = session.check().with_id("QX503")
    assert found.path == "embed"
    assert "norm is folded into embed" in found.message
    assert "BatchNorm2d(12)" in found.fix
    session.goto(session.flow.int8_stage)
    x = session.options.example_inputs
    with torch.no_grad(), quantized_engine(engine):
        fake = copy.deepcopy(session._models.work).eval()(x)
        gap = (fake - session.int8(x)).abs().max()
    assert session.parity is not None
    spread = max(fake.max() - fake.min(), fake.abs().max())
    assert session.parity.output == pytest.approx(float(gap / spread), rel=1e-5)
    assert session.parity.output is not None
    assert session.parity.output > 0.1
    assert session.parity.first is not None
    assert session.parity.first.path == "embed"


@QUIET
@pytest.mark.parametrize("engine", ["x86", "qnnpack"])
@pytest.mark.parametrize("flow", FLOWS)
def test_its_fix_is_right_in_int8(flow: str, engine: str) -> None:
    need_exact(engine)
    old = TokenMixer().eval()
    new = Unfolded()
    new.load_state_dict(old.state_dict())
    x = tokens(1)[0]
    assert torch.allclose(old(x), new.eval()(x), atol=1e-6)
    session = mixed(new, flow, engine)
    assert session.check().errors == ()
    session.goto(session.flow.int8_stage)
    assert session.parity is not None
    assert session.parity.output is not None
    assert session.parity.output < 0.05


# -- functional layers, by keyword and in other ways -----------------------------------------------


class BlurPool(nn.Module):
    kernel: Tensor

    def __init__(self, channels: int, by_keyword: bool) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", (row[:, None] * row).expand(channels, 1, 3, 3).contiguous())
        self.channels, self.by_keyword = channels, by_keyword

    def forward(self, x: Tensor) -> Tensor:
        if self.by_keyword:
            return F.conv2d(x, weight=self.kernel, stride=2, padding=1, groups=self.channels)
        return F.conv2d(x, self.kernel, None, (2, 2), (1, 1), (1, 1), self.channels)


class Generator(nn.Module):
    def __init__(self, by_keyword: bool) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()
        self.pool = BlurPool(8, by_keyword)

    def forward(self, image: Tensor) -> Tensor:
        return self.pool(self.relu(self.conv(image))).mean([2, 3])


class Spelled(nn.Module):
    def __init__(self, call: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3) / 5)
        self.bias = nn.Parameter(torch.zeros(4))
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x, self.weight, self.bias)  # type: ignore[no-any-return]


class Holder(nn.Module):
    def __init__(self, call: Any) -> None:
        super().__init__()
        self.body = Spelled(call)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]


SPELLINGS: dict[str, tuple[Any, bool]] = {
    "by position": (lambda x, w, b: F.conv2d(x, w, b), False),
    "numbers": (lambda x, w, b: F.conv2d(x, w, b, 2, 1), False),
    "stride by keyword": (lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1), False),
    "no bias": (lambda x, w, b: F.conv2d(x, w, padding=1), False),
    "weight by keyword": (lambda x, w, b: F.conv2d(x, weight=w, bias=b), False),
    "in full": (lambda x, w, b: F.conv2d(x, w, b, (2, 2), (1, 1), (1, 1), 1), True),
    "linear by keyword": (
        lambda x, w, b: F.linear(input=x, weight=w.flatten(1)[:, :8], bias=b),
        False,
    ),
}


def crashes(model: nn.Module, x: Any, flow: str = "fx") -> list[Finding]:
    session = qx.Session(model.train(), x, flow=flow, qconfig="x86")
    return [one for one in session.check().errors if one.stage == session.flow.int8_stage]


@QUIET
def test_a_conversion_that_would_fail_after_training_is_named_with_module_and_line() -> None:
    x = torch.rand(2, 3, 12, 12)
    found = crashes(Generator(True), x)
    assert found
    assert all("pool" in one.path or one.source.startswith("test_parity.py:") for one in found)
    assert crashes(Generator(False), x) == []


@QUIET
@pytest.mark.parametrize("name", SPELLINGS)
def test_each_spelling_that_convert_cannot_take_is_named(name: str) -> None:
    call, good = SPELLINGS[name]
    x = torch.randn(2, 3, 8, 8)
    found = crashes(Holder(call), x)
    if good:
        assert found == []
        return
    assert found
    for one in found:
        assert one.path == "body" or one.source.startswith("test_parity.py:"), one
