"""Sums over pieces, against the plain expressions they stand for."""

from __future__ import annotations

import math

import pytest
import torch

from qatexplorer.accuracy.sums import Apart, InSteps, Scratch, Sums, add_up, codes_of


@pytest.mark.parametrize("dtype", [torch.quint8, torch.qint8, torch.qint32])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_codes_are_those_of_int_repr_and_not_a_copy(
    dtype: torch.dtype, layout: torch.memory_format
) -> None:
    x = torch.randn(3, 8, 5, 4).contiguous(memory_format=layout)
    whole = torch.quantize_per_tensor(x, 0.05, 3, dtype)
    for tensor in (whole, whole[1:], whole.transpose(1, 2)):
        codes = codes_of(tensor)
        assert torch.equal(codes, tensor.int_repr())
        assert codes.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()


@pytest.mark.parametrize("zero_point", [0, 3])
def test_steps_apart_are_counted_over_pieces(zero_point: int) -> None:
    torch.manual_seed(0)
    size, step = 300_001, 0.25
    codes = torch.randint(0, 256, (size,)).to(torch.uint8)
    found = (codes.float() - zero_point) * step
    apart = torch.tensor([0.0, 0.0, 1.0, -1.0, 2.0, 3.0])[torch.randint(0, 6, (size,))]
    fake = found + apart * step
    fake[7] = math.nan
    x = torch.randn(size)
    signal = float(x.double().square().sum())
    sums, steps = Apart(), InSteps()
    given = Sums(int8=sums, steps=steps)
    add_up(x, fake, codes, (step, zero_point), given, Scratch())
    assert steps.values == sums.values == size
    near = ((fake - found).abs() <= 0.5 * step).sum(), ((fake - found).abs() <= 1.5 * step).sum()
    assert (steps.half, steps.far) == (size - int(near[0]), size - int(near[1]))
    assert sums.signal == pytest.approx(signal, rel=1e-6)
    noise = float((x.double() - found.double()).square().sum())
    assert sums.noise == pytest.approx(noise, rel=1e-5)
