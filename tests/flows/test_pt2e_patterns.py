"""torchao's patterns, traced once: what is kept is what tracing gives."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from qatexplorer.flows import pt2e_patterns
from qatexplorer.flows.pt2e_patterns import patterns_kept

qat_utils = pytest.importorskip("torchao.quantization.pt2e.qat_utils")
ONE = torch.randn(1)
INPUTS = (torch.randn(1, 1, 3, 3), torch.randn(1, 1, 1, 1), ONE, ONE, ONE, ONE, ONE)
NAME = "_get_aten_graph_module_for_pattern"


def traced(convolution: Any, inputs: Any = INPUTS) -> Any:
    pattern = qat_utils._get_conv_bn_pattern(convolution)
    return getattr(qat_utils, NAME)(pattern, inputs, False)


def facts(module: Any) -> Any:
    values = [str(n.meta.get("val")) for n in module.graph.nodes]
    return module.code, str(module.graph), values, list(module.state_dict())


def test_what_is_kept_is_what_tracing_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pt2e_patterns, "_traced", {})
    alone, original = traced(F.conv2d), getattr(qat_utils, NAME)
    with patterns_kept():
        first, second = traced(F.conv2d), traced(F.conv2d)
        with patterns_kept():
            other = traced(F.conv_transpose2d)
    assert len(pt2e_patterns._traced) == 2  # by the convolution that the pattern closes over
    assert getattr(qat_utils, NAME) is original
    assert facts(first) == facts(second) == facts(alone) != facts(other)
    # Each is its own: torchao's rewriting may write to it.
    assert first is not second
    nodes = {id(n) for n in first.graph.nodes}
    assert not nodes & {id(n) for n in second.graph.nodes}
    first.graph.erase_node(next(n for n in reversed(first.graph.nodes) if n.op == "output"))
    with patterns_kept():
        assert facts(traced(F.conv2d)) == facts(alone)


def test_shapes_flags_and_unknown_arguments_tell_patterns_apart() -> None:
    def key(*arguments: Any) -> Any:
        return pt2e_patterns._identity(arguments)

    conv, lone = qat_utils._get_conv_bn_pattern(F.conv2d), torch.randn(1, 1, 3)
    assert key(conv, INPUTS, False) == key(qat_utils._get_conv_bn_pattern(F.conv2d), INPUTS, False)
    assert key(conv, INPUTS, False) != key(qat_utils._get_conv_bn_pattern(F.conv1d), INPUTS, False)
    assert key(conv, INPUTS, False) != key(qat_utils._get_qat_conv_bn_pattern(F.conv2d), INPUTS, 0)
    assert key(conv, INPUTS) != key(conv, (lone, *INPUTS[1:]))
    assert key(True) != key(1)
    make = qat_utils._get_quantized_qat_conv_bn_pattern
    assert key(make(True, True, True, F.conv2d, True)) != key(
        make(True, True, True, F.conv2d, False)
    )
    with pytest.raises((KeyError, TypeError)):
        key(nn.Linear(2, 2))  # what has no key is traced each time


def test_a_torchao_without_the_function_works_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("torchao.quantization.pt2e.qat_utils")
    monkeypatch.delattr(module, NAME)
    with patterns_kept():
        assert not hasattr(module, NAME)
