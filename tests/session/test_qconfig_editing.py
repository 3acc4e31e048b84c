"""Editing the qconfig of a session by rules: in both flows, undone, kept in files and runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao.quantization import (
    QConfig,
    QConfigMapping,
    default_symmetric_qnnpack_qat_qconfig,
    get_default_qat_qconfig,
    prepare_qat,
)
from torch.ao.quantization.backend_config import get_qnnpack_backend_config
from torch.ao.quantization.quantize_fx import prepare_qat_fx

import qatexplorer as qx
from qatexplorer.errors import QConfigError
from qatexplorer.evaluate.dry_run import constraint_broken
from qatexplorer.flows.qconfig_rules import QConfigRule
from qatexplorer.flows.quant_spec import ACTIVATION, WEIGHT, QuantSpec
from tests.support.qconfig_session import A6, W4, W6, X, net, session_of

FLOWS = ("eager", "fx")


def weight_tops(session: qx.Session) -> dict[str, int]:
    sites = session.goto("insert").sites
    return {s.owner: s.quant_max for s in sites if s.kind == "weight"}


@pytest.mark.parametrize("flow", FLOWS)
def test_path_counts_before_pattern_before_type_before_the_model(flow: str) -> None:
    session = session_of(flow)
    session.use_qconfig_rules(
        [
            QConfigRule("", "model", weight=QuantSpec(bits=2, signed=True, scheme="symmetric")),
            QConfigRule("Conv2d", "type", weight=W4),
            QConfigRule("block.*", "glob", weight=W6),
            QConfigRule("block.2", "path", to_float=True),
        ]
    )
    assert weight_tops(session) == {"first": 7, "block.0": 31, "fc": 1}
    assert session.qconfig_at("block.2").to_float
    assert session.qconfig_at("block.0").weight == W6
    assert session.qconfig_at("first").source == "activation: default; weight: type Conv2d"


def test_the_same_as_torchs_own_prepare_in_eager_mode() -> None:
    session = session_of("eager", fusion=[])  # torch is not asked to fuse below
    session.set_qconfig("block", weight=W4, activation=A6)
    session.set_qconfig(nn.Linear, to_float=True)
    session.goto("insert")
    theirs: Any = net()
    theirs.qconfig = get_default_qat_qconfig("fbgemm")
    theirs.block.qconfig = QConfig(activation=A6.factory(), weight=W4.factory())
    theirs.fc.qconfig = None
    assert_equal(session.model, prepare_qat(theirs))


def test_the_same_as_torchs_own_prepare_in_fx() -> None:
    qconfig = get_default_qat_qconfig("fbgemm")
    mapping = QConfigMapping().set_global(qconfig)
    session = qx.Session(net(), X, flow="fx", qconfig=mapping)
    session.set_qconfig("block", weight=W4, activation=A6)
    session.set_qconfig(nn.Linear, to_float=True)
    session.goto("insert")
    own = QConfig(activation=A6.factory(), weight=W4.factory())
    theirs = QConfigMapping().set_global(qconfig).set_module_name("block", own)
    theirs.set_object_type(nn.Linear, None)
    assert_equal(session.model, prepare_qat_fx(net(), theirs, (X,)))


def assert_equal(mine: nn.Module, theirs: nn.Module) -> None:
    for model in (mine, theirs):
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            model(X).square().sum().backward()
            optimizer.step()
    ours, torchs = mine.state_dict(), theirs.state_dict()
    assert ours.keys() == torchs.keys()
    for key, value in ours.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(torchs[key])), key


@pytest.mark.parametrize("flow", FLOWS)
def test_one_part_alone_leaves_the_other(flow: str) -> None:
    session = session_of(flow)
    before = session.qconfig_at("fc")
    session.set_qconfig("fc", weight=W4)
    assert session.qconfig_at("fc").activation == before.activation
    assert session.qconfig_at("fc").weight == W4
    session.set_qconfig("fc", activation=A6)
    assert session.qconfig_rules == (QConfigRule("fc", activation=A6, weight=W4),)


@pytest.mark.parametrize("flow", FLOWS)
def test_undo_and_redo(flow: str) -> None:
    session = session_of(flow)
    before = weight_tops(session)
    assert not session.can_undo_qconfig
    session.set_qconfig(["first", "fc"], weight=W4)
    after = weight_tops(session)
    assert after == {**before, "first": 7, "fc": 7}
    session.undo_qconfig()
    assert session.can_redo_qconfig
    assert weight_tops(session) == before
    session.redo_qconfig()
    assert weight_tops(session) == after
    session.remove_qconfig()
    assert weight_tops(session) == before
    assert not session.can_redo_qconfig


def test_what_the_model_lacks_is_refused_and_nothing_changes() -> None:
    session = session_of("eager")
    session.set_qconfig("fc", weight=W4)
    for where, by in (("fcc", "path"), ("Conv3d", "type"), ("nowhere.*", "glob")):
        with pytest.raises(QConfigError, match="does not have"):
            session.set_qconfig(where, by=by, weight=W4)  # type: ignore[arg-type]
    assert session.qconfig_rules == (QConfigRule("fc", weight=W4),)


@pytest.mark.parametrize("ending", ["toml", "json"])
def test_files_keep_the_rules(ending: str, tmp_path: Path) -> None:
    session = session_of("eager")
    session.set_qconfig("fc", weight=W4, activation=ACTIVATION)
    session.set_qconfig(r"block\.\d", by="regex", to_float=True)
    rules = session.qconfig_rules
    file = session.save_qconfig(tmp_path / f"rules.{ending}")
    session.remove_qconfig()
    session.load_qconfig(file)
    assert session.qconfig_rules == rules


def test_a_run_folder_keeps_the_rules(tmp_path: Path) -> None:
    data = {"train": [(X, torch.tensor([0, 1]))], "eval": [(X, torch.tensor([0, 1]))]}
    session = session_of("eager", data=data)
    session.set_qconfig("fc", weight=W4)
    session.train(1, run_dir=tmp_path / "run", progress=False)
    again = session_of("eager", data=data)
    again.resume(tmp_path / "run", epochs=2, background=False)
    assert again.qconfig_rules == session.qconfig_rules
    assert weight_tops(again)["fc"] == 7


@pytest.mark.parametrize("flow", FLOWS)
def test_learned_steps_per_channel_know_the_size_of_each_layer(flow: str) -> None:
    session = session_of(flow)
    learned = QuantSpec(
        signed=True, scheme="symmetric", per_channel=True, fake_quant="_LearnableFakeQuantize"
    )
    session.set_qconfig("", weight=learned)
    session.goto("insert")
    for path, channels in (("first", 4), ("block.2", 4), ("fc", 4)):
        site: Any = session.model.get_submodule(f"{path}.weight_fake_quant")
        assert site.scale.shape == (channels,)
        assert isinstance(site.scale, nn.Parameter)


def test_the_default_specs_are_torchs() -> None:
    session = qx.Session(net(), X, flow="eager", qconfig="onednn")
    assert session.qconfig_at("fc").activation == ACTIVATION
    assert session.qconfig_at("fc").weight == WEIGHT


LEARNED_W = QuantSpec(
    signed=True, scheme="symmetric", per_channel=True, fake_quant="_LearnableFakeQuantize"
)
LEARNED_A = QuantSpec(fake_quant="_LearnableFakeQuantize")


@pytest.mark.parametrize("flow", FLOWS)
def test_learned_step_sizes_train_and_convert(flow: str) -> None:
    example = qx.zoo.load("digits_cnn")
    session = qx.Session(
        example.model, example.example_inputs, flow=flow, qconfig="onednn", data=example.data
    )
    session.set_qconfig("", weight=LEARNED_W, activation=LEARNED_A)
    session.goto("insert")
    sites = learned(session.model)
    assert sites
    start = [site.scale.detach().clone() for site in sites]
    run = session.train(1, progress=False)
    sites = learned(session.model)
    assert all(int(site.learning_enabled[0]) == 1 for site in sites)
    assert any(not torch.equal(a, b.scale) for a, b in zip(start, sites, strict=True))
    learned_away = [
        site
        for site in sites
        if not torch.allclose(site.scale, site.activation_post_process.calculate_qparams()[0])
    ]
    assert learned_away
    session.goto(session.flow.int8_stage)
    found = session.evaluate(latency=False)
    values = {name: found[name].metric.value for name in ("float", "fake_quant", "int8")}
    assert run.history.epochs[-1].metric is not None
    assert values["int8"] > values["float"] - 0.05, values


def learned(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if type(m).__name__ == "_LearnableFakeQuantize"]


@pytest.mark.parametrize("part", ["activation", "weight"])
def test_a_preview_is_what_the_fake_quant_does_then(part: Any) -> None:
    session = session_of("eager", fusion=[])
    spec = W4 if part == "weight" else A6
    model = net()
    values: Any = model.get_submodule("first").weight
    if part == "activation":
        values = model.get_submodule("first")(X)
    with torch.no_grad():
        rounded = spec.make()(values.detach())
    noise = float((values - rounded).norm())
    seen = session.preview("first", spec, part)
    assert seen.sqnr_db == pytest.approx(20 * np.log10(float(values.norm()) / noise), abs=1e-3)
    assert sum(seen.histogram.counts) == values.numel()
    assert (seen.histogram.quant_min, seen.histogram.quant_max) == spec.quant_range


def test_more_bits_are_better_in_a_preview() -> None:
    session = session_of("eager")
    found = [
        session.preview("fc", QuantSpec(bits, signed=True, scheme="symmetric"), "weight").sqnr_db
        for bits in (2, 4, 6, 8)
    ]
    assert found == sorted(found)
    session.goto("insert")
    site = session.preview("fc.weight_fake_quant", W4)
    assert site.sqnr_db == session.preview("fc", W4, "weight").sqnr_db


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize(
    ("activation", "weight"),
    [
        (QuantSpec(signed=True), WEIGHT),  # no kernel of fbgemm takes signed activations
        (QuantSpec(per_channel=True), WEIGHT),
        (ACTIVATION, QuantSpec(scheme="symmetric")),  # unsigned weights
    ],
    ids=["signed activations", "per channel", "unsigned weights"],
)
def test_what_no_kernel_takes_is_refused(flow: str, activation: Any, weight: Any) -> None:
    session = session_of(flow)
    with pytest.raises(QConfigError, match="no kernel"):
        session.set_qconfig("first", activation=activation, weight=weight)
    assert session.qconfig_rules == ()
    session.set_qconfig("first", to_float=True)
    session.set_qconfig("first", activation=ACTIVATION, weight=W4)


def test_a_note_says_that_int8_has_no_kernels_for_fewer_bits() -> None:
    session = session_of("eager")
    eight = session.set_qconfig("first", weight=replace(W4, bits=8))
    assert not any("integer kernels" in note for note in eight.notes)
    found = session.set_qconfig("first", weight=W4, activation=A6)
    (note,) = (note for note in found.notes if "integer kernels" in note)
    assert "first: activation 6; first: weight 4" in note
    assert found is session.snapshot


@pytest.mark.parametrize("per_channel", [False, True])
def test_affine_weights_are_refused_by_the_engine_that_has_no_kernel(per_channel: bool) -> None:
    """Onednn has none for a weight whose zero point is not 0; fbgemm has, and takes it."""
    affine = QuantSpec(signed=True, scheme="affine", per_channel=per_channel)
    session = qx.Session(net(), X, qconfig="onednn")
    with pytest.raises(QConfigError, match="ONEDNN only supports symmetric") as raised:
        session.set_qconfig("first", weight=affine)
    assert raised.value.where == "first"
    assert session.qconfig_rules == ()
    session = session_of("eager")
    session.set_qconfig("first", weight=affine)
    assert session.qconfig_at("first").weight == affine


@pytest.mark.parametrize("flow", FLOWS)
def test_a_transposed_convolution_takes_one_scale_for_its_weight(flow: str) -> None:
    def new() -> qx.Session:
        stubs: Any = {"stubs": "layers"} if flow == "eager" else {}
        model = nn.Sequential(nn.ConvTranspose2d(1, 4, 3))
        return qx.Session(model, X, flow=flow, qconfig="onednn", **stubs)

    whole = QuantSpec(signed=True, scheme="symmetric")
    session = new()
    with pytest.raises(QConfigError, match="Per Channel Quantization is currently disabled"):
        session.set_qconfig("0", weight=replace(whole, per_channel=True))
    session.set_qconfig("0", weight=whole)
    assert session.qconfig_at("0").weight == whole


def test_a_constraint_of_the_backend_config_is_told_in_torchs_words() -> None:
    config = get_qnnpack_backend_config()
    layer = nn.Linear(4, 4)
    symmetric = QuantSpec(signed=True, scheme="symmetric", narrow_range=True)
    wrong = QConfig(activation=QuantSpec(signed=True).factory(), weight=symmetric.factory())
    assert "eps" in constraint_broken(layer, wrong, config)
    assert constraint_broken(layer, default_symmetric_qnnpack_qat_qconfig, config) == ""
    assert constraint_broken(layer, get_default_qat_qconfig("qnnpack"), config) == ""


def test_equal_rules_stay_when_a_run_had_another_qconfig(tmp_path: Path) -> None:
    pairs = [(X, torch.tensor([0, 1]))]
    session = session_of("eager", data=(pairs, pairs))
    session.set_qconfig("fc", weight=W4)
    session.train(1, run_dir=tmp_path / "run", progress=False)
    again = qx.Session(net(), X, flow="eager", qconfig="qnnpack", data=(pairs, pairs))
    again.set_qconfig("fc", weight=W4)
    again.resume(tmp_path / "run", epochs=2, background=False)
    assert again.qconfig_rules == session.qconfig_rules
    assert weight_tops(again)["fc"] == 7
