"""Sums over pieces, against the plain expressions they stand for."""

from __future__ import annotations

import math
from collections.abc import Hashable

import pytest
import torch
from torch import nn

from qatexplorer.accuracy.causes import first_sample
from qatexplorer.accuracy.compare import Batch
from qatexplorer.accuracy.int8_results import Int8Results, Looked
from qatexplorer.accuracy.kept import Kept
from qatexplorer.accuracy.matching import Source
from qatexplorer.accuracy.sums import (
    Alone,
    Apart,
    InSteps,
    Known,
    OneGrid,
    Scratch,
    Sums,
    add_up,
    codes_of,
    flat_alike,
)
from qatexplorer.evaluate.pairs import Pair, pairs_of
from qatexplorer.forward.visit import Visit


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


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32, torch.float32])
@pytest.mark.parametrize("shape", [(3, 5, 7, 2), (1, 8, 5, 5), (2, 3, 4, 5, 6), (2, 4, 1, 1)])
def test_forms_of_different_layouts_are_flat_in_one_order(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    last = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    plain = torch.randint(0, 100, shape).to(dtype)
    forms = [plain, plain.contiguous(memory_format=last), plain.transpose(1, 2).contiguous()]
    forms[2] = forms[2].transpose(1, 2)
    forms += [one.repeat_interleave(2, 1)[:, ::2] for one in forms]
    for first in forms:
        order = sorted(range(first.dim()), key=first.stride, reverse=True)
        for flat in flat_alike(first, *forms, None)[:-1]:
            assert flat is not None
            assert torch.equal(flat, plain.permute(order).reshape(-1))


def test_a_channels_last_form_is_not_copied_value_by_value() -> None:
    plain = torch.randint(0, 100, (2, 6, 4, 4)).to(torch.uint8)
    other = plain.contiguous(memory_format=torch.channels_last)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        flat_alike(plain, other)
    names = {one.key for one in seen.key_averages()}
    assert "aten::channel_shuffle" in names
    assert "aten::copy_" not in names


@pytest.mark.parametrize("ends", [(0, 255, 3), (-128, 127, 0), (0, 255, 255)])
def test_what_is_cut_off_is_counted_at_both_ends(ends: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    low, high, zero = ends
    x = torch.randn(5_000) * 8
    grid = OneGrid(0.0625, 16.0, zero, low, high)
    found = Alone()
    known: dict[int, Known] = {}
    for _ in range(2):  # the second time with what is known of x
        add_up(x, None, None, None, Sums(alone=found, grid=grid), Scratch(), known)
    exact = x.double()
    codes = (exact / 0.0625).round() + zero
    clipped = exact.clamp((low - zero) * 0.0625, (high - zero) * 0.0625)
    rounded = (codes.clamp(low, high) - zero) * 0.0625
    assert found.clipped == 2 * int(((codes < low) | (codes > high)).sum()) > 0
    assert found.clipping == pytest.approx(2 * float((exact - clipped).square().sum()), rel=1e-5)
    assert found.noise == pytest.approx(2 * float((exact - rounded).square().sum()), rel=1e-5)
    assert found.signal == pytest.approx(2 * float(exact.square().sum()), rel=1e-5)


def test_a_call_with_a_scale_among_its_tensors_is_cut_to_one_sample() -> None:
    x, scale = torch.randn(8, 3, 4, 4), torch.tensor(0.5)
    cut = first_sample(Visit(("add", 0), None, x + 1, args=(x, scale)))
    assert cut.result.shape == (1, 3, 4, 4)
    assert cut.args[0].shape == (1, 3, 4, 4)
    assert torch.equal(cut.args[1], scale)


def test_what_is_known_is_shared_by_places_of_the_same_memory() -> None:
    floats: Kept[Hashable] = Kept()
    x = torch.randn(2, 3)
    for path, tensor in (("a", x), ("b", x), ("view", x.t()), ("copy", x.clone())):
        floats.keep(Source((path, 0)).key, tensor)
    batch = Batch(floats, None)
    known = batch.known_of(Source(("a", 0)))
    known[0] = Known(1.0)
    assert batch.known_of(Source(("b", 0))) is known
    # Other numbers: cut off at 0, in another order, or in other memory.
    others = (Source(("a", 0), relu=True), Source(("view", 0)), Source(("copy", 0)))
    assert all(batch.known_of(one) == {} for one in others)
    assert batch.known_of(Source(("missing", 0))) == {}


def test_a_sample_that_is_kept_is_as_it_was() -> None:
    """Its memory is kept anyhow, so it is no copy, until an operation writes there."""
    results = Int8Results(pairs_of(nn.Identity(), nn.Identity()), (), looked=True)
    x, other = torch.randn(4, 3), torch.randn(4, 3)
    visit = Visit(("a", 0), None, x, args=(other,))
    results.kept.keep(1, x)
    wanted = first_sample(visit)
    with results.kept:
        held = first_sample(visit, results._take)
        x.relu_()
        other.zero_()
    found = results.visit_of(Looked(Pair(("a", 0), ("a", 0)), held, 1.0))
    assert torch.equal(found.result, wanted.result)
    assert torch.equal(found.args[0], wanted.args[0])
    found.result.zero_()  # whoever looks at it may write to it
    again = results.visit_of(Looked(Pair(("a", 0), ("a", 0)), held, 1.0))
    assert torch.equal(again.result, wanted.result)


def test_what_is_cut_off_of_values_that_are_no_numbers_is_not_known() -> None:
    found = Alone()
    x = torch.tensor([1.0, math.nan, 100.0])
    add_up(x, None, None, None, Sums(alone=found, grid=OneGrid(0.5, 2.0, 0, -8, 7)), Scratch())
    assert math.isnan(found.clipping)
    assert found.share(found.clipping) is None
    assert found.clipped == 1
