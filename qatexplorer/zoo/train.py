"""Train the float models of the embedded examples and write their weights as safetensors.

    python -m qatexplorer.zoo.train                  # all, into qatexplorer/zoo/weights
    python -m qatexplorer.zoo.train digits_cnn --out DIR

The same machine and torch give the same bytes: one thread, one seed per example. Another CPU may
sum in another order, so expect the same accuracy there and not the same bits. Takes about two
minutes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from qatexplorer.data import Data
from qatexplorer.zoo.digits import digits_data
from qatexplorer.zoo.digits_cnn import DigitsCNN
from qatexplorer.zoo.digits_depthwise import DigitsDepthwise, stretch_channels
from qatexplorer.zoo.digits_mlp import DigitsMLP
from qatexplorer.zoo.tiny_llm import TinyLLM
from qatexplorer.zoo.tiny_text import text_data

WEIGHTS = Path(__file__).resolve().parent / "weights"


@dataclass(frozen=True)
class Recipe:
    """How one example is trained, on which data, and the dtype in which its weights are kept."""

    build: Callable[[], nn.Module]
    epochs: int
    lr: float
    seed: int = 0
    weight_decay: float = 0.0
    finish: Callable[..., None] | None = None
    data: Callable[[], Data] = digits_data
    dtype: torch.dtype = torch.float32


RECIPES = {
    "digits_cnn": Recipe(DigitsCNN, epochs=30, lr=1e-2),
    "digits_depthwise": Recipe(DigitsDepthwise, epochs=40, lr=1e-2, finish=stretch_channels),
    "digits_mlp": Recipe(DigitsMLP, epochs=40, lr=3e-3, weight_decay=1e-2),
    "tiny_llm": Recipe(
        TinyLLM, epochs=16, lr=3e-3, weight_decay=1e-2, data=text_data, dtype=torch.float16
    ),
}


def train(recipe: Recipe, data: Data, epochs: int | None = None) -> nn.Module:
    """The trained model, in eval mode."""
    epochs = epochs or recipe.epochs
    torch.manual_seed(recipe.seed)
    model = recipe.build().train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay
    )
    steps = epochs * sum(1 for _ in data.train)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=steps)
    for _ in range(epochs):
        for images, targets in data.train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), targets).backward()
            optimizer.step()
            schedule.step()
    if recipe.finish is not None:
        recipe.finish(model)
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, data: Data) -> float:
    """Share of right answers on the evaluation part, 0..1."""
    right = [(model(x).argmax(1) == y).float() for x, y in data.eval]
    return float(torch.cat(right).mean())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(RECIPES)}")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--epochs", type=int, help="instead of the recipe's own")
    args = parser.parse_args(argv)
    unknown = [name for name in args.names if name not in RECIPES]
    if unknown:
        parser.error(f"no recipe for {', '.join(unknown)}; there are {', '.join(RECIPES)}")
    args.out.mkdir(parents=True, exist_ok=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in args.names or RECIPES:
            start = time.perf_counter()
            recipe = RECIPES[name]
            data = recipe.data()
            model = train(recipe, data, args.epochs)
            path = args.out / f"{name}.safetensors"
            state = {
                key: value.to(recipe.dtype if value.is_floating_point() else value.dtype)
                for key, value in model.state_dict().items()
            }
            state = {key: value.contiguous() for key, value in state.items()}
            path.write_bytes(save(state, {"torch": torch.__version__.split("+")[0]}))
            print(
                f"{name}: accuracy {accuracy(model, data):.4f}, {path.stat().st_size / 1024:.0f} "
                f"KiB, {time.perf_counter() - start:.1f} s"
            )
    finally:
        torch.set_num_threads(threads)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
