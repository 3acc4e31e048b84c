"""What a check and a comparison say of the model of pytorch#103646, beside what torch alone gives.

Run as a module it prints both as JSON: tests do that on the kernels of a CPU without VNNI.
"""

from __future__ import annotations

import copy
import json
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.ao.quantization import convert, disable_observer

from qatexplorer.quantizers.engine import quantized_engine
from tests.support.saturating import new_session


def by_torch(prepared: torch.nn.Module, inputs: Any, engine: str) -> dict[str, float]:
    """Largest gap in steps behind conv2, fake quant against int8, in eager mode."""
    prepared = copy.deepcopy(prepared).eval().apply(disable_observer)
    seen: list[Tensor] = []
    with torch.no_grad(), quantized_engine(engine):
        int8 = convert(copy.deepcopy(prepared))
        for model in (prepared, int8):
            model.conv2.register_forward_hook(lambda _m, _i, out: seen.append(out))
            model(*inputs)
    gap = (seen[0] - seen[1].dequantize()).abs() / seen[1].q_scale()
    return {"largest": float(gap.max()), "far": float((gap > 1.501).float().mean())}


def outcome(**settings: Any) -> dict[str, Any]:
    session = new_session(**settings)
    session.warns = False
    session.goto("train")
    model = session.model.train()
    with torch.no_grad():
        for images, _ in session.data.train:  # type: ignore[union-attr]
            model(images)
    model.apply(disable_observer)
    found = session.check()
    session.goto(session.flow.int8_stage)
    assert session.parity is not None
    row = next(row for row in session.parity.rows if row.path == "conv2")
    result: dict[str, Any] = {
        "findings": [[f.id, f.severity, f.path, f.message, f.fix] for f in found],
        "row": {"largest": row.largest, "far": row.far},
    }
    first = session.compare(1, lost=False).first
    if first is not None:
        result["compared"] = {"path": first.path, "cause": first.cause}
    if session.flow.name == "eager":
        engine = session.options.qconfig.backend
        result["torch"] = by_torch(session._models.work, session.options.example_inputs, engine)
    return result


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    chosen = {
        "eager": outcome(qconfig="onednn"),
        "fx": outcome(qconfig="onednn", flow="fx"),
        "default": outcome(),
    }
    print(json.dumps(chosen))
