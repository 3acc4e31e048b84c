"""The embedded examples: what they promise, measured with torch's own calls."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.ao import quantization as tq

from qatexplorer import zoo
from qatexplorer.errors import UnknownExampleError
from qatexplorer.quantizers.engine_choice import default_backend
from qatexplorer.zoo import base
from qatexplorer.zoo.digits_depthwise import DigitsDepthwise, stretch_channels
from tests.support import zoo_walk as walk
from tests.support.models import declare_torchvision_operators

ROOT = Path(__file__).resolve().parents[2]
FLOAT_ACCURACY = {"digits_cnn": 99.0, "digits_depthwise": 98.5, "digits_mlp": 97.0}
DIGITS = tuple(FLOAT_ACCURACY)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Nets this small are slower on two threads, and many times so on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def qconfig() -> Iterator[Any]:
    """The qconfig that is the default on this CPU, with its engine set for the test."""
    best, before = default_backend(), torch.backends.quantized.engine
    torch.backends.quantized.engine = best.engine
    yield tq.get_default_qat_qconfig(best.qconfig)
    torch.backends.quantized.engine = before


def test_every_example_has_a_floor() -> None:
    assert set(zoo.names()) == {*FLOAT_ACCURACY, "tiny_llm"}  # which test_tiny_llm.py has
    assert zoo.names()[0] == "digits_cnn"
    assert [zoo.title(name) for name in DIGITS] == [zoo.load(name).title for name in DIGITS]


@pytest.mark.parametrize("name", DIGITS)
def test_shipped_weights_hold_their_accuracy(name: str) -> None:
    example = zoo.load(name)
    assert example.name == name
    assert example.model.training
    assert walk.accuracy(example.model, example.data) >= FLOAT_ACCURACY[name]


@pytest.mark.parametrize("name", DIGITS)
def test_factory_names_the_same_example(name: str) -> None:
    example = zoo.load(name)
    module, _, function = example.factory.partition(":")
    again = getattr(importlib.import_module(module), function)()
    assert (again.name, again.title) == (example.name, example.title)
    assert again.model(*example.example_inputs).shape == (8, 10)


@pytest.mark.parametrize("name", DIGITS)
def test_each_load_is_fresh(name: str) -> None:
    one, two = zoo.load(name), zoo.load(name)
    with torch.no_grad():
        for parameter in one.model.parameters():
            parameter.fill_(7.0)
        one.example_inputs[0].fill_(7.0)
    assert not any(bool((p == 7.0).all()) for p in two.model.parameters())
    assert not bool((two.example_inputs[0] == 7.0).any())
    again = zoo.load(name)
    for key, value in two.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key]), key


def test_data_is_the_stratified_split() -> None:
    data = zoo.load("digits_cnn").data
    train = torch.cat([y for _, y in data.train])
    evaluation = torch.cat([y for _, y in data.eval])
    assert (len(train), len(evaluation)) == (1257, 540)
    shares = torch.bincount(train) / len(train) - torch.bincount(evaluation) / len(evaluation)
    assert float(shares.abs().max()) < 0.005
    pixels = torch.cat([x for x, _ in data.train])
    assert abs(float(pixels.mean())) < 1e-4
    assert abs(float(pixels.std()) - 1) < 1e-4


def test_shuffling_follows_torch_seed_and_evaluation_leaves_it_alone() -> None:
    data = zoo.load("digits_cnn").data
    orders = []
    for _ in range(2):
        torch.manual_seed(3)
        orders.append(torch.cat([y for _, y in data.train]))
    assert torch.equal(*orders)
    assert not torch.equal(orders[0], torch.cat([y for _, y in data.train]))
    before = torch.get_rng_state()
    assert sum(len(y) for _, y in data.eval) == 540
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("wrong", ["digits_cn", "", "resnet", None, 3])
def test_unknown_example_says_what_there_is(wrong: Any) -> None:
    with pytest.raises(UnknownExampleError) as caught:
        zoo.load(wrong)
    assert "digits_depthwise" in str(caught.value)
    assert ("Did you mean 'digits_cnn'" in str(caught.value)) == (wrong == "digits_cn")


def test_weights_are_small_and_read_without_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr("pickle.loads", refuse)
    total = 0
    for name in zoo.names():
        state = base.read_weights(name)
        total += sum(value.numel() * value.element_size() for value in state.values())
        if name in DIGITS:
            zoo.load(name)
    assert 0 < total < 400_000


def test_stretching_changes_ranges_and_not_the_function() -> None:
    torch.manual_seed(0)
    model = DigitsDepthwise().eval()
    images = zoo.load("digits_depthwise").example_inputs[0]
    before = model(images)
    stretch_channels(model)
    assert torch.equal(before, model(images))
    gamma = model.block3.bn1.weight.detach()
    assert float(gamma.max() / gamma.min()) == pytest.approx(1024)


@pytest.mark.slow
def test_depthwise_loses_by_ptq_and_wins_back_by_qat(qconfig: Any) -> None:
    """The story of the example, in real int8. The README's table has the numbers."""
    example = zoo.load("digits_depthwise")
    start = time.process_time()
    torch.manual_seed(0)
    prepared = walk.prepare(example, example.suggested["qconfig"])
    ptq = walk.accuracy(tq.convert(walk.calibrate(prepared, example.data)), example.data)
    trained = walk.train(prepared, example)
    fake_quant = walk.accuracy(trained, example.data)
    int8 = walk.accuracy(tq.convert(trained), example.data)
    assert ptq < 75
    assert int8 > 95
    assert abs(fake_quant - int8) < 1.0
    assert time.process_time() - start < 60


def test_cnn_keeps_its_accuracy_in_int8(qconfig: Any) -> None:
    example = zoo.load("digits_cnn")
    trained = walk.train(walk.prepare(example, qconfig), example)
    int8 = tq.convert(trained.eval())
    assert type(int8.conv1).__module__.startswith("torch.ao.nn.intrinsic.quantized")
    assert walk.accuracy(int8, example.data) > 98.5


def test_mlp_without_stubs_fails_in_int8(qconfig: Any) -> None:
    example = zoo.load("digits_mlp")
    prepared = walk.prepare(example, qconfig)
    prepared(*example.example_inputs)
    int8 = tq.convert(prepared.eval())
    with pytest.raises(NotImplementedError, match=r"quantized::linear.*'CPU' backend"):
        int8(*example.example_inputs)


def test_mlp_in_a_quant_wrapper_fails_at_a_plain_operator(qconfig: Any) -> None:
    example = zoo.load("digits_mlp")
    prepared = walk.prepare(example, qconfig, tq.QuantWrapper)
    prepared(*example.example_inputs)
    int8 = tq.convert(prepared.eval())
    with pytest.raises(NotImplementedError, match=r"aten::(mul|add).*'QuantizedCPU' backend"):
        int8(*example.example_inputs)


def test_mlp_with_every_layer_wrapped_reaches_int8(qconfig: Any) -> None:
    example = zoo.load("digits_mlp")
    trained = walk.train(walk.prepare(example, qconfig, tq.add_quant_dequant), example)
    assert walk.accuracy(tq.convert(trained.eval()), example.data) > 96.5


@pytest.mark.parametrize("name", zoo.names())
def test_script_writes_what_load_reads(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "tiny_llm":
        declare_torchvision_operators()
        pytest.importorskip("transformers", exc_type=ImportError)
    script = importlib.import_module("qatexplorer.zoo.train")
    assert set(script.RECIPES) == set(zoo.names())
    assert script.main([name, "--out", str(tmp_path), "--epochs", "1"]) == 0
    assert f"{name}: accuracy" in capsys.readouterr().out
    shipped = base.read_weights(name)
    (tmp_path / "weights").mkdir()
    (tmp_path / f"{name}.safetensors").rename(tmp_path / "weights" / f"{name}.safetensors")
    monkeypatch.setattr(base.resources, "files", lambda _: tmp_path)
    written = base.read_weights(name)
    assert {k: (v.shape, v.dtype) for k, v in written.items()} == {
        k: (v.shape, v.dtype) for k, v in shipped.items()
    }
    base.with_weights(zoo.load(name).model, name)
