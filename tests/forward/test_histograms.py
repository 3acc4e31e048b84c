"""Histograms on the grid agree with what torch's own fake quant does to the same values."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
import torch.ao.quantization as tq
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qatexplorer.errors import InputError
from qatexplorer.forward.histograms import capture_histograms, grid_histogram
from qatexplorer.forward.preserve import preserved_state


def prepared_net(backend: str = "onednn") -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        tq.QuantStub(),
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.3),
        tq.DeQuantStub(),
    ).train()
    tq.fuse_modules_qat(net, [["1", "2", "3"]], inplace=True)
    net.qconfig = tq.get_default_qat_qconfig(backend)
    tq.prepare_qat(net, inplace=True)
    net(torch.randn(4, 3, 8, 8))
    return net


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    spread=st.floats(0.01, 40.0),
    scale=st.floats(0.001, 2.0),
    zero_point=st.integers(0, 255),
    grid=st.sampled_from([(0, 255), (0, 127), (-128, 127), (-127, 127), (-8, 7), (0, 3)]),
    max_bins=st.integers(1, 400),
)
def test_counts_agree_with_fake_quantize(
    seed: int,
    spread: float,
    scale: float,
    zero_point: int,
    grid: tuple[int, int],
    max_bins: int,
) -> None:
    quant_min, quant_max = grid
    zero_point = min(max(zero_point, quant_min), quant_max)
    x = torch.randn(997, generator=torch.Generator().manual_seed(seed)) * spread
    hist = grid_histogram(x, scale, zero_point, quant_min, quant_max, max_bins=max_bins)
    quantized, mask = torch.ops.aten.fake_quantize_per_tensor_affine_cachemask(
        x, scale, zero_point, quant_min, quant_max
    )
    codes = (quantized / scale + zero_point).round()
    assert hist.clipped_low + hist.clipped_high == int((~mask).sum())
    assert hist.codes_used == codes.unique().numel()
    assert sum(hist.counts) == hist.sampled == hist.total == 997
    assert list(hist.edges) == sorted(set(hist.edges))
    assert len(hist.edges) == len(hist.counts) + 1
    widths = {b - a for a, b in zip(hist.edges[1:-1], hist.edges[2:-1], strict=False)}
    assert len(widths) <= 1
    assert all(width == int(width) >= 1 for width in widths)
    inside = [
        n
        for n, a, b in zip(hist.counts, hist.edges, hist.edges[1:], strict=False)
        if b > quant_min and a < quant_max
    ]
    if (quant_max - quant_min + 1) % max(widths, default=1) == 0 and widths:
        assert sum(inside) == int(mask.sum())


def test_bins_hold_the_code_they_are_centred_on() -> None:
    x = torch.tensor([0.0, 0.1, 0.1, 0.2, -0.3, 0.9])
    hist = grid_histogram(x, 0.1, 2, 0, 7)
    table = dict(zip(hist.edges, hist.counts, strict=False))
    assert table[1.5] == 1
    assert table[2.5] == 2
    assert table[3.5] == 1
    assert (hist.clipped_low, hist.clipped_high) == (1, 1)
    assert hist.zeros == 1
    assert hist.clipped_low_share == pytest.approx(1 / 6)
    assert hist.to_real(2) == 0.0


def test_far_tail_is_one_bin_that_reaches_the_extreme() -> None:
    hist = grid_histogram(torch.tensor([0.0, 1.0, 1e6]), 0.1, 0, -128, 127)
    assert hist.counts[-1] == 1
    assert hist.clipped_high == 1
    assert hist.edges[-1] == pytest.approx(1e7 + 0.5)
    assert len(hist.counts) <= 320
    assert hist.max == 1e6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_dtype(dtype: torch.dtype) -> None:
    x = torch.linspace(-1, 1, 10_001).to(dtype)
    hist = grid_histogram(x, 0.01, 0, -128, 127)
    assert sum(hist.counts) == 10_001  # bfloat16 counts would stop at 256
    assert hist.min == -1.0
    assert hist.max == 1.0


@pytest.mark.parametrize("shape", [(0,), (3, 0, 2)])
def test_empty_tensor(shape: tuple[int, ...]) -> None:
    hist = grid_histogram(torch.empty(shape), 0.1, 0, 0, 255)
    assert hist.counts == ()
    assert hist.total == 0
    assert math.isnan(hist.min)
    assert hist.clipped_low_share == 0.0
    assert hist.note == "The tensor is empty."


def test_scalar_and_integer_tensor() -> None:
    assert grid_histogram(torch.tensor(3.0), 1.0, 0, 0, 255).counts == (1,)
    assert sum(grid_histogram(torch.arange(5), 1.0, 0, 0, 255).counts) == 5


def test_nonfinite_values_are_counted_apart() -> None:
    x = torch.tensor([math.nan, math.inf, -math.inf, 1.0, 2.0])
    hist = grid_histogram(x, 1.0, 0, -128, 127)
    assert hist.nonfinite == 3
    assert sum(hist.counts) == 2
    assert (hist.min, hist.max) == (1.0, 2.0)
    assert "NaN" in hist.note
    assert grid_histogram(x[:3], 1.0, 0, -128, 127).counts == ()


@pytest.mark.parametrize("scale", [0.0, math.nan, math.inf, -1.0, 1e-45])
def test_scale_without_a_grid(scale: float) -> None:
    hist = grid_histogram(torch.randn(50), scale, 0, 0, 255)
    assert hist.counts == ()
    assert hist.off_grid == 50
    assert "scale" in hist.note


def test_one_bad_channel_leaves_the_others() -> None:
    x = torch.randn(4, 10)
    hist = grid_histogram(
        x, torch.tensor([0.1, 0.0, math.nan, 0.1]), torch.zeros(4), -128, 127, ch_axis=0
    )
    assert hist.off_grid == 20
    assert sum(hist.counts) == 20
    assert hist.scale is None


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_per_channel_agrees_with_torch_in_any_layout(axis: int) -> None:
    x = torch.randn(6, 5, 4, 4).contiguous(memory_format=torch.channels_last)
    channels = x.shape[axis]
    scale = torch.rand(channels) * 0.02 + 0.005
    zero_point = torch.randint(-3, 3, (channels,), dtype=torch.int32)
    hist = grid_histogram(x, scale, zero_point, -128, 127, ch_axis=axis)
    _, mask = torch.ops.aten.fake_quantize_per_channel_affine_cachemask(
        x, scale, zero_point, axis % 4, -128, 127
    )
    assert hist.clipped_low + hist.clipped_high == int((~mask).sum())


def test_sample_sees_every_channel() -> None:
    channels = 16
    x = torch.arange(channels).repeat(64, 64, 1).permute(2, 0, 1).float()
    scale = torch.ones(channels)
    hist = grid_histogram(x, scale, torch.zeros(channels), 0, 255, ch_axis=0, max_samples=2_000)
    assert 1_000 < hist.sampled <= 2_000
    assert hist.total == x.numel()
    seen = [c for c in hist.counts if c]
    assert len(seen) == channels
    assert max(seen) - min(seen) <= 2


def test_axis_that_does_not_fit() -> None:
    with pytest.raises(InputError, match="do not fit"):
        grid_histogram(torch.randn(4, 3), torch.ones(5), torch.zeros(5), 0, 255, ch_axis=0)
    with pytest.raises(InputError, match="above"):
        grid_histogram(torch.randn(4), 1.0, 0, 5, 0)


def test_large_grid() -> None:
    hist = grid_histogram(torch.randn(1000), 1e-7, 0, -(2**31), 2**31 - 1)
    assert sum(hist.counts) == 1000
    assert hist.clipped_low == hist.clipped_high == 0
    assert hist.codes_used > 900


def test_neither_tensor_nor_random_state_is_touched() -> None:
    x = torch.randn(100, requires_grad=True)
    before, state = x.detach().clone(), torch.get_rng_state()
    grid_histogram(x, 0.1, 0, -128, 127, max_samples=10)
    assert torch.equal(x, before)
    assert x.grad is None
    assert torch.equal(state, torch.get_rng_state())


def test_capture_sees_the_weight_scaled_by_the_batch_norm() -> None:
    net = prepared_net()
    conv = net[1]
    with torch.no_grad():
        conv.bn.weight.fill_(3.0)
    scaled = conv.weight * (3.0 / torch.sqrt(conv.bn.running_var + conv.bn.eps)).reshape(
        -1, 1, 1, 1
    )
    hist = capture_histograms(net, torch.randn(2, 3, 8, 8), ["1.weight_fake_quant"])
    got = hist["1.weight_fake_quant"]
    assert got.max == pytest.approx(float(scaled.max()), rel=1e-5)
    assert got.max != pytest.approx(float(conv.weight.max()), rel=1e-2)
    assert got.total == conv.weight.numel()
    assert got.scale is None


def exact_state(net: nn.Module) -> dict[str, torch.Tensor]:
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state |= {f"buffer:{name}": b.clone() for name, b in net.named_buffers()}
    state["rng"] = torch.get_rng_state()
    state["numpy"] = torch.from_numpy(np.random.get_state()[1].astype(np.int64))
    state["python"] = torch.tensor(random.getstate()[1])
    return state


def assert_same(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
    assert list(before) == list(after)
    for name, tensor in before.items():
        assert tensor.shape == after[name].shape, name
        assert torch.equal(tensor, after[name]), name


@pytest.mark.parametrize("fails", [False, True])
def test_capture_puts_everything_back(fails: bool) -> None:
    net = prepared_net()
    net[5].eval()
    if fails:

        def boom(*_: object) -> None:
            raise RuntimeError("boom")

        net[4].register_forward_hook(boom)
    before = exact_state(net)
    hooks = {n: (len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in net.named_modules()}
    training = {n: m.training for n, m in net.named_modules()}
    paths = ["0.activation_post_process", "1.activation_post_process"]
    batch = torch.full((2, 3, 8, 8), 9.0)
    random.random()
    before = exact_state(net)
    if fails:
        with pytest.raises(RuntimeError, match="boom"):
            capture_histograms(net, batch, paths)
    else:
        hist = capture_histograms(net, batch, paths)
        assert set(hist) == set(paths)
        assert hist[paths[0]].clipped_high == batch.numel()  # observers were off: range not moved
    assert_same(before, exact_state(net))
    assert hooks == {
        n: (len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in net.named_modules()
    }
    assert training == {n: m.training for n, m in net.named_modules()}


def test_preserved_state_of_a_model_that_never_ran() -> None:
    fresh = nn.Sequential(tq.QuantStub(), nn.Conv2d(3, 8, 3)).train()
    fresh.qconfig = tq.get_default_qat_qconfig("onednn")
    tq.prepare_qat(fresh, inplace=True)
    before = exact_state(fresh)
    with preserved_state(fresh):
        fresh(torch.randn(1, 3, 8, 8))  # the fused kernel grows scale from 1 to 8 entries
        assert fresh[1].weight_fake_quant.scale.numel() == 8
    assert_same(before, exact_state(fresh))


def test_preserved_state_restores_hooks_attributes_and_replaced_buffers() -> None:
    net = prepared_net()
    handle = net[1].register_forward_hook(lambda *_: None)
    net.steps = 3
    before, buffer = exact_state(net), net[1].bn.running_mean
    order = list(net[1]._forward_hooks)
    with preserved_state(net):
        net.eval()
        net.steps = 4
        handle.remove()
        net[0].register_forward_pre_hook(lambda *_: None)
        net[1].bn.running_mean = torch.zeros(8)
        random.random(), np.random.rand(), torch.rand(1)
    assert net.steps == 3
    assert net.training
    assert net[1].bn.running_mean is buffer
    assert list(net[1]._forward_hooks) == order
    assert not net[0]._forward_pre_hooks
    assert_same(before, exact_state(net))


def test_preserved_state_keeps_a_users_autograd_graph_usable() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    loss = net(torch.randn(2, 3, 8, 8)).sum()
    with preserved_state(net), torch.no_grad():
        net(torch.randn(2, 3, 8, 8))
    loss.backward()  # fails if running_mean had been written to
    assert net[0].weight.grad is not None


def test_capture_of_an_unknown_path() -> None:
    with pytest.raises(InputError, match="no fake quant at 'nope'"):
        capture_histograms(prepared_net(), torch.randn(1, 3, 8, 8), ["nope"])


def test_fake_quant_that_runs_twice_gets_one_histogram_of_both_calls() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fq = tq.get_default_qat_qconfig("onednn").activation()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fq(x[:1]) + self.fq(x[1:])

    net = Twice()
    net(torch.ones(2, 3))
    assert capture_histograms(net, torch.ones(2, 3), ["fq"])["fq"].total == 6


def test_bare_observer() -> None:
    net = nn.Sequential(tq.MinMaxObserver(dtype=torch.quint8))
    net(torch.linspace(0, 1, 20))
    before = exact_state(net)
    hist = capture_histograms(net, torch.linspace(0, 2, 20), ["0"])["0"]
    assert hist.clipped_high == 10
    assert_same(before, exact_state(net))
