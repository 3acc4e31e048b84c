"""What upsampling costs in int8 beside float: what rule QX607 says, measured.

    python -m tests.benchmarks.bench_upsampling [--rounds 5]

One thread, batch 1, in turns; the median of the rounds. torch takes the kernel by the machine and
by ATEN_CPU_CAPABILITY, which may be set to default, avx2 or avx512.
"""

from __future__ import annotations

import argparse
import statistics
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.benchmark import Timer

from tests.benchmarks.bench_watch import cpu_name

SHAPES = ((16, 32), (64, 32), (64, 128), (256, 14))  # channels, height and width
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def seconds(tensor: Tensor, mode: str) -> float:
    given = {"F": F, "tensor": tensor, "mode": mode}
    timer = Timer("F.interpolate(tensor, scale_factor=2, mode=mode)", globals=given)
    return timer.timeit(30).median


def ratio(shape: tuple[int, int], mode: str, layout: torch.memory_format, rounds: int) -> float:
    """int8 over float, the median of the rounds."""
    channels, side = shape
    plain = torch.rand(1, channels, side, side).contiguous(memory_format=layout)
    codes = torch.quantize_per_tensor(plain, 1 / 255, 0, torch.quint8)
    return statistics.median(seconds(codes, mode) / seconds(plain, mode) for _ in range(rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    warnings.filterwarnings("ignore", message=".*are deprecated and will be removed.*")
    torch.set_num_threads(1)
    kernels = torch.backends.cpu.get_cpu_capability()
    print(f"{cpu_name()}, kernels {kernels}, torch {torch.__version__}")
    for mode in ("bilinear", "nearest"):
        for name, layout in FORMATS.items():
            found = [f"{ratio(shape, mode, layout, rounds):5.2f}" for shape in SHAPES]
            print(f"{mode:8} {name:13} int8 / float: {' '.join(found)}")


if __name__ == "__main__":
    main()
