"""A model through the PT2E flow, watched, and through the calls of torch and torchao alone."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from qatexplorer.data import as_args
from qatexplorer.errors import StageError
from qatexplorer.flows.base import StageResult
from qatexplorer.flows.pt2e import Pt2eFlow
from tests.against_torch.fx_reference import kinds, same, same_state
from tests.support.pt2e import options_of

STEPS = 5


def default_quantizer() -> Any:
    """As torchao's own guide makes it."""
    theirs = importlib.import_module("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
    config = theirs.get_default_x86_inductor_quantization_config(is_qat=True)
    return theirs.X86InductorQuantizer().set_global(config)


@dataclass
class Walk:
    """``stages`` are those of one ``prepare_qat_pt2e`` on the way; ``lowered`` is None where
    torchao's own lowering raises ``not_lowered``; ``not_runnable`` is what its model raises."""

    exported: StageResult
    stages: dict[str, StageResult]
    prepared: StageResult
    losses: list[float]
    reference: StageResult
    lowered: StageResult | None = None
    not_lowered: str = ""
    not_runnable: str = ""


def exported_alone(model: nn.Module, inputs: Any) -> fx.GraphModule:
    """What a user writes: the first dimension of each tensor may be of any size, and a model of
    transformers returns no cache, which torch.export does not take."""
    if getattr(getattr(model, "config", None), "use_cache", False):
        model.config.use_cache = False  # type: ignore[union-attr]
    args, kwargs = as_args(inputs)
    dims = {0: torch.export.Dim.AUTO}
    dynamic: Any = dict.fromkeys(kwargs, dims) if kwargs else tuple(dims for _ in args)
    module = torch.export.export(model, args, kwargs, dynamic_shapes=dynamic).module()
    assert isinstance(module, fx.GraphModule)
    return module


def prepared_alike(
    model: nn.Module, inputs: Any, make_quantizer: Callable[[], Any] | None = None
) -> tuple[StageResult, dict[str, StageResult], StageResult, fx.GraphModule]:
    """Both sides up to stage "insert", compared: exported, stages on the way, prepared; and what
    torchao alone has prepared."""
    api = importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
    quantizer = make_quantizer() if make_quantizer is not None else None
    flow, options = Pt2eFlow(), options_of(inputs, quantizer)
    exported = flow.apply("export", copy.deepcopy(model), options)
    theirs = exported_alone(copy.deepcopy(model), inputs)
    same_exported(exported.model, theirs)
    stages: dict[str, StageResult] = {}
    prepared = flow.apply("insert", exported.model, options, stages.__setitem__)
    given = make_quantizer() if make_quantizer is not None else default_quantizer()
    theirs = api.prepare_qat_pt2e(theirs, given)
    same_exported(prepared.model, theirs)
    return exported, stages, prepared, theirs


def compare_pt2e(
    model: nn.Module,
    inputs: Any,
    make_quantizer: Callable[[], Any] | None = None,
    lowers: bool = True,
) -> Walk:
    """Everything that can be compared must be the same, bit for bit; where torchao's lowering
    raises, the flow's must."""
    pt2e = importlib.import_module("torchao.quantization.pt2e")
    api = importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
    exported, stages, prepared, theirs = prepared_alike(model, inputs, make_quantizer)
    flow, options = Pt2eFlow(), options_of(inputs)
    ours = prepared.model
    assert isinstance(ours, fx.GraphModule)

    # Exported in train mode; move_exported_model_to_train would set every drop-out's p to 0.5.
    losses = five_steps(ours, inputs)
    assert list(map(str, losses)) == list(map(str, five_steps(theirs, inputs)))
    same_exported(ours, theirs)

    alone = copy.deepcopy(theirs)  # fx numbers new nodes of a copy from where its nodes end
    pt2e.move_exported_model_to_eval(alone)
    attention_in_eval_mode(alone)
    expected = api.convert_pt2e(alone)
    reference = flow.apply("fold", copy.deepcopy(ours), options)
    same_exported(reference.model, expected)
    assert_same_outputs(reference.model, expected, inputs, inputs)
    walk = Walk(exported, stages, prepared, losses, reference)
    return compare_lowered(walk, ours, expected, inputs) if lowers else walk


def attention_in_eval_mode(model: fx.GraphModule) -> None:
    """What ``move_exported_model_to_eval`` leaves out and the flow does: an attention of an
    exported model drops out by a number, in eval mode too."""
    for node in model.graph.nodes:
        if node.target is torch.ops.aten.scaled_dot_product_attention.default:
            if len(node.args) > 4:
                node.update_arg(4, 0.0)
            elif "dropout_p" in node.kwargs:
                node.update_kwarg("dropout_p", 0.0)
    model.recompile()


def compare_lowered(walk: Walk, ours: nn.Module, expected: fx.GraphModule, inputs: Any) -> Walk:
    """Lower both. As torchao lowers it a model may not run, for ``aten.view`` behind a convolution
    whose result lies channels last; it does with ``aten.reshape``, which computes the same."""
    lowering = importlib.import_module("torchao.quantization.pt2e.lowering")
    args, kwargs = as_args(inputs)
    positional = (*args, *kwargs.values())
    try:
        with torch.no_grad():
            alone = lowering.lower_pt2e_quantized_to_x86(expected, positional)
    except Exception as error:
        with pytest.raises(StageError):
            Pt2eFlow().apply("lower", copy.deepcopy(ours), options_of(inputs))
        return replace(walk, not_lowered=f"{type(error).__name__}: {str(error)[:100]}")
    raised = ""
    try:
        with torch.no_grad():
            alone(*positional)
    except RuntimeError as error:
        raised = str(error).partition(".")[0]
        assert "view size" in raised
        for node in alone.graph.nodes:
            if node.target is torch.ops.aten.view.default:
                node.target = torch.ops.aten.reshape.default
        alone.recompile()
    lowered = Pt2eFlow().apply("lower", copy.deepcopy(ours), options_of(inputs))
    assert_same_outputs(lowered.model, alone, inputs, positional)
    return replace(walk, lowered=lowered, not_runnable=raised)


def same_exported(ours: nn.Module, theirs: nn.Module) -> None:
    """Generated code, types of modules, keys and values; the parameters' gradients are wanted of
    the same ones."""
    assert ours.code == theirs.code
    assert str(ours.graph) == str(theirs.graph)
    assert kinds(ours)[1:] == kinds(theirs)[1:]  # the root's class follows its training flag
    same_state(ours, theirs)
    assert [n for n, p in ours.named_parameters() if p.requires_grad] == [
        n for n, p in theirs.named_parameters() if p.requires_grad
    ]


def tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def five_steps(model: nn.Module, inputs: Any) -> list[float]:
    """Losses of five steps of SGD towards outputs of zero; drop-outs draw the same numbers."""
    torch.manual_seed(11)
    args, kwargs = as_args(inputs)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    losses = []
    for _ in range(STEPS):
        loss = tensors(model(*args, **kwargs))[0].float().pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def assert_same_outputs(ours: nn.Module, theirs: nn.Module, given: Any, alone: Any) -> None:
    def outputs(model: nn.Module, inputs: Any) -> list[Tensor]:
        args, kwargs = as_args(inputs)
        torch.manual_seed(5)
        with torch.no_grad():
            return tensors(model(*args, **kwargs))

    mine, reference = outputs(ours, given), outputs(theirs, alone)
    assert len(mine) == len(reference) > 0
    assert all(same(a, b) for a, b in zip(mine, reference, strict=True))
