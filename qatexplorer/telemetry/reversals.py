"""From the weights that are followed in every step to the metrics of the telemetry."""

from __future__ import annotations

import torch

from qatexplorer.runs.samples import REVERSING
from qatexplorer.telemetry.weights import FollowedWeights

_NAMES = ("reversal_rate", "reversing", "frozen")


def reversal_metrics(weights: FollowedWeights) -> dict[str, dict[str, float]]:
    """Metrics by path of each fake quant and by name, as they are after the last step that was
    taken; empty before the first. Reads them all at once: a device is waited for one time."""
    known = [one for one in weights.weights if one.state]
    if not known:
        return {}
    device = known[0].state["rate"].device
    rows = []
    for one in known:
        rate = one.state["rate"]
        frozen = one.state.get("frozen", torch.zeros(1, device=rate.device))
        shares = [rate, rate > REVERSING, frozen]
        rows.append(torch.stack([share.float().mean() for share in shares]).to(device))
    values = torch.stack(rows).tolist()
    return {
        one.path: dict(zip(_NAMES, row, strict=True))
        for one, row in zip(known, values, strict=True)
    }
