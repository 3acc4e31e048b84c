"""Findings are reported at every stage from the first on, and each of their buttons puts them
right: the finding is gone then, and the int8 model runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import get_default_qconfig

import qatexplorer as qx
from qatexplorer.checks.records import Finding, Fix
from qatexplorer.errors import QatExplorerError
from qatexplorer.quantizers.engine import available_engines, quantized_engine
from qatexplorer.session.assess import Assessor
from tests.support.engines import fake_machine, faked
from tests.support.models import (
    NARROW,
    SMALL,
    Branching,
    ConvBnRelu,
    NoStubs,
    PlainAdd,
    Unused,
    image,
    load_timm,
    loader,
)
from tests.support.models_fx import WRITTEN, Attending

Made = tuple[nn.Module, Any]


def in_eval_mode() -> Made:
    return ConvBnRelu().eval(), image()


def with_own_qconfig(qconfig: Any) -> Callable[[], Made]:
    def make() -> Made:
        model = ConvBnRelu()
        model.qconfig = qconfig  # type: ignore[assignment]
        return model, image()

    return make


SITUATIONS: dict[str, tuple[str, Callable[[], Made], dict[str, Any]]] = {
    "no-stub": ("no-stub", lambda: (NoStubs(), image()), {}),
    "no_stub_branching": ("no-stub", lambda: (Branching(), torch.randn(4, 6)), {}),
    "eval-mode": ("eval-mode", in_eval_mode, {}),
    "eval_mode_fx": ("eval-mode", in_eval_mode, {"flow": "fx"}),
    "post_training": (
        "post-training-qconfig",
        with_own_qconfig(get_default_qconfig("onednn")),
        {},
    ),
    "post_training_fx": (
        "post-training-qconfig",
        with_own_qconfig(get_default_qconfig("onednn")),
        {"flow": "fx"},
    ),
    "qconfig_none": ("nothing-quantized", with_own_qconfig(None), {}),
    "qconfig_none_fx": ("nothing-quantized", with_own_qconfig(None), {"flow": "fx"}),
    "bare_layer": ("nothing-quantized", lambda: (nn.Linear(6, 4), torch.randn(4, 6)), {}),
    "plain_add": ("int8-fails", lambda: (PlainAdd(), torch.randn(4, 6)), {}),
    "float_after_int8": ("int8-fails", lambda: (ConvBnRelu(), image()), {"qconfig": {"fc": None}}),
    "untraceable": (
        "cannot-prepare",
        lambda: (Branching(), torch.randn(4, 6)),
        {"flow": "fx"},
    ),
    "attention": ("cannot-prepare", lambda: (Attending(), torch.randn(3, 4, 8)), {}),
    "clamps": ("engine-clamps", lambda: (ConvBnRelu(), image()), {"qconfig": "x86"}),
}


def session_of(name: str) -> qx.Session:
    _, make, settings = SITUATIONS[name]
    torch.manual_seed(0)
    model, inputs = make()
    data = {"train": loader(inputs), "eval": loader(inputs)}
    session = qx.Session(model, inputs, data=data, **settings)
    session.warns = False
    return session


def of_id(session: qx.Session, finding: str) -> Finding | None:
    return next((found for found in session.findings() if found.name == finding), None)


def runs_in_int8(session: qx.Session) -> None:
    """Walked to its end by hand, calibrated on the way, it gives finite results."""
    session.goto(session.flow.train_stage)
    session.calibrate(2)
    session.goto(session.flow.int8_stage)
    inputs = session.options.example_inputs
    with quantized_engine(session.options.qconfig.backend):
        output = session.int8(*inputs) if isinstance(inputs, tuple) else session.int8(inputs)
    first = output[0] if isinstance(output, tuple) else output
    assert isinstance(first, Tensor)
    assert bool(first.isfinite().all())


@pytest.fixture(autouse=True)
def right_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_machine(monkeypatch, *(faked(name) for name in available_engines()))


def cases() -> list[Any]:
    return [pytest.param(name, id=name) for name in SITUATIONS]


@pytest.mark.filterwarnings("ignore::qatexplorer.errors.QatExplorerWarning")
@pytest.mark.parametrize("name", cases())
def test_it_is_told_before_any_call_and_at_every_stage_after(name: str) -> None:
    wanted = SITUATIONS[name][0]
    session = session_of(name)
    if wanted == "engine-clamps" and of_id(session, wanted) is None:
        pytest.skip("the faked engines do not clamp")
    first = of_id(session, wanted)
    assert first is not None
    assert session.reached == session.stages[0]
    assert first.stage in session.stages
    assert first.message.endswith(".")
    for stage in session.stages[1:]:
        try:
            session.goto(stage)
        except QatExplorerError:
            break
        again = of_id(session, wanted)
        assert again is not None
        assert (again.severity, again.path, again.message) == (
            first.severity,
            first.path,
            first.message,
        )
        assert [fix.code for fix in again.fixes] == [fix.code for fix in first.fixes]


@pytest.mark.filterwarnings("ignore::qatexplorer.errors.QatExplorerWarning")
@pytest.mark.parametrize("name", cases())
def test_each_of_its_buttons_puts_it_right(name: str) -> None:
    wanted = SITUATIONS[name][0]
    finding = of_id(session_of(name), wanted)
    if finding is None:
        pytest.skip("the faked engines do not clamp")
    assert finding.fixes, "a button is offered"
    for index in range(len(finding.fixes)):
        session = session_of(name)
        found = of_id(session, wanted)
        assert found is not None
        fix: Fix = found.fixes[index]
        assert fix.label
        fix.apply(session)
        assert of_id(session, wanted) is None, fix.code
        errors = [p.message for p in session.findings() if p.severity == "error"]
        assert not errors, fix.code
        runs_in_int8(session)


@pytest.mark.filterwarnings("ignore::qatexplorer.errors.QatExplorerWarning")
@pytest.mark.parametrize("name", cases())
def test_the_code_of_a_fix_is_the_call_it_makes(name: str) -> None:
    wanted = SITUATIONS[name][0]
    finding = of_id(session_of(name), wanted)
    for index in range(len(finding.fixes) if finding is not None else 0):
        session = session_of(name)
        found = of_id(session, wanted)
        assert found is not None
        eval(found.fixes[index].code, {"session": session})  # our own text
        assert of_id(session, wanted) is None, found.fixes[index].code


def test_both_ways_of_putting_stubs_in_are_offered() -> None:
    finding = of_id(session_of("no-stub"), "no-stub")
    assert finding is not None
    calls = [fix.code for fix in finding.fixes]
    assert calls[:2] == ["session.configure(stubs='model')", "session.configure(stubs='layers')"]


class Looped(nn.Module):
    """Asks for a size that torch.fx does not know and torch.export does."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(x.shape[1]):
            x = self.inner(x)
        return x


@pytest.mark.filterwarnings("ignore::qatexplorer.errors.QatExplorerWarning")
def test_where_fx_cannot_trace_buttons_lead_to_the_flows_that_need_not() -> None:
    pytest.importorskip("torchao")
    settings: dict[str, Any] = {"flow": "fx"}
    first = of_id(qx.Session(Looped(), torch.randn(2, 2, 32), **settings), "cannot-prepare")
    assert first is not None
    labels = ["Use Eager mode, each layer wrapped", "Use PT2E", "Use torchao"]
    assert [fix.label for fix in first.fixes] == labels
    for fix, flow in zip(first.fixes, ("eager", "pt2e", "torchao"), strict=True):
        session = qx.Session(Looped(), torch.randn(2, 2, 32), **settings)
        fix.apply(session)
        assert session.flow.name == flow
        assert of_id(session, "cannot-prepare") is None
        session.goto(session.flow.int8_stage)
    # Where torch.fx is not what failed, there are no more ways than before.
    other = of_id(session_of("no-stub"), "no-stub")
    assert other is not None
    assert not {"Use PT2E", "Use torchao"} & {fix.label for fix in other.fixes}


def test_a_way_that_does_not_lead_to_int8_is_not_offered() -> None:
    # Its + on int8 tensors raises: stubs around the whole do not help.
    model, x = load_timm("resnet18", **NARROW)
    session = qx.Session(model, x)
    finding = of_id(session, "no-stub")
    assert finding is not None
    assert "session.configure(stubs='model')" not in [fix.code for fix in finding.fixes]
    assert "session.configure(stubs='layers')" in [fix.code for fix in finding.fixes]


@pytest.mark.filterwarnings("ignore::qatexplorer.errors.QatExplorerWarning")
def test_an_engine_that_saturates_is_changed_by_its_button(monkeypatch: pytest.MonkeyPatch) -> None:
    names = available_engines()
    fake_machine(monkeypatch, *(faked(n, 0 if n == "qnnpack" else 63) for n in names))
    session = qx.Session(ConvBnRelu(), image(), engine="onednn", data=[loader(image())] * 2)
    session.warns = False
    finding = of_id(session, "engine-saturates")
    assert finding is not None
    assert finding.severity == "error"
    finding.fixes[0].apply(session)
    assert session.options.qconfig.backend == "qnnpack"
    assert of_id(session, "engine-saturates") is None
    runs_in_int8(session)


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_converted_before_any_data_is_told_and_calibrating_puts_it_right(flow: str) -> None:
    x = image()
    session = qx.Session(ConvBnRelu(), x, flow=flow, data=[loader(x), loader(x)])
    session.warns = False
    assert of_id(session, "never-observed") is None
    session.goto(session.flow.train_stage)
    early = of_id(session, "never-observed")
    assert early is not None
    assert early.severity == "info"
    session.goto(session.flow.int8_stage)
    late = of_id(session, "never-observed")
    assert late is not None
    assert late.severity == "error"
    late.fixes[0].apply(session)
    assert of_id(session, "never-observed") is None
    session.goto(session.flow.int8_stage)
    assert of_id(session, "never-observed") is None


def test_without_data_there_is_no_button_to_calibrate() -> None:
    session = qx.Session(ConvBnRelu(), image())
    session.goto("train")
    finding = of_id(session, "never-observed")
    assert finding is not None
    assert not finding.fixes
    assert "data=" in finding.fix


def test_a_fake_quant_that_no_data_came_to_is_named() -> None:
    x = torch.randn(4, 6)
    session = qx.Session(Unused(), x, data=[loader(x), loader(x)])
    session.warns = False
    session.calibrate(2)
    finding = of_id(session, "unseen")
    assert finding is not None
    unseen = [s.path for s in session.snapshot.sites if s.seen == "nothing"]
    assert finding.path == unseen[0]
    # No forward calls it: that does no harm.
    assert (finding.severity, session.snapshot.site_by_path[unseen[0]].calls_per_forward) == (
        "info",
        0,
    )


def test_a_fake_quant_that_runs_and_has_seen_nothing_is_a_warning() -> None:
    x = torch.randn(4, 6)
    session = qx.Session(Unused(), x, data=[loader(x), loader(x)])
    session.warns = False
    session.goto("train")
    site: Any = session.model.get_submodule("fc.activation_post_process")
    site.disable_observer()
    session.calibrate(2)
    finding = of_id(session, "unseen")
    assert finding is not None
    assert (finding.severity, finding.path) == ("warning", "fc.activation_post_process")
    assert "spare" not in finding.message


def test_a_scale_that_nan_has_spoiled_is_an_error() -> None:
    x = image()
    bad = [(torch.full_like(x, float("nan")), torch.zeros(4, dtype=torch.long))]
    session = qx.Session(ConvBnRelu(), x, data=[bad, bad])
    session.warns = False
    session.calibrate(1)
    finding = of_id(session, "bad-scale")
    assert finding is not None
    assert finding.severity == "error"


def test_layers_that_stay_float_are_a_note_at_the_first_stage() -> None:
    session = qx.Session(ConvBnRelu(), image(), flow="fx", qconfig={"fc": None})
    finding = of_id(session, "stays-float")
    assert finding is not None
    assert (finding.severity, finding.path) == ("info", "fc")
    assert finding.message == "fc stays float in the int8 model."


def test_a_good_model_has_no_finding() -> None:
    for flow in ("eager", "fx"):
        assert qx.Session(ConvBnRelu(), image(), flow=flow).findings() == ()


@pytest.mark.filterwarnings("ignore::qatexplorer.errors.QatExplorerWarning")
@pytest.mark.parametrize("flow", ["eager", "fx"])
@pytest.mark.parametrize("case", [*SMALL, *WRITTEN], ids=lambda case: case.name)
def test_what_is_foretold_comes_true(case: Any, flow: str) -> None:
    """A model of which int8 is said to fail fails when it is walked there, and no other does; what
    is offered leads to int8."""
    model, x = case()
    data = [loader(x), loader(x)]
    session = qx.Session(model, x, flow=flow, data=data)
    session.warns = False
    fatal = {"no-stub", "int8-fails", "cannot-prepare"}
    told = [p for p in session.findings() if p.name in fatal]
    try:
        session.goto(session.flow.train_stage)
        session.calibrate(1)
        session.goto(session.flow.int8_stage)
    except QatExplorerError:
        assert told
    else:
        assert not told
    for finding in told:
        for fix in finding.fixes:
            fix.apply(session)
            assert not [p for p in session.findings() if p.name in fatal], fix.code
            session.calibrate(1)
            session.goto(session.flow.int8_stage)


def test_a_trial_leaves_no_trace() -> None:
    """The session's model, the random state and the stages are as they were."""
    model, x = NoStubs(), image()
    session = qx.Session(model, x)
    before = {k: v.clone() for k, v in session.copy_model().state_dict().items()}
    state = torch.get_rng_state()
    assert session.findings()
    assert torch.equal(torch.get_rng_state(), state)
    assert session.reached == "float"
    after = session.copy_model().state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_nothing_is_tried_while_a_run_is_going_on(monkeypatch: pytest.MonkeyPatch) -> None:
    x = image()
    tried: list[int] = []
    real = Assessor.preflight
    monkeypatch.setattr(
        Assessor, "preflight", lambda self, **more: tried.append(1) or real(self, **more)
    )
    session = qx.Session(ConvBnRelu(), x, data=[loader(x), loader(x)])
    session.warns = False
    run = session.start_training(epochs=200)
    try:
        session.findings()
        assert not tried
    finally:
        run.stop()
        run.wait(30)
    session.findings()
    session.findings()
    assert len(tried) == 1
