"""Double quantization, proved by structure and by numbers that are computed again here."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import (
    disable_observer,
    get_default_qat_qconfig_mapping,
    prepare,
    prepare_qat,
)
from torch.ao.quantization.backend_config import (
    BackendPatternConfig,
    ObservationType,
    get_native_backend_config,
)
from torch.ao.quantization.quantization_mappings import get_default_qat_module_mappings
from torch.ao.quantization.quantize_fx import prepare_qat_fx

import qatexplorer as qx
from qatexplorer.forward.noise import sqnr
from qatexplorer.ledger import Redundancy, ledger_of
from qatexplorer.ledger.measure import bypassed
from tests.support.ledger_models import (
    WAYS,
    Flat,
    OldLinear,
    OwnName,
    TwoLinear,
    eager,
    old_style_fx,
    seen,
)
from tests.support.models import SMALL, Reused, loader


def image() -> Tensor:
    return torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def vector() -> Tensor:
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(1))


def fx_flat(way: str, backend_config: Any = None) -> nn.Module:
    torch.manual_seed(0)
    mapping = get_default_qat_qconfig_mapping("onednn")
    model = prepare_qat_fx(Flat(way).train(), mapping, (image(),), backend_config=backend_config)
    return seen(model, image())


def doubles(model: nn.Module, x: Tensor) -> list[Redundancy]:
    return [found for found in ledger_of(model, x).redundancies if found.kind == "double"]


@pytest.mark.parametrize("way", WAYS)
def test_fx_quantizes_twice_around_what_only_passes_values_on(way: str) -> None:
    (found,) = doubles(fx_flat(way), image())
    names = {"method": "flatten", "module": "flatten", "dropout": "dropout", "index": "getitem"}
    assert [text.split(" ")[0] for text in found.through] == [names[way]]
    assert found.fault
    assert found.first != found.second
    assert "different modules" in found.evidence
    numbers = found.numbers
    assert numbers is not None
    assert numbers.changed > 0
    assert abs(numbers.scale_difference) > 0.05
    rows = ledger_of(fx_flat(way), image()).by_path
    assert found.second in rows[found.first].redundant_with
    assert found.first in rows[found.second].redundant_with


def test_torch_flatten_shares_and_is_no_fault() -> None:
    ledger = ledger_of(fx_flat("function"), image())
    assert {found.kind for found in ledger.redundancies} == {"shared"}
    assert not ledger.faults
    (shared,) = ledger.redundancies
    assert {place.label for place in shared.places} == {
        "output of conv",
        "output of pool",
        next(p.label for p in shared.places if p.key == "op:flatten:0"),
    }


@pytest.mark.parametrize("way", WAYS)
def test_the_fix_for_fx_works(way: str) -> None:
    """What the ledger advises is done here, and the double quantization is gone."""
    (found,) = doubles(fx_flat(way), image())
    if way in ("method", "module"):
        assert "torch.flatten" in found.fix
        assert not doubles(fx_flat("function"), image())
    else:
        assert "OUTPUT_SHARE_OBSERVER_WITH_INPUT" in found.fix
    config = get_native_backend_config()
    flatten = next(c for c in config.configs if c.pattern is torch.flatten)
    config.set_backend_pattern_config(
        BackendPatternConfig(WAYS[way])
        .set_observation_type(ObservationType.OUTPUT_SHARE_OBSERVER_WITH_INPUT)
        .set_dtype_configs(flatten.dtype_configs)
    )
    assert not doubles(fx_flat(way, config), image())


def test_numbers_agree_with_hooks_written_here() -> None:
    model, x = fx_flat("method"), image()
    (found,) = doubles(model, x)
    again = copy.deepcopy(model).eval()
    again.apply(disable_observer)
    second: Any = again.get_submodule(found.second)
    caught: dict[str, Tensor] = {}
    second.register_forward_hook(lambda _m, a, o: caught.update(before=a[0], after=o))
    with torch.no_grad():
        whole = again(x)
        second.fake_quant_enabled.fill_(0)
        without = again(x)
        second.fake_quant_enabled.fill_(1)
        again(x)
    before, after = caught["before"], caught["after"]
    numbers = found.numbers
    assert numbers is not None
    assert numbers.values == before.numel() == 4 * 16
    assert numbers.changed == int((before != after).sum())
    assert numbers.max_steps == pytest.approx(float((before - after).abs().max() / second.scale))
    assert numbers.sqnr_db == pytest.approx(sqnr(before, after))
    assert numbers.output_sqnr_db == pytest.approx(sqnr(without, whole), rel=1e-4)
    assert f"{numbers.changed:,} of {numbers.values:,}" in found.cost


def test_sqnr() -> None:
    signal = torch.ones(10)
    assert sqnr(signal, signal) == math.inf
    assert sqnr(signal, signal * 1.1) == pytest.approx(20.0, abs=1e-4)
    assert math.isnan(sqnr(torch.zeros(3), torch.ones(3)))


def test_prepare_called_twice() -> None:
    x = vector()
    model = prepare(prepare_qat(eager(TwoLinear())))
    ledger = ledger_of(seen(model, x), x)
    twice = {found.second: found for found in ledger.redundancies}
    assert {found.kind for found in twice.values()} == {"twice"}
    assert set(twice) == {f"{m}.activation_post_process" for m in ("fc1", "fc2")} | (
        {"quant.activation_post_process"} & set(twice)
    )
    found = twice["fc1.activation_post_process"]
    assert "registered 2 times" in found.evidence
    assert found.fault
    assert found.numbers is not None
    assert (found.numbers.changed, found.numbers.sqnr_db) == (0, math.inf)
    row = ledger.by_path["fc1.activation_post_process"]
    assert (row.calls_per_forward, row.mechanism) == (2, "hook")
    assert not ledger_of(seen(prepare_qat(eager(TwoLinear())), x), x).redundancies


def test_old_style_module_in_eager_runs_twice() -> None:
    """prepare overwrites the module's own fake quant by name, so the same one runs twice."""
    x = vector()
    mapping = {**get_default_qat_module_mappings(), nn.Linear: OldLinear}
    session = qx.Session(TwoLinear().train(), x, qat_mapping=mapping, fusion=[])
    session.goto("insert")
    seen(session.model, x)
    ledger = session.ledger()
    found = {f.second: f for f in ledger.redundancies}["fc1.activation_post_process"]
    assert (found.kind, found.first) == ("twice", found.second)
    assert "forward of fc1 calls it" in found.evidence
    assert ledger.by_path[found.second].mechanism == "forward + hook"
    assert ledger.by_path[found.second].calls_per_forward == 2
    assert found.numbers is not None
    assert found.numbers.changed == 0


def test_own_fake_quant_under_another_name_is_a_double_in_eager() -> None:
    x = vector()
    mapping = {**get_default_qat_module_mappings(), nn.Linear: OwnName}
    session = qx.Session(TwoLinear().train(), x, qat_mapping=mapping, fusion=[])
    session.goto("insert")
    ledger = session.ledger()
    pairs = {(f.first, f.second): f for f in ledger.redundancies}
    found = pairs["fc1.out_fake_quant", "fc1.activation_post_process"]
    assert (found.kind, found.through) == ("double", ())
    assert found.numbers is not None
    assert found.numbers.observed_for_this  # nothing had been seen yet
    assert set(found.edges) == {"edge:fc1:fc2"}
    assert set(pairs["fc2.out_fake_quant", "fc2.activation_post_process"].edges) <= {
        "edge:fc2:dequant"
    }


def test_old_style_module_in_fx_is_quantized_by_two_modules() -> None:
    x = vector()
    model = old_style_fx(x)
    pairs = {(f.first, f.second): f for f in ledger_of(model, x).redundancies}
    found = next(f for (first, _), f in pairs.items() if first == "fc1.activation_post_process")
    assert found.kind == "double"
    assert found.second.startswith("activation_post_process_")
    assert found.through == ()
    assert "in forward" in found.fix
    assert found.numbers is not None
    assert 0 < abs(found.numbers.scale_difference) < 0.2
    assert found.numbers.changed > 0


def test_a_module_that_runs_twice_shares_its_range() -> None:
    x = image()
    ledger = ledger_of(seen(prepare_qat(eager(Reused())), x), x)
    shared = {f.first: f for f in ledger.redundancies if f.kind == "shared"}
    assert "twice.activation_post_process" in shared
    assert "runs 2 times" in shared["twice.activation_post_process"].evidence
    assert not any(f.kind == "twice" for f in ledger.redundancies)


def test_an_average_between_two_fake_quants_is_no_redundancy() -> None:
    class Averages(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AvgPool2d(2), nn.Conv2d(4, 4, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x)

    model = prepare_qat(eager(Averages()))
    pool: Any = model.body[1]
    pool.add_module("own", model.body[0].qconfig.activation())
    pool.register_forward_hook(lambda m, _a, out: m.own(out))
    assert not doubles(seen(model, image()), image())


def test_bypassing_skips_those_calls_only() -> None:
    x = vector()
    model = seen(prepare(prepare_qat(eager(TwoLinear()))), x)
    calls = []
    fake_quant: Any = model.fc1.activation_post_process
    kernel = type(fake_quant).forward
    fake_quant.register_forward_hook(lambda _m, a, o: calls.append(o is a[0]))
    with bypassed(model, [("fc1.activation_post_process", 1)]), torch.no_grad():
        model(x)
        model(x)
    assert calls == [False, True, False, True]
    assert fake_quant.forward.__func__ is kernel


def test_time_is_measured_by_turns_and_reported() -> None:
    x = vector()
    ledger = ledger_of(seen(prepare(prepare_qat(eager(TwoLinear()))), x), x, timing=5)
    for found in ledger.redundancies:
        assert found.step is not None
        assert (found.step.rounds, found.step.with_s > 0) == (5, True)
        assert " of a step of " in found.cost


def test_scales_drift_over_a_run() -> None:
    x = image()
    mapping = {**get_default_qat_module_mappings(), nn.Linear: OwnName}
    data = {"train": loader(x, batches=8), "eval": loader(x, batches=1)}
    session = qx.Session(SMALL[0].make()[0].train(), x, data=data, qat_mapping=mapping, fusion=[])
    session.train(epochs=2, telemetry_every=2)
    found = {f.first: f for f in session.ledger().redundancies}["fc.out_fake_quant"]
    assert [step for step, _ in found.drift] == [0, 2, 4, 6, 8, 10, 12, 14]
    samples = session.run.history.sites if session.run is not None else {}
    step, drift = found.drift[3]
    scales = [
        next(s for s in samples[path] if s.step == step).scale[0]
        for path in ("fc.out_fake_quant", "fc.activation_post_process")
    ]
    assert drift == pytest.approx(scales[1] / scales[0] - 1)
    assert "In training the difference went from" in found.cost


def test_edges_of_the_graph_between_the_two() -> None:
    class Bounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = TwoLinear()
            self.inner.fc1 = nn.Sequential(nn.Linear(6, 6), nn.Identity(), nn.ReLU6())

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    session = qx.Session(Bounded().train(), vector())
    session.goto("insert")
    (found,) = session.ledger().redundancies
    assert found.first == "inner.fc1.0.activation_post_process"
    assert found.second == "inner.fc1.2.activation_post_process"
    ids = {node.path: node.id for node in session.snapshot.graph.nodes}  # type: ignore[union-attr]
    chain = [ids[f"inner.fc1.{i}"] for i in (0, 1, 2)]
    assert found.edges == tuple(f"edge:{a}:{b}" for a, b in itertools.pairwise(chain))


def test_a_ledger_outlives_its_model_and_travels() -> None:
    ledger = ledger_of(fx_flat("module"), image())
    assert pickle.loads(pickle.dumps(ledger)) == ledger
