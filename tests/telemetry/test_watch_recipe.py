"""``qx.watch`` in the ``train_fn`` of a QAT recipe of ExecuTorch."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import fx

import qatexplorer as qx
from tests.support.executorch_models import need_executorch, xnnpack
from tests.support.pt2e import linears, rows

need_executorch()


def recipe_of(train_fn: Any) -> Any:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.utils.configs import get_xnnpack_edge_compile_config
    from executorch.export import ExportRecipe, LoweringRecipe, QuantizationRecipe

    return ExportRecipe(
        quantization_recipe=QuantizationRecipe(
            quantizers=[xnnpack()], is_qat=True, train_fn=train_fn
        ),
        lowering_recipe=LoweringRecipe(
            partitioners=[XnnpackPartitioner()],
            edge_compile_config=get_xnnpack_edge_compile_config(),
        ),
    )


def exported(folder: Path | None) -> tuple[bytes, list[Any]]:
    """The program that ExecuTorch makes of a net that is trained watched (into ``folder``) or not,
    and what the watch has seen."""
    from executorch.export import export

    seen: list[Any] = []

    def train_fn(model: fx.GraphModule) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        watching = nullcontext() if folder is None else qx.watch(model, folder=folder)
        with watching as watch:
            for _ in range(3):
                model(rows()).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                if watch is not None:
                    watch.step()
        seen.append(watch)

    made = export(linears(), [(rows(),)], recipe_of(train_fn))
    return bytes(made.get_pte_buffer()), seen


def test_a_watched_train_fn_gives_the_same_program(tmp_path: Path) -> None:
    alone, _ = exported(None)
    watched, (watch,) = exported(tmp_path / "run")
    assert watched == alone
    paths = {row["path"] for row in watch.telemetry.rows()}
    # Two weights, the input, and the outputs of both layers.
    assert len(paths) == 5
    opened = qx.open_run(tmp_path / "run")
    assert {row["path"] for row in opened.telemetry.rows()} == paths
