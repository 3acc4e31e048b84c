"""The stepped walk is torch's one call: same keys, same values, same training, bit for bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.ao.quantization import (
    FakeQuantize,
    FusedMovingAvgObsFakeQuantize,
    QConfig,
    QuantWrapper,
    add_quant_dequant,
    convert,
    default_per_channel_weight_fake_quant,
    get_default_qat_qconfig,
)

import qatexplorer as qx
from qatexplorer.errors import Int8RunError
from tests.against_torch.reference import assert_same_state, engine, main_tensor, one_call, train
from tests.support.models import (
    NARROW,
    SMALL,
    TIMM,
    ZOO,
    Case,
    ConvBnRelu,
    Nested,
    NoStubs,
    Residual,
    image,
    load_timm,
)

BACKEND = "onednn"


def default(model: nn.Module) -> None:
    model.qconfig = get_default_qat_qconfig(BACKEND)  # type: ignore[assignment]


def compare(
    model: nn.Module,
    x: torch.Tensor,
    assign: Any = default,
    *,
    runs: Any = None,
    int8_runs: bool | None = None,
    **settings: Any,
) -> qx.Session:
    """Walk ``model`` and prepare it by torch's one call; they must agree all the way to int8."""
    settings.setdefault("qconfig", BACKEND)
    session = qx.Session(model, (x,), **settings)
    reference = one_call(model, session.fusion if runs is None else runs, assign)
    for _ in range(4):
        session.step()
    assert session.stage == "insert"
    assert_same_state(session.model, reference)
    assert [(n, type(m)) for n, m in session.model.named_modules()] == [
        (n, type(m)) for n, m in reference.named_modules()
    ]
    session.step()
    outputs, losses = train(session.model, x)
    their_outputs, their_losses = train(reference, x)
    assert all(torch.isfinite(o).all() for o in their_outputs)
    assert losses == their_losses
    for ours, theirs in zip(outputs, their_outputs, strict=True):
        assert torch.equal(ours, theirs)
    assert_same_state(session.model, reference)
    compare_int8(session, reference, x, int8_runs)
    return session


def compare_int8(
    session: qx.Session, reference: nn.Module, x: torch.Tensor, int8_runs: bool | None
) -> None:
    with engine(BACKEND), torch.no_grad():
        theirs = convert(copy.deepcopy(reference).eval())
        try:
            expected = main_tensor(theirs(x))
        except (NotImplementedError, RuntimeError):
            assert int8_runs is not True
            with pytest.raises(Int8RunError):
                session.step()
            assert session.stage == "train"
            return
        assert int8_runs is not False
        session.step()
        assert torch.equal(main_tensor(session.int8(x)), expected)
    ours = {name: type(m) for name, m in session.int8.named_modules()}
    assert ours == {name: type(m) for name, m in theirs.named_modules()}


RUNS_IN_INT8 = {
    "conv_bn_relu": True,
    "residual": True,
    "nested": True,
    "wrapped": True,
    "tied": True,
    "no_stubs": False,
    "branching": False,
    "zoo_digits_cnn": True,
    "zoo_digits_depthwise": True,
    "zoo_digits_mlp": False,
}


def _param(case: Case) -> Any:
    long = case.name.startswith("timm") and case.name != "timm_lcnet_050"
    return pytest.param(case, id=case.name, marks=[pytest.mark.long] if long else [])


@pytest.mark.parametrize("case", [_param(case) for case in (*SMALL, *ZOO, *TIMM)])
def test_stepped_flow_equals_one_call(case: Case) -> None:
    model, x = case()
    compare(model, x, int8_runs=RUNS_IN_INT8.get(case.name))


def test_with_runs_written_by_hand() -> None:
    """Our choice of what to fuse is the one a person would make for this model."""
    torch.manual_seed(0)
    runs = [["conv1", "bn1", "relu1"], ["conv2", "relu2"]]
    compare(ConvBnRelu().train(), image(), runs=runs, int8_runs=True)


@pytest.mark.parametrize("backend", ["x86", "qnnpack", "fbgemm"])
def test_other_backends(backend: str) -> None:
    torch.manual_seed(0)

    def assign(model: nn.Module) -> None:
        model.qconfig = get_default_qat_qconfig(backend)  # type: ignore[assignment]

    session = compare(Residual().train(), image(), assign, qconfig=backend, engine=BACKEND)
    assert session.snapshots["insert"].sites


def unfused() -> QConfig:
    return QConfig(activation=FakeQuantize, weight=default_per_channel_weight_fake_quant)


def test_none_on_a_part_and_another_qconfig_by_path_and_by_type() -> None:
    torch.manual_seed(0)
    special = unfused()

    def assign(model: nn.Module) -> None:
        default(model)
        model.net[1][2].qconfig = None
        model.net[3].qconfig = None
        model.net[4][0].qconfig = special  # linear + ReLU, fused
        model.net[5].qconfig = special

    session = compare(
        Nested().train(),
        image(),
        assign,
        qconfig={"": BACKEND, "net.1.2": None, "net.3": None, nn.Linear: special},
    )
    sites = session.snapshots["insert"].site_by_path
    assert not [s for s in sites.values() if s.owner.startswith("net.3")]
    assert sites["net.5.weight_fake_quant"].fake_quant_class == "FakeQuantize"
    assert sites["net.1.0.0.weight_fake_quant"].fake_quant_class == (
        FusedMovingAvgObsFakeQuantize.__name__
    )


def test_qconfig_that_the_user_set_on_a_module_before() -> None:
    torch.manual_seed(0)
    model = ConvBnRelu().train()
    model.fc.qconfig = None  # type: ignore[assignment]
    model.quant.qconfig = unfused()  # type: ignore[assignment]

    def assign(copied: nn.Module) -> None:
        if not hasattr(copied, "qconfig"):
            default(copied)

    session = compare(model, image(), assign)
    owners = {s.owner for s in session.snapshots["insert"].sites}
    assert "fc" not in owners
    assert "conv2" in owners
    site = session.snapshots["insert"].site_by_path["quant.activation_post_process"]
    assert site.fake_quant_class == "FakeQuantize"


def test_stubs_around_the_whole_model() -> None:
    torch.manual_seed(0)

    def assign(model: nn.Module) -> nn.Module:
        wrapped = QuantWrapper(model)
        default(wrapped)
        return wrapped

    session = compare(NoStubs().train(), image(), assign, stubs="model", int8_runs=None)
    converted = qx.Session(NoStubs().train(), (image(),), stubs="model").goto("insert")
    assert converted.by_path["module.conv"].origin == "conv"
    assert session.snapshots["insert"].by_path["module.fc1"].origin == "fc1"
    assert session.snapshots["insert"].by_path["quant"].origin == ""


def test_stubs_around_each_layer_where_nothing_is_fused() -> None:
    torch.manual_seed(0)

    def assign(model: nn.Module) -> nn.Module:
        for layer in (model.conv, model.fc1, model.fc2):
            layer.qconfig = get_default_qat_qconfig(BACKEND)
        wrapped: nn.Module = add_quant_dequant(model)
        return wrapped

    session = compare(
        NoStubs().train(), image(), assign, stubs="layers", fusion=[], runs=[], int8_runs=True
    )
    assert session.snapshots["insert"].by_path["fc1.module"].origin == "fc1"


def test_stubs_around_each_layer_with_fused_runs() -> None:
    """add_quant_dequant would wrap the conv inside the fused module; the whole is wrapped."""
    torch.manual_seed(0)

    def assign(model: nn.Module) -> None:
        for name in ("conv", "fc1", "fc2"):
            layer = getattr(model, name)
            layer.qconfig = get_default_qat_qconfig(BACKEND)
            setattr(model, name, QuantWrapper(layer))

    compare(NoStubs().train(), image(), assign, stubs="layers", int8_runs=True)


def test_a_batch_norm_with_gamma_zero_is_prepared_as_torch_does_it() -> None:
    """Its weights are NaN in a forward; that is for training to tell, not for the walk."""
    torch.manual_seed(0)
    model = ConvBnRelu().train()
    nn.init.zeros_(model.bn1.weight)
    session = qx.Session(model, (image(),), qconfig=BACKEND)
    session.goto("train")
    assert_same_state(session.model, one_call(model, session.fusion, default))
    assert session.snapshot.site_by_path["conv1.weight_fake_quant"].calls_per_forward == 1


def test_each_layer_of_a_timm_network_reaches_int8() -> None:
    """The way out for models that nobody wrote for eager mode."""
    model, x = load_timm("resnet18", layers=(1, 1, 1, 1), **NARROW)
    session = qx.Session(model, (x,), stubs="layers")
    session.goto("train")
    train(session.model, x)
    session.goto("convert")
    with torch.no_grad():
        float_model = copy.deepcopy(session.model)
        assert torch.isfinite(float_model(x)).all()
    assert session.snapshot.by_path["conv1.module"].type_name == "ConvReLU2d"
