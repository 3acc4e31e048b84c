"""Sensitivity and proposals of exported models and of torchao's layers, each number once more by
torch's and torchao's own calls."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

import qatexplorer as qx
from tests.support.pt2e_runs import plain, prepared_by_torchao, session
from tests.support.training_models import data, one_thread  # noqa: F401

ao = pytest.importorskip("torchao.quantization")
Sums = dict[str, list[float]]


def quants_of(model: nn.Module) -> dict[str, Any]:
    """Fake quants of torchao's PT2E flow, each object once, by its first name."""
    return {
        path: module
        for path, module in model.named_modules()
        if type(module).__name__ == "FusedMovingAvgObsFakeQuantize"
    }


@pytest.fixture(scope="module")
def exported() -> qx.Session:
    one = session()
    one.train(1, progress=False)
    return one


def with_errors(model: Any, x: Tensor) -> tuple[Tensor, list[tuple[str, Tensor, Tensor, Tensor]]]:
    """The float output, and of each fake quant: name, y, y_q, and zeros that were added to y."""
    names = {id(module): path for path, module in quants_of(model).items()}
    found: list[tuple[str, Tensor, Tensor, Tensor]] = []

    class Apart(fx.Interpreter):
        def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
            module: Any = self.module.get_submodule(target)
            if id(module) not in names:
                return super().call_module(target, args, kwargs)
            y = args[0]
            zeros = torch.zeros_like(y, requires_grad=True)
            with torch.no_grad():
                found.append((names[id(module)], y.detach(), module(y.detach()), zeros))
            return y + zeros

    return Apart(model).run(x), found


def by_hand(one: qx.Session) -> tuple[Sums, dict[str, float]]:
    """(noise, signal) and the weighed error of each fake quant, over all batches."""
    model: Any = one.copy_model("train").eval()
    for module in quants_of(model).values():
        module.disable_observer()
    sums: Sums = defaultdict(lambda: [0.0, 0.0])
    weighed: dict[str, float] = defaultdict(float)
    for x, target in data(3)[1]:
        out, found = with_errors(model, x)
        loss = F.cross_entropy(out, target)
        grads = torch.autograd.grad(loss, [zeros for *_, zeros in found])
        for (path, y, rounded, _), grad in zip(found, grads, strict=True):
            error = (rounded - y).double().square()
            sums[path][0] += float(error.sum())
            sums[path][1] += float(y.double().square().sum())
            weighed[path] += float((grad.double().square() * error).sum())
    return sums, weighed


def test_shadow_and_gradient_of_an_exported_model(exported: qx.Session) -> None:
    sums, weighed = by_hand(exported)
    shadow, gradient = exported.sensitivity("shadow"), exported.sensitivity("gradient")
    assert {row.path for row in shadow} == {row.path for row in gradient} == set(sums)
    for row in shadow:
        noise, signal = sums[row.path]
        assert row.score == pytest.approx(noise / signal, rel=1e-4), row.path
    for row in gradient:
        assert row.score == pytest.approx(weighed[row.path], rel=1e-3), row.path
    # It is the weight that is compared, no module's output: that is said, with the first names.
    weights = {row.owner or row.path for row in shadow if row.kind == "weight"}
    (note,) = (note for note in shadow.notes if "their own values were compared" in note)
    named = [path for path in weights if re.search(rf"\b{re.escape(path)}\b", note)]
    assert len(named) == min(4, len(weights))


def rounded_tensors(model: fx.GraphModule) -> dict[str, list[Any]]:
    """Names of the nodes that each fake quant rounds the results of, by its module."""
    found: dict[str, list[Any]] = defaultdict(list)
    for node in model.graph.nodes:
        if "activation_post_process" in str(node.target):
            found[node.args[0].name].append(model.get_submodule(node.target))
    return found


def test_every_point_of_a_proposal_is_measured_as_torchao_would(exported: qx.Session) -> None:
    """The quantizer leaves the modules out; what it then still rounds is left on in a copy."""
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    found = exported.propose(wished_metric=2.0)  # which none reaches: all points are measured
    assert len(found.points) >= 4
    x, batches = data(1)[0][0][0], data(3)[1]
    for point in found.points:
        config = x86.get_default_x86_inductor_quantization_config(is_qat=True)
        quantizer = x86.X86InductorQuantizer().set_global(config)
        for name in point.modules:
            quantizer.set_module_name_qconfig(name, None)
        kept = rounded_tensors(prepared_by_torchao(plain(), x, quantizer))
        model: Any = exported.copy_model("train").eval()
        saved = 0
        for name, modules in rounded_tensors(model).items():
            for module in modules:
                module.disable_observer()
                module.enable_fake_quant(name in kept)
            if name.endswith("_weight") and name in kept:
                saved += 3 * model.get_parameter(name.replace("_weight", ".weight")).numel()
        with torch.no_grad():
            right = [float((model(x).argmax(1) == y).float().mean()) for x, y in batches]
        assert point.metric == pytest.approx(sum(right) / len(right)), point.modules
        whole = sum(4 * p.numel() for p in model.parameters())
        assert point.size_bytes == whole - saved, point.modules


# -- torchao ------------------------------------------------------------------------------------

X = torch.randint(0, 12, (32, 4), generator=torch.Generator().manual_seed(3))


class Net(nn.Module):
    """(N, 4) token numbers below 12 → (N, 12) scores."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 32)
        self.up, self.down = nn.Linear(32, 32), nn.Linear(32, 12)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(torch.relu(self.up(self.embed(x).mean(1))))
        return out


@pytest.fixture(scope="module")
def swapped() -> qx.Session:
    """Linear layers with 4 bits in groups of 16 and rounded inputs, the embedding with 4 bits."""
    four: Any = torch.int4  # type: ignore[attr-defined]
    base = {
        nn.Linear: ao.Int8DynamicActivationIntxWeightConfig(
            weight_dtype=four, weight_granularity=ao.PerGroup(16)
        ),
        nn.Embedding: ao.IntxWeightOnlyConfig(weight_dtype=four, granularity=ao.PerGroup(32)),
    }
    torch.manual_seed(0)
    pairs = [(X[:16], X[:16, 0]), (X[16:], X[16:, 0])]
    one = qx.Session(Net().train(), X[:4], data=(pairs, pairs), flow="torchao", base_config=base)
    one.train(1, lr=0.02, progress=False)
    return one


def switches(model: nn.Module) -> dict[str, Any]:
    return {
        path: module
        for path, module in model.named_modules()
        if path.endswith(("weight_fake_quantizer", "activation_fake_quantizer"))
    }


def judged(one: qx.Session, on: set[str]) -> tuple[float, float]:
    """(accuracy, mean of the batches' cross entropy) with only the fake quants ``on``."""
    model = one.copy_model("train").eval()
    for path, module in switches(model).items():
        module.enabled = path in on
    with torch.no_grad():
        out = model(X)
    return float((out.argmax(1) == X[:, 0]).float().mean()), float(F.cross_entropy(out, X[:, 0]))


def test_exact_of_torchaos_layers(swapped: qx.Session) -> None:
    made = swapped.sensitivity("exact")
    paths = {row.path for row in made.rows}
    assert paths == set(switches(swapped.copy_model("train")))
    assert len(paths) == 5
    wanted = {
        (made.float_metric, made.float_loss): set(),
        (made.quantized_metric, made.quantized_loss): paths,
        (made.weights_only, None): {path for path in paths if "weight_" in path},
        (made.activations_only, None): {path for path in paths if "activation_" in path},
    }
    cases = [*wanted.items()]
    cases += [((row.only, row.loss_only), {row.path}) for row in made.rows]
    cases += [((row.without, row.loss_without), paths - {row.path}) for row in made.rows]
    for (metric, loss), on in cases:
        right, entropy = judged(swapped, on)
        assert metric == pytest.approx(right), on
        assert loss is None or loss == pytest.approx(entropy, rel=1e-5), on
    for row in made.rows:
        assert row.score == pytest.approx((made.float_metric or 0) - (row.only or 0), abs=1e-9)


def test_shadow_and_gradient_of_torchaos_layers(swapped: qx.Session) -> None:
    """Of a weight it is what its layer gives with and without rounding, of an input the input."""
    shadow = {row.path: row.score for row in swapped.sensitivity("shadow")}
    gradient = {row.path: row.score for row in swapped.sensitivity("gradient")}
    model: Any = swapped.copy_model("train").eval()
    for module in switches(model).values():
        module.enabled = False
    sums: Sums = defaultdict(lambda: [0.0, 0.0])
    weighed: dict[str, float] = defaultdict(float)

    def rounded(path: str, tensor: Tensor) -> Tensor:
        quant: Any = model.get_submodule(path)
        quant.enabled = True
        with torch.no_grad():
            out: Tensor = quant(tensor.detach())
        quant.enabled = False
        return out

    for x in (X[:16], X[16:]):
        zeros: dict[str, Tensor] = {}
        pairs: dict[str, tuple[Tensor, Tensor]] = {}

        def apart(path: str, y: Tensor, y_q: Tensor) -> Tensor:
            pairs[path] = y.detach(), y_q.detach()  # noqa: B023
            zeros[path] = torch.zeros_like(y, requires_grad=True)  # noqa: B023
            return y + zeros[path]  # noqa: B023

        weight = model.embed.weight
        path = "embed.weight_fake_quantizer"
        h = apart(path, F.embedding(x, weight), F.embedding(x, rounded(path, weight))).mean(1)
        for name in ("up", "down"):
            layer = model.get_submodule(name)
            path = f"{name}.activation_fake_quantizer"
            h = apart(path, h, rounded(path, h))
            path = f"{name}.weight_fake_quantizer"
            other = F.linear(h, rounded(path, layer.weight), layer.bias)
            h = apart(path, F.linear(h, layer.weight, layer.bias), other)
            h = torch.relu(h) if name == "up" else h
        grads = torch.autograd.grad(F.cross_entropy(h, x[:, 0]), list(zeros.values()))
        for (path, (y, y_q)), grad in zip(pairs.items(), grads, strict=True):
            error = (y_q - y).double().square()
            sums[path][0] += float(error.sum())
            sums[path][1] += float(y.double().square().sum())
            weighed[path] += float((grad.double().square() * error).sum())
    assert shadow.keys() == gradient.keys() == sums.keys()
    for path, (noise, signal) in sums.items():
        assert noise > 0, path
        assert shadow[path] == pytest.approx(noise / signal, rel=1e-4), path
        assert gradient[path] == pytest.approx(weighed[path], rel=1e-3), path
