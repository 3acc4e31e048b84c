"""What a user would write with torch alone, and a training loop to compare by."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.quantization import fuse_modules_qat, prepare_qat

STEPS = 5
Assign = Callable[[nn.Module], Any]


def one_call(model: nn.Module, runs: Sequence[Sequence[str]], assign: Assign) -> nn.Module:
    """``fuse_modules_qat`` then ``prepare_qat``, each torch's own copy; ``assign`` sets qconfigs
    or hands back another root (a wrapper)."""
    reference = copy.deepcopy(model)
    if runs:
        reference = fuse_modules_qat(reference, [list(run) for run in runs])
    replaced = assign(reference)
    prepared: nn.Module = prepare_qat(reference if replaced is None else replaced)
    return prepared


def main_tensor(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def train(model: nn.Module, x: Tensor) -> tuple[list[Tensor], list[float]]:
    """Five SGD steps on seeded batches like ``x``; every output and every loss."""
    torch.manual_seed(11)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    outputs, losses = [], []
    for step in range(STEPS):
        batch = torch.randn(x.shape, generator=torch.Generator().manual_seed(step))
        output = main_tensor(model(batch))
        target = torch.arange(len(output)) % output.shape[1]
        loss = F.cross_entropy(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        outputs.append(output.detach().clone())
        losses.append(loss.item())
    return outputs, losses


def assert_same_state(mine: nn.Module, theirs: nn.Module) -> None:
    ours, reference = mine.state_dict(), theirs.state_dict()
    assert list(ours) == list(reference)
    for key, value in reference.items():
        assert ours[key].dtype == value.dtype, key
        assert torch.equal(ours[key], value), key


@contextmanager
def engine(name: str) -> Iterator[None]:
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = before
