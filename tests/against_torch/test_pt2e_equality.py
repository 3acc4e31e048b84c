"""The PT2E flow, watched, against the calls of torch.export and torchao alone, bit for bit."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import fx, nn

from qatexplorer.flows.annotations import KEY
from qatexplorer.flows.pt2e_patterns import patterns_kept
from tests.against_torch.pt2e_reference import compare_pt2e, prepared_alike
from tests.support.models import Case
from tests.support.models_pt2e import ARCHITECTURES, inputs_of
from tests.support.pt2e import branches, images
from tests.tools.pt2e_table import OUT

theirs = pytest.importorskip("torchao.quantization.pt2e.quantizer")

DAILY = ("transformers_gpt2",)
"""Of the architectures: one that returns a cache, and whose attention drops out. The net with batch
norms is below."""


def _param(case: Case) -> Any:
    return pytest.param(case, id=case.name, marks=[] if case.name in DAILY else [pytest.mark.long])


@pytest.mark.parametrize("case", [_param(case) for case in ARCHITECTURES])
def test_the_stages_equal_the_unwatched_calls(case: Case) -> None:
    model, x = case()
    walk = compare_pt2e(model, inputs_of(x))
    assert walk.prepared.placed
    assert walk.prepared.annotations


def test_the_table_has_every_architecture() -> None:
    rows = [line.split(" | ") for line in OUT.read_text().splitlines() if line.startswith("| ")]
    named = {row[0].removeprefix("| "): row for row in rows[1:]}
    assert set(named) == {case.name for case in ARCHITECTURES}
    assert len(named) >= 15
    assert all(row[1] == "equal" and row[2] in ("equal", "raises") for row in named.values())
    wanted = ("transformers_bert", "transformers_gpt2", "transformers_llama", "transformers_vit")
    assert all(named[name][2] == "equal" for name in wanted)


class Normed(nn.Module):
    """Convolutions with a batch norm, with and without a bias; a drop-out."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4))
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x)))


def test_batch_norms_are_fused_and_folded_as_in_the_unwatched_calls() -> None:
    """The other side takes its patterns traced once, too, which is most of the time; the long
    cases and the table do without."""
    torch.manual_seed(0)
    with patterns_kept():
        walk = compare_pt2e(Normed().train(), (images(),), lowers=False)
    assert len(walk.stages["fuse"].graph.nodes) > len(walk.stages["annotate"].graph.nodes)  # type: ignore[union-attr]
    assert walk.prepared.annotations


class Own(theirs.Quantizer):
    """A user's own: activations of linear layers only, at four bits."""

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        quants = importlib.import_module("torchao.quantization.pt2e.fake_quantize")
        spec = theirs.QuantizationSpec(
            torch.uint8, quants.FakeQuantize, 0, 15, torch.per_tensor_affine
        )
        for node in model.graph.nodes:
            if node.target is torch.ops.aten.linear.default:
                node.meta[KEY] = theirs.QuantizationAnnotation(
                    input_qspec_map={node.args[0]: spec}, output_qspec=spec, _annotated=True
                )
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """Nothing to assert."""


def _shipped(name: str, **config: Any) -> Any:
    module = importlib.import_module(
        f"torchao.quantization.pt2e.quantizer.{name}_inductor_quantizer"
    )
    make = getattr(module, f"get_default_{name}_inductor_quantization_config")
    kind = {"x86": "X86", "arm": "Arm", "xpu": "XPU"}[name]
    return getattr(module, f"{kind}InductorQuantizer")().set_global(make(**config))


def _xnnpack() -> Any:
    module = importlib.import_module("torchao.testing.pt2e._xnnpack_quantizer")
    config = module.get_symmetric_quantization_config(is_per_channel=True, is_qat=True)
    return module.XNNPACKQuantizer().set_global(config)


def _embedding() -> Any:
    return importlib.import_module(f"{theirs.__name__}.embedding_quantizer").EmbeddingQuantizer()


def _composed() -> Any:
    return theirs.ComposableQuantizer([_embedding(), _shipped("x86", is_qat=True)])


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.fc = nn.Embedding(9, 6), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.words(x))


IDS = torch.arange(8).reshape(4, 2)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        pytest.param(lambda: _shipped("x86", is_qat=True), False, id="x86"),
        pytest.param(
            lambda: _shipped("x86", is_qat=True, is_dynamic=True), False, id="x86-dynamic"
        ),
        pytest.param(lambda: _shipped("arm", is_qat=True), False, id="arm"),
        pytest.param(lambda: _shipped("xpu"), False, id="xpu"),
        pytest.param(_xnnpack, False, id="xnnpack"),
        pytest.param(_embedding, True, id="embedding"),
        pytest.param(_composed, True, id="composable"),
        pytest.param(Own, False, id="own"),
    ],
)
def test_each_quantizer_annotates_and_inserts_as_unwatched(make: Any, text: bool) -> None:
    model, x = (Words().train(), IDS) if text else (branches(), images())
    _, stages, prepared, alone = prepared_alike(model, (x,), make)
    assert any(one.rounds for one in stages["annotate"].annotations)
    assert prepared.placed
    assert all(one.pattern for one in prepared.annotations) or make is Own
    assert len(prepared.placed) == len(
        {n.target for n in alone.graph.nodes if "activation_post_process" in str(n.target)}
    )
