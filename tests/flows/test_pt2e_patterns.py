"""torchao's patterns are traced once, and are what torchao would have traced."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from qatexplorer.flows import pt2e_patterns
from qatexplorer.flows.pt2e_patterns import patterns_kept

WrapperModule = pytest.importorskip("torchao.quantization.pt2e.export_utils").WrapperModule
qat_utils: Any = pytest.importorskip("torchao.quantization.pt2e.qat_utils")
INPUTS = (torch.randn(1, 1, 3, 3), torch.randn(1, 1, 1, 1))


def pattern(conv: Any, doubled: bool) -> nn.Module:
    def computes(x: torch.Tensor, w: torch.Tensor) -> Any:
        y = conv(x, w)
        return y * 2 if doubled else y

    return WrapperModule(computes)


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pt2e_patterns, "_kept", {})


def traced(*arguments: Any) -> Any:
    return qat_utils._get_aten_graph_module_for_pattern(pattern(*arguments), INPUTS)


def test_each_pattern_is_traced_once_and_is_torchaos() -> None:
    plain = traced(F.conv2d, True)
    with patterns_kept():
        first, again = traced(F.conv2d, True), traced(F.conv2d, True)
    assert first.code == again.code == plain.code
    assert len(pt2e_patterns._kept) == 1
    for node in list(first.graph.nodes):  # whoever has one may write to it
        node.meta["mine"] = 1
    with patterns_kept():
        assert not any("mine" in node.meta for node in traced(F.conv2d, True).graph.nodes)


def test_patterns_that_differ_are_told_apart() -> None:
    with patterns_kept():
        codes = {traced(F.conv2d, d).code for d in (True, False)}
        codes.add(traced(F.conv_transpose2d, True).code)
        other = (torch.randn(1, 1, 3), torch.randn(1, 1, 1))
        codes.add(qat_utils._get_aten_graph_module_for_pattern(pattern(F.conv1d, True), other).code)
    assert len(codes) == len(pt2e_patterns._kept) == 4


def test_what_cannot_be_compared_is_not_kept() -> None:
    class Odd:
        def __call__(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            return F.conv2d(x, w)

    with patterns_kept():
        traced(Odd(), True)
    assert not pt2e_patterns._kept


def test_the_function_is_put_back() -> None:
    before = qat_utils._get_aten_graph_module_for_pattern
    with patterns_kept():
        assert qat_utils._get_aten_graph_module_for_pattern is not before
    with pytest.raises(ValueError, match="mine"), patterns_kept():
        raise ValueError("mine")
    assert qat_utils._get_aten_graph_module_for_pattern is before


def test_patterns_of_the_modes_are_traced_once_too() -> None:
    export_utils = pytest.importorskip("torchao.quantization.pt2e.export_utils")
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()

    def in_eval_mode() -> str:
        graph = torch.export.export(model, (torch.randn(3, 2),)).module()
        code: str = export_utils._move_exported_model_to_eval(graph).code
        return code

    plain = in_eval_mode()
    with patterns_kept():
        codes = [in_eval_mode()]
        kept = dict(pt2e_patterns._kept)
        codes.append(in_eval_mode())
    assert codes == [plain, plain]
    assert len(kept) == 6  # dropouts, in place and not, and batch norms, in both modes
    assert pt2e_patterns._kept == kept
