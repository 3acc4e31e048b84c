"""Shadow and gradient against the same by hand, and the rank correlation against scipy."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, fx, nn
from torch.ao.quantization import disable_fake_quant, disable_observer
from torch.nn import functional as F

import qatexplorer as qx
from qatexplorer.accuracy.sensitivity.ranks import ranks, spearman
from qatexplorer.quantizers.facts import fake_quants, kinds_of
from tests.accuracy.sensitivity_models import session_of
from tests.support.models_fx import FunctionalWeights

CASES = [
    ("conv_bn_relu", "eager"),
    ("conv_bn_relu", "fx"),
    ("residual", "eager"),
    ("residual", "fx"),
    ("reused", "fx"),
    ("digits_cnn", "eager"),
    ("digits_depthwise", "fx"),
]


def float_model(session: qx.Session) -> nn.Module:
    """A copy with all fake quants off."""
    model = session.copy_model().eval()
    return model.apply(disable_observer).apply(disable_fake_quant)


def pairs_of(session: qx.Session, x: Tensor) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """(y, y_q) of each fake quant in one forward: inputs are caught by hooks, and each module is
    run again afterwards, alone."""
    model = float_model(session)
    kinds, found = kinds_of(model), fake_quants(model)
    given: dict[str, list[Any]] = {}
    for path in found:
        target = path if kinds[path] != "weight" else path.rpartition(".")[0]
        model.get_submodule(target).register_forward_pre_hook(
            lambda _m, args, path=path: given.setdefault(path, []).append(args)
        )
    with torch.no_grad():
        model(x)
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for path, calls in given.items():
        module = found[path]
        owner = module if kinds[path] != "weight" else model.get_submodule(path.rpartition(".")[0])
        for args in calls:
            with torch.no_grad():
                y = owner.forward(*args)
                module.enable_fake_quant()  # type: ignore[operator]
                rounded = owner.forward(*args)
                module.disable_fake_quant()  # type: ignore[operator]
            pairs.setdefault(path, []).append((y, rounded))
    return pairs


@pytest.mark.parametrize(("name", "flow"), CASES)
def test_shadow_is_the_noise_of_each_module_alone(name: str, flow: str) -> None:
    session = session_of(name, flow)
    made = session.sensitivity("shadow", batches=2)
    assert session.data is not None
    sums: dict[str, list[float]] = {}
    for x, _ in list(session.data.eval)[:2]:
        for path, pairs in pairs_of(session, x).items():
            for y, rounded in pairs:
                both = sums.setdefault(path, [0.0, 0.0])
                both[0] += float((rounded - y).double().square().sum())
                both[1] += float(y.double().square().sum())
    assert {row.path for row in made.rows} == set(sums)
    for row in made.rows:
        noise, signal = sums[row.path]
        assert row.score == pytest.approx(noise / signal, rel=1e-4)
    assert made.forwards <= 3
    assert made.float_metric is not None
    assert made.quantized_metric is None


def gradients_of(session: qx.Session, x: Tensor, y: Tensor) -> dict[str, list[Tensor]]:
    """Gradient of the loss by what each fake quant's module gives, call by call, from autograd:
    what a module gives is replaced by a leaf of its own with the same values."""
    model = float_model(session)
    kinds, found = kinds_of(model), fake_quants(model)
    calls = {path: len(pairs) for path, pairs in pairs_of(session, x).items()}
    gradients: dict[str, list[Tensor]] = {}
    for path, count in calls.items():
        weight = kinds[path] == "weight"
        owner = model.get_submodule(path.rpartition(".")[0]) if weight else found[path]
        usual = owner.forward
        for wanted in range(count):
            leaves: list[Tensor] = []
            seen = [0]

            def forward(*args: Any, usual: Any = usual, leaves: Any = leaves, seen: Any = seen,
                        wanted: int = wanted) -> Any:  # fmt: skip
                out = usual(*args)
                seen[0] += 1
                if seen[0] - 1 != wanted:
                    return out
                leaves.append(out.detach().clone().requires_grad_())
                return leaves[0] * 1

            owner.forward = forward
            loss = F.cross_entropy(model(x), y)
            gradients.setdefault(path, []).append(torch.autograd.grad(loss, leaves[0])[0])
        owner.forward = usual
    return gradients


@pytest.mark.parametrize(("name", "flow"), CASES)
def test_gradient_is_autograds(name: str, flow: str) -> None:
    session = session_of(name, flow)
    made = session.sensitivity("gradient", batches=1)
    assert session.data is not None
    x, y = next(iter(session.data.eval))
    gradients, scores = gradients_of(session, x, y), {}
    for path, pairs in pairs_of(session, x).items():
        scores[path] = sum(
            float((g.double().square() * (rounded - out).double().square()).sum())
            for g, (out, rounded) in zip(gradients[path], pairs, strict=True)
        )
    assert {row.path for row in made.rows} == set(scores)
    for row in made.rows:
        assert row.score == pytest.approx(scores[row.path], rel=1e-3, abs=1e-20)
    assert made.forwards > 1


@pytest.mark.parametrize("method", ["shadow", "gradient"])
def test_the_parameters_get_no_gradient(method: Any) -> None:
    session = session_of("residual")
    parameters = list(session.model.parameters())
    parameters[0].grad = torch.ones_like(parameters[0])
    session.sensitivity(method)
    assert torch.equal(parameters[0].grad, torch.ones_like(parameters[0]))
    assert all(p.grad is None for p in parameters[1:])


def test_weights_that_no_module_holds_are_compared_themselves() -> None:
    torch.manual_seed(0)
    model = FunctionalWeights()
    x = next(x for x in [torch.randn(4, 3, 8, 8), torch.randn(4, 1, 8, 8)] if runs(model, x))
    target = torch.zeros(4, dtype=torch.long)
    data = {"train": [(x, target)], "eval": [(x, target)]}
    session = qx.Session(model.train(), x, flow="fx", data=data)
    session.calibrate(1)
    prepared = session.copy_model()
    assert isinstance(prepared, fx.GraphModule)
    weights = [p for p, kind in kinds_of(prepared).items() if kind == "weight"]
    held = [p for p in weights if "." not in p]
    assert held, "the model has functional weights"
    made = session.sensitivity("shadow")
    assert any("These weights go to an operation of the graph" in note for note in made.notes)
    rows = {row.path: row for row in made.rows}
    for node in prepared.graph.nodes:
        if node.op == "call_module" and node.target in held:
            weight = prepared
            for part in str(node.args[0].target).split("."):
                weight = getattr(weight, part)
            fake_quant = prepared.get_submodule(node.target).eval()
            fake_quant.apply(disable_observer)
            with torch.no_grad():
                rounded = fake_quant(weight)
                wanted = (rounded - weight).square().sum() / weight.square().sum()  # type: ignore[operator]
            assert rows[node.target].score == pytest.approx(float(wanted), rel=1e-4)


def runs(model: nn.Module, x: Tensor) -> bool:
    try:
        model(x)
    except RuntimeError:
        return False
    return True


def test_totals_when_they_are_asked_for() -> None:
    session = session_of("digits_depthwise")
    exact = session.sensitivity("exact", batches=2)
    made = session.sensitivity("shadow", batches=2, totals=True)
    assert made.quantized_metric == pytest.approx(exact.quantized_metric)
    assert made.weights_only == pytest.approx(exact.weights_only)
    assert made.activations_only == pytest.approx(exact.activations_only)
    assert made.float_metric == pytest.approx(exact.float_metric)


def test_the_correlation_with_the_exact_one() -> None:
    session = session_of("digits_depthwise")
    before = session.sensitivity("shadow")
    assert before.spearman is None
    exact = session.sensitivity("exact")
    assert exact.spearman is None
    shadow, gradient = session.last_sensitivity["shadow"], session.sensitivity("gradient")
    theirs = {row.path: row for row in exact.rows}
    for made in (shadow, gradient):
        scores = [row.score for row in made.rows]
        metric = [theirs[row.path].score for row in made.rows]
        loss = [theirs[row.path].loss_increase for row in made.rows]
        assert made.spearman == pytest.approx(spearmanr(scores, metric).statistic)
        assert made.spearman_loss == pytest.approx(spearmanr(scores, loss).statistic)
    assert "Spearman with exact" in repr(shadow)


def test_ranks_with_ties_are_scipys() -> None:
    one, two = [1.0, 2.0, 2.0, 5.0, -1.0, math.pi], [0.0, 0.0, 0.0, 4.0, 4.0, 9.0]
    assert spearman(one, two) == pytest.approx(spearmanr(one, two).statistic)
    assert ranks([3.0, 1.0, 3.0]).tolist() == [2.5, 1.0, 2.5]
    assert spearman([1.0, 2.0], [3.0, 3.0]) is None
    assert spearman([1.0], [2.0]) is None
    assert spearman([1.0, math.nan], [2.0, 3.0]) is None
