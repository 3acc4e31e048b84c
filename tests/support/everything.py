"""A training with every schedule at once, on data that draws random numbers."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from qatexplorer.training.run import TrainingRun
from tests.support.training_models import batches


class Noisy(Dataset):  # type: ignore[type-arg]
    """Draws from all three random generators for every sample, as augmentations do."""

    def __init__(self) -> None:
        self.x, self.y = (torch.cat(part) for part in zip(*batches(), strict=True))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = random.random() + np.random.rand() + torch.rand(())
        return self.x[index] + 0.1 * noise, self.y[index]


def loaders(workers: int = 0, own: bool = False) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(9) if own else None
    train = DataLoader(Noisy(), 8, shuffle=True, generator=generator, num_workers=workers)
    return train, DataLoader(Noisy(), 16)


EVERYTHING: dict[str, Any] = {
    "epochs": 4,
    "lr": 3e-3,
    "optimizer": "adamw",
    "scheduler": "cosine",
    "warmup_steps": 3,
    "fake_quant_start_epoch": 1,
    "freeze_observer_epoch": 2,
    "freeze_bn_epoch": 3,
    "label_smoothing": 0.1,
    "clip_grad_norm": 0.5,
    "ema_decay": 0.9,
}


def losses(run: TrainingRun) -> list[float]:
    return [s.loss for s in run.history.steps]
