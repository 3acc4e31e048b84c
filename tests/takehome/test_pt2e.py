"""A walk through the PT2E flow as a script, and its program as a file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from tests.support.fresh import ROOT, run_fresh
from tests.support.pt2e_runs import Plain, plain, session
from tests.support.scripts import assert_the_same, run_here
from tests.support.training_models import one_thread, same  # noqa: F401

SCHEDULE: dict[str, Any] = {
    "freeze_observer_epoch": 1,
    "freeze_bn_epoch": 1,
    "fake_quant_start_epoch": 1,
    "scheduler": "cosine",
    "clip_grad_norm": 1.0,
    "freeze_weights": 0.3,
    "seed": 7,
}


@pytest.fixture(scope="module")
def walked() -> qx.Session:
    one = session()
    one.calibrate(2)
    one.train(2, progress=False, **SCHEDULE)
    one.goto("lower")
    return one


RUN = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, {folder!r})
import walk
assert not any(name.partition(".")[0] == "qatexplorer" for name in sys.modules)
sys.path.insert(1, {root!r})
from tests.support.pt2e_runs import plain
from tests.support.training_models import data
train, evaluation = data(3)
made = walk.run(plain(), train[0][0], train, evaluation)
with torch.no_grad():
    output = made["int8"](train[0][0])
    program = torch.export.load({program!r}).module()
torch.save((made["trained"].state_dict(), output, program(train[0][0])), {made!r})
"""


def test_in_a_fresh_process_script_and_program_give_the_same(
    walked: qx.Session, tmp_path: Path
) -> None:
    made = walked.export(tmp_path / "out", evaluate=False)
    assert {"reference.pt2", "walk.py", "example.safetensors", "README.md"} == set(made.files)
    file, folder = tmp_path / "ran.pt", str(made.folder)
    program = str(made.folder / "reference.pt2")
    run_fresh([RUN.format(folder=folder, root=str(ROOT), made=str(file), program=program)])
    state, output, reference = torch.load(file, weights_only=True)
    x = walked.options.example_inputs
    assert same(walked.copy_model("train").state_dict(), state)
    assert torch.equal(walked.int8(x), output)
    with torch.no_grad():
        assert torch.equal(walked.copy_model("fold")(x), reference)


def test_the_folder_says_what_is_not_in_it(
    walked: qx.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = walked.export(tmp_path / "out", evaluate=False)
    text = " ".join(made.notes)
    assert "No int8.safetensors: the lowered model holds weights that oneDNN has packed" in text
    assert "No model.onnx" in text
    card = (made.folder / "README.md").read_text(encoding="utf-8")
    assert all(note in card for note in made.notes)
    assert "quantizer x86" in card
    # What the card says to do.
    code = card.partition("```python\n")[2].partition("```")[0].replace("reference.pt2", "{}")
    there: dict[str, Any] = {}
    monkeypatch.syspath_prepend(str(made.folder))
    monkeypatch.delitem(sys.modules, "walk", raising=False)
    exec(code.format(made.folder / "reference.pt2"), there)
    x = walked.options.example_inputs
    with torch.no_grad():
        assert torch.equal(there["int8"](*there["args"]), walked.int8(x))


def script_of(**settings: Any) -> tuple[qx.Session, str]:
    one = session(**settings)
    one.train(1, progress=False)
    return one, one.script()


@pytest.mark.parametrize(
    "quantizer", [None, "arm", pytest.param("xnnpack", marks=pytest.mark.long)]
)
def test_a_quantizer_by_name_is_written_as_torchaos_calls(quantizer: str | None) -> None:
    one, text = script_of(quantizer=quantizer)
    name = {None: "X86Inductor", "arm": "ArmInductor", "xnnpack": "XNNPACK"}[quantizer]
    assert f"{name}Quantizer().set_global(config)" in text
    assert "prepare_qat_pt2e(exported, quantizer)" in text
    assert "to_int8" not in text
    assert "needs torch, torchao" in text
    assert_the_same(one, text, plain)


def test_a_quantizer_of_ones_own_is_an_argument() -> None:
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    def quantizer() -> Any:
        config = x86.get_default_x86_inductor_quantization_config(is_qat=True)
        return x86.X86InductorQuantizer().set_module_type_qconfig(nn.Linear, config)

    one, text = script_of(quantizer=quantizer())
    assert "quantizer: a new Quantizer like the session's, which is a torchao" in text
    assert_the_same(one, text, plain, quantizer=quantizer())


def test_modules_left_in_float_and_edits_are_in_the_script() -> None:
    one, text = script_of(qconfig={"conv": None, "": "x86"})
    assert "leave_out(quantizer, 'conv')" in text
    assert_the_same(one, text, plain)


class TwoInputs(Plain):
    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return super().forward(x * scale)


@pytest.mark.parametrize("form", [dict, lambda **given: tuple(given.values())])
def test_inputs_in_any_form(form: Callable[..., Any]) -> None:
    x = torch.randn(1, 1, 8, 8)  # a batch of one, which torch.export would take for fixed
    inputs = form(x=x, scale=torch.ones(1, 1, 1, 1))
    data = [(inputs, torch.tensor([1]))]
    one = qx.Session(plain(TwoInputs), inputs, flow="pt2e", data=(data, data))
    one.train(1, progress=False)
    made = run_here(one.script(), plain(TwoInputs), inputs, data, data)
    assert same(one.copy_model("train").state_dict(), made["trained"].state_dict())
