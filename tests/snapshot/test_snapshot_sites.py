"""Fake quant sites against a count that knows nothing of our probe."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn
from torch.ao.quantization import (
    FakeQuantize,
    FakeQuantizeBase,
    MovingAverageMinMaxObserver,
    QConfig,
    default_per_channel_weight_fake_quant,
    get_default_qat_qconfig,
    prepare,
    prepare_qat,
)
from torch.ao.quantization.quantize import _observer_forward_hook

import qatexplorer as qx
from qatexplorer.forward.record import probe
from qatexplorer.snapshot.records import FakeQuantSite, Snapshot
from qatexplorer.snapshot.take import take_snapshot
from tests.support.models import (
    SMALL,
    ZOO,
    Case,
    ConvBnRelu,
    Residual,
    Tied,
    TwoNames,
    Unused,
    image,
)


def walk(model: nn.Module, x: torch.Tensor, stage: str = "insert", **settings: Any) -> qx.Session:
    session = qx.Session(model.train(), (x,), **settings)
    session.goto(stage)
    return session


def count_calls(model: nn.Module, x: torch.Tensor) -> Counter[str]:
    """Runs of each fake quant in one forward, by one plain forward hook each."""
    calls: Counter[str] = Counter()
    handles = [
        module.register_forward_hook(lambda *_, path=path: calls.update([path]))
        for path, module in model.named_modules()
        if isinstance(module, FakeQuantizeBase)
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return calls


def by_hook(model: nn.Module, site: FakeQuantSite) -> bool:
    owner = model.get_submodule(site.owner)
    return site.kind != "weight" and any(
        hook is _observer_forward_hook for hook in owner._forward_hooks.values()
    )


@pytest.mark.parametrize("case", [*SMALL, *ZOO], ids=lambda c: c.name)
def test_every_fake_quant_with_its_calls_and_mechanism(case: Case) -> None:
    model, x = case()
    session = walk(model, x)
    prepared = session.model
    calls = count_calls(prepared, x)
    sites = session.snapshot.sites
    expected = {p for p, m in prepared.named_modules() if isinstance(m, FakeQuantizeBase)}
    assert {s.path for s in sites} == expected
    for site in sites:
        assert site.calls_per_forward == calls[site.path], site.path
        if not calls[site.path]:
            assert site.mechanism == "unused"
        else:
            assert site.mechanism == ("hook" if by_hook(prepared, site) else "forward"), site.path
        assert site.owner == site.path.rpartition(".")[0]
        assert site.owner_type == type(prepared.get_submodule(site.owner)).__name__
        assert prepared.state_dict().keys() >= set(site.state_dict_keys)


def test_kinds_and_where_they_come_from() -> None:
    sites = walk(ConvBnRelu(), image()).snapshot.site_by_path
    kinds = {path: (s.kind, s.stage, s.owner_type) for path, s in sites.items()}
    assert kinds == {
        "quant.activation_post_process": ("input", "insert", "QuantStub"),
        "conv1.weight_fake_quant": ("weight", "swap", "ConvBnReLU2d"),
        "conv1.activation_post_process": ("output", "insert", "ConvBnReLU2d"),
        "conv2.weight_fake_quant": ("weight", "swap", "ConvReLU2d"),
        "conv2.activation_post_process": ("output", "insert", "ConvReLU2d"),
        "fc.weight_fake_quant": ("weight", "swap", "Linear"),
        "fc.activation_post_process": ("output", "insert", "Linear"),
    }
    weight = sites["conv1.weight_fake_quant"]
    assert "convert(model, mapping=" in weight.call
    assert "prepare(" in sites["conv1.activation_post_process"].call
    assert weight.mechanism == "forward"
    assert weight.qscheme == "torch.per_channel_symmetric"
    assert weight.ch_axis == 0
    assert weight.dtype == "torch.qint8"
    assert (weight.quant_min, weight.quant_max) == (-128, 127)
    assert weight.tensor_shape == (4, 1, 3, 3)
    assert weight.observer_class == "MovingAveragePerChannelMinMaxObserver"
    # The fused kernel writes the observer's buffers, so its forward never runs.
    assert weight.observer_runs == "fused kernel"
    activation = sites["fc.activation_post_process"]
    assert activation.ch_axis is None
    assert (activation.quant_min, activation.quant_max) == (0, 255)
    assert activation.tensor_shape == (4, 4)


def test_weight_of_conv_bn_is_the_scaled_one() -> None:
    """What the weight fake quant of a fused conv-bn sees is not ``module.weight``."""
    model = ConvBnRelu().train()
    nn.init.constant_(model.bn1.weight, 5.0)
    session = walk(model, image())
    conv = session.model.conv1
    scale = 5.0 / torch.sqrt(conv.bn.running_var + conv.bn.eps)
    expected = (conv.weight * scale.reshape(-1, 1, 1, 1)).detach()
    seen = session.histogram("conv1.weight_fake_quant")
    assert (seen.min, seen.max) == pytest.approx((float(expected.min()), float(expected.max())))
    assert seen.total == expected.numel()


def test_functional_and_fixed_qparams() -> None:
    session = walk(Residual(), image())
    sites = session.snapshot.site_by_path
    add = sites["add.activation_post_process"]
    assert (add.kind, add.mechanism, add.owner_type) == ("output", "forward", "FloatFunctional")
    sigmoid = sites["gate.1.activation_post_process"]
    assert sigmoid.mechanism == "hook"
    assert sigmoid.observer_class == "FixedQParamsObserver"
    assert sigmoid.min_val == sigmoid.max_val == ()
    assert sigmoid.scale == pytest.approx((1 / 256,))
    assert sigmoid.zero_point == (0,)
    histogram = session.histogram("gate.1.activation_post_process")
    assert histogram.total == 4 * 4 * 8 * 8
    assert 0 < histogram.min < histogram.max < 1


def test_what_never_runs() -> None:
    sites = walk(Unused(), torch.randn(4, 6)).snapshot.site_by_path
    spare = {
        s.path: (s.mechanism, s.calls_per_forward) for s in sites.values() if "spare" in s.path
    }
    assert spare == {
        "spare.weight_fake_quant": ("unused", 0),
        "spare.activation_post_process": ("unused", 0),
        "spare_add.activation_post_process": ("unused", 0),
    }
    assert sites["fc.weight_fake_quant"].calls_per_forward == 1
    assert sites["spare.weight_fake_quant"].tensor_shape is None


def test_shared_fake_quant_is_listed_once_with_its_aliases() -> None:
    model = Tied().train()
    model.qconfig = get_default_qat_qconfig("onednn")  # type: ignore[assignment]
    prepared = prepare_qat(model)
    prepared.b.weight_fake_quant = prepared.a.weight_fake_quant
    x = torch.randn(4, 6)
    sites = describe(prepared, x).sites
    shared = [s for s in sites if "weight_fake_quant" in s.path and s.owner in ("a", "b")]
    assert [(s.path, s.aliases, s.calls_per_forward) for s in shared] == [
        ("a.weight_fake_quant", ("b.weight_fake_quant",), 2)
    ]


def test_module_under_two_names_runs_twice_and_the_alias_is_kept_apart() -> None:
    """torch swaps the first name only; the alias keeps the float layer."""
    session = walk(TwoNames(), torch.randn(4, 6))
    snapshot = session.snapshot
    assert snapshot.by_path["first"].qualified_type.startswith("torch.ao.nn.qat")
    assert snapshot.by_path["again"].qualified_type == "torch.nn.modules.linear.Linear"
    first = session.snapshots["float"].by_path
    assert first["first"].identity == first["again"].identity
    assert snapshot.by_path["first"].identity != snapshot.by_path["again"].identity


def describe(model: nn.Module, x: torch.Tensor) -> Snapshot:
    return take_snapshot(
        model, flow="eager", stage="insert", call="", graph=None, probed=probe(model, (x,))
    )


def test_prepare_called_twice_counts_two() -> None:
    model = Tied().train()
    model.qconfig = get_default_qat_qconfig("onednn")  # type: ignore[assignment]
    prepared = prepare(prepare_qat(model))
    site = describe(prepared, torch.randn(4, 6)).site_by_path["a.activation_post_process"]
    assert site.calls_per_forward == 2
    hooks = describe(prepared, torch.randn(4, 6)).by_path["a"].hooks
    assert sum(h.observer for h in hooks) == 2


def test_unfused_fake_quant_runs_its_observer() -> None:
    activation = FakeQuantize.with_args(
        observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=15, dtype=torch.quint8
    )
    qconfig = QConfig(activation=activation, weight=default_per_channel_weight_fake_quant)
    sites = walk(Tied(), torch.randn(4, 6), qconfig=qconfig).snapshot.site_by_path
    site = sites["a.activation_post_process"]
    assert (site.quant_min, site.quant_max) == (0, 15)
    assert site.observer_runs == "module"
    assert site.fake_quant_class == "FakeQuantize"


def test_the_probe_leaves_nothing_behind() -> None:
    model = Residual().train()
    model.qconfig = get_default_qat_qconfig("onednn")  # type: ignore[assignment]
    prepared = prepare_qat(model)
    before = {k: v.clone() for k, v in prepared.state_dict().items()}
    hooks = [dict(m._forward_hooks) for m in prepared.modules()]
    torch.manual_seed(5)
    probe(prepared, (image(),))
    after_probe = torch.get_rng_state()
    torch.manual_seed(5)
    image()
    assert torch.equal(after_probe, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in prepared.state_dict().items())
    assert hooks == [dict(m._forward_hooks) for m in prepared.modules()]
    assert not any(m._forward_pre_hooks for m in prepared.modules())


def test_values_follow_training() -> None:
    x = image()
    session = walk(ConvBnRelu(), x, "train", data=[[(x, torch.zeros(4).long())]] * 2)
    assert session.snapshot.site_by_path["fc.activation_post_process"].min_val == ()
    session.train(epochs=1)
    site = session.snapshot.site_by_path["fc.activation_post_process"]
    live = session.model.fc.activation_post_process
    assert site.scale == (float(live.scale),)
    assert site.zero_point == (int(live.zero_point),)
    assert site.min_val == (float(live.activation_post_process.min_val),)
    weights = session.snapshot.site_by_path["conv2.weight_fake_quant"]
    assert len(weights.scale) == 6
    assert session.snapshots["insert"].site_by_path[site.path].scale == (1.0,)
