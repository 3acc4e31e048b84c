"""One row per fake quant and observer module, against counting and formulas written here."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import (
    FakeQuantize,
    FakeQuantizeBase,
    MovingAverageMinMaxObserver,
    ObserverBase,
    QConfig,
    default_per_channel_weight_observer,
    disable_observer,
    get_default_qat_qconfig,
    get_default_qat_qconfig_mapping,
    prepare,
    prepare_qat,
)
from torch.ao.quantization.quantize_fx import prepare_qat_fx

import qatexplorer as qx
from qatexplorer.errors import ExampleInputError, NotAModuleError, StageError
from qatexplorer.ledger import LedgerRow, ledger_of
from qatexplorer.ledger.scales import SMALLEST_KERNEL_SCALE, recomputed_scale
from tests.support.ledger_models import Flat, TwoLinear, eager, seen
from tests.support.models import SMALL, Case, ConvBnRelu, Residual, Unused


def prepared(case: Case, forwards: int = 3) -> tuple[qx.Session, nn.Module, Tensor]:
    model, x = case()
    session = qx.Session(model, x)
    session.goto("insert")
    return session, seen(session.model, x, forwards), x


def count_by_hooks(model: nn.Module, x: Tensor) -> Counter[str]:
    """Calls of every fake quant and observer in one forward, by the first of their names."""
    model = copy.deepcopy(model)
    counts: Counter[str] = Counter()
    for path, module in model.named_modules():
        if isinstance(module, (FakeQuantizeBase, ObserverBase)):
            module.register_forward_hook(lambda _m, _a, _o, p=path: counts.update([p]))
    with torch.no_grad():
        model(x)
    return counts


@pytest.mark.parametrize("case", SMALL, ids=lambda c: c.name)
def test_rows_and_counts_agree_with_hooks(case: Case) -> None:
    session, model, x = prepared(case)
    ledger = session.ledger()
    expected = {
        path
        for path, module in model.named_modules()
        if isinstance(module, (FakeQuantizeBase, ObserverBase))
    }
    assert {row.path for row in ledger.rows} == expected
    assert len({row.path for row in ledger.rows}) == len(ledger.rows)
    counted = count_by_hooks(model, x)
    assert {row.path: row.calls_per_forward for row in ledger.rows} == {
        path: counted[path] for path in expected
    }


@pytest.mark.parametrize("way", ["function", "method", "dropout"])
def test_rows_and_counts_agree_with_hooks_in_fx(way: str) -> None:
    x = torch.randn(4, 1, 8, 8)
    model = prepare_qat_fx(Flat(way).train(), get_default_qat_qconfig_mapping("onednn"), (x,))
    ledger = ledger_of(seen(model, x), x)
    counted = count_by_hooks(model, x)
    objects = {
        path
        for path, module in model.named_modules()
        if isinstance(module, (FakeQuantizeBase, ObserverBase))
    }
    assert {row.path for row in ledger.rows} == objects
    assert {r.path: r.calls_per_forward for r in ledger.rows} == {p: counted[p] for p in objects}
    aliases = {
        name
        for name, _ in model.named_modules(remove_duplicate=False)
        if name.startswith("activation_post_process_") and name.count(".") == 0
    } - objects
    shared = {name for row in ledger.rows for name in row.shared_with}
    assert aliases <= shared


def test_the_model_is_put_back() -> None:
    session, model, _ = prepared(SMALL[1])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    random = torch.get_rng_state()
    session.ledger(timing=1)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert all("forward" not in vars(m) for m in model.modules() if isinstance(m, FakeQuantizeBase))
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training


def test_who_made_what_and_how_it_runs() -> None:
    session, _, _ = prepared(SMALL[0])
    ledger = session.ledger()
    weight = ledger.by_path["fc.weight_fake_quant"]
    assert (weight.kind, weight.stage, weight.mechanism) == ("weight", "swap", "forward")
    assert weight.call == session.flow.stage("swap").call
    assert weight.tensor.key == "param:fc.weight"
    output = ledger.by_path["fc.activation_post_process"]
    assert (output.kind, output.stage, output.mechanism) == ("output", "insert", "hook")
    assert (output.tensor.module, output.tensor.port) == ("fc", 0)
    assert output.owner_type == "Linear"
    scaled = ledger.by_path["conv1.weight_fake_quant"].tensor
    assert scaled.key == "param:conv1.weight"
    assert "batch norm" in scaled.label
    entry = ledger.by_path["quant.activation_post_process"]
    assert (entry.kind, entry.tensor.key) == ("input", "input:0")
    inner = ledger.by_path["fc.weight_fake_quant.activation_post_process"]
    assert (inner.role, inner.mechanism, inner.calls_per_forward) == (
        "inner observer",
        "fused kernel",
        0,
    )
    assert inner.part_of == "fc.weight_fake_quant"
    assert [row.path for row in ledger.of("fc")] == [
        "fc.weight_fake_quant",
        "fc.weight_fake_quant.activation_post_process",
        "fc.activation_post_process",
        "fc.activation_post_process.activation_post_process",
    ]


def test_functionals_and_fixed_qparams() -> None:
    session, _, _ = prepared(SMALL[1])
    ledger = session.ledger()
    add = ledger.by_path["add.activation_post_process"]
    assert (add.mechanism, add.tensor.key) == ("forward", "op:add:0")
    sigmoid = ledger.by_path["gate.1.activation_post_process"]
    assert sigmoid.cause == "fixed"
    assert sigmoid.scale == pytest.approx([1 / 256])
    assert sigmoid.observer_runs == "module"


def test_the_observer_is_seen_at_work_not_guessed_from_a_name() -> None:
    session, model, x = prepared(SMALL[0])
    assert {r.observer_runs for r in session.ledger().sites} == {"fused kernel"}
    model.apply(disable_observer)
    assert {row.observer_runs for row in ledger_of(model, x).sites} == {"never"}
    plain = eager(ConvBnRelu())
    plain.qconfig = get_default_qat_qconfig("onednn", version=0)
    rows = ledger_of(seen(prepare_qat(plain), x), x).sites
    assert {row.observer_runs for row in rows} == {"module"}


@pytest.mark.parametrize("case", SMALL[:2], ids=lambda c: c.name)
def test_scales_are_those_of_torchs_calculate_qparams(case: Case) -> None:
    session, model, _ = prepared(case)
    for row in session.ledger().sites:
        module: Any = model.get_submodule(row.path)
        again = copy.deepcopy(module).calculate_qparams()[0].flatten().tolist()
        assert list(row.recomputed_scale) == again
        assert list(row.scale) == module.scale.flatten().tolist()
        worst = max((a / b - 1 for a, b in zip(again, row.scale, strict=True)), key=abs)
        assert row.scale_difference == pytest.approx(worst, abs=1e-7)


def test_fused_symmetric_weights_differ_by_255_against_256() -> None:
    session, _, _ = prepared(SMALL[0])
    for row in session.ledger().sites:
        if row.kind == "weight":
            assert row.cause == "fused_formula"
            assert abs(row.scale_difference or 0) == pytest.approx(1 / 255, rel=2e-3)
        else:
            assert row.cause == "none"
            assert abs(row.scale_difference or 0) < 1e-6


def test_unfused_fake_quants_do_not_differ() -> None:
    x = torch.randn(4, 6)
    model = eager(TwoLinear())
    model.qconfig = get_default_qat_qconfig("onednn", version=0)
    rows = ledger_of(seen(prepare_qat(model), x), x).sites
    assert {row.cause for row in rows} == {"none"}


def test_one_sided_and_tiny_ranges_are_named() -> None:
    x = torch.randn(4, 6)
    float_model = eager(TwoLinear())
    with torch.no_grad():
        float_model.fc1.weight.abs_()
        float_model.fc2.weight.mul_(1e-4)
    ledger = ledger_of(seen(prepare_qat(float_model), x), x)
    one_sided = ledger.by_path["fc1.weight_fake_quant"]
    assert one_sided.cause == "fused_formula"
    assert "one sign" in one_sided.cause_text
    assert one_sided.scale_difference == pytest.approx(1.0, abs=1e-3)
    tiny = ledger.by_path["fc2.weight_fake_quant"]
    assert min(tiny.scale) == pytest.approx(SMALLEST_KERNEL_SCALE)
    assert "no scale below" in tiny.cause_text


def test_never_observed_stale_and_lagging() -> None:
    session, _, _ = prepared(SMALL[0], forwards=0)
    assert {row.cause for row in session.ledger().sites} == {"never_observed"}
    _, model, x = prepared(SMALL[0])
    with torch.no_grad():
        model.fc.weight.mul_(3.0)
    lagging = ledger_of(model, x).by_path["fc.weight_fake_quant"]
    assert lagging.fresh_cause == "moving_average"
    assert lagging.fresh_difference == pytest.approx(2.0, rel=1e-3)
    model.apply(disable_observer)
    assert ledger_of(model, x).by_path["fc.weight_fake_quant"].fresh_cause == "stale"
    model.fc.weight_fake_quant.scale.mul_(1.5)
    stale = ledger_of(model, x).by_path["fc.weight_fake_quant"]
    assert stale.cause == "stale"


def test_recomputing_changes_nothing() -> None:
    _session, model, _ = prepared(SMALL[0])
    fake_quant: Any = model.fc.weight_fake_quant
    before = {key: value.clone() for key, value in fake_quant.state_dict().items()}
    assert recomputed_scale(fake_quant) is not None
    assert all(torch.equal(v, before[k]) for k, v in fake_quant.state_dict().items())


def test_bare_observers_have_rows_and_a_warning() -> None:
    x = torch.randn(4, 6)
    model = TwoLinear().train()
    model.qconfig = QConfig(
        activation=MovingAverageMinMaxObserver.with_args(dtype=torch.quint8),
        weight=default_per_channel_weight_observer,
    )
    ledger = ledger_of(seen(prepare_qat(model), x), x)
    weight = ledger.by_path["fc1.weight_fake_quant"]
    assert (weight.role, weight.observer_runs, weight.scale_difference) == (
        "observer",
        "module",
        None,
    )
    assert weight.scale == weight.recomputed_scale != ()
    assert any("post-training" in text for text in ledger.warnings)


def test_histogram_observers_are_left_in_peace() -> None:
    from torch.ao.quantization import HistogramObserver

    x = torch.randn(4, 6)
    model = TwoLinear().train()
    model.qconfig = QConfig(
        activation=FakeQuantize.with_args(observer=HistogramObserver, quant_min=0, quant_max=255),
        weight=get_default_qat_qconfig("onednn").weight,
    )
    model = seen(prepare_qat(model), x)
    histogram = model.fc1.activation_post_process.activation_post_process.histogram.clone()
    row = ledger_of(model, x).by_path["fc1.activation_post_process"]
    assert row.observer_runs == "module"
    assert row.scale_difference is not None
    assert torch.equal(
        model.fc1.activation_post_process.activation_post_process.histogram, histogram
    )


def test_ghosts_say_why() -> None:
    _, model, x = prepared(Case("unused", lambda: (Unused(), torch.randn(4, 6))))
    ledger = ledger_of(model, x)
    assert {row.path for row in ledger.ghosts} == {
        "spare.weight_fake_quant",
        "spare.activation_post_process",
        "spare_add.activation_post_process",
    }
    assert "spare did not run" in ledger.by_path["spare.weight_fake_quant"].ghost_text

    class DeadEnd(TwoLinear):
        def forward(self, x: Tensor) -> Tensor:
            x = self.quant(x)
            self.fc1(x)
            return self.dequant(self.fc2(x))

    dead = ledger_of(prepare_qat(eager(DeadEnd())), x)
    assert {row.path for row in dead.ghosts} == {
        "fc1.weight_fake_quant",
        "fc1.activation_post_process",
    }
    assert "does not depend" in dead.by_path["fc1.activation_post_process"].ghost_text


def test_bad_input() -> None:
    x = torch.randn(4, 6)
    with pytest.raises(NotAModuleError):
        ledger_of("model", x)  # type: ignore[arg-type]
    with pytest.raises(StageError, match="no fake quant"):
        ledger_of(TwoLinear(), x)
    with pytest.raises(ExampleInputError, match="forward raises"):
        ledger_of(prepare_qat(eager(TwoLinear())), torch.randn(4, 5))
    session = qx.Session(TwoLinear().train(), x)
    with pytest.raises(StageError, match="no fake quants"):
        session.ledger()
    with pytest.raises(StageError, match="there is no stage"):
        session.ledger("nowhere")


def test_a_session_keeps_its_ledger_until_the_model_changes() -> None:
    session, _, _ = prepared(SMALL[0], forwards=0)
    first = session.ledger()
    assert session.ledger() is first
    session.goto("swap")
    swap = session.ledger()
    assert {row.kind for row in swap.rows} == {"weight"}
    session.goto("convert")
    assert session.ledger().stage == "train"
    session.reset()
    session.goto("insert")
    assert session.ledger() is not first


def test_rows_are_records() -> None:
    session, _, _ = prepared(SMALL[0], forwards=0)
    row = session.ledger().rows[0]
    assert {f.name for f in fields(LedgerRow)} >= {
        "path", "kind", "stage", "call", "mechanism", "calls_per_forward", "observer_runs",
        "owner", "tensor", "shared_with", "redundant_with", "scale", "recomputed_scale",
        "scale_difference", "cause", "ghost",
    }  # fmt: skip
    with pytest.raises(AttributeError):
        row.path = "other"  # type: ignore[misc]


def test_prepare_alone_makes_no_weight_rows() -> None:
    x = torch.randn(4, 1, 8, 8)
    model = eager(Residual())
    ledger = ledger_of(seen(prepare(model), x), x)
    assert not [row for row in ledger.rows if row.kind == "weight"]
    assert any("never rounded" in text for text in ledger.warnings)


def test_the_recording_holds_the_models_operations_and_no_others() -> None:
    from qatexplorer.forward.record import record_forward

    _, model, x = prepared(SMALL[0])
    calls = record_forward(model, x).calls
    outer = [c.name for c in calls if c.kind == "op" and not c.inner]
    assert outer == ["flatten"]
    inner = [c.name for c in calls if c.kind == "op" and c.inner and c.scope == "fc"]
    assert inner == ["linear"]
