"""ExecuTorch's quantizers in the PT2E flow: equal to torchao's calls alone, and what is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor, nn

import qatexplorer as qx
from qatexplorer.errors import StageError
from qatexplorer.flows.base import StageResult
from qatexplorer.flows.pt2e_patterns import patterns_kept
from qatexplorer.flows.pt2e_quantizers import is_for_xnnpack, lowered_elsewhere, make_quantizer
from tests.against_torch.pt2e_reference import (
    compare_pt2e,
    five_steps,
    prepared_alike,
    same_exported,
)
from tests.support.executorch_models import (
    ConvBn,
    TinyTransformer,
    cadence,
    example,
    ids,
    need_executorch,
    pixels,
    samsung,
    seeded,
    vulkan,
    xnnpack,
    xnnpack_per_tensor,
)
from tests.support.pt2e import linears, rows, walked

need_executorch()

PER_TENSOR = pytest.param(xnnpack_per_tensor, id="per_tensor")
PER_CHANNEL = pytest.param(xnnpack, id="per_channel")


def patterns(stages: dict[str, StageResult]) -> dict[str, int]:
    return dict(Counter(one.pattern for one in stages["annotate"].annotations))


@pytest.mark.parametrize("quantizer", [PER_CHANNEL, PER_TENSOR])
def test_a_convolution_with_batch_norm_trains_as_without_the_watch(quantizer: Any) -> None:
    x = (pixels(),)
    with patterns_kept():
        _, stages, prepared, theirs = prepared_alike(seeded(ConvBn), x, quantizer)
    assert list(map(str, five_steps(prepared.model, x))) == list(map(str, five_steps(theirs, x)))
    same_exported(prepared.model, theirs)
    named = {"conv_bn_relu", "conv", "add", "adaptive_avg_pool2d", "linear"}
    assert set(patterns(stages)) == {*named, "propagate_annotation"}
    assert any(one.rounds for one in stages["annotate"].annotations)


TEXT = {"linear", "add", "propagate_annotation"}


def tiny_transformer() -> nn.Module:
    return seeded(TinyTransformer)


@pytest.mark.parametrize(
    ("make", "x", "named", "quantizer"),
    [
        pytest.param(
            linears, rows(), {"linear_relu", "linear"}, xnnpack, id="linear", marks=pytest.mark.long
        ),
        pytest.param(tiny_transformer, ids(), TEXT, xnnpack_per_tensor, id="tiny-per_tensor"),
        pytest.param(
            tiny_transformer, ids(), TEXT, xnnpack, id="tiny-per_channel", marks=pytest.mark.long
        ),
    ],
)
def test_training_and_the_reference_are_those_of_torchaos_calls(
    make: Callable[[], nn.Module], x: Tensor, named: set[str], quantizer: Any
) -> None:
    walk = compare_pt2e(make(), (x,), quantizer, lowers=False)
    assert set(patterns(walk.stages)) == named


@pytest.mark.parametrize(
    ("quantizer", "named"),
    [
        (vulkan, {"linear"}),
        (samsung, {"placeholder", "conv2d", "fused_activation_pattern"}),  # its own names
        (cadence, set()),  # knows patterns of inference only
        (example, {"nodes"}),
    ],
)
def test_vendors_quantizers_go_through_as_without_the_watch(quantizer: Any, named: Any) -> None:
    _, stages, prepared, theirs = prepared_alike(linears(), (rows(),), quantizer)
    assert five_steps(prepared.model, (rows(),)) == five_steps(theirs, (rows(),))
    same_exported(prepared.model, theirs)
    assert set(patterns(stages)) == named


def test_what_a_vendors_quantizer_asserts_is_told_with_the_node() -> None:
    session = qx.Session(seeded(ConvBn), pixels(), flow="pt2e", quantizer=example())
    with pytest.raises(StageError, match=r"ExampleQuantizer\.annotate failed.*IndexError"):
        session.goto("annotate")


def test_annotating_leaves_meta_as_it_was() -> None:
    stages, _ = walked(linears(), (rows(),), xnnpack())
    graph: Any = stages["annotate"].model.graph
    assert {type(node.meta) for node in graph.nodes} == {dict}


def test_by_name_it_is_executorchs_own() -> None:
    made = make_quantizer("xnnpack")
    assert type(made).__module__ == "executorch.backends.xnnpack.quantizer.xnnpack_quantizer"
    assert is_for_xnnpack(made)


def test_the_stage_lower_says_what_else_lowers_such_a_model() -> None:
    assert "XnnpackPartitioner" in lowered_elsewhere(xnnpack())
    assert "EnnQuantizer is for is lowered by the partitioner" in lowered_elsewhere(samsung())
    session = qx.Session(linears(), rows(), flow="pt2e", quantizer="xnnpack")
    session.warns = False
    session.goto("lower")
    assert any("to_edge_transform_and_lower" in note for note in session.snapshot.notes)


def test_a_composed_quantizer_is_asked_part_by_part() -> None:
    from torchao.quantization.pt2e.quantizer import ComposableQuantizer

    assert is_for_xnnpack(ComposableQuantizer([make_quantizer("embedding"), xnnpack()]))
    assert not is_for_xnnpack(ComposableQuantizer([make_quantizer("x86")]))
