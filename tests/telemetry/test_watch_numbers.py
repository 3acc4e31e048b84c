"""What telemetry counts is what is there: against slow and obvious computations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import (
    FakeQuantize,
    FusedMovingAvgObsFakeQuantize,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    PerChannelMinMaxObserver,
    default_embedding_fake_quant,
    default_fixed_qparams_range_0to1_fake_quant,
    default_fused_per_channel_wt_fake_quant,
)

from qatexplorer.errors import InputError
from qatexplorer.forward.histograms import grid_histogram
from qatexplorer.runs.samples import METRICS, Bins
from qatexplorer.telemetry import (
    Telemetry,
    Watch,
    collect,
    dkw_bound,
    gradients,
    oscillation,
    watch,
)
from qatexplorer.telemetry.oscillation import FlipTracker
from tests.support.training_models import batches, one_thread, prepared  # noqa: F401


def lone(fake_quant: nn.Module, name: str = "out") -> nn.ModuleDict:
    return nn.ModuleDict({name: fake_quant})


def sampled_by(
    fake_quant: nn.Module, *tensors: Tensor, name: str = "out", **more: Any
) -> Telemetry:
    """Telemetry of one fake quant that is shown ``tensors``, one per step."""
    with watch(lone(fake_quant, name), every=1, **more) as w:
        for x in tensors:
            fake_quant(x)
            w.step()
    return w.telemetry


def affine(dtype: torch.dtype = torch.quint8, **settings: Any) -> FakeQuantize:
    return FakeQuantize(MovingAverageMinMaxObserver, 0, 255, dtype=dtype, **settings)


MAKERS: dict[str, Callable[[], nn.Module]] = {
    "affine": affine,
    "fused": lambda: FusedMovingAvgObsFakeQuantize(dtype=torch.quint8, reduce_range=False),
    "4 bits": lambda: FakeQuantize(MinMaxObserver, -8, 7, dtype=torch.qint8),
    "per channel": lambda: FakeQuantize(
        PerChannelMinMaxObserver, -128, 127, dtype=torch.qint8, qscheme=torch.per_channel_symmetric
    ),
    "fused per channel": default_fused_per_channel_wt_fake_quant,
    "float zero point": default_embedding_fake_quant,
    "fixed": default_fixed_qparams_range_0to1_fake_quant,
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("layout", ["plain", "channels last", "transposed"])
def test_counts_are_those_of_the_slow_histogram(name: str, layout: str) -> None:
    fake_quant = MAKERS[name]()
    x = torch.randn(6, 5, 4, 3, generator=torch.Generator().manual_seed(3))
    if name == "float zero point":
        x = x[:, :, 0, 0]
    if layout == "channels last" and x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "transposed" and name != "float zero point":
        x = x.transpose(1, 3)
    # The grid is copied in the forward at first, and read at the end of the step later on.
    telemetry = sampled_by(fake_quant, x, 0.7 * x, 1.7 * x)
    site: Any = fake_quant
    axis = int(site.ch_axis) if site.is_per_channel else None
    slow = grid_histogram(
        1.7 * x, site.scale, site.zero_point, site.quant_min, site.quant_max, axis, 600
    )
    fast = telemetry.histogram("out")
    assert fast is not None
    assert fast.sampled == fast.total == x.numel()
    assert codes_of(fast) == codes_of(slow)
    for field in ("clipped_low", "clipped_high", "zeros", "codes_used", "nonfinite", "off_grid"):
        assert getattr(fast, field) == getattr(slow, field), field
    y = fake_quant(1.7 * x) if name == "fixed" else frozen_output(fake_quant, 1.7 * x)
    noise = (y - 1.7 * x).double().square().sum()
    wanted = 10 * math.log10((1.7 * x).double().square().sum() / noise)
    sample = telemetry.sample("out")
    assert sample is not None
    assert sample.sqnr_db == pytest.approx(wanted, abs=0.01)


def frozen_output(fake_quant: nn.Module, x: Tensor) -> Tensor:
    site: Any = fake_quant
    site.disable_observer()
    with torch.no_grad():
        return site(x)  # type: ignore[no-any-return]


def codes_of(histogram: Any) -> dict[float, int]:
    """Count by the middle of the bin, outer bins left out: their edges are the extremes."""
    inner = range(1, len(histogram.counts) - 1)
    found = {(histogram.edges[i] + histogram.edges[i + 1]) / 2: histogram.counts[i] for i in inner}
    return {code: n for code, n in found.items() if n and -130 < code < 260}


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint8, torch.int32],
    ids=str,
)
def test_every_dtype_is_looked_at(dtype: torch.dtype) -> None:
    fake_quant = affine()
    fake_quant(torch.linspace(0, 200, 50))
    fake_quant.disable_observer()
    x = torch.arange(0, 100).to(dtype).reshape(4, 25)
    with watch(lone(fake_quant), every=1) as w:
        probe = w._probes[0]
        # Torch's own kernel refuses some of these; what reaches the hook is looked at.
        probe._after(fake_quant, (x,), x)
        assert not probe.failed
        w.step()
    histogram = w.telemetry.histogram("out")
    assert histogram is not None
    assert histogram.total == 100
    assert histogram.max == pytest.approx(99.0)


def test_quantized_tensors_and_empty_ones() -> None:
    fake_quant = affine()
    fake_quant(torch.linspace(-1, 1, 50))
    for x in (
        torch.quantize_per_tensor(torch.linspace(-1, 1, 40), 0.01, 0, torch.qint8),
        torch.empty(0, 3),
    ):
        with watch(lone(fake_quant), every=1) as w:
            w._probes[0]._after(fake_quant, (x,), x)
            assert not w._probes[0].failed
            w.step()
        sample = w.telemetry.sample("out")
        assert sample is not None
        assert sample.total == 40 if x.numel() else math.isnan(sample.total)


def test_nan_infinity_and_a_scale_of_zero_are_counted_apart() -> None:
    fake_quant = affine()
    fake_quant(torch.linspace(-1, 1, 50))
    fake_quant.disable_observer()
    x = torch.linspace(-2, 2, 96)
    x = torch.cat([x, torch.tensor([math.nan, math.inf, -math.inf, 0.0])])
    histogram = sampled_by(fake_quant, x).histogram("out")
    assert histogram is not None
    assert (histogram.nonfinite, histogram.zeros, sum(histogram.counts)) == (3, 1, 97)
    assert (histogram.min, histogram.max) == (-2.0, 2.0)
    fake_quant.scale.zero_()
    fake_quant.disable_fake_quant()
    histogram = sampled_by(fake_quant, x).histogram("out")
    assert histogram is not None
    assert (histogram.nonfinite, histogram.off_grid, sum(histogram.counts)) == (3, 97, 0)


def test_what_runs_on_a_gpu_counts_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """There nothing is asked of the values, and torch sums per site instead of NumPy."""

    def run() -> list[tuple[float, ...]]:
        model = prepared()
        with watch(model, every=1, gradients=True, max_samples=200) as w:
            for x, _ in batches(3):
                model(x).sum().backward()
                w.step()
        return [tuple(row.values()) for row in w.telemetry.rows()]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = run()

        def by_torch(data: Tensor, offsets: Tensor, how: str = "sum") -> Tensor:
            return torch.segment_reduce(data, how, offsets=offsets, unsafe=True)

        for module in (collect, oscillation, gradients):
            monkeypatch.setattr(module, "per_segment", by_torch)
        monkeypatch.setattr(collect.Collector, "_usable", staticmethod(lambda codes: False))
        torch.manual_seed(0)
        other = run()
    assert len(plain) == len(other) > 0
    for one, two in zip(plain, other, strict=True):
        assert one[:6] == two[:6]
        assert one[6:] == pytest.approx(two[6:], rel=1e-4, nan_ok=True)


def test_the_batch_range_is_read_back_from_the_moving_average() -> None:
    for make in (affine, MAKERS["fused"], default_fused_per_channel_wt_fake_quant):
        fake_quant = make()
        tensors = [torch.randn(8, 400) * factor for factor in (1.0, 3.0, 0.2, 5.0)]
        with watch(lone(fake_quant), every=1, max_samples=64) as w:
            for x in tensors:
                before = w.telemetry.sample("out")
                fake_quant(x)
                w.step()
                sample = w.telemetry.sample("out")
                assert sample is not None
                # 64 of 3,200 values cannot tell the extremes; the fused kernel has seen them all.
                assert sample.sampled == 64
                assert sample.batch_max == pytest.approx(float(x.max()), rel=1e-4)
                assert sample.batch_min == pytest.approx(float(x.min()), rel=1e-4)
                if before is not None and fake_quant is not default_fused_per_channel_wt_fake_quant:
                    assert sample.drift > 0


def test_drift_says_how_far_the_batch_is_from_the_average() -> None:
    fake_quant = affine()
    x = torch.linspace(-1, 1, 101)
    telemetry = sampled_by(fake_quant, x, x, 2 * x)
    assert telemetry.series("out", "drift")[1] == [pytest.approx(0, abs=1e-4), pytest.approx(0.5)]
    fake_quant.disable_observer()
    telemetry = sampled_by(fake_quant, 3 * x)
    width = float(fake_quant.activation_post_process.max_val) * 2
    assert telemetry.series("out", "drift")[1] == [pytest.approx((6 - width) / 2 / width, rel=1e-3)]


def test_scale_range_and_zero_point_per_channel() -> None:
    fake_quant = default_fused_per_channel_wt_fake_quant()
    x = torch.randn(5, 30)
    telemetry = sampled_by(fake_quant, x, 2 * x, name="weight_fake_quant")
    path = "weight_fake_quant"
    channel = telemetry.channels(path)[-1][1]
    site: Any = fake_quant
    assert torch.equal(torch.tensor(channel.scale), site.scale)
    assert torch.equal(torch.tensor(channel.max_val), site.activation_post_process.max_val)
    sample = telemetry.sample(path)
    assert sample is not None
    assert sample.scale_median == pytest.approx(float(site.scale.median()))
    assert sample.scale_max == pytest.approx(float(site.scale.max()))
    assert sample.zero_point == 0
    assert telemetry.info(path).ch_axis == 0
    assert telemetry.info(path).kind == "weight"


def test_dead_channels() -> None:
    x = torch.rand(8, 6, 5, 5) + 0.1
    x[:, 2] = 0.0
    x[:, 4] = 0.0
    for layout in (torch.contiguous_format, torch.channels_last):
        sample = sampled_by(affine(), x.contiguous(memory_format=layout)).sample("out")
        assert sample is not None
        assert (sample.dead_channels, sample.channels_seen) == (2, 6)
        assert sample.zero_share == pytest.approx(1 / 3)
    few = sampled_by(affine(), x, max_samples=16).sample("out")
    assert few is not None
    # Two or three values of a channel do not make it dead.
    assert few.dead_channels <= few.channels_seen <= 2


def test_a_weight_that_goes_there_and_back_oscillates_and_one_on_its_way_does_not() -> None:
    tracker = FlipTracker()
    codes = torch.zeros(10)
    shares = []
    for step in range(6):
        codes[0] = step % 2  # there and back
        codes[1] = step  # on its way
        shares.append(tracker.update(codes, [("w", 10, 10)])[:, 0].tolist())
    assert [s[0] for s in shares[1:]] == pytest.approx([0.2] * 5)
    assert [s[1] for s in shares] == pytest.approx([math.nan, 0, 0.1, 0.1, 0.1, 0.1], nan_ok=True)
    for _ in range(8):
        last = tracker.update(codes, [("w", 10, 10)])[:, 0].tolist()
    assert last == pytest.approx([0.0, 0.0])


def test_the_same_weights_are_followed_when_fewer_or_more_are_looked_at() -> None:
    fake_quant = default_fused_per_channel_wt_fake_quant()
    w = Watch(lone(fake_quant, "weight_fake_quant"), every=1, max_samples=4000)
    x = torch.randn(4, 1000)
    with w:
        for count in (4000, 512, 128, 512):
            w._controller.samples = w._probes[0].wanted = count
            fake_quant(x)
            w.step()
    flipped = [sample.flipped for sample in w.telemetry.samples("weight_fake_quant")]
    assert math.isnan(flipped[0])
    # The weights stand still, and so does the scale: had others been compared, codes would differ.
    assert flipped[1:] == [0.0, 0.0, 0.0]


def test_gradients_on_request() -> None:
    fake_quant = affine()
    x = torch.linspace(-1, 1, 64).requires_grad_()
    with watch(lone(fake_quant), every=1, gradients=True) as w:
        for _ in range(2):
            (fake_quant(x) * 2.0 ** torch.arange(-32, 32)).sum().backward()
            w.step()
    gradient = w.telemetry.gradients("out")[-1]
    assert sum(gradient.counts) == 64
    assert {gradient.first + i for i, n in enumerate(gradient.counts) if n} == set(range(-32, 32))
    sample = w.telemetry.sample("out")
    assert sample is not None
    assert sample.grad_max == 2.0**31
    assert sample.grad_zero_share == 0
    assert math.isnan(sampled_by(affine(), torch.rand(9)).sample("out").grad_rms)  # type: ignore[union-attr]


def test_bins_are_whole_codes_and_the_grid_ends_at_bin_edges() -> None:
    for low, high, wanted in ((0, 255, 256), (-8, 7, 256), (0, 255, 64), (-32768, 32767, 256)):
        bins = Bins.of(low, high, wanted)
        assert (low - bins.start) % bins.width == 0
        assert bins.width % bins.fine == 0
        assert (high - low + 1) % bins.width == 0
    wide = FakeQuantize(MinMaxObserver, -32768, 32767, dtype=torch.qint32)
    x = torch.randn(4000)
    histogram = sampled_by(wide, x).histogram("out")
    assert histogram is not None
    assert sum(histogram.counts) == 4000
    assert len(histogram.counts) <= 512
    assert histogram.clipped_low == histogram.clipped_high == 0


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["normal", "heavy", "periodic", "few codes"])
def test_the_stated_bound_holds_in_99_percent_of_1000_trials(shape: str) -> None:
    generator = torch.Generator().manual_seed(5)
    n = 40_000
    x = torch.randn(n, generator=generator)
    if shape == "heavy":
        x = x / torch.rand(n, generator=generator).clamp(0.01)
    elif shape == "periodic":  # what a strided sample would get wrong
        x = torch.sin(torch.arange(n) * (2 * math.pi / 8))
    elif shape == "few codes":
        x = (x > 1.2).float()
    fake_quant = affine()
    fake_quant(x)
    fake_quant.disable_observer()
    probe = Watch(lone(fake_quant), every=1)._probes[0]
    counter = collect.Collector(256)

    def cumulative(wanted: int) -> Tensor:
        """Cumulative shares at the borders of all bins, of new random positions."""
        probe.taken, probe.wanted, probe.draw._key = False, wanted, None
        probe._take(x)
        assert probe.draw.count == wanted
        counts = counter.count(0, [probe]).counts[0].double()
        return counts.cumsum(0) / counts.sum()

    truth, bound = cumulative(n), dkw_bound(500, n)
    held = sum(float((cumulative(500) - truth).abs().max()) <= bound for _ in range(1000))
    assert 0.05 < bound < 0.1
    assert held >= 990
    # The bound is no wider than it has to be: half of it would not hold.
    if shape in ("normal", "heavy"):
        half = sum(float((cumulative(500) - truth).abs().max()) <= bound / 2 for _ in range(300))
        assert half < 297


def test_words_of_the_overhead_and_bound() -> None:
    assert dkw_bound(100, 100) == 0
    assert dkw_bound(65_536, 802_816) == pytest.approx(0.0076, abs=1e-4)
    assert dkw_bound(65_536, 802_816, 0.95) == pytest.approx(0.0053, abs=1e-4)
    model = prepared()
    with watch(model, every=2) as w:
        assert w.telemetry.overhead is not None
        assert w.telemetry.overhead.words() == "no sample yet"
        for x, _ in batches(4):
            model(x)
            w.step()
    words = w.telemetry.overhead.words()
    assert "1 step in 2" in words
    assert "1,728 of 1,728 values" in words
    assert "% of step time" in words
    states = {"observer_enabled", "fake_quant_enabled", "bn_frozen"}
    assert set(next(iter(w.telemetry.rows()))) == {"step", "path", "kind", *states, *METRICS}


def test_a_table_has_one_metric_of_all_fake_quants() -> None:
    model = prepared()
    with watch(model, every=1) as w:
        for x, _ in batches(6):
            model(x)
            w.step()
    telemetry = w.telemetry
    steps, table = telemetry.table("clipped_low")
    assert steps == list(telemetry.steps)
    for index, path in enumerate(telemetry.paths):
        _, values = telemetry.series(path, "clipped_low")
        assert [v for v in table[:, index] if not math.isnan(v)] == values
    assert telemetry.table("sqnr_db", most=2)[0] == [2, 5]
    with pytest.raises(InputError, match="no metric 'nope'"):
        telemetry.table("nope")
    step, counts = telemetry.newest_counts()
    assert step == 5
    for index, path in enumerate(telemetry.paths):
        histogram = telemetry.histogram(path)
        assert histogram is not None
        assert counts[index].counts.sum() == sum(histogram.counts)
    empty = Telemetry(telemetry.infos, 320)
    assert empty.newest_counts() == (None, {})
    assert empty.table("sqnr_db")[1].shape == (0, len(telemetry.infos))
