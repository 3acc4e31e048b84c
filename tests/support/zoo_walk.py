"""The eager walk in torch's own calls, for the embedded examples."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.ao import quantization as tq

from qatexplorer.data import Data
from qatexplorer.zoo import Example

FUSE: dict[str, list[list[str]]] = {
    "digits_cnn": [[f"conv{i}", f"bn{i}", f"relu{i}"] for i in (1, 2, 3)],
    "digits_depthwise": [
        ["stem", "stem_bn", "stem_relu"],
        *([f"block{i}.depthwise", f"block{i}.bn1", f"block{i}.relu1"] for i in (1, 2, 3)),
        *([f"block{i}.pointwise", f"block{i}.bn2"] for i in (1, 2, 3)),
    ],
    "digits_mlp": [],
}


def accuracy(model: nn.Module, data: Data) -> float:
    """Percent of right answers on the evaluation part, in eval mode."""
    model.eval()
    with torch.no_grad():
        right = torch.cat([model(x).argmax(1) == y for x, y in data.eval])
    return 100 * float(right.float().mean())


def prepare(example: Example, qconfig: Any, wrap: Any = None) -> nn.Module:
    """A prepared copy of the example's model."""
    model = copy.deepcopy(example.model).train()
    if FUSE[example.name]:
        model = tq.fuse_modules_qat(model, FUSE[example.name])
    model.qconfig = qconfig
    if wrap is tq.QuantWrapper:
        model = tq.QuantWrapper(model)
    elif wrap is not None:
        tq.propagate_qconfig_(model)
        model = wrap(model)
    return tq.prepare_qat(model.train())


def calibrate(prepared: nn.Module, data: Data) -> nn.Module:
    """Post-training quantization on the prepared model: observers see data, weights stay."""
    model = copy.deepcopy(prepared).eval()
    with torch.no_grad():
        for x, _ in data.train:
            model(x)
    return model.apply(tq.disable_observer)


def train(prepared: nn.Module, example: Example, seed: int = 0) -> nn.Module:
    """QAT with the example's suggested settings, in place."""
    settings = example.training
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(prepared.parameters(), lr=settings["lr"])
    for epoch in range(settings["epochs"]):
        prepared.train()
        if epoch == settings["freeze_observer_epoch"]:
            prepared.apply(tq.disable_observer)
        if settings["freeze_bn_epoch"] is not None and epoch >= settings["freeze_bn_epoch"]:
            prepared.apply(torch.ao.nn.intrinsic.qat.freeze_bn_stats)
        for x, y in example.data.train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(prepared(x), y).backward()
            optimizer.step()
    return prepared.apply(tq.disable_observer)
