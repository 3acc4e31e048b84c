"""An exported model follows its training flag, and loses nothing on the way."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qatexplorer.forward.either_mode import EitherMode, in_either_mode
from qatexplorer.forward.preserve import preserved_state


class Odd(nn.Module):
    """Nothing in it has torch's default."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, eps=0.5, momentum=0.7)
        self.drop, self.fc = nn.Dropout(0.9), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(self.drop(self.bn(self.conv(x)).mean((2, 3))))[:, None, None]
        p = 0.25 if self.training else 0.0
        attended: Tensor = F.scaled_dot_product_attention(y, y, y, dropout_p=p)
        return attended


X = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def exported(model: nn.Module) -> Any:
    return in_either_mode(torch.export.export(model, (X,)).module(), model.training)


def arguments(model: Any) -> dict[str, tuple[Any, ...]]:
    """What the operations with a mode are called with."""
    words = ("dropout", "batch_norm", "attention")
    return {
        node.name: tuple(a for a in node.args if not isinstance(a, torch.fx.Node))
        for node in model.graph.nodes
        if any(word in node.name for word in words) and node.op == "call_function"
    } | {
        f"{node.name}, named": dict(node.kwargs)
        for node in model.graph.nodes
        if "attention" in node.name
    }


def test_eval_computes_what_the_model_computes_in_eval() -> None:
    model = Odd().train()
    model.bn.running_mean.normal_()
    graph = exported(model)
    graph.eval()
    assert torch.equal(graph(X), model.eval()(X))
    assert not graph.training


def test_there_and_back_nothing_is_lost() -> None:
    graph = exported(Odd().train())
    before, code = arguments(graph), graph.code
    assert any(0.9 in given for given in before.values())
    graph.eval()
    assert arguments(graph) != before
    graph.train()
    assert arguments(graph) == before
    assert graph.code == code


def test_torchaos_own_switch_puts_its_defaults() -> None:
    """Why there is one here: if this fails, torchao's own can be used."""
    pt2e = pytest.importorskip("torchao.quantization.pt2e")
    graph = torch.export.export(Odd().train(), (X,)).module()
    before = arguments(graph)
    pt2e.move_exported_model_to_eval(graph)
    pt2e.move_exported_model_to_train(graph)
    after = arguments(graph)
    assert any(0.9 in given for given in before.values())
    assert not any(0.9 in given for given in after.values())


def test_a_model_in_eval_mode_comes_to_train_mode() -> None:
    graph = exported(Odd().eval())
    assert not graph.training
    graph.train()
    torch.manual_seed(0)
    first = graph(X)
    assert any(not torch.equal(first, graph(X)) for _ in range(20))  # dropout, of 9 in 10


def test_a_copy_has_its_own_mode() -> None:
    graph = exported(Odd().train())
    graph.eval()
    twin = copy.deepcopy(graph)
    assert isinstance(twin, EitherMode)
    assert not twin.training
    assert arguments(twin) == arguments(graph)
    twin.train()
    assert not graph.training
    assert arguments(twin) != arguments(graph)


def test_what_only_looks_leaves_the_graph_in_its_mode() -> None:
    graph = exported(Odd().train())
    before = arguments(graph)
    with preserved_state(graph):
        graph.eval()
        for module in graph.modules():  # as code does that puts flags back one by one
            module.training = False
        graph(X)
    assert graph.training
    assert arguments(graph) == before


def test_code_that_is_that_of_the_graph_is_taken_over() -> None:
    """As fx would write it anew: called, copied, switched, and failing."""
    model = Odd().eval()
    made = in_either_mode(torch.export.export(model, (X,)).module(), False, compiled=True)
    again = exported(model)
    assert made.code == again.code
    assert torch.equal(made(X), model(X))
    assert torch.equal(copy.deepcopy(made)(X), model(X))
    made.train()
    again.train()
    assert made.code == again.code != exported(model).code
    told = []
    for graph in (made, again):
        with pytest.raises(IndexError) as caught:
            graph(torch.randn(4))
        told.append(str(caught.value))
    assert told[0] == told[1]
    assert vars(type(made))["_wrapped_call"].cls is type(made)
