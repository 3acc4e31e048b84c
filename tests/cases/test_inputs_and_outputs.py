"""Several inputs, keywords, lists and dicts in and out, losses of the user's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qatexplorer as qx
from qatexplorer import errors
from qatexplorer.flows.stubs import InputStubs

from .models import (
    BoxNet,
    C2f,
    ChangeDetector,
    Conv,
    Yolo,
    assert_untouched,
    batches,
    session_of,
    state_of,
    to_int8,
    yolo_loss,
)


def pictures() -> tuple[Tensor, Tensor]:
    before = torch.rand(4, 1, 8, 8)
    return before, (before + 0.5) * 30  # another sensor: thirty times the range


def changes(keywords: bool) -> Any:
    def make() -> Any:
        before, after = pictures()
        return {"before": before, "after": after} if keywords else (before, after)

    return batches(make, lambda x: (torch.rand(4, 8, 8) > 0.7).long())


@pytest.mark.parametrize("stubs", ["model", "layers"])
@pytest.mark.parametrize("keywords", [False, True], ids=["by position", "by name"])
def test_two_images_reach_int8(keywords: bool, stubs: Any) -> None:
    torch.manual_seed(0)
    model, data = ChangeDetector().train(), changes(keywords)
    before = state_of(model)
    session = session_of(model, data["train"][0][0], "eager", data=data, stubs=stubs)
    to_int8(session)
    assert_untouched(model, before)
    if stubs == "model":
        note = " ".join(session.snapshots["propagate"].notes)
        assert "each of before, after gets a QuantStub" in note
        scales = {
            n: float(m.activation_post_process.scale)
            for n, m in session._models.work.quant.named_children()
        }
        assert scales["after"] > 20 * scales["before"]
        sites = {s.path: s.kind for s in session.snapshots["insert"].sites}
        assert sites["quant.before.activation_post_process"] == "input"
        assert session.snapshots["insert"].by_path["module.head"].origin == "head"


def test_the_choice_of_stubs_says_beforehand_what_runs() -> None:
    session = session_of(ChangeDetector().train(), pictures(), "eager")
    found = {option.mode: option.preflight.ok for option in session.stub_options()}
    assert found == {"none": False, "model": True, "layers": True}


def test_whole_numbers_and_flags_get_no_stub() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, values: Tensor, index: Tensor, scale: float = 1.0) -> Any:
            return {"out": [self.fc(values)], "index": index}

    inputs = {"values": torch.rand(2, 4), "index": torch.tensor([0, 1])}
    session = session_of(Mixed().train(), inputs, "eager", stubs="model")
    session.goto("insert")
    wrapped = session.model
    assert isinstance(wrapped, InputStubs)
    assert list(wrapped.quant) == ["values_"]  # a ModuleDict has .values of its own
    session.goto("convert")
    result = session.int8(**inputs)
    assert not result["out"][0].is_quantized
    assert torch.equal(result["index"], inputs["index"])


def test_one_tensor_still_gets_torchs_own_wrapper() -> None:
    for inputs in (torch.rand(2, 4), (torch.rand(2, 4),)):
        session = session_of(nn.Sequential(nn.Linear(4, 2)).train(), inputs, "eager", stubs="model")
        session.goto("insert")
        assert type(session.model).__name__ == "QuantWrapper"


@pytest.mark.parametrize("given", [False, True, None])
def test_fx_names_the_argument_that_decides_a_branch(given: bool | None) -> None:
    before, after = pictures()
    inputs: Any = (before, after)
    if given is not None:
        inputs = {"before": before, "after": after, "probabilities": given}
    session = session_of(ChangeDetector().train(), inputs, "fx")
    with pytest.raises(errors.TraceFailedError) as caught:
        session.step()
    assert "The line asks for probabilities" in caught.value.why
    call = f"self.model(before, after, probabilities={bool(given)})"
    assert call in caught.value.fix

    class Fixed(nn.Module):  # the fix, tried
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, before: Tensor, after: Tensor) -> Tensor:
            return self.model(before, after, probabilities=bool(given))

    data = changes(keywords=False)
    session = session_of(Fixed(ChangeDetector()).train(), (before, after), "fx", data=data)
    to_int8(session)
    sites = [s for s in session.snapshots["insert"].sites if s.kind == "input"]
    assert len(sites) == 2


# -- detection ------------------------------------------------------------------------------------


def yolo_data() -> Any:
    def maps(_x: Tensor) -> list[Tensor]:
        return [torch.randn(2, 7, 8, 8), torch.randn(2, 7, 4, 4)]

    return batches(lambda: torch.rand(2, 3, 16, 16), maps)


def yolo(flow: str, **settings: Any) -> qx.Session:
    torch.manual_seed(0)
    data = yolo_data()
    return session_of(
        Yolo().train(),
        (data["train"][0][0],),
        flow,
        data=data,
        loss=yolo_loss,
        metric=yolo_loss,
        **settings,
    )


def test_a_detector_reaches_int8_in_eager() -> None:
    session = yolo("eager", stubs="layers")
    pairs = [run for run in session.fusion if len(run) == 2]
    assert len(pairs) == len(session.fusion) == sum(isinstance(m, Conv) for m in Yolo().modules())
    assert ("block.m.0.conv", "block.m.0.bn") in pairs
    to_int8(session)
    norms = [m.bn for m in session._models.work.modules() if hasattr(m, "bn")]
    assert {(n.eps, n.momentum) for n in norms if hasattr(n, "eps")} == {(1e-3, 0.03)}
    result = session.evaluate(latency=False)
    assert result["int8"].metric is not None


def test_a_shared_activation_is_reported_before_training() -> None:
    session = yolo("eager", stubs="model")
    before = session.preflight()
    assert before.error is not None
    assert "silu" in before.error.message
    with pytest.raises(errors.Int8RunError):
        session.goto("convert")
    names = [p for p, _ in Yolo().named_modules(remove_duplicate=False) if p.endswith("act")]
    records = [m for m in session.snapshots["float"].modules if m.path in names]
    assert len(records) == len(names) == 5
    assert len({m.identity for m in records}) == 1


def test_fx_names_the_line_and_its_fix_works() -> None:
    session = yolo("fx")
    with pytest.raises(errors.TraceFailedError) as caught:
        session.step()
    assert caught.value.where == "block"
    assert "C2f.forward at models.py:" in caught.value.message
    assert "non_traceable=['block'] (or [C2f])" in caught.value.fix
    for fix in (["block"], [C2f]):
        session = yolo("fx", non_traceable=fix)
        to_int8(session)
        notes = " ".join(session.snapshots["trace"].notes)
        assert "mapping.set_module_name('block', None)" in notes
        assert isinstance(session.int8.block.cv1.conv, nn.Conv2d)  # float, and it runs


def test_a_frozen_branch_on_training_is_reported() -> None:
    session = yolo("fx", non_traceable=["block"])
    session.step()
    (note,) = [n for n in session.snapshot.notes if "A branch on self.training" in n]
    assert "the graph gives [(2, 7, 8, 8), (2, 7, 4, 4)]" in note
    assert "your forward (2, 7, 80)" in note


@pytest.mark.parametrize("stubs", ["model", "layers"])
def test_lists_of_images_and_dicts_of_losses(stubs: Any) -> None:
    torch.manual_seed(0)

    def make() -> Any:
        images = [torch.rand(3, 8, 8 + i) for i in range(3)]
        targets = [{"box": torch.rand(4), "score": torch.rand(())} for _ in images]
        return images, targets

    def loss(output: Any, _target: Any) -> Tensor:
        return sum(output.values(), torch.zeros(()))

    def metric(output: Any, target: Any) -> float:
        assert all(set(o) == {"box", "score"} for o in output)
        return float(torch.stack([o["score"] for o in output]).mean())

    data = batches(make, lambda x: x[1])
    model = BoxNet().train()
    before = state_of(model)
    session = session_of(
        model, data["train"][0][0], "eager", data=data, loss=loss, metric=metric, stubs=stubs
    )
    to_int8(session)
    assert session.evaluate(latency=False)["int8"].metric is not None
    assert_untouched(model, before)
