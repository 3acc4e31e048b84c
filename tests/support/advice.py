"""What the tests of the advice share: small sessions, and what is known of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.advice import RECIPES, Facts, Proposal
from qatexplorer.evaluate.metric import MetricValue
from tests.cures.nets import Chain, session_of, usual


def conv_pair(stretch: float) -> Chain:
    """Two convolutions with a ReLU between them; one channel there has ``stretch`` times the range
    of the others, and the function is that of 1 whatever it is."""
    torch.manual_seed(0)
    model = Chain(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3)).train()
    first: Any = model.body[0]
    second: Any = model.body[2]
    with torch.no_grad():
        for weight in (first.weight, second.weight):
            weight.copy_(torch.linspace(-1, 1, weight.numel()).reshape(weight.shape))
            weight[:, :, 0, 0], weight[:, :, 0, 1] = -1.0, 1.0  # every channel has the same range
        first.weight[0] *= stretch
        first.bias[0] *= stretch
        second.weight[:, 0] /= stretch
    return model


def values(samples: int = 500, name: str = "accuracy", **known: float) -> dict[str, MetricValue]:
    """A metric by form, each of which took a second."""
    return {form: MetricValue(name, value, samples, 1.0) for form, value in known.items()}


def facts_of(session: qx.Session, **known: Any) -> Facts:
    """What is known of a session, and what else is taken to be."""
    return replace(session._facts(0.01), **known)


def small(model: nn.Module | None = None, flow: str = "eager", **settings: Any) -> qx.Session:
    """A prepared session of a small net, whose observers have seen data."""
    session = session_of(usual() if model is None else model, flow, **settings)
    session.calibrate(2)
    return session


def asked(recipe: str, facts: Facts) -> list[Proposal]:
    """What one recipe proposes."""
    return list(RECIPES[recipe](facts))


def words_of(one: Proposal) -> list[str]:
    """All its sentences."""
    return [*(reason.text for reason in one.reasons), one.sureness.why]
