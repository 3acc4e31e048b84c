"""The model of pytorch#103646, and how far its int8 is from the fake-quant one.

Run as a module it prints what each choice of engine and qconfig leads to, as JSON: that is what
tests do in a process on the kernels of a CPU without VNNI.
"""

from __future__ import annotations

import json
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import DeQuantStub, QuantStub, disable_observer

import qatexplorer as qx
from qatexplorer.errors import EngineWarning
from qatexplorer.quantizers.engine import quantized_engine
from qatexplorer.quantizers.engine_probe import probe_engines


class Camera(nn.Module):
    """Conv-bn-relu, conv-relu, linear; the second conv sums up 144 products."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(x)
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.conv2(x))
        return self.dequant(self.head(x.mean([2, 3])))


def pictures(count: int) -> list[tuple[Tensor, Tensor]]:
    """Batches of 16 images with a bright square in one of the four corners, and which."""
    generator = torch.Generator().manual_seed(1)
    batches = []
    for _ in range(count):
        corners = torch.randint(0, 4, (16,), generator=generator)
        images = torch.rand(16, 3, 12, 12, generator=generator) * 0.4
        for image, corner in zip(images, corners.tolist(), strict=True):
            top, left = 6 * (corner // 2), 6 * (corner % 2)
            image[:, top : top + 6, left : left + 6] += 0.5
        batches.append((images, corners))
    return batches


def new_session(**settings: Any) -> qx.Session:
    torch.manual_seed(0)
    batches = pictures(12)
    data = {"train": batches[:8], "eval": batches[8:]}
    return qx.Session(Camera().train(), (batches[0][0][:2],), data=data, **settings)


def gaps(session: qx.Session) -> dict[str, float]:
    """How far int8 is from fake-quant on a batch never trained on: steps after the second conv
    (eager), share of the output's norm.

    Ten epochs of forwards in train mode and nothing learned, as in the report.
    """
    session.goto("train")
    fake_quant = session.model.train()
    with torch.no_grad():
        for images, _ in [batch for _ in range(10) for batch in session.data.train]:
            fake_quant(images)
    fake_quant.apply(disable_observer).eval()
    session.goto(session.flow.int8_stage)
    seen: list[Tensor] = []
    outputs: list[Tensor] = []
    images = pictures(9)[8][0]
    with torch.no_grad(), quantized_engine(session.options.qconfig.backend):
        for model in (fake_quant, session.int8):
            handle = model.conv2.register_forward_hook(lambda _m, _i, out: seen.append(out))
            outputs.append(model(images))
            handle.remove()
    found = {"output": float((outputs[0] - outputs[1]).norm() / outputs[0].norm())}
    if session.flow.name == "eager":  # FX fake-quantizes outside of the module
        steps = (seen[0] - seen[1].dequantize()).abs() / seen[1].q_scale()
        found["steps"] = float(steps.max())
    return found


def outcome(**settings: Any) -> dict[str, Any]:
    """What a session with these settings comes to and what it says."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        session = new_session(**settings)
        started = [str(w.message) for w in caught if w.category is EngineWarning]
        gap = gaps(session)
        text = [str(w.message) for w in caught if w.category is EngineWarning]
    plan = session.options.qconfig
    return {
        "qconfig": plan.name,
        "engine": plan.backend,
        "reason": plan.reason,
        **gap,
        "concern": plan.concern.kind if plan.concern else None,
        "warned at the start": started,
        "warned in all": text,
        "int8 notes": list(session.snapshot.notes),
        "int8 row": session.evaluate(latency=False)["int8"].warning,
    }


if __name__ == "__main__":
    choices: dict[str, dict[str, Any]] = {
        "default": {},
        "default, fx": {"flow": "fx"},
        "onednn": {"qconfig": "onednn"},
        "x86": {"qconfig": "x86"},
    }
    reported = {name: outcome(**settings) for name, settings in choices.items()}
    probes = {p.engine: [p.verdict, p.full, p.half, p.seconds] for p in probe_engines()}
    print(json.dumps({"choices": reported, "probes": probes}))
