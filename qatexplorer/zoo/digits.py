"""The embedded data: scikit-learn's handwritten digits, 1,797 real images of 8×8 pixels."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch.utils.data import DataLoader, TensorDataset

from qatexplorer.data import Data

TRAIN_BATCH = 64
EVAL_BATCH = 135


@lru_cache(maxsize=1)
def _split() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Train images, eval images, train targets, eval targets: 70/30, stratified, always the same.

    Images are float32 (N, 1, 8, 8), shifted and scaled by the training part's mean and deviation.
    """
    # Imported here: scikit-learn costs a second that only those who load the data should pay.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    parts = train_test_split(pixels, labels, test_size=0.3, stratify=labels, random_state=0)
    train_x, eval_x = (torch.tensor(part, dtype=torch.float32) for part in parts[:2])
    train_y, eval_y = (torch.tensor(part, dtype=torch.int64) for part in parts[2:])
    std, mean = torch.std_mean(train_x)
    images = [((part - mean) / std).reshape(-1, 1, 8, 8) for part in (train_x, eval_x)]
    return images[0], images[1], train_y, eval_y


def example_images(count: int = 8) -> torch.Tensor:
    """The first ``count`` evaluation images, float32 (count, 1, 8, 8), a copy."""
    return _split()[1][:count].clone()


def digits_data() -> Data:
    """The digits as training batches (shuffled by torch's random state) and evaluation batches."""
    train_x, eval_x, train_y, eval_y = _split()
    train = DataLoader(TensorDataset(train_x, train_y), batch_size=TRAIN_BATCH, shuffle=True)
    # A loader draws a seed at every start, even unshuffled. One of its own keeps an evaluation
    # from moving the random state that the next training epoch is shuffled by.
    evaluation = DataLoader(
        TensorDataset(eval_x, eval_y), batch_size=EVAL_BATCH, generator=torch.Generator()
    )
    return Data(train, evaluation, "digits")
