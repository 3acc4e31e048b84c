"""Snapshots of one small real model at every stage of eager QAT, for tests of the views."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
import torch.ao.quantization as tq
from torch import nn
from torch.ao.quantization.quantization_mappings import get_default_qat_module_mappings

from qatexplorer.flows import get_flow
from qatexplorer.forward.histograms import GridHistogram, capture_histograms
from qatexplorer.forward.record import probe
from qatexplorer.snapshot.records import Snapshot
from qatexplorer.snapshot.take import take_graph, take_snapshot


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.add = nn.quantized.FloatFunctional()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.add.add(x, self.relu(self.bn(self.conv(x))))


class Net(nn.Module):
    """Stubs, a conv, two residual blocks, a linear layer, and a norm that stays float."""

    def __init__(self) -> None:
        super().__init__()
        self.quant = tq.QuantStub()
        self.stem = nn.Conv2d(3, 8, 3)
        self.blocks = nn.Sequential(Block(8), Block(8))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 10)
        self.dequant = tq.DeQuantStub()
        self.norm = nn.LayerNorm(10)
        self.spare = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.blocks(self.stem(self.quant(x)))).flatten(1)
        return self.norm(self.dequant(self.fc(x)))


@functools.cache
def walk() -> tuple[Mapping[str, Snapshot], Mapping[str, GridHistogram]]:
    """(snapshots by stage, histograms by site after training)."""
    state = torch.get_rng_state()
    torch.manual_seed(0)
    model, x = Net().train(), torch.randn(4, 3, 16, 16)
    model.qconfig = None
    paths = frozenset(name for name, _ in model.named_modules())
    snapshots: dict[str, Snapshot] = {}
    histograms: dict[str, GridHistogram] = {}

    def take(stage: str) -> None:
        last = list(snapshots.values())[-1:]
        snapshots[stage] = take_snapshot(
            model,
            flow="eager",
            stage=stage,
            call=get_flow("eager").stage(stage).call,
            role=get_flow("eager").stage(stage).role,
            graph=take_graph(model, x),
            float_paths=paths,
            earlier=dict(last[0].site_by_path) if last else {},
            probed=probe(model, x),
            settled=stage in ("insert", "train", "convert"),
        )

    take("float")
    runs = [[f"blocks.{i}.{name}" for name in ("conv", "bn", "relu")] for i in range(2)]
    tq.fuse_modules_qat(model, runs, inplace=True)
    take("fuse")
    model.qconfig = tq.get_default_qat_qconfig("onednn")
    model.norm.qconfig = None
    tq.propagate_qconfig_(model)
    take("propagate")
    mapping = get_default_qat_module_mappings()
    tq.convert(model, mapping=mapping, inplace=True, remove_qconfig=False)
    take("swap")
    tq.prepare(model, inplace=True, observer_non_leaf_module_list=set(mapping.values()))
    take("insert")
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    take("train")
    sites = [s.path for s in snapshots["train"].sites]
    histograms.update(capture_histograms(model, x * 1.3, sites))
    engine = torch.backends.quantized.engine
    torch.backends.quantized.engine = "onednn"
    try:
        model.spare = nn.Identity()  # it never ran, so its observer has no range to convert
        tq.convert(model.eval(), inplace=True)
        take("convert")
    finally:
        torch.backends.quantized.engine = engine
        torch.set_rng_state(state)
    return snapshots, histograms
