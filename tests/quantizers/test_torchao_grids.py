"""Fake quants of torchao's QAT: recognised, read, switched and sampled as those of torch are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qatexplorer as qx
from qatexplorer.forward.noise import noise_of, rounded_to, sqnr
from qatexplorer.forward.preserve import preserved_state
from qatexplorer.forward.sampling import histograms_of
from qatexplorer.quantizers.facts import (
    TORCHAO_QAT,
    Flags,
    fake_quants,
    fake_quants_off,
    fake_quants_on,
    family_of,
    find_quantizers,
    flags_of,
    freeze_observers,
    has_codes,
    has_grid,
    kinds_of,
    never_observed,
    observers_paused,
    on_its_grid,
    quant_range,
    seen_data,
)
from qatexplorer.quantizers.torchao_grids import blocks_of, rounded_by, scheme_of
from qatexplorer.snapshot.sites import find_sites

pytest.importorskip("torchao")
from torchao.quantization import PerRow, PerTensor
from torchao.quantization.qat import (
    FakeQuantizedEmbedding,
    FakeQuantizedLinear,
    Float8FakeQuantizeConfig,
    IntxFakeQuantizeConfig,
)
from torchao.quantization.qat.fake_quantize_config import Int4WeightFakeQuantizeConfig
from torchao.quantization.qat.fake_quantizer import FakeQuantizerBase

INT4: Any = torch.int4  # type: ignore[attr-defined]
UINT4: Any = torch.uint4  # type: ignore[attr-defined]
X = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))

CONFIGS: dict[str, tuple[Any, int, tuple[int, int], str]] = {
    "groups": (IntxFakeQuantizeConfig(INT4, group_size=8), 8, (-8, 7), "group"),
    "groups, affine": (
        IntxFakeQuantizeConfig(UINT4, group_size=16, is_symmetric=False),
        16,
        (0, 15),
        "group",
    ),
    "rows": (IntxFakeQuantizeConfig(torch.int8, "per_channel"), 32, (-128, 127), "row"),
    "tokens": (
        IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False),
        32,
        (-128, 127),
        "token",
    ),
    "int4 for bfloat16": (
        Int4WeightFakeQuantizeConfig(16, torch.bfloat16),
        16,
        (-8, 7),
        "group",
    ),
    "int4 for float8": (Int4WeightFakeQuantizeConfig(16), 16, (-8, 7), "group"),
}
FLOAT8 = {
    "float8 rows": (Float8FakeQuantizeConfig(granularity=PerRow()), "row"),
    "float8": (Float8FakeQuantizeConfig(granularity=PerTensor()), "tensor"),
}


def layer() -> Any:
    """Inputs rounded to int8, weights to int4 in groups of 8."""
    torch.manual_seed(0)
    activation = IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False)
    return FakeQuantizedLinear(32, 4, True, activation, IntxFakeQuantizeConfig(INT4, group_size=8))


@pytest.mark.parametrize(("config", "size", "codes", "blocks"), CONFIGS.values(), ids=CONFIGS)
def test_the_grid_is_the_one_that_torchao_rounds_to(
    config: Any, size: int, codes: tuple[int, int], blocks: str
) -> None:
    quantizer = FakeQuantizerBase.from_config(config)
    assert family_of(quantizer) is TORCHAO_QAT
    assert has_codes(quantizer)
    assert not has_grid(quantizer)
    assert quant_range(quantizer) == codes
    assert scheme_of(quantizer).blocks == blocks
    expected = quantizer(X)
    quantizer.enabled = False  # the grid is there whether it rounds or not
    found = on_its_grid(quantizer, X)
    assert found is not None
    table, grid = found
    assert table.shape == (X.numel() // size, size)
    assert grid.scale.shape == (len(table),)
    on_grid = rounded_to(table, grid).reshape(X.shape)
    # torch's own operation multiplies by the inverse of the scale: at a border the next code.
    step = grid.scale.repeat_interleave(size).reshape(X.shape)
    off = (on_grid - expected).abs() / step
    assert float((off < 1e-3).float().mean()) >= 0.9
    assert float(off.max()) < 1.01
    assert torch.equal(rounded_by(quantizer, X), expected)
    assert quantizer.enabled is False


@pytest.mark.parametrize(("config", "blocks"), FLOAT8.values(), ids=FLOAT8)
def test_float8_has_no_codes_and_is_told_from_the_rest(config: Any, blocks: str) -> None:
    quantizer = FakeQuantizerBase.from_config(config)
    assert not has_codes(quantizer)
    assert blocks_of(quantizer, X) is None
    assert scheme_of(quantizer).blocks == blocks
    assert scheme_of(quantizer).dtype == "torch.float8_e4m3fn"
    assert seen_data(quantizer) == "dynamic"


def test_what_it_is_and_whose() -> None:
    model = nn.Sequential(layer(), FakeQuantizedEmbedding(5, 16, weight_config=CONFIGS["rows"][0]))
    assert set(find_quantizers(model)) == set(fake_quants(model))
    assert kinds_of(model) == {
        "0.activation_fake_quantizer": "input",
        "0.weight_fake_quantizer": "weight",
        "1.weight_fake_quantizer": "weight",
    }
    assert not never_observed(model)
    sites = {
        site.path: site
        for site in find_sites(model, stage="prepare", call="", earlier={}, probed=None)
    }
    weight = sites["0.weight_fake_quantizer"]
    assert weight.owner_type == "FakeQuantizedLinear"
    assert (weight.dtype, weight.blocks, weight.block_size) == ("torch.int4", "group", 8)
    assert weight.tensor_shape == (4, 32)
    assert len(weight.scale) == 16
    low = (model[0].weight.abs().reshape(-1, 8).amax(1) / 7.5).tolist()
    assert weight.scale == pytest.approx(low, rel=0.15)
    assert sites["1.weight_fake_quantizer"].owner_type == "FakeQuantizedEmbedding"
    assert sites["0.activation_fake_quantizer"].scale == ()  # it comes and goes with its tensor


def test_switched_with_the_others_and_no_other() -> None:
    model = nn.Sequential(layer(), layer())
    torch_own = torch.ao.quantization.FakeQuantize()
    x = torch.randn(3, 32)
    rounded = model[0](x)
    fake_quants_off(model)
    assert {flags_of(m) for m in fake_quants(model).values()} == {Flags(False, False)}
    assert torch.equal(model[0](x), nn.functional.linear(x, model[0].weight, model[0].bias))
    fake_quants_on(model)
    assert torch.equal(model[0](x), rounded)
    freeze_observers(model)  # there is none: it goes on rounding
    with observers_paused(model):
        assert torch.equal(model[0](x), rounded)
    assert flags_of(torch_own).fake_quant


def test_looking_leaves_a_scale_that_is_found_once_to_training() -> None:
    config = IntxFakeQuantizeConfig(INT4, group_size=8, is_dynamic=False)
    model = nn.Sequential(FakeQuantizedLinear(32, 4, weight_config=config))
    quantizer: Any = model[0].weight_fake_quantizer
    assert seen_data(quantizer) == "nothing"
    with preserved_state(model), torch.no_grad():
        model(X)
    assert blocks_of(quantizer, model[0].weight) is not None
    histograms_of(model, X)
    assert quantizer.scale is None
    model(X)
    assert seen_data(quantizer) == "all"
    kept = quantizer.scale.clone()
    with torch.no_grad():
        model[0].weight.mul_(2)
    found = blocks_of(quantizer, model[0].weight)
    assert found is not None
    assert torch.equal(found.scale, kept.flatten())


def test_noise_and_histograms_are_those_of_the_groups() -> None:
    model = nn.Sequential(layer())
    noise = noise_of(model, X)
    own: Any = model[0]
    assert noise["0.weight_fake_quantizer"] == pytest.approx(
        sqnr(own.weight.detach(), own.weight_fake_quantizer(own.weight).detach())
    )
    found = histograms_of(model, X)
    weight = found["0.weight_fake_quantizer"]
    assert (weight.quant_min, weight.quant_max, weight.total) == (-8, 7, 128)
    assert weight.scale is None  # each group has its own
    assert found["0.activation_fake_quantizer"].total == X.numel()


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = layer(), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(torch.relu(self.a(x)))
        return out


def test_a_watch_takes_a_scale_a_group_when_it_samples() -> None:
    model = Two()
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    with qx.watch(model, every=1) as watch:
        for step in range(4):
            model.a.weight_fake_quantizer.enabled = step != 2
            loss = model(X).square().sum()
            optimizer.zero_grad()
            loss.backward()
            before = model.a.weight.detach().clone()
            optimizer.step()
            watch.step()
    telemetry = watch.telemetry
    samples = telemetry.samples("a.weight_fake_quantizer")
    assert [s.step for s in samples] == [0, 1, 2, 3]
    last = samples[-1]
    expected = blocks_of(model.a.weight_fake_quantizer, before)
    assert expected is not None
    assert last.channels is not None
    assert last.channels.scale == pytest.approx(expected.scale.tolist())
    assert last.sampled == 128
    rounded = rounded_by(model.a.weight_fake_quantizer, before)
    assert last.sqnr_db == pytest.approx(sqnr(before, rounded), abs=0.3)
    assert [s.fake_quant_enabled for s in samples] == [True, True, False, True]
    assert not any(c.mixture for c in telemetry.states("a.weight_fake_quantizer"))
    tokens = telemetry.samples("a.activation_fake_quantizer")[-1]
    assert tokens.channels is not None
    assert len(tokens.channels.scale) == len(X)


def test_a_watch_changes_nothing() -> None:
    losses = []
    for watching in (False, True):
        torch.manual_seed(0)
        model = Two()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        watch = qx.watch(model, every=1) if watching else None
        for _ in range(3):
            loss = model(X).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if watch is not None:
                watch.step()
        if watch is not None:
            watch.close()
    assert losses[:3] == losses[3:]


def test_a_watch_says_why_it_counts_no_float8() -> None:
    config = FLOAT8["float8 rows"][0]
    model = nn.Sequential(FakeQuantizedLinear(32, 4, False, config, config))
    with qx.watch(model, every=1) as watch:
        for _ in range(2):
            model(X).sum().backward()
            watch.step()
    unseen = {info.unseen for info in watch.telemetry.infos}
    assert len(unseen) == 1
    assert "rounds to float8_e4m3fn" in unseen.pop()
