"""Parts int8 and float: against torch's own counts, the converted modules and the ledger."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import qatexplorer as qx
from qatexplorer.errors import QatExplorerError, QatExplorerWarning
from qatexplorer.session.glance import glance_of
from qatexplorer.snapshot.parts import Share
from qatexplorer.views.inspector.glance import groups_of
from tests.support.models import NARROW, SMALL, ZOO, Case, load_timm
from tests.support.models_fx import WRITTEN


class Mixed(nn.Module):
    """A weight used in a function, an int8 layer, a norm, and a product of two activations."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.zeros(6))
        self.inner = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(torch.relu(nn.functional.linear(x, self.weight, self.bias)))
        return torch.matmul(y, y.t())


CASES = {
    "conv_bn_relu",
    "residual",
    "tied",
    "two_names",
    "nested",
    "unused",
    "zoo_digits_cnn",
    "zoo_digits_depthwise",
    "tiny_vit",
    "recurrent",
    "squeeze_excite",
}
MODELS: list[Any] = [c for c in (*SMALL, *ZOO, *WRITTEN) if c.name in CASES]
WALKS: list[tuple[Any, dict[str, str]]] = [
    (case, settings)
    for case in (*MODELS, Case("mixed", lambda: (Mixed().train(), torch.randn(3, 8))))
    for settings in ({"flow": "fx"}, {"flow": "eager", "stubs": "layers"})
]


def walked(case: Case, settings: dict[str, str]) -> Iterator[tuple[qx.Session, nn.Module, Any]]:
    """The session at every stage that it comes to, with the user's model and input."""
    model, x = case()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", QatExplorerWarning)
        session = qx.Session(model, x, **settings)  # type: ignore[arg-type]
        for stage in session.stages:
            try:
                session.goto(stage)
            except QatExplorerError:
                return  # its int8 model does not run
            yield session, model, x


def flops(model: nn.Module, x: Any) -> int:
    args = x if isinstance(x, tuple) else (x,)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*args)
    return counter.get_total_flops()


IDS = [f"{case.name}-{settings['flow']}" for case, settings in WALKS]


@pytest.mark.parametrize(("case", "settings"), WALKS, ids=IDS)
def test_totals_are_torchs_at_every_stage(case: Case, settings: dict[str, str]) -> None:
    stages = 0
    for session, model, x in walked(case, settings):
        glance = glance_of(session, session.macs())
        # FX drops what the forward does not reach, and converting packs parameters.
        counted = model
        if session.flow.name == "fx" and session.stage != "float":
            at_train = session.snapshot.is_from("reference")
            counted = session.copy_model(session.flow.train_stage if at_train else None)
        assert glance.params.total == sum(p.numel() for p in counted.parameters()), session.stage
        assert glance.macs is not None
        if "recurrent" not in case.name and "tiny_vit" not in case.name:
            # Torch's counter knows neither an LSTM nor attention on the CPU.
            assert glance.macs.total == flops(model, x) // 2, session.stage
        if not session.snapshot.is_from("inserted"):
            assert (glance.params.int8, glance.params.unknown) == (0, 0)
            assert (glance.macs.int8, glance.macs.unknown) == (0, 0)
        groups = groups_of(glance)
        assert sum(group.params for group in groups) == glance.params.total
        assert sum(group.quants for group in groups) == len(session.snapshot.sites)
        stages += 1
    assert stages > 5


@pytest.mark.parametrize(("case", "settings"), WALKS, ids=IDS)
def test_shares_are_those_that_the_ledger_measures(case: Case, settings: dict[str, str]) -> None:
    found: dict[str, tuple[Share, Share | None]] = {}
    session: Any = None
    for session, _, _ in walked(case, settings):
        glance = glance_of(session, session.macs())
        found[session.stage] = (glance.params, glance.macs)
    session.goto(session.flow.prepared_stage)
    measured = session.ledger().coverage
    assert measured.basis == "int8 run"
    params = Share(measured.params_int8, measured.params_total - measured.params_int8)
    macs = Share(measured.macs_int8, measured.macs_total - measured.macs_int8)
    later = session.stages[session.stages.index(session.flow.prepared_stage) :]
    assert {stage: found[stage] for stage in later} == dict.fromkeys(later, (params, macs))


def test_int8_parameters_are_those_of_torchs_int8_modules() -> None:
    model, x = load_timm("resnet18", **NARROW)
    session = qx.Session(model, x, flow="fx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        session.goto("lower")
    packed = {
        name
        for name, module in session.model.named_modules()
        if type(module).__module__.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic"))
    }
    batch_norms = {"bn1": "conv1", "bn2": "conv2", "downsample.1": "downsample.0"}
    int8 = 0
    for name, parameter in model.named_parameters():
        owner = name.rpartition(".")[0]
        for norm, conv in batch_norms.items():
            if owner.endswith(norm):
                owner = owner.removesuffix(norm) + conv
        int8 += parameter.numel() * (owner in packed)
    glance = glance_of(session, session.macs())
    assert glance.params == Share(int8=int8) == Share(sum(p.numel() for p in model.parameters()))
    root = session.snapshot.by_path[""]
    assert (root.state, root.inside.layers) == ("int8", len(packed) - 1)  # not fc's packed params
    # What has no parameters does not make a container mixed; it is counted beside.
    assert root.inside.others - root.inside.others_int8 == 1  # the flatten after the pool
    pool = session.snapshot.by_path["global_pool"]
    assert (pool.state, pool.inside.counted) == ("mixed", (1, 2))
