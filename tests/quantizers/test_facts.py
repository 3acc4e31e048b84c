"""What is true of one fake quant, asked in one place and measured."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import (
    FakeQuantize,
    FusedMovingAvgObsFakeQuantize,
    MovingAveragePerChannelMinMaxObserver,
    QConfig,
    default_fixed_qparams_range_0to1_fake_quant,
    get_default_qat_qconfig,
    get_default_qat_qconfig_mapping,
    prepare_qat,
)
from torch.ao.quantization.quantize_fx import prepare_qat_fx

import qatexplorer as qx
from qatexplorer.forward.sampling import histograms_of
from qatexplorer.ledger import ledger_of
from qatexplorer.quantizers import facts
from qatexplorer.quantizers.facts import (
    FAMILIES,
    Family,
    Flags,
    any_seen,
    fake_quants_off,
    fake_quants_on,
    find_quantizers,
    flags_of,
    freeze_observers,
    has_range,
    kinds_of,
    observed_range,
    seen_data,
)
from qatexplorer.telemetry.watched import find_watched
from tests.support.ledger_models import Flat, TwoLinear, eager, seen

CHANNELS = MovingAveragePerChannelMinMaxObserver.with_args(
    dtype=torch.qint8, quant_min=-128, quant_max=127, qscheme=torch.per_channel_symmetric
)


class Blended(FusedMovingAvgObsFakeQuantize):
    """The fused kernel in a class of the user's own, whose name does not say so."""


class Gentle(FusedMovingAvgObsFakeQuantize):
    """One with a forward of its own, which runs the kernel all the same."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * 1.0)


class Deaf(FusedMovingAvgObsFakeQuantize):
    """ "Fused" stands in no name here, and the kernel never runs."""

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("kind", "runs"), [(Blended, "fused kernel"), (Gentle, "fused kernel"), (Deaf, "never")]
)
def test_who_runs_the_observer_is_measured_in_snapshot_and_ledger_alike(
    kind: type, runs: str
) -> None:
    default = get_default_qat_qconfig("onednn")
    activation: Any = default.activation
    made = kind.with_args(**activation.p.keywords)  # type: ignore[attr-defined]
    x = torch.randn(4, 6)
    session = qx.Session(TwoLinear().train(), x, qconfig=QConfig(made, default.weight))
    session.goto("insert")
    path = "fc1.activation_post_process"
    assert session.snapshot.site_by_path[path].fake_quant_class == kind.__name__
    assert session.snapshot.site_by_path[path].observer_runs == runs
    assert session.ledger().by_path[path].observer_runs == runs


def half_seen() -> Any:
    """A fake quant per channel; of its three channels the second has seen nothing."""
    fake_quant: Any = FakeQuantize(observer=CHANNELS)
    fake_quant(torch.randn(3, 5))
    with torch.no_grad():
        fake_quant.activation_post_process.min_val[1] = math.inf
        fake_quant.activation_post_process.max_val[1] = -math.inf
    return fake_quant


def test_seen_data_needs_every_channel() -> None:
    fresh: Any = FakeQuantize(observer=CHANNELS)
    assert seen_data(fresh) == "nothing"
    assert observed_range(fresh) == ((), ())
    fake_quant = half_seen()
    assert seen_data(fake_quant) == "partly"
    assert not has_range(fake_quant)
    low, high = observed_range(fake_quant)
    assert (low[1], high[1]) == (math.inf, -math.inf)
    assert math.isfinite(low[0])
    fake_quant.activation_post_process.reset_min_max_vals()
    fake_quant(torch.randn(3, 5))
    assert seen_data(fake_quant) == "all"
    assert has_range(fake_quant)
    assert seen_data(default_fixed_qparams_range_0to1_fake_quant()) == "fixed"
    per_tensor: Any = get_default_qat_qconfig("onednn").activation()
    assert seen_data(per_tensor) == "nothing"
    per_tensor(torch.randn(3, 5))
    assert seen_data(per_tensor) == "all"


def test_a_range_spoiled_by_nan_has_seen_data_and_is_none_to_use() -> None:
    fake_quant: Any = get_default_qat_qconfig("onednn").activation()
    fake_quant(torch.tensor([1.0, math.nan]))
    with torch.no_grad():
        fake_quant.activation_post_process.min_val.fill_(math.nan)
    assert seen_data(fake_quant) == "all"
    assert not has_range(fake_quant)


def test_every_room_says_partly_of_the_same_fake_quant() -> None:
    x = torch.randn(4, 6)
    session = qx.Session(TwoLinear().train(), x)
    session.goto("insert")
    model: Any = seen(session.model, x)
    observer = model.fc1.weight_fake_quant.activation_post_process
    with torch.no_grad():
        observer.min_val[1], observer.max_val[1] = math.inf, -math.inf
    path = "fc1.weight_fake_quant"
    row = ledger_of(model, x).by_path[path]
    assert (row.seen, row.cause) == ("partly", "never_observed")
    assert "some of its channels" in row.cause_text
    before = model.fc1.weight_fake_quant.scale.clone()
    fake_quants_off(model)
    fake_quants_on(model)  # no scale is made of a channel that has seen nothing
    assert torch.equal(model.fc1.weight_fake_quant.scale, before)
    # The observers are shown the inputs first, or the channel would have no grid to look at.
    assert math.isfinite(histograms_of(model, x)[path].max)
    assert any_seen(model)


def test_telemetry_and_snapshot_agree_on_kinds() -> None:
    x = torch.randn(4, 1, 8, 8)
    session = qx.Session(Flat("method").train(), x, flow="fx")
    session.goto("insert")
    by_snapshot = {site.path: site.kind for site in session.snapshot.sites}
    by_telemetry = {t.info.path: t.info.kind for t in find_watched(session.model, None)}
    assert by_telemetry == by_snapshot
    assert "input" in by_snapshot.values()
    assert {p: k for p, k in kinds_of(session.model).items() if p in by_snapshot} == by_snapshot


def test_flags_are_switched_for_all_and_read_in_one_place() -> None:
    model = prepare_qat(eager(TwoLinear()))
    freeze_observers(model)
    fake_quants_off(model)
    assert {flags_of(m) for m in find_quantizers(model).values()} == {Flags(False, False)}
    fake_quants_on(model)
    assert {flags_of(m) for m in find_quantizers(model).values()} == {Flags(False, True)}


class Rounder(nn.Module):
    """A fake quant of another library: not torch.ao's base class, and flags that are no tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.enabled, self.tracking = True, True
        self.low, self.high = torch.tensor(math.inf), torch.tensor(-math.inf)

    def forward(self, x: Tensor) -> Tensor:
        if self.tracking:
            self.low, self.high = (
                torch.minimum(self.low, x.min()),
                torch.maximum(self.high, x.max()),
            )
        return torch.round(x) if self.enabled else x


class OtherLibrary(Family):
    name = "other"

    def is_fake_quant(self, module: nn.Module) -> bool:
        return isinstance(module, Rounder)

    def is_observer(self, module: nn.Module) -> bool:
        return False

    def observer(self, quantizer: nn.Module) -> None:
        return None

    def range_buffers(self, quantizer: nn.Module) -> tuple[Tensor, Tensor] | None:
        module: Any = quantizer
        return module.low, module.high

    def flag_buffers(self, quantizer: nn.Module) -> tuple[None, None]:
        return None, None

    def flags(self, quantizer: nn.Module) -> Flags:
        module: Any = quantizer
        return Flags(module.tracking, module.enabled)

    def switch(self, quantizer: nn.Module, observer: bool | None, fake_quant: bool | None) -> None:
        module: Any = quantizer
        module.tracking = module.tracking if observer is None else observer
        module.enabled = module.enabled if fake_quant is None else fake_quant

    def kernel_observes(self, quantizer: nn.Module) -> bool:
        return False


def test_a_further_family_takes_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(4, 4), Rounder())
    assert not find_quantizers(model)
    monkeypatch.setattr(facts, "FAMILIES", [*FAMILIES, OtherLibrary()])
    assert list(find_quantizers(model)) == ["1"]
    assert seen_data(model[1]) == "nothing"
    model(torch.randn(3, 4))
    assert seen_data(model[1]) == "all"
    with facts.observers_paused(model):
        assert flags_of(model[1]) == Flags(False, True)
    freeze_observers(model)
    fake_quants_off(model)
    assert flags_of(model[1]) == Flags(False, False)
    before = observed_range(model[1])
    model(torch.randn(3, 4) * 100)
    assert observed_range(model[1]) == before


@pytest.mark.slow
def test_torchao_is_not_needed() -> None:
    import subprocess
    import sys

    code = (
        "import sys, qatexplorer.quantizers.facts as facts\n"
        "assert not any(name.split('.')[0] == 'torchao' for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_reading_facts_changes_nothing() -> None:
    x = torch.randn(4, 1, 8, 8)
    model = prepare_qat_fx(Flat("method").train(), get_default_qat_qconfig_mapping("onednn"), (x,))
    before = copy.deepcopy(model.state_dict())
    for module in find_quantizers(model).values():
        seen_data(module), has_range(module), observed_range(module), flags_of(module)
        facts.grid_of(module), facts.quant_range(module), facts.averaging_constant(module)
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_a_module_that_becomes_another_type_is_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Identity()
    assert facts.family_of(module) is None
    module.__class__ = Rounder
    assert facts.family_of(module) is None
    other = OtherLibrary()
    monkeypatch.setattr(facts, "FAMILIES", [*FAMILIES, other])
    assert facts.family_of(module) is other
    assert facts.is_fake_quant(module)
    module.__class__ = nn.Identity
    assert facts.family_of(module) is None
    assert not facts.is_fake_quant(module)
