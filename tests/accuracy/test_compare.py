"""A comparison's numbers, each against torch's numeric suite or worked out again by other means."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import entropy
from torch import Tensor, fx, nn
from torch.ao.ns import _numeric_suite as eager_suite
from torch.ao.ns.fx.utils import compute_cosine_similarity, compute_sqnr
from torch.ao.quantization import (
    DeQuantStub,
    FakeQuantizeBase,
    QuantStub,
    disable_fake_quant,
    disable_observer,
)

import qatexplorer as qx
from qatexplorer.accuracy.records import CompareRow, Comparison
from qatexplorer.accuracy.spread import divergence
from qatexplorer.errors import StageError, StoppedError
from qatexplorer.quantizers.engine import quantized_engine
from tests.checks.parity_models import TokenMixer, mixed
from tests.support.engines import need_exact
from tests.support.models import NARROW, ConvBnRelu, Residual, Reused, image, load_timm, loader

FLOWS = ("eager", "fx")
QUIET = pytest.mark.filterwarnings("ignore::qatexplorer.errors.QatExplorerWarning")


def trained(model: nn.Module, x: Any, flow: str, **settings: Any) -> qx.Session:
    torch.manual_seed(0)
    data = {"train": loader(x), "eval": loader(x)}
    session = qx.Session(model, x, flow=flow, data=data, **settings)
    session.train(1, progress=False)
    session.goto(session.flow.int8_stage)
    return session


def row(found: Comparison, path: str, kind: str, call: int = 0) -> CompareRow:
    return next(r for r in found if (r.path, r.kind, r.call) == (path, kind, call))


def alike(mine: float | None, theirs: float, within: float = 0.01) -> None:
    assert mine is not None
    assert mine == pytest.approx(theirs, abs=within)


def outputs_by_path(model: nn.Module, x: Any, engine: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def keep(path: str) -> Any:
        def hook(_module: Any, _args: Any, out: Any) -> None:
            if isinstance(out, Tensor):
                found[path] = out.detach().clone()

        return hook

    for path, module in model.named_modules():
        if path:
            module.register_forward_hook(keep(path))
    with torch.no_grad(), quantized_engine(engine):
        model(x)
    return found


def test_values_of_every_place_are_those_of_torchs_own_metrics_in_eager_mode() -> None:
    x = image()
    session = trained(ConvBnRelu(), x, "eager", qconfig="x86")
    session.data = None
    found = session.compare(1, lost=False)
    given = next(iter(loader(x)))[0]
    off = copy.deepcopy(session._models.work).eval()
    off.apply(disable_observer).apply(disable_fake_quant)
    floats = outputs_by_path(off, given, "x86")
    work = copy.deepcopy(session._models.work).eval().apply(disable_observer)
    fakes = outputs_by_path(work, given, "x86")
    int8 = outputs_by_path(copy.deepcopy(session.int8), given, "x86")
    checked = 0
    for one in found:
        if one.kind != "module" or one.call:
            continue
        a, b = floats[one.path], fakes[one.path]
        c = int8[one.path]
        alike(one.sqnr_fake_quant_db, float(compute_sqnr(a, b)))
        alike(one.cosine_fake_quant, float(compute_cosine_similarity(a, b)), 1e-4)
        values = c.dequantize() if c.is_quantized else c
        alike(one.sqnr_int8_db, float(compute_sqnr(a, values)))
        alike(one.cosine_int8, float(compute_cosine_similarity(a, values)), 1e-4)
        if c.is_quantized:
            steps = ((b - values) / c.q_scale()).abs()
            alike(one.mean_steps, float(steps.mean()), 1e-4)
            alike(one.max_steps, float(steps.max()), 1e-3)
            codes = torch.quantize_per_tensor(b, c.q_scale(), c.q_zero_point(), c.dtype)
            same = (codes.int_repr() == c.int_repr()).float().mean()
            if one.step is not None:  # elsewhere fake quant has no codes of its own
                alike(one.agreement, float(same), 1e-6)
        if one.step is not None:
            error = (a - b).abs() / one.step
            alike(one.mean_error_steps, float(error.mean()), 1e-4)
            alike(one.max_error_steps, float(error.max()), 1e-3)
        checked += 1
    assert checked >= 4
    mapped = [one for one in found if one.kind == "fake quant" and one.channels]
    for one in mapped:
        a, b = floats[one.owner], fakes[one.path]
        if a.dim() == 4:
            a, b = a[:1], b[:1]
        assert len(one.channels) == a.shape[1]
        for number, value in enumerate(one.channels):
            if torch.equal(a[:, number], b[:, number]):
                assert value == math.inf
            elif a[:, number].any():
                alike(value, float(compute_sqnr(a[:, number], b[:, number])))
            else:
                assert math.isnan(value)
    assert {floats[one.owner].dim() for one in mapped} == {2, 4}


@pytest.mark.parametrize("flow", FLOWS)
def test_the_isolated_error_is_that_of_the_fake_quant_alone_on_float_values(flow: str) -> None:
    """All other fake quants off: what this one gives is its rounding of float values."""
    x = image()
    session = trained(ConvBnRelu(), x, flow, qconfig="x86")
    found = session.compare(1, lost=False)
    given = next(iter(loader(x)))[0]
    work = copy.deepcopy(session._models.work).eval().apply(disable_observer)
    sites = {p: m for p, m in work.named_modules() if isinstance(m, FakeQuantizeBase)}
    checked = 0
    for path, site in sites.items():
        if "weight" in path:
            continue
        for module in sites.values():
            module.disable_fake_quant()  # type: ignore[no-untyped-call]
        site.enable_fake_quant()  # type: ignore[no-untyped-call]
        seen: list[tuple[Tensor, Tensor]] = []
        handle = site.register_forward_hook(
            lambda _m, args, out, seen=seen: seen.append((args[0].clone(), out.clone()))
        )
        with torch.no_grad():
            work(given)
        handle.remove()
        before, after = seen[0]
        one = row(found, path, "fake quant")
        alike(one.isolated_sqnr_db, float(compute_sqnr(before, after)), 0.02)
        low, high = (
            float((end - site.zero_point) * site.scale)
            for end in (site.activation_post_process.quant_min,
                        site.activation_post_process.quant_max)
        )  # fmt: skip
        clip = before.clamp(low, high)
        assert one.clipping_error is not None
        assert one.rounding_error is not None
        assert one.clipping_error == pytest.approx(
            float((before - clip).square().mean()), rel=0.02, abs=1e-9
        )
        whole = float((before - after).square().mean())
        assert one.clipping_error + one.rounding_error == pytest.approx(whole, rel=0.02, abs=1e-12)
        codes = (before / site.scale).round() + site.zero_point
        outside = (codes < site.activation_post_process.quant_min) | (
            codes > site.activation_post_process.quant_max
        )
        alike(one.clipped, float(outside.float().mean()), 1e-3)
        checked += 1
    assert checked >= 3


@pytest.mark.parametrize("flow", FLOWS)
def test_weights_are_those_of_torchs_numeric_suite(flow: str) -> None:
    session = trained(ConvBnRelu(), image(), flow, qconfig="x86")
    found = session.compare(1, lost=False)
    work = copy.deepcopy(session._models.work).eval()
    weights = {one.owner: one for one in found if one.kind == "weight"}
    assert weights
    paths = dict(session.int8.named_modules())
    for owner, one in weights.items():
        layer: Any = work.get_submodule(owner)
        given = layer.weight
        if hasattr(layer, "bn"):
            factor = layer.bn.weight / torch.sqrt(layer.bn.running_var + layer.bn.eps)
            given = given * factor.reshape([-1] + [1] * (given.dim() - 1))
        given = given.detach()
        rounded = layer.weight_fake_quant.apply(disable_observer)(given)
        alike(one.sqnr_fake_quant_db, float(compute_sqnr(given, rounded)))
        assert len(one.channels) == len(given)
        for channel, a, b in zip(one.channels, given, rounded, strict=True):
            alike(channel, float(compute_sqnr(a, b)), 0.02)
        int8 = paths[owner].weight()  # type: ignore[operator]
        alike(one.sqnr_int8_db, float(compute_sqnr(given, int8.dequantize())))
    if flow == "eager":
        pairs = eager_suite.compare_weights(
            session._models.work.state_dict(), session.int8.state_dict()
        )
        plain = {k.removesuffix(".weight"): v for k, v in pairs.items()}
        for owner, pair in plain.items():
            if owner in weights and not hasattr(work.get_submodule(owner), "bn"):
                theirs = compute_sqnr(pair["float"], pair["quantized"].dequantize())
                alike(weights[owner].sqnr_int8_db, float(theirs))


def test_the_divergence_is_that_of_two_histograms_worked_out_by_hand() -> None:
    torch.manual_seed(0)
    floats = torch.randint(0, 9, (2048,)).float()
    cells = torch.arange(2048) // 8
    counts = torch.randint(1, 50, (256,)).float()
    q = np.zeros(2048)
    for code in range(256):
        inside = [i for i in range(2048) if cells[i] == code and floats[i] > 0]
        for i in inside:
            q[i] = float(counts[code]) / float(counts.sum()) / len(inside)
    p = floats.numpy() / float(floats.sum())
    q = (1 - 1e-4) * q + 1e-4 * p
    taken = p > 0
    wanted = float(np.sum(p[taken] * np.log(p[taken] / q[taken])))
    assert divergence(floats, cells, counts) == pytest.approx(wanted, rel=1e-6)
    # scipy normalizes both: the same where nothing of q lies outside of p.
    if math.isclose(q.sum(), 1, abs_tol=1e-9):
        assert wanted == pytest.approx(float(entropy(p, q)), rel=1e-6)


class Answers(nn.Module):
    """Returns a dict of a list and a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.body = nn.Conv2d(1, 4, 3)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Any:
        y = self.body(self.quant(x))
        z = self.head(y)
        return {"maps": [self.dequant(y), self.dequant(z)], "score": (self.dequant(z).sum(),)}


@QUIET
@pytest.mark.parametrize("flow", FLOWS)
def test_each_tensor_of_a_nested_output_has_a_row(flow: str) -> None:
    x = torch.randn(2, 1, 8, 8)
    session = qx.Session(Answers(), x, flow=flow, qconfig="x86")
    session.goto(session.flow.prepared_stage)
    found = session.compare()
    outputs = [one for one in found if one.kind == "output"]
    assert [one.path for one in outputs] == [
        "output['maps'][0]",
        "output['maps'][1]",
        "output['score'][0]",
    ]
    floats = copy.deepcopy(session._models.base).eval()(x)
    assert [one.values for one in outputs] == [
        floats["maps"][0].numel(),
        floats["maps"][1].numel(),
        1,
    ]
    assert all(one.sqnr_int8_db is not None for one in outputs)
    assert any("seen data" in note for note in found.notes)


class Functional(nn.Module):
    """Two layers without a module of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 1, 3, 3))
        self.head, self.bias = nn.Parameter(torch.randn(5, 64)), nn.Parameter(torch.randn(5))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(F.conv2d(x, self.kernel, None, (2, 2), (1, 1), (1, 1), 1))
        return F.linear(y.flatten(1), self.head, self.bias)


def values_of_nodes(model: Any, x: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    class Seen(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            found[n.name] = super().run_node(n)
            return found[n.name]

    with torch.no_grad():
        Seen(model).run(x)
    return found


@QUIET
def test_functional_layers_of_a_graph_have_rows_of_their_weights_and_int8_results() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 1, 8, 8)
    session = qx.Session(Functional(), x, flow="fx", qconfig="x86")
    session.goto(session.flow.prepared_stage)
    with torch.no_grad():
        session.model(x)
    session.goto(session.flow.int8_stage)
    found = session.compare(lost=False)
    weights = {one.owner: one for one in found if one.kind == "weight"}
    for owner, parameter in (("conv2d", "kernel"), ("linear", "head")):
        one = weights[owner]
        given = getattr(session._models.work, parameter).detach()
        packed: Any = next(
            getattr(session.int8, str(n.target))
            for n in session.int8.graph.nodes  # type: ignore[union-attr]
            if n.op == "get_attr" and any(user.name == owner for user in n.users)
            if "packed" in str(n.target)
        )
        theirs = compute_sqnr(given, packed.unpack()[0].dequantize())
        alike(one.sqnr_int8_db, float(theirs))
        assert len(one.channels) == len(given)
        at = [row.path for row in found].index(one.path)
        assert found.rows[at - 1].path in (owner, "activation_post_process_5")
    # The kernel has the ReLU in it: its result is the fake quant's behind the ReLU.
    assert row(found, "conv2d", "operation").sqnr_int8_db is None
    (relu,) = [one for one in found if one.kind == "operation" and one.path == "relu"]
    work = copy.deepcopy(session._models.work).eval().apply(disable_observer)
    fake = values_of_nodes(work, x)["activation_post_process_2"]
    with quantized_engine("x86"):
        int8 = values_of_nodes(session.int8, x)["conv2d"]
    codes = torch.quantize_per_tensor(fake, int8.q_scale(), int8.q_zero_point(), int8.dtype)
    alike(relu.agreement, float((codes.int_repr() == int8.int_repr()).float().mean()), 1e-6)
    assert row(found, "linear", "operation").agreement is not None


@QUIET
@pytest.mark.parametrize("flow", FLOWS)
def test_a_module_called_twice_has_a_row_for_each_call(flow: str) -> None:
    session = qx.Session(Reused(), image(), flow=flow, qconfig="x86")
    session.goto(session.flow.prepared_stage)
    with torch.no_grad():
        session.model(image())
    found = session.compare(lost=False)
    calls: dict[str, list[int]] = {}
    for one in found:
        if one.kind == "module":
            calls.setdefault(one.path, []).append(one.call)
    assert [0, 1] in calls.values()


@QUIET
@pytest.mark.parametrize("flow", FLOWS)
def test_the_cause_is_the_one_that_the_checks_find(flow: str) -> None:
    need_exact("x86")
    session = mixed(TokenMixer(), flow, "x86")
    (finding,) = session.check().with_id("QX503")
    session.goto(session.flow.int8_stage)
    found = session.compare()
    assert found.first is not None
    assert found.first.path == finding.path == "embed"
    assert "QX503" in found.first.cause


def state(module: nn.Module) -> dict[str, Any]:
    kept = {f"tensor {k}": v.clone() for k, v in module.state_dict(keep_vars=True).items()
            if isinstance(v, Tensor) and not v.is_quantized}  # fmt: skip
    for path, one in module.named_modules():
        kept[f"mode {path}"] = torch.tensor(one.training)
        kept[f"hooks {path}"] = torch.tensor(len(one._forward_hooks))
    return kept


@pytest.mark.parametrize("flow", FLOWS)
def test_nothing_of_the_session_is_changed(flow: str) -> None:
    session = trained(Residual(), image(), flow)
    models = (session._models.base, session._models.work, session.int8)
    before = [state(model) for model in models]
    random, engine = torch.get_rng_state(), torch.backends.quantized.engine
    session.compare(1)
    assert torch.equal(random, torch.get_rng_state())
    assert torch.backends.quantized.engine == engine
    for old, model in zip(before, models, strict=True):
        new = state(model)
        assert old.keys() == new.keys()
        assert all(torch.equal(old[key], new[key]) for key in old)


@pytest.mark.parametrize("flow", FLOWS)
def test_it_can_be_stopped_and_keeps_whole_batches(flow: str) -> None:
    session = trained(ConvBnRelu(), image(), flow)
    with pytest.raises(StoppedError):
        session.compare(2, should_stop=lambda: True)
    assert session.last_comparison is None
    asked = 0

    def after_the_first() -> bool:
        nonlocal asked
        asked += 1
        return asked > 4  # three forwards a batch

    found = session.compare(2, should_stop=after_the_first, lost=False)
    assert found.batches == 1
    assert "stopped" in found.notes[-1]
    assert found.passes["fake quant"] == 1  # the last of the three
    assert session.last_comparison is found


@pytest.mark.parametrize("flow", FLOWS)
def test_batches_add_up_and_cost_one_forward_each(flow: str) -> None:
    session = trained(ConvBnRelu(), image(), flow)
    heard: list[float] = []
    one = session.compare(1, lost=False)
    two = session.compare(2, lost=False, progress=lambda _what, share: heard.append(share))
    assert two.passes == {"float": 2, "fake quant": 2, "int8": 2}
    assert heard == sorted(heard)
    assert [r.values * 2 for r in one if r.kind != "weight"] == [
        r.values for r in two if r.kind != "weight"
    ]


@QUIET
def test_before_there_are_fake_quants_it_says_where_to_go_and_going_there_helps() -> None:
    session = qx.Session(ConvBnRelu(), image())
    with pytest.raises(StageError) as raised:
        session.compare()
    assert raised.value.fix == "Call session.goto('insert') first."
    session.goto("insert")
    assert len(session.compare())


def example_session(example: Any, flow: str) -> qx.Session:
    """With stubs around each layer where it has none of its own."""
    own = any(isinstance(module, QuantStub) for module in example.model.modules())
    stubs: Any = "none" if own or flow == "fx" else "layers"
    inputs = example.example_inputs
    return qx.Session(example.model, inputs, data=example.data, flow=flow, stubs=stubs)


@pytest.mark.parametrize("flow", FLOWS)
def test_lost_samples_are_those_that_a_loop_finds(flow: str) -> None:
    example = qx.zoo.load("digits_mlp")
    session = example_session(example, flow)
    session.calibrate(2)
    prepared: Any = session.model
    for path, module in prepared.named_modules():
        if path.endswith("weight_fake_quant"):  # so coarse that samples are lost
            module.activation_post_process.quant_min = -1
            module.activation_post_process.quant_max = 1
    session.goto(session.flow.int8_stage)
    found = session.compare(1)
    floats = copy.deepcopy(session._models.base).eval()
    wanted: list[tuple[int, int, int, int]] = []
    number = 0
    with torch.no_grad(), quantized_engine(session.options.qconfig.backend):
        for x, target in example.data.eval:
            for a, b, t in zip(
                floats(x).argmax(1).tolist(), session.int8(x).argmax(1).tolist(), target.tolist(),
                strict=True,
            ):  # fmt: skip
                if a == t != b:
                    wanted.append((number, t, a, b))
                number += 1
    assert found.evaluated == number
    assert found.lost_total == len(wanted)
    mine = [(one.number, one.target, one.float_answer, one.int8_answer) for one in found.lost]
    assert mine == wanted[:100]
    every = torch.cat([x for x, _ in example.data.eval])
    for one in found.lost[:3]:
        assert np.array_equal(one.input, every[one.number].numpy())


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("name", ["digits_cnn", "digits_depthwise", "digits_mlp"])
def test_the_examples_are_compared_whole(name: str, flow: str) -> None:
    example = qx.zoo.load(name)
    session = example_session(example, flow)
    session.calibrate(2)
    session.goto(session.flow.int8_stage)
    found = session.compare(1, lost=False)
    assert found.notes == ()
    shot = session.snapshots[session.flow.train_stage]
    sites = {place.path for site in shot.sites for place in site.places}
    rows = {one.path for one in found if one.kind in ("fake quant", "weight")}
    assert rows == sites
    assert all(one.sqnr_int8_db is not None for one in found)
    assert len(repr(found).splitlines()) <= 20
    assert len(found.to_pandas()) == len(found)
    indices = [one.index for one in found]
    assert indices == sorted(indices)


@QUIET
@pytest.mark.parametrize("flow", FLOWS)
def test_a_timm_network_is_compared(flow: str) -> None:
    model, x = load_timm("resnet18", **NARROW)
    settings: dict[str, Any] = {"stubs": "layers"} if flow == "eager" else {}
    session = qx.Session(model, x, flow=flow, **settings)
    session.goto(session.flow.prepared_stage)
    with torch.no_grad():
        session.model(x)
    found = session.compare()
    assert found.passes == {"float": 1, "fake quant": 1, "int8": 1}
    convs = [one for one in found if one.kind == "weight"]
    assert len(convs) == 21
    known = [one for one in found if one.kind == "fake quant"]
    assert all(one.sqnr_fake_quant_db is not None for one in known)
    assert all(one.agreement is not None for one in known)


@pytest.mark.parametrize("flow", FLOWS)
def test_overlays_show_the_last_comparison_until_the_model_changes(flow: str) -> None:
    session = trained(ConvBnRelu(), image(), flow)
    assert "session.compare()" in session.overlay("sqnr_int8").note
    found = session.compare(1, lost=False)
    for name, field in (
        ("sqnr_fake_quant", "sqnr_fake_quant_db"),
        ("sqnr_int8", "sqnr_int8_db"),
        ("agreement", "agreement"),
    ):
        values = session.overlay(name).values
        for one in found:
            if one.kind == "fake quant":
                assert values[one.path] == getattr(one, field)
    session.calibrate(1)
    assert session.last_comparison is None
    assert not session.overlay("agreement").values
