"""Perplexity, of models that predict the next token."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from qatexplorer.data import main_output


def perplexity(output: Any, target: Any) -> torch.Tensor:
    """``exp`` of the mean cross entropy: among how many tokens, all equally likely, the model
    hesitates on average. 1 is the best there is, the number of tokens is a guess.

    Args:
        output: what the model returns; its main tensor has scores of shape (N, tokens, length), as
            torch's own cross entropy takes them.
        target: token numbers, shape (N, length).

    Over several batches it is the geometric mean: ``exp`` of the mean of all cross entropies. Less
    is better: give a training ``metric_mode="min"``.
    """
    return cross_entropy(main_output(output).float(), torch.as_tensor(target)).exp()


perplexity.average = "geometric"  # type: ignore[attr-defined]
perplexity.mode = "min"  # type: ignore[attr-defined]
