"""Code of tests in processes that have imported torch, and nothing of ours."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from qatexplorer import zoo
from qatexplorer.data import Data
from qatexplorer.zoo.base import Example

ROOT = Path(__file__).resolve().parents[2]

# Importing torch and scikit-learn is most of what a process costs, and runs no model: each code
# starts from there in a copy of its own, which knows nothing of the others.
_PARENT = """
import json, os, sys, traceback
import sklearn.datasets, torch
for code in json.load(sys.stdin):
    child = os.fork()
    if not child:
        try:
            exec(code, {"__name__": "fresh"})
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit("failed: " + code)
"""


def run_fresh(codes: Sequence[str]) -> None:
    """Run each of ``codes`` in a fresh process; one that raises fails the test."""
    made = subprocess.run(
        [sys.executable, "-c", _PARENT],
        input=json.dumps(list(codes)),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert made.returncode == 0, made.stderr


def short_example(name: str) -> Example:
    """The embedded example with its own loaders over the first part of the digits."""
    example = zoo.load(name)
    data = example.data
    train, evaluation = data.train, data.eval
    assert isinstance(train, DataLoader)
    assert isinstance(evaluation, DataLoader)
    return replace(
        example,
        data=Data(
            DataLoader(_first(train, 192), train.batch_size, shuffle=True),
            DataLoader(_first(evaluation, 135), 135, generator=torch.Generator()),
            data.name,
        ),
    )


def small_resnet18() -> tuple[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]]:
    """timm's, and two batches of two small images."""
    from tests.support.models import load_timm

    torch.manual_seed(0)
    model: nn.Module = load_timm("resnet18", zero_init_last=False)[0]
    return model, [(torch.randn(2, 3, 32, 32), torch.tensor([0, 1])) for _ in range(2)]


def _first(loader: DataLoader[tuple[torch.Tensor, ...]], count: int) -> TensorDataset:
    dataset = loader.dataset
    assert isinstance(dataset, TensorDataset)
    return TensorDataset(*(tensor[:count] for tensor in dataset.tensors))
