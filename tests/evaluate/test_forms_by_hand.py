"""What torchao and pt2e sessions print of their forms, each number once more by torch's and
torchao's own calls: perplexity, the share won back, size, and what a form is called."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import qatexplorer as qx
from qatexplorer.evaluate.perplexity import perplexity
from tests.support.pt2e_runs import session
from tests.support.training_models import one_thread  # noqa: F401

ao = pytest.importorskip("torchao.quantization")
qat = pytest.importorskip("torchao.quantization.qat")
X = torch.randint(0, 12, (48, 6), generator=torch.Generator().manual_seed(3))
PAIRS = [(X[i : i + 16, :5], X[i : i + 16, 1:]) for i in range(0, 48, 16)]


class Tokens(nn.Module):
    """(N, 5) token numbers below 12 → (N, 12, 5) scores of the next."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(12, 32), nn.Linear(32, 12)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.embed(x))).transpose(1, 2)
        return out


def base() -> Any:
    two: Any = torch.int2  # type: ignore[attr-defined]
    return ao.IntxWeightOnlyConfig(weight_dtype=two, granularity=ao.PerGroup(32))


def spread(model: nn.Module) -> float:
    """Perplexity: e to the mean cross entropy of all tokens."""
    with torch.no_grad():
        out = torch.cat([model(x) for x, _ in PAIRS])
    return float(F.cross_entropy(out, torch.cat([y for _, y in PAIRS])).exp())


def bytes_of(model: nn.Module) -> int:
    """Of the state dict, written by torch."""
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return len(buffer.getvalue())


def test_perplexity_share_and_sizes_of_torchaos_forms() -> None:
    torch.manual_seed(0)
    net = Tokens().train()
    with torch.enable_grad():  # learn something that two bits then cost
        optimizer = torch.optim.Adam(net.parameters(), 0.05)
        for x, y in PAIRS * 10:
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
    one = qx.Session(
        net, X[:4, :5], data=(PAIRS, PAIRS), flow="torchao", base_config=base(), metric=perplexity
    )
    one.train(3, lr=0.01, progress=False)
    one.goto("convert")
    found = one.evaluate(latency=False)
    alone = copy.deepcopy(net).eval()
    ao.quantize_(alone, qat.QATConfig(base(), step="prepare"))
    ao.quantize_(alone, qat.QATConfig(base(), step="convert"))
    trained = one.copy_model("convert").eval()
    floating, untrained, learned = spread(net.eval()), spread(alone), spread(trained)
    assert found["float"].metric.value == pytest.approx(floating, rel=1e-5)
    assert found["ptq"].metric.value == pytest.approx(untrained, rel=1e-5)
    assert found["int8"].metric.value == pytest.approx(learned, rel=1e-5)
    assert untrained > floating
    won = found.won_back
    assert won is not None
    assert won.share == pytest.approx((untrained - learned) / (untrained - floating), rel=1e-4)
    assert found["float"].size_bytes == bytes_of(net)
    assert found["int8"].size_bytes == bytes_of(trained)


def test_a_benchmark_calls_integers_what_they_are() -> None:
    torch.manual_seed(0)
    one = qx.Session(Tokens().train(), X[:4, :5], flow="torchao", base_config=base())
    found = one.benchmark(batch_sizes=(1,), seconds=0.05, compiled=False)
    assert [row.form for row in found.rows] == ["float", "int8"]
    assert found.words("float") == "float"
    assert found.words("int8") == "converted (int2 weights)"
    assert "converted (int2 weights)" in repr(found)
    assert "int8" not in repr(found)
    plain = session().benchmark(batch_sizes=(1,), seconds=0.05, compiled=False)
    assert [plain.words(row.form) for row in plain.rows] == ["float", "int8"]
