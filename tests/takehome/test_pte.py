"""A program for ExecuTorch's runtime: written, run there, and equal to the reference model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.errors import ExportError
from qatexplorer.takehome.export import Exported
from qatexplorer.takehome.pte import PteRun, pte_words
from qatexplorer.views.takehome.words import folder_html
from tests.support.executorch_models import (
    ConvBn,
    TinyTransformer,
    ids,
    need_executorch,
    pixels,
    seeded,
    xnnpack,
)
from tests.support.page_text import visible_text
from tests.support.pt2e import linears, rows
from tests.support.rooms import ROOT

need_executorch()


@pytest.fixture(scope="module")
def walked() -> qx.Session:
    x = pixels()
    pairs = [(pixels(3), torch.tensor([0, 1, 2])), (pixels(1), torch.tensor([1]))]
    session = qx.Session(
        seeded(ConvBn, False), x, flow="pt2e", quantizer=xnnpack(), data=(pairs, pairs)
    )
    session.warns = False
    session.calibrate(2)
    return session


@pytest.fixture(scope="module")
def made(walked: qx.Session, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return walked.export(tmp_path_factory.mktemp("pte") / "net.pte")


def test_the_file_runs_and_gives_what_the_reference_gives(
    walked: qx.Session, made: Exported
) -> None:
    from executorch.runtime import Runtime

    file = made.folder / "net.pte"
    assert made.sizes == {"net.pte": file.stat().st_size}
    assert list(file.parent.iterdir()) == [file]
    x = walked.options.example_inputs
    (found,) = Runtime.get().load_program(file.read_bytes()).load_method("forward").execute([x])
    reference = walked.copy_model("fold")
    with torch.no_grad():
        wanted = reference(x)
    scale = reference.graph.output_node().args[0][0].args[1]  # type: ignore[union-attr, index]
    steps = round(float((found - wanted).abs().max() / scale))
    run = made.pte
    assert run is not None
    assert run.steps is not None
    assert steps <= run.steps <= 1
    # The example, and of the batches that with enough rows: two of its three.
    assert (run.samples, run.rows) == (4, 2)
    assert walked.stage == "fold"


def test_it_says_who_computes_what(made: Exported) -> None:
    assert made.pte is not None
    assert made.pte.left == ()
    assert made.pte.parts == 1
    # Two convolutions, a linear layer, relu, add, mean, view, and what rounds between them.
    assert made.pte.delegated > 7
    text = repr(made)
    assert f"XNNPACK computes {made.pte.delegated} nodes in 1 part." in text
    assert "It takes batches of 2, as the example inputs have." in text
    assert "net.pte (" in text
    assert all(words in visible_text(folder_html(made)) for words in pte_words(made.pte))


def test_what_xnnpack_does_not_take_is_named_with_its_module(tmp_path: Path) -> None:
    session = qx.Session(seeded(TinyTransformer), {"ids": ids()}, flow="pt2e", quantizer="xnnpack")
    session.warns = False
    session.goto("train")
    session.model(ids=ids())
    run = session.export(tmp_path / "text.pte").pte
    assert run is not None
    assert run.steps is not None
    assert run.steps <= 1
    assert {("aten.embedding.default", "embed"), ("aten.native_layer_norm.default", "norm")} <= set(
        run.left
    )
    assert run.parts > 1
    assert any("aten.embedding.default at embed" in line for line in pte_words(run))


def test_words_without_a_grid_and_with_a_long_list() -> None:
    left = tuple((f"aten.op{n}", "") for n in range(10))
    text = pte_words(PteRun(1, None, 0.25, None, 1, 1, left, "1"))
    assert "outputs at most 25.0 % of their range" in text[0]
    assert text[1] == "XNNPACK computes 1 node in 1 part."
    assert text[2].endswith("aten.op7, 2 more.")
    assert len(text) == 3


def test_a_file_that_is_there_stays(walked: qx.Session, made: Exported) -> None:
    file = made.folder / "net.pte"
    before = file.read_bytes()
    with pytest.raises(ExportError, match="is there already"):
        walked.export(file)
    assert file.read_bytes() == before


def test_nothing_is_left_of_a_file_that_cannot_be_written(
    walked: qx.Session, tmp_path: Path
) -> None:
    (tmp_path / "in_the_way").write_text("a file")
    with pytest.raises(ExportError, match="cannot be written"):
        walked.export(tmp_path / "in_the_way" / "net.pte")
    assert [one.name for one in tmp_path.iterdir()] == ["in_the_way"]


def test_what_the_document_says_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "pt2e.md").read_text(encoding="utf-8")
    export, recipe = re.findall(r"```python\n(.*?)```", text.partition("## ExecuTorch")[2], re.S)
    pairs = [(rows(), torch.tensor([0, 1, 2, 3]))]
    there: dict[str, Any] = {
        "qx": qx,
        "torch": torch,
        "model": linears(),
        "example_inputs": rows(),
        "data": (pairs, pairs),
        "loader": pairs,
        "loss": nn.functional.cross_entropy,
    }
    monkeypatch.chdir(tmp_path)
    exec(export, there)
    assert (tmp_path / "model.pte").stat().st_size
    assert there["made"].pte.left == ()
    exec(recipe, there)
    there["train_fn"](there["session"].copy_model("train"))
    assert qx.open_run("runs/recipe").telemetry.rows()
