"""Prints how far the kernels of a CPU without VNNI are from integers in one layer."""

from __future__ import annotations

import sys

import torch
from torch import nn

from tests.accuracy.int8_models import Around, session_of


def main(engine: str) -> None:
    layer = nn.Conv2d(16, 16, 3, padding=1)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    model = Around(layer)
    found = session_of(model, (1, 16, 6, 6), "eager", engine).int8_layer("layer")
    assert found.nearest is not None
    print(found.nearest.largest)
    print("cuts off sums on this CPU" in found.text())


if __name__ == "__main__":
    main(sys.argv[1])
