"""What is taken home, used in a process that knows nothing of the session that wrote it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import qatexplorer as qx
from qatexplorer.takehome.export import Exported
from tests.support.fresh import ROOT, run_fresh, short_example, small_resnet18
from tests.support.training_models import same

FLOWS = ("eager", "fx")
SCHEDULE: dict[str, Any] = {
    "freeze_observer_epoch": 1,
    "freeze_bn_epoch": 1,
    "scheduler": "cosine",
    "warmup_steps": 2,
    "clip_grad_norm": 1.0,
    "ema_decay": 0.9,
    "label_smoothing": 0.1,
    "seed": 7,
}
RESNET = "resnet18"
DIGITS = ("digits_cnn", "digits_depthwise", "digits_mlp")
CASES = [(name, flow) for name in (*DIGITS, RESNET) for flow in FLOWS]


RUN = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, {folder!r})
import walk
assert not any(name.partition(".")[0] == "qatexplorer" for name in sys.modules)
sys.path.insert(1, {root!r})
if {name!r} == "resnet18":
    from tests.support.fresh import small_resnet18
    model, train = small_resnet18()
    inputs, evaluation = train[0][0], train
else:
    from tests.support.fresh import short_example
    example = short_example({name!r})
    model, inputs, (train, evaluation) = example.model, example.example_inputs, (
        example.data.train, example.data.eval)
inputs = inputs if isinstance(inputs, tuple) else (inputs,)
made = walk.run(model, inputs, train, evaluation)
with torch.no_grad():
    output = made["int8"](*inputs)
torch.save((made["trained"].state_dict(), output), {made!r})
"""
LOAD = """
import pickle, sys, torch
torch.set_num_threads(1)
sys.path.insert(0, {folder!r})
import walk
assert not any(name.partition(".")[0] == "qatexplorer" for name in sys.modules)
sys.path.insert(1, {root!r})
from qatexplorer import zoo
example = zoo.load({name!r})
for parameter in example.model.parameters():
    torch.nn.init.constant_(parameter, 0.5)  # any weights
def refuse(*_, **__): raise AssertionError("unpickled")
pickle.load = pickle.loads = torch.load = refuse
int8 = walk.load(example.model, {folder!r})
with torch.no_grad():
    torch.save(int8(*example.example_inputs), {made!r})
"""


@dataclass
class Taken:
    """A session that went all the way, and the files of what other processes made of it."""

    session: qx.Session
    ran: Path
    loaded: Path
    exported: Exported | None
    inputs: tuple[torch.Tensor, ...]


def walked(name: str, flow: str) -> qx.Session:
    if name == RESNET:
        model, images = small_resnet18()
        stubs = "layers" if flow == "eager" else "none"
        session = qx.Session(
            model, images[0][0], flow=flow, stubs=stubs, qconfig="qnnpack", data=(images, images)
        )
        session.train(1, progress=False, optimizer="sgd", lr=1e-2)
    else:
        example = short_example(name)
        settings = {k: v for k, v in example.suggested.items() if k == "qconfig"}
        stubs = "layers" if (name, flow) == ("digits_mlp", "eager") else "none"
        session = qx.Session(
            example.model,
            example.example_inputs,
            flow=flow,
            stubs=stubs,
            data=example.data,
            **settings,
        )
        session.calibrate(2)
        session.train(2, progress=False, **SCHEDULE)
    session.goto(session.flow.int8_stage)
    return session


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], Taken]]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("taken")
    found, codes = {}, []
    for name, flow in CASES:
        session, folder = walked(name, flow), root / f"{name}-{flow}"
        folder.mkdir()
        (folder / "walk.py").write_text(session.script(), encoding="utf-8")
        given = {"root": str(ROOT), "name": name}
        ran, loaded = folder / "ran.pt", folder / "loaded.pt"
        codes.append(RUN.format(folder=str(folder), made=str(ran), **given))
        exported = None
        if name != RESNET or flow == "fx":
            exported = session.export(folder / "int8", evaluate=name != RESNET)
        if name != RESNET:
            codes.append(LOAD.format(folder=str(folder / "int8"), made=str(loaded), **given))
        inputs = session.options.example_inputs
        found[name, flow] = Taken(
            session,
            ran,
            loaded,
            exported,
            inputs if isinstance(inputs, tuple) else (inputs,),
        )
    run_fresh(codes)
    yield found
    torch.set_num_threads(before)


@pytest.mark.parametrize(("name", "flow"), CASES)
def test_the_script_gives_the_same_weights(name: str, flow: str, taken: Any) -> None:
    one: Taken = taken[name, flow]
    state, output = torch.load(one.ran, weights_only=True)
    trained = one.session.copy_model(one.session.flow.train_stage)
    assert same(trained.state_dict(), state)
    assert torch.equal(one.session.int8(*one.inputs), output)


@pytest.mark.parametrize(("name", "flow"), [case for case in CASES if case[0] != RESNET])
def test_the_folder_gives_the_same_model(name: str, flow: str, taken: Any) -> None:
    one: Taken = taken[name, flow]
    assert one.exported is not None
    wanted = one.session.int8(*one.inputs)
    assert torch.equal(torch.load(one.loaded, weights_only=True), wanted)
    assert torch.equal(load_file(one.exported.folder / "example.safetensors")["outputs"], wanted)
    assert one.exported.onnx is not None
    assert one.exported.onnx.same_answer is not None
    assert one.exported.onnx.same_answer > 0.9  # trained for a moment, many answers are close
    card = (one.exported.folder / "README.md").read_text(encoding="utf-8")
    value = one.session.evaluate(latency=False)["int8"].metric
    assert value is not None
    assert f"{value.value:.4f}" in card
    assert torch.__version__ in card


def test_a_model_that_we_did_not_write_is_exported(taken: Any) -> None:
    made = taken[RESNET, "fx"].exported
    assert made.onnx is not None
    assert "walk.py" in made.files
