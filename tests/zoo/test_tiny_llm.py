"""The small language model: what 2-bit weights cost it, and what QAT wins back."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
import torch

import qatexplorer as qx
from qatexplorer import zoo
from qatexplorer.errors import InputError
from qatexplorer.evaluate.metric import evaluate
from qatexplorer.evaluate.perplexity import perplexity
from qatexplorer.zoo.tiny_text import ALPHABET, text, tokens
from tests.support.models import declare_torchvision_operators


@pytest.fixture(scope="module")
def example() -> zoo.Example:
    declare_torchvision_operators()
    pytest.importorskip("transformers", exc_type=ImportError)
    pytest.importorskip("torchao")
    return zoo.load("tiny_llm")


def test_the_text_is_the_same_everywhere() -> None:
    words = text(0, 100)
    assert words.startswith("finn asks dan for the apple, and dan gives the apple to finn.")
    assert text(0, 100) == words != text(1, 100)
    assert set(words) <= set(ALPHABET)
    assert "".join(ALPHABET[n] for n in tokens(words)) == words


def test_it_has_learned_the_text(example: zoo.Example) -> None:
    before = torch.get_rng_state()
    found = evaluate(example.model, example.data.eval, perplexity)
    assert found.value < 1.45
    assert torch.equal(before, torch.get_rng_state())
    written = example.model.write("ben has ", 120).split()[:-1]
    assert len(written) > 15
    assert set(written) <= set(text(0, 60_000).split())
    assert example.model.training


def test_qat_wins_back_what_two_bits_cost(example: zoo.Example) -> None:
    session = qx.Session(
        zoo.load("tiny_llm").model, example.example_inputs, data=example.data, **example.settings
    )
    assert session.flow.name == "torchao"
    session.train(**{**example.training, "epochs": 1})
    session.goto("convert")
    found = session.evaluate(latency=False)
    won = found.won_back
    assert won is not None
    assert won.name == "perplexity"
    assert won.untrained > 1.2 * won.floating
    assert won.share > 0.6
    assert found["int8"].metric is not None
    assert found["fake_quant"].metric is not None
    assert found["int8"].metric.value == pytest.approx(found["fake_quant"].metric.value, rel=1e-3)
    assert "Training won back" in repr(found)


@pytest.mark.parametrize("what", ["none", "broken"])
def test_without_transformers_it_is_listed_and_says_so(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    assert "tiny_llm" in zoo.names()
    assert "language model" in zoo.title("tiny_llm")
    module: Any = importlib.import_module("qatexplorer.zoo.tiny_llm")
    if what == "none":
        monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    else:

        class Broken:
            @property
            def LlamaForCausalLM(self) -> Any:
                raise RuntimeError("operator torchvision::nms does not exist")

        monkeypatch.setitem(sys.modules, "transformers", Broken())  # type: ignore[arg-type]
        monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(InputError, match=r"example 'tiny_llm' needs transformers") as caught:
        zoo.load("tiny_llm")
    assert "\n" not in caught.value.message
    expected = "not installed" if what == "none" else "torchvision::nms does not exist"
    assert expected in caught.value.message
