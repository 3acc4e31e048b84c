"""Proposals of mixed precision: every point held against a model that torch's own calls made with
that qconfig, in both flows; applied, prepared again, and taken back."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.ao.quantization import (
    FakeQuantizeBase,
    QConfig,
    QConfigMapping,
    fuse_modules_qat,
    prepare_qat,
)
from torch.ao.quantization.quantize_fx import prepare_qat_fx

import qatexplorer as qx
from qatexplorer import zoo
from qatexplorer.accuracy.places import places_of, without
from qatexplorer.accuracy.records import ProposalPoint, Sensitivity, SensitivityRow
from qatexplorer.errors import InputError, NoDataError, QConfigError, StageError
from qatexplorer.flows.exceptions import bits_of, range_of_bits, with_weight_bits
from tests.support.narrow import narrow

FLOWS = ("eager", "fx")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def nll(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target)


def calibrated(flow: str, qconfig: Any = None, metric: Any = None) -> qx.Session:
    example = zoo.load("digits_cnn")
    session = qx.Session(
        example.model,
        example.example_inputs,
        flow=flow,
        qconfig=narrow() if qconfig is None else qconfig,
        data=example.data,
        metric=metric,
    )
    session.calibrate(4)
    return session


def ranking(session: qx.Session, worst: tuple[str, ...] = ()) -> Sensitivity:
    """All fake quants, those of ``worst`` first, the others in the order of the model."""
    sites = session.snapshot.sites
    order = [s for path in worst for s in sites if s.owner == path]
    order += [s for s in sites if s not in order]
    rows = tuple(
        SensitivityRow(
            site.path, site.owner, "weight" if site.kind == "weight" else "activation", 1 / (n + 1)
        )
        for n, site in enumerate(order)
    )
    return Sensitivity("shadow", rows)


# -- torch's own calls -----------------------------------------------------------------------------


def prepared_by_torch(flow: str, modules: tuple[str, ...], bits: int | None) -> nn.Module:
    """The example, prepared by torch with None (or more bits) for these modules."""
    example = zoo.load("digits_cnn")
    model = copy.deepcopy(example.model).train()
    other = None if bits is None else narrow(bits)
    if flow == "fx":
        mapping = QConfigMapping().set_global(narrow())
        for path in modules:
            mapping.set_module_name(path, other)
        return prepare_qat_fx(model, mapping, example.example_inputs)
    runs = [[f"conv{n}", f"bn{n}", f"relu{n}"] for n in (1, 2, 3)]
    model = fuse_modules_qat(model, runs)
    model.qconfig = narrow()
    for path in modules:
        model.get_submodule(path).qconfig = other
    return prepare_qat(model)


def by_tensor(model: nn.Module) -> dict[str, nn.Module]:
    """Fake quants by the tensor that they round."""
    named = dict(model.named_modules(remove_duplicate=False))
    if not isinstance(model, fx.GraphModule):
        return {p: m for p, m in named.items() if isinstance(m, FakeQuantizeBase)}
    found = {p: m for p, m in named.items() if p.endswith(".weight_fake_quant")}
    for node in model.graph.nodes:
        if node.op == "call_module" and isinstance(named[str(node.target)], FakeQuantizeBase):
            found[f"after {node.args[0]}"] = named[str(node.target)]
    return found


def take_over(model: nn.Module, trained: nn.Module, *, with_codes: bool = True) -> None:
    """Weights, batch norms and ranges of ``trained``; what stays float has them under the names of
    torch's float fused module."""
    known = trained.state_dict()
    for key, value in model.state_dict().items():
        if "fake_quant" in key or "post_process" in key:
            continue
        head, _, name = key.rpartition(".")
        owner, _, last = head.rpartition(".")
        named = {"0": f"{owner}.{name}", "1": f"{owner}.bn.{name}"}.get(last, key)
        value.copy_(known[key] if key in known else known[named])
    mine, theirs = by_tensor(model), by_tensor(trained)
    assert mine.keys() <= theirs.keys()
    for place, quantizer in mine.items():
        if quantizer.quant_max == theirs[place].quant_max:
            quantizer.load_state_dict(theirs[place].state_dict())


def metric_by_torch(model: nn.Module, data: Any, bits: int | None) -> float:
    """Mean cross entropy, in eval mode, ranges frozen."""
    model.eval()
    for quantizer in by_tensor(model).values():
        fresh = bits is not None and quantizer.quant_max == 2 ** (bits - 1) - 1
        (quantizer.enable_observer if fresh else quantizer.disable_observer)()
    total = samples = 0.0
    with torch.no_grad():
        model(next(iter(data.eval))[0])
        for quantizer in by_tensor(model).values():
            quantizer.disable_observer()
        for x, y in data.eval:
            total += float(F.cross_entropy(model(x), y)) * len(y)
            samples += len(y)
    return total / samples


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("treatment", ["float", 8])
def test_every_point_is_what_torchs_own_model_gives(flow: str, treatment: Any) -> None:
    session = calibrated(flow, metric=nll)
    found = session.propose(
        wished_metric=0.0, treatment=treatment, ranking=ranking(session), metric_mode="min"
    )
    bits = treatment if treatment == 8 else None
    assert [len(point.modules) for point in found] == list(range(len(found)))
    assert len(found) >= 5
    for point in found:
        model = prepared_by_torch(flow, point.modules, bits)
        take_over(model, session.model)
        assert point.metric == pytest.approx(
            metric_by_torch(model, session.data, bits), rel=2e-4, abs=1e-6
        )
    assert len({round(point.metric, 6) for point in found}) >= 4  # the modules matter
    assert found.chosen is None


@pytest.mark.parametrize("flow", FLOWS)
def test_sizes_and_shares_are_those_of_the_parameters_and_multiplications(flow: str) -> None:
    session = calibrated(flow)
    model = zoo.load("digits_cnn").model
    numel = {name: p.numel() for name, p in model.named_parameters()}
    macs = {"conv1": 16 * 9 * 64, "conv2": 32 * 16 * 9 * 64, "conv3": 32 * 32 * 9 * 16, "fc": 320}
    for treatment, bits in (("float", 32), (8, 8)):
        found = session.propose(
            max_drop=0.0, treatment=treatment, ranking=ranking(session, ("conv2",))
        )
        for point in found:
            size = 0
            for name, count in numel.items():
                layer, weight = (
                    name.rpartition(".")[0],
                    name.endswith("weight") and "bn" not in name,
                )
                wide = 32 if not weight else bits if layer in point.modules else 3
                size += -(-count * wide // 8)
            assert point.size_bytes == size
            kept = sum(n for p, n in macs.items() if treatment == 8 or p not in point.modules)
            assert point.share_int8 == pytest.approx(kept / sum(macs.values()))


@pytest.mark.parametrize("flow", FLOWS)
def test_the_set_found_reaches_the_wish_and_needs_each_of_its_modules(flow: str) -> None:
    session = calibrated(flow, narrow(2), metric=nll)
    order = ranking(session)  # not the best order: there is something to take back
    whole = session.propose(max_drop=0.02, ranking=order, metric_mode="min")
    assert whole.float_metric is not None
    assert whole.wished == whole.float_metric + 0.02
    chosen = whole.chosen
    assert chosen is not None
    assert chosen.metric <= whole.wished
    assert chosen is whole.first_that_reaches(whole.wished)
    for left in chosen.modules:
        fewer = tuple(path for path in chosen.modules if path != left)
        rows = tuple(row for row in order.rows if row.owner in fewer)
        alone = session.propose(
            wished_metric=0.0, ranking=Sensitivity("shadow", rows), metric_mode="min"
        )
        assert alone.points[-1].metric > whole.wished
    prefixes = [p.modules for p in whole.points if p is not chosen]
    assert all(set(one) < set(other) for one, other in itertools.pairwise(prefixes))


def test_another_wish_measures_nothing_again_until_the_model_is_another() -> None:
    session = calibrated("fx", narrow(2))
    order = ranking(session)
    first = session.propose(max_drop=0.5, ranking=order)
    assert first.evaluations >= 5
    assert session.propose(max_drop=0.5, ranking=order).evaluations == 0
    with torch.no_grad():
        for parameter in session.model.parameters():
            parameter.mul_(1.5)
    again = session.propose(max_drop=0.5, ranking=order)
    assert again.evaluations >= 5
    assert again.points[0].metric != first.points[0].metric


def test_stopped_it_keeps_what_was_measured_and_goes_on_from_there() -> None:
    session = calibrated("eager", narrow(2))
    order = ranking(session)
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 12  # three evaluations of five batches

    shares: list[float] = []
    part = session.propose(
        max_drop=0.01, ranking=order, should_stop=stop, progress=lambda _, s: shares.append(s)
    )
    assert not part.complete
    assert 0 < len(part.points) < 5
    assert shares == sorted(shares)
    assert shares[0] >= 0
    assert shares[-1] <= 1
    whole = session.propose(max_drop=0.01, ranking=order)
    assert whole.complete
    assert whole.points[: len(part.points)] != ()
    fresh = calibrated("eager", narrow(2)).propose(max_drop=0.01, ranking=order)
    assert fresh.points == whole.points
    assert whole.evaluations + part.evaluations == fresh.evaluations


@pytest.mark.parametrize("flow", FLOWS)
def test_the_model_is_as_it_was(flow: str) -> None:
    session = calibrated(flow)
    before = {k: v.clone() for k, v in session.model.state_dict().items()}
    modes = [m.training for m in session.model.modules()]
    drawn = torch.random.get_rng_state()
    for treatment in ("float", 8):
        session.propose(max_drop=0.0, ranking=ranking(session), treatment=treatment, batches=1)
    after = session.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert modes == [m.training for m in session.model.modules()]
    assert torch.equal(drawn, torch.random.get_rng_state())


# -- applying --------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("treatment", ["float", "8"])
def test_applied_and_prepared_again_it_is_torchs_own_model(flow: str, treatment: str) -> None:
    session = calibrated(flow)
    point = ProposalPoint(("conv2", "fc"), 0.0, 0, 0.0, treatment)
    session.apply(point)
    assert session.stage == "float"
    assert session.applied is point
    session.goto(session.flow.prepared_stage)
    bits = None if treatment == "float" else 8
    expected = prepared_by_torch(flow, point.modules, bits).state_dict()
    mine = session.model.state_dict()
    assert mine.keys() == expected.keys()
    assert all(torch.equal(mine[key], expected[key]) for key in mine)
    owned = {
        path
        for path, module in session.model.named_modules()
        if isinstance(module, FakeQuantizeBase) and path.startswith(("conv2.", "fc."))
    }
    assert (owned == set()) == (treatment == "float")
    x = zoo.load("digits_cnn").example_inputs[0]
    other = prepared_by_torch(flow, point.modules, bits)
    assert torch.equal(session.model.train()(x), other.train()(x))


@pytest.mark.parametrize("flow", FLOWS)
def test_taken_back_the_qconfig_is_that_of_before(flow: str) -> None:
    session = calibrated(flow)
    plan, sites = session.options.qconfig, len(session.snapshot.sites)
    session.apply(ProposalPoint(("conv1",), 0.0, 0, 0.0))
    session.apply(ProposalPoint(("conv3",), 0.0, 0, 0.0))
    session.goto(session.flow.prepared_stage)
    assert len(session.snapshot.sites) < sites
    session.take_back_point()
    assert session.applied is not None
    assert session.applied.modules == ("conv1",)
    session.take_back_point()
    assert session.options.qconfig is plan
    assert session.applied is None
    session.goto(session.flow.prepared_stage)
    assert len(session.snapshot.sites) == sites


def test_a_run_folder_does_not_take_the_mixed_one_for_the_default(tmp_path: Any) -> None:
    session = calibrated("eager", "x86")
    session.apply(ProposalPoint(("conv2",), 0.0, 0, 0.0))
    session.train(1, run_dir=tmp_path / "run", progress=False)
    plain = calibrated("eager", "x86")
    with pytest.raises(InputError, match="qconfig of its own"):
        plain.resume(tmp_path / "run", background=False, epochs=2)


def test_what_int8_cannot_run_is_said() -> None:
    """In eager mode nothing turns int8 tensors into float around a module left in float."""
    found = {}
    for flow in FLOWS:
        session = calibrated(flow)
        rows = tuple(row for row in ranking(session).rows if row.owner == "conv2")
        order = Sensitivity("shadow", rows)
        first = session.propose(wished_metric=0.0, ranking=order)
        assert first.chosen is not None
        assert first.chosen.modules == ()
        assert first.int8_error == ""  # nothing is chosen to be in float
        wished = first.points[-1].metric
        assert wished > first.points[0].metric
        found[flow] = session.propose(wished_metric=wished, ranking=order)
        assert found[flow].chosen == first.points[-1]
    assert "does not run" in repr(found["eager"])
    assert "cannot run" in found["eager"].int8_error
    assert found["fx"].int8_error == ""


# -- what is refused -------------------------------------------------------------------------------


def test_refusals() -> None:
    session = calibrated("eager")
    for wrong in ({}, {"max_drop": 0.1, "wished_metric": 0.9}):
        with pytest.raises(InputError, match="one goal"):
            session.propose(ranking=ranking(session), **wrong)
    for bits in (2, 9, True, "int8"):
        with pytest.raises(InputError, match="treatment is"):
            session.propose(max_drop=0.1, treatment=bits, ranking=ranking(session))
    with pytest.raises(InputError, match="metric_mode"):
        session.propose(max_drop=0.1, metric_mode="most", ranking=ranking(session))
    with pytest.raises(QConfigError, match="nowhere"):
        session.apply(ProposalPoint(("nowhere",), 0.0, 0, 0.0))
    assert session.applied is None
    with pytest.raises(InputError, match="no applied point"):
        session.take_back_point()
    order = ranking(session)
    session.reset()
    with pytest.raises(StageError, match="no fake quants yet"):
        session.propose(max_drop=0.1, ranking=order)
    bare = qx.Session(zoo.load("digits_cnn").model, torch.zeros(1, 1, 8, 8))
    with pytest.raises(NoDataError):
        bare.propose(max_drop=0.1, ranking=order)


# -- parts -----------------------------------------------------------------------------------------


def test_codes_of_bits() -> None:
    assert range_of_bits(8, -8, 7) == (-128, 127)
    assert range_of_bits(8, -7, 7) == (-127, 127)
    assert range_of_bits(4, 0, 3) == (0, 15)
    for low, high, bits in ((-128, 127, 8), (-127, 127, 8), (0, 255, 8), (0, 127, 7), (-8, 7, 4)):
        assert bits_of(low, high) == bits
    wider = with_weight_bits(narrow(3), 8)
    assert wider is not None
    assert (wider.weight().quant_min, wider.weight().quant_max) == (-128, 127)
    assert with_weight_bits(QConfig(activation=nn.Identity, weight=lambda: None), 8) is None


class Shared(nn.Module):
    """torch makes the fake quant before and after the average pool one object in FX."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.pool, self.b = nn.Conv2d(1, 2, 3), nn.AvgPool2d(2), nn.Conv2d(2, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.pool(self.a(x)))


def test_a_shared_fake_quant_is_taken_out_at_one_of_its_places_only() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 1, 8, 8)
    mapping = QConfigMapping().set_global(narrow(8))
    model = prepare_qat_fx(Shared().train(), mapping, (x,))
    model(x)
    model.eval()
    places = places_of(model)
    named = dict(model.named_modules(remove_duplicate=False))
    behind = {p: named[path] for p, path in places.items() if p[0] == "node"}
    first, second = behind["node", "a", 0], behind["node", "pool", 0]
    assert first is second
    for quantizer in behind.values():
        quantizer.disable_observer()
    with torch.no_grad(), without(model, {("node", "pool", 0)}) as cut:
        got = cut(x)
        pooled = named["pool"](first(named["a"](named[places["node", "x", 0]](x))))
        last = behind["node", "b", 0]
        assert torch.equal(got, last(named["b"](pooled)))
        assert not torch.equal(got, model(x))
    assert all(int(q.fake_quant_enabled[0]) == 1 for q in behind.values())
