"""What cannot work is reported by a typed error with place and fix; the session stays usable."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.ao.nn.qat as nnqat
from torch import Tensor, nn
from torch.ao.quantization import (
    convert,
    get_default_qat_qconfig,
    get_default_qconfig,
    prepare_qat,
)

import qatexplorer as qx
from qatexplorer import errors
from tests.support.models import ConvBnRelu, NoStubs, PlainAdd, image, loader
from tests.support.refusals import VECTOR, refused
from tests.support.waiting import PATIENCE_S


def linear() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 4)).train()


def prepared() -> nn.Module:
    model = linear()
    model.qconfig = get_default_qat_qconfig("onednn")  # type: ignore[assignment]
    return prepare_qat(model)


# -- the model -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "thing",
    [
        nn.Linear,
        nn.Linear(2, 2).state_dict(),
        lambda x: x,
        "resnet18",
        None,
        torch.jit.script(nn.Linear(2, 2)),
    ],
    ids=["class", "state dict", "function", "text", "None", "TorchScript"],
)
def test_not_a_module(thing: Any) -> None:
    error = refused(errors.NotAModuleError, lambda: qx.Session(thing, VECTOR))
    assert isinstance(error, TypeError)


def test_already_prepared_or_converted() -> None:
    error = refused(errors.AlreadyPreparedError, lambda: qx.Session(prepared(), VECTOR))
    assert error.where == "0"
    int8 = convert(prepared().eval())
    error = refused(errors.AlreadyPreparedError, lambda: qx.Session(int8, VECTOR))
    assert error.where == "0"
    ours = qx.Session(linear(), VECTOR)
    ours.goto("insert")
    refused(errors.AlreadyPreparedError, lambda: qx.Session(ours.model, VECTOR))


def test_on_meta_or_on_two_devices() -> None:
    on_meta = nn.Sequential(nn.Linear(6, 6, device="meta"), nn.Linear(6, 4, device="meta"))
    error = refused(errors.DeviceError, lambda: qx.Session(on_meta, VECTOR))
    assert error.where == "0"
    mixed = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 4, device="meta"))
    error = refused(errors.DeviceError, lambda: qx.Session(mixed, VECTOR))
    assert error.where == "1"


class SaysCuda(Tensor):
    """A parameter that says it lies on a GPU, as one does on a machine that has lost its own."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda:0")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_on_a_gpu_that_is_not_there() -> None:
    model = linear()
    model[1].register_buffer("scale", torch.zeros(4).as_subclass(SaysCuda))
    model[0].requires_grad_(False)
    error = refused(errors.DeviceError, lambda: qx.Session(model, VECTOR))
    assert "cuda:0" in error.message
    assert error.where == "1"
    assert ".cpu()" in error.fix


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, torch.double])
def test_other_dtypes(dtype: torch.dtype) -> None:
    model = linear()
    model[1].to(dtype)
    error = refused(errors.DtypeError, lambda: qx.Session(model, VECTOR))
    assert error.where == "1"
    assert str(dtype) in error.message


def test_lazy_modules() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.LazyLinear(4))
    error = refused(errors.InputError, lambda: qx.Session(model, VECTOR))
    assert error.where == "1"


@pytest.mark.parametrize(
    "thing", [threading.Lock, lambda: (i for i in ())], ids=["lock", "generator"]
)
def test_not_copyable_names_module_and_attribute(thing: Callable[[], Any]) -> None:
    model = linear()
    model[1].extra = {"in a dict": thing()}
    error = refused(errors.NotCopyableError, lambda: qx.Session(model, VECTOR))
    assert error.where == "1"
    assert "'extra'" in error.message


def test_deepcopy_of_its_own_that_raises() -> None:
    class Refuses(nn.Linear):
        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("never copy me")

    model = nn.Sequential(nn.Linear(6, 6), Refuses(6, 4))
    error = refused(errors.NotCopyableError, lambda: qx.Session(model, VECTOR))
    assert "never copy me" in error.why
    assert error.where == "1"


# -- the example inputs --------------------------------------------------------------------------


def test_inputs_that_do_not_fit() -> None:
    error = refused(errors.ExampleInputError, lambda: qx.Session(ConvBnRelu().train(), VECTOR))
    assert error.where == "conv1"
    line = ConvBnRelu.forward.__code__.co_firstlineno + 1
    assert f"models.py:{line}" in error.message
    assert "(4, 6)" in error.fix


@pytest.mark.parametrize(
    "inputs", [(), (torch.zeros(4, 6), torch.zeros(1)), {"wrong": torch.zeros(4, 6)}, "text"]
)
def test_inputs_of_another_form(inputs: Any) -> None:
    refused(errors.ExampleInputError, lambda: qx.Session(linear(), inputs))


def test_no_inputs_and_no_data() -> None:
    refused(errors.ExampleInputError, lambda: qx.Session(linear()))
    with pytest.raises(errors.ExampleInputError):
        qx.Session(linear(), data=[[], []])
    with pytest.raises(errors.ExampleInputError):
        qx.Session(linear(), data=[[1, 2], [1, 2]])


class Raises(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)
        self.inner = Inner()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.fc(x))


class Inner(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("a bug of the user's")


def test_forward_that_raises() -> None:
    model = Raises()
    error = refused(errors.ExampleInputError, lambda: qx.Session(model, VECTOR))
    assert error.where == "inner"
    line = Inner.forward.__code__.co_firstlineno + 1
    assert f"test_session_faults.py:{line}" in error.message
    assert "a bug of the user's" in error.why
    assert isinstance(error.__cause__, KeyError)
    assert not any(m._forward_hooks for m in model.modules())


# -- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"qconfig": "tpu"}, errors.UnknownEngineError),
        ({"engine": "tpu"}, errors.UnknownEngineError),
        ({"qconfig": {"": "tpu"}}, errors.UnknownEngineError),
        ({"qconfig": get_default_qconfig("onednn")}, errors.QConfigError),
        ({"qconfig": {"0": get_default_qconfig("onednn")}}, errors.QConfigError),
        ({"qconfig": 8}, errors.QConfigError),
        ({"qconfig": {3: None}}, errors.QConfigError),
        ({"flow": "fx2"}, errors.InputError),
        ({"stubs": "some"}, errors.InputError),
        ({"data": 5}, errors.InputError),
        ({"data": [iter([]), []]}, errors.InputError),
        ({"fusion": [["0", "1"]]}, errors.FusionError),
        ({"fusion": [["0", "7"]]}, errors.FusionError),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, Any], kind: Any) -> None:
    refused(kind, lambda: qx.Session(linear(), VECTOR, **settings))


def test_bad_settings_change_nothing_of_a_session() -> None:
    session = qx.Session(linear(), VECTOR)
    session.goto("insert")
    options = session.options
    for settings in (
        {"qconfig": "tpu"},
        {"stubs": "some"},
        {"fusion": [["0", "1"]]},
        {"engine": "tpu"},
    ):
        refused(errors.InputError, lambda given=settings: session.configure(**given))
    assert session.stage == "insert"
    assert session.options == options


@pytest.mark.parametrize("key", ["lay3r", nn.Conv2d], ids=["path", "type"])
def test_qconfig_for_what_the_model_does_not_have(key: Any) -> None:
    session = qx.Session(linear(), VECTOR, qconfig={"": "onednn", key: None})
    error = refused(errors.QConfigError, lambda: session.goto("convert"))
    assert "does not have" in error.message
    assert session.stage == "fuse"
    session.configure(qconfig="onednn")
    assert session.goto("insert").sites


def test_qconfig_whose_factory_raises() -> None:
    from torch.ao.quantization import QConfig

    def broken() -> Any:
        raise ValueError("no such observer")

    default = get_default_qat_qconfig("onednn")
    qconfig = QConfig(activation=broken, weight=default.weight)
    error = refused(errors.QConfigError, lambda: qx.Session(linear(), VECTOR, qconfig=qconfig))
    assert "no such observer" in error.why


# -- stages --------------------------------------------------------------------------------------


def test_unknown_stage_and_a_step_past_the_end() -> None:
    session = qx.Session(ConvBnRelu().train(), (image(),))
    error = refused(errors.UnknownStageError, lambda: session.goto("quantize"))
    assert "insert" in error.fix
    assert isinstance(error, ValueError)
    session.goto("convert")
    refused(errors.StageError, session.step)
    assert session.stage == "convert"
    assert session.int8 is not None


def test_eval_mode() -> None:
    session = qx.Session(ConvBnRelu().eval(), (image(),))
    refused(errors.EvalModeError, session.step)
    refused(errors.EvalModeError, lambda: session.goto("convert"))
    assert session.stage == session.reached == "float"


def test_attention_fails_at_swap_and_the_session_stays_before_it() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 6)
            self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.fc(x)
            return self.attention(x, x, x)[0]

    session = qx.Session(Attention().train(), (torch.randn(2, 3, 6),), qconfig="onednn")
    reported: list[Any] = []
    session.signal.subscribe(lambda e: reported.append(e.detail) if e.kind == "error" else None)
    error = refused(errors.StageError, lambda: session.goto("convert"))
    assert "swap" in error.message
    assert error.where == "attention.out_proj"
    assert reported == [error]
    assert session.stage == session.reached == "propagate"
    kept = session.model
    assert type(kept.fc) is nn.Linear  # not half swapped
    refused(errors.StageError, session.step)
    session.configure(qconfig={"": "onednn", "attention": None})
    assert session.goto("insert").by_path["fc"].qualified_type.startswith("torch.ao.nn.qat")


def test_plus_on_quantized_tensors() -> None:
    session = qx.Session(PlainAdd().train(), (torch.randn(4, 6),), data=[loader(VECTOR[0])] * 2)
    session.train(epochs=1)
    weights = {k: v.clone() for k, v in session.model.state_dict().items()}
    error = refused(errors.Int8RunError, session.step)
    assert "add" in error.op
    assert error.where == "block"
    assert "FloatFunctional" in error.fix
    assert error.source.rpartition("/")[2].startswith("models.py:")
    assert session.stage == session.reached == "train"
    now = session.model.state_dict()
    assert all(torch.equal(now[k], v) for k, v in weights.items())
    refused(errors.StageError, lambda: session.int8)
    session.train(epochs=1)  # nothing is lost: it can go on


def test_no_stubs() -> None:
    session = qx.Session(NoStubs().train(), (image(),))
    error = refused(errors.Int8RunError, lambda: session.goto("convert"))
    assert error.where == "conv"
    assert "QuantStub" in error.why
    assert session.stage == "train"


class Reads(nn.Module):
    """Its forward looks at the type and at an attribute of a layer."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.inner = nn.Sequential(nn.Linear(6, 6))
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        if self.what == "type" and type(self.inner[0]) is not nn.Linear:
            raise TypeError("not the layer that I know")
        if self.what == "weight":
            x = x.to(self.inner[0].weight.dtype)
        return self.fc(self.inner(x))


@pytest.mark.parametrize("look", [False, True], ids=["", "with the model handed out"])
def test_forward_that_does_not_run_after_a_stage(look: bool) -> None:
    session = qx.Session(Reads("type").train(), VECTOR)
    session.goto("propagate")
    if look:
        assert session.model is not None
    error = refused(errors.StageError, lambda: session.goto("convert"))
    assert "after stage 'insert'" in error.message
    assert "not the layer that I know" in error.message
    assert error.where == ""
    assert session.stage == session.reached == "swap"
    assert type(session.model.fc) is nnqat.Linear
    refused(errors.StageError, session.step)
    session.configure(qconfig={"": "onednn", "inner": None})
    assert session.goto("insert").sites


def test_forward_that_reads_through_a_wrapper() -> None:
    session = qx.Session(Reads("weight").train(), VECTOR, stubs="layers")
    error = refused(errors.StageError, lambda: session.goto("insert"))
    assert error.where == "inner.0"
    assert "QuantWrapper" in error.why
    assert session.stage == session.reached == "swap"
    options = {o.mode: o.preflight for o in session.stub_options()}
    assert not options["layers"].ok
    session.configure(qconfig={"": "onednn", "inner": None})
    assert session.goto("convert").stage == "convert"


# -- data and training ---------------------------------------------------------------------------


def test_no_data() -> None:
    session = qx.Session(ConvBnRelu().train(), (image(),))
    for ask in (session.train, session.start_training, session.calibrate, session.evaluate):
        refused(errors.NoDataError, ask)
    assert session.stage == "float"
    assert session.run is None


def test_unknown_setting_of_a_run() -> None:
    x = image()
    session = qx.Session(ConvBnRelu().train(), (x,), data=[loader(x)] * 2)
    with pytest.raises(TypeError, match="learning_rate"):
        session.train(epochs=1, learning_rate=1.0)
    with pytest.raises(errors.InputError, match="epochs is 0"):
        session.train(epochs=0)
    assert session.stage == "float"


def test_nan_loss_keeps_the_last_good_state() -> None:
    x = image()
    rows = loader(x, batches=3)
    rows[2][0][0, 0, 0, 0] = float("nan")
    session = qx.Session(ConvBnRelu().train(), (x,), data=[rows, loader(x)])
    error = refused(errors.DivergedError, lambda: session.train(epochs=1))
    assert error.where is not None
    assert not session.running
    assert session.stage == "train"
    assert all(torch.isfinite(p).all() for p in session.model.parameters())
    assert all(torch.isfinite(torch.tensor(s.scale)).all() for s in session.snapshot.sites)
    assert session.goto("convert").stage == "convert"


def test_busy_while_training() -> None:
    x = image()
    session = qx.Session(ConvBnRelu().train(), (x,), data=[loader(x, batches=300)] * 2)
    run = session.start_training(epochs=100)
    try:
        for ask in (
            session.start_training,
            session.train,
            session.calibrate,
            session.evaluate,
            session.reset,
            session.use_train_mode,
            lambda: session.goto("convert"),
            lambda: session.configure(stubs="model"),
        ):
            refused(errors.BusyError, ask)
        assert session.run is run
        assert session.stage == "train"
        assert session.goto("fuse").stage == "fuse"
    finally:
        run.stop(timeout=PATIENCE_S)
    session.reset()
    assert session.goto("insert").sites


def test_errors_survive_copying() -> None:
    error = refused(errors.DtypeError, lambda: qx.Session(linear().double(), VECTOR))
    again = copy.copy(error)
    assert (again.message, again.where, again.fix) == (error.message, error.where, error.fix)
