"""A small language model, a Llama of ``transformers``: what 2-bit weights cost, and what QAT wins
back."""

from __future__ import annotations

import importlib
import importlib.util
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from qatexplorer.errors import InputError
from qatexplorer.evaluate.perplexity import perplexity
from qatexplorer.flows.imported import errors_only, imported
from qatexplorer.flows.pt2e import unavailable
from qatexplorer.shown import first_line
from qatexplorer.zoo.base import Example, with_weights
from qatexplorer.zoo.tiny_text import ALPHABET, LENGTH, example_tokens, text_data

TITLE = "Small language model (torchao, 2 bits)"
_SIZES = {
    "vocab_size": 32,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2 * LENGTH,
    "tie_word_embeddings": False,
    "use_cache": False,
}


class TinyLLM(nn.Module):
    """(N, length) token numbers, int64 → (N, 32, length) scores of the token that comes next."""

    def __init__(self) -> None:
        super().__init__()
        with errors_only():
            made: Any = _transformers()
            self.lm: nn.Module = made.LlamaForCausalLM(made.LlamaConfig(**_SIZES))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        # As torch's cross entropy takes them: the classes in the second dimension.
        scores: torch.Tensor = self.lm(input_ids=tokens).logits.transpose(1, 2)
        return scores

    @torch.no_grad()
    def write(self, begin: str, length: int = 60) -> str:
        """``begin`` and ``length`` further characters, the likeliest ones, in eval mode."""
        training = self.training
        self.eval()
        numbers = [ALPHABET.index(character) for character in begin]
        for _ in range(length):
            scores = self(torch.tensor([numbers[-LENGTH:]]))[0, : len(ALPHABET), -1]
            numbers.append(int(scores.argmax()))
        self.train(training)
        return "".join(ALPHABET[number] for number in numbers)


def _transformers() -> Any:
    if importlib.util.find_spec("transformers") is None:
        raise InputError(
            "example 'tiny_llm' needs transformers, which is not installed.",
            fix="pip install transformers",
        )
    module = importlib.import_module("transformers")
    try:
        module.LlamaForCausalLM  # noqa: B018 - it is imported when it is looked up
    except (ImportError, RuntimeError) as error:
        reason = first_line(error.__cause__ or error)
        raise InputError(
            f"example 'tiny_llm' needs transformers, which cannot be imported here: {reason}"
        ) from error
    return module


def base_config() -> Any:
    """int8 activations and int2 weights in groups of 32 for linear layers, int4 for embeddings."""
    ao: Any = imported("torchao.quantization")
    two, four = (getattr(torch, name) for name in ("int2", "int4"))
    return {
        nn.Linear: ao.Int8DynamicActivationIntxWeightConfig(
            weight_dtype=two, weight_granularity=ao.PerGroup(32)
        ),
        nn.Embedding: ao.IntxWeightOnlyConfig(weight_dtype=four, granularity=ao.PerGroup(32)),
    }


def example() -> Example:
    """The trained model with its text. Raises InputError where transformers cannot be imported."""
    suggested: dict[str, Any] = {
        "metric": perplexity,
        "metric_mode": "min",
        "epochs": 3,
        "lr": 5e-4,
        "freeze_observer_epoch": None,
        "freeze_bn_epoch": None,
    }
    if not unavailable():
        suggested |= {"flow": "torchao", "base_config": base_config()}
    return Example(
        name="tiny_llm",
        title=TITLE,
        description=(
            "A Llama of two layers that writes one character after another, trained on sentences "
            "that the package makes: who has how many eggs, who gives what to whom. With 2-bit "
            "weights in groups of 32 its perplexity rises from 1.31 to about 1.8; three epochs "
            "of quantization-aware training win most of that back. Look at the groups' scales at "
            "a weight's fake quant."
        ),
        model=with_weights(TinyLLM(), "tiny_llm"),
        example_inputs=(example_tokens(),),
        data=text_data(),
        factory="qatexplorer.zoo.tiny_llm:example",
        suggested=MappingProxyType(suggested),
    )
