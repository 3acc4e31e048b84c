"""A model on a GPU trains there and converts on the CPU.

``python -m pytest -m gpu`` runs these; each is skipped with its reason where there is no GPU.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import FakeQuantizeBase, get_default_qat_qconfig
from torch.nn import functional as F

import qatexplorer as qx
from qatexplorer import errors
from qatexplorer.data import device_of
from qatexplorer.telemetry.probe import Probe
from tests.support.training_models import SmallNet, batches, prepared

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="no GPU here: torch.cuda.is_available() is False"
    ),
]
FLOWS = ("eager", "fx")
GPU = torch.device("cuda", 0)


def data(count: int = 6) -> Any:
    rows = batches(count)
    return {"train": rows, "eval": rows[:2]}


def session(flow: str = "eager", **settings: Any) -> qx.Session:
    torch.manual_seed(0)
    model = SmallNet().train().to(GPU)
    rows = data()
    return qx.Session(model, (rows["train"][0][0],), flow=flow, data=rows, **settings)


@pytest.fixture
def deterministic() -> Iterator[None]:
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    yield
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


# -- a session ------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", FLOWS)
def test_a_session_trains_there_and_converts_on_the_cpu(flow: str) -> None:
    here = session(flow)
    run = here.train(4, lr=1e-2)
    assert run.error is None
    losses = [step.loss for step in run.history.steps]
    assert sum(losses[-6:]) < sum(losses[:6])
    fake_quants = [m for m in here.model.modules() if isinstance(m, FakeQuantizeBase)]
    assert {device_of(m).type for m in fake_quants} == {"cuda"}
    here.goto(here.flow.int8_stage)
    assert device_of(here.int8).type == "cpu"
    assert all(
        t.device.type == "cpu" for t in here.int8.state_dict().values() if isinstance(t, Tensor)
    )
    assert device_of(here._models.work).type == "cuda"
    assert device_of(here._models.base).type == "cuda"
    result = here.evaluate()
    for name in ("float", "ptq", "fake_quant", "int8"):
        assert result[name].metric is not None, result[name].note
        assert result[name].latency is not None
    fake, int8 = result["fake_quant"].metric, result["int8"].metric
    assert fake is not None
    assert int8 is not None
    assert abs(fake.value - int8.value) < 0.2


@pytest.mark.parametrize("flow", FLOWS)
def test_looking_at_a_session(flow: str) -> None:
    here = session(flow)
    here.goto("train")
    assert here.preflight().ok
    here.calibrate(2)
    histograms = here.histograms()
    assert histograms
    assert sum(next(iter(histograms.values())).counts) > 0
    ledger = here.ledger(timing=2)
    assert len(ledger.rows) == len(here.snapshot.sites)
    assert here.stub_options() or flow == "fx"
    assert {t.device for m in here.snapshot.modules for t in m.tensors} == {"cuda:0"}


def test_the_users_model_stays_where_it_is() -> None:
    model = SmallNet().train().to(GPU)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    pointers = [p.data_ptr() for p in model.parameters()]
    rows = data()
    here = qx.Session(model, (rows["train"][0][0],), data=rows)
    here.train(1)
    here.goto("convert")
    here.evaluate()
    assert pointers == [p.data_ptr() for p in model.parameters()]
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_data_on_the_gpu_and_a_model_on_the_cpu() -> None:
    rows = [(x.to(GPU), y.to(GPU)) for x, y in batches(3)]
    here = qx.Session(SmallNet().train(), (rows[0][0],), data={"train": rows, "eval": rows})
    here.train(1)
    assert device_of(here.model).type == "cpu"
    assert here.evaluate()["int8"].metric is not None


def test_gpu_random_numbers_of_the_user_are_not_used() -> None:
    torch.zeros(1, device=GPU)
    before = torch.cuda.get_rng_state_all()
    here = session()
    here.train(1)
    here.goto("convert")
    for state, now in zip(before, torch.cuda.get_rng_state_all(), strict=True):
        assert torch.equal(state, now)


# -- resuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.usefixtures("deterministic")
def test_a_resumed_run_has_the_losses_of_an_unbroken_one(flow: str, tmp_path: Path) -> None:
    whole = session(flow).train(4, seed=3)
    session(flow).train(2, seed=3, run_dir=tmp_path / "run")
    rest = session(flow).resume(tmp_path / "run", background=False, epochs=4)
    assert [s.step for s in rest.history.steps] == [s.step for s in whole.history.steps]
    for ours, theirs in zip(rest.history.steps, whole.history.steps, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-3)


def test_a_run_of_the_gpu_goes_on_on_the_cpu(tmp_path: Path) -> None:
    session().train(1, run_dir=tmp_path / "run")
    rows = data()
    here = qx.Session(SmallNet().train(), (rows["train"][0][0],), data=rows)
    run = here.resume(tmp_path / "run", background=False, epochs=2)
    assert run.error is None
    assert len(run.history.epochs) == 2
    assert device_of(here.model).type == "cpu"


# -- watching -------------------------------------------------------------------------------------


def steps(model: nn.Module, count: int, watch: Any = None) -> list[Tensor]:
    """A training loop that asks the GPU nothing."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    rows = [(x.to(GPU), y.to(GPU)) for x, y in batches(count)]
    losses = []
    for x, y in rows:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
        if watch is not None:
            watch.step()
    return losses


@pytest.mark.parametrize("gradients", [False, True])
def test_watching_waits_for_nothing(gradients: bool) -> None:
    model = prepared().to(GPU)
    with qx.watch(model, every=2, gradients=gradients) as watch:
        steps(model, 6, watch)  # buffers and positions are made in the first samples
        torch.cuda.synchronize()
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            steps_on_gpu(model, watch)
        finally:
            torch.cuda.set_sync_debug_mode(before)
    assert watch.telemetry.unseen == {}
    assert watch.telemetry.overhead.sampled_steps >= 5
    for info in watch.telemetry.infos:
        look = watch.telemetry.sample(info.path)
        assert look is not None
        assert look.sqnr_db > 10


def steps_on_gpu(model: nn.Module, watch: Any) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    x, y = torch.rand(8, 1, 8, 8, device=GPU), torch.zeros(8, dtype=torch.long, device=GPU)
    for _ in range(8):
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        watch.step()


@pytest.mark.usefixtures("deterministic")
def test_watching_changes_nothing() -> None:
    torch.manual_seed(0)
    bare, watched = prepared().to(GPU), prepared().to(GPU)
    torch.cuda.manual_seed(0)
    plain = steps(bare, 10)
    torch.cuda.manual_seed(0)
    with qx.watch(watched, every=1) as watch:
        seen = steps(watched, 10, watch)
    assert all(torch.equal(a, b) for a, b in zip(plain, seen, strict=True))
    for a, b in zip(bare.state_dict().values(), watched.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_numbers_are_those_of_the_cpu() -> None:
    model = prepared().eval()
    x = batches(1)[0][0]
    found = []
    for device in (torch.device("cpu"), GPU):
        twin = copy.deepcopy(model).to(device).train()
        for module in twin.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
        with qx.watch(twin, every=1) as watch:
            twin(x.to(device)).sum().backward()
            watch.step()
        found.append({i.path: watch.telemetry.sample(i.path) for i in watch.telemetry.infos})
    for path, look in found[0].items():
        assert look is not None
        other = found[1][path]
        assert other is not None
        assert other.sqnr_db == pytest.approx(look.sqnr_db, abs=0.5)
        assert other.scale == pytest.approx(look.scale, rel=1e-3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_model_that_is_not_on_the_current_device() -> None:
    other = torch.device("cuda", 1)
    model = prepared().to(other)
    with qx.watch(model, every=1) as watch:
        for x, y in batches(3):
            F.cross_entropy(model(x.to(other)), y.to(other)).backward()
            watch.step()
    assert watch.telemetry.overhead.sampled_steps == 3
    probes: list[Probe] = watch._probes
    assert {p.values.device for p in probes} == {other}


# -- half precision -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_a_half_model_is_refused_before_training(dtype: torch.dtype) -> None:
    with pytest.raises(errors.DtypeError) as caught:
        qx.Session(SmallNet().train().to(GPU, dtype), (torch.rand(2, 1, 8, 8, dtype=dtype),))
    assert "model.float()" in caught.value.fix


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_autocast_in_a_loop_of_ones_own(dtype: torch.dtype) -> None:
    model = prepared(qconfig=get_default_qat_qconfig("onednn", version=0)).to(GPU)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cuda", enabled=dtype is torch.half)
    with qx.watch(model, every=1, gradients=True) as watch:
        for x, y in batches(4):
            with torch.autocast("cuda", dtype):
                loss = F.cross_entropy(model(x.to(GPU)), y.to(GPU))
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            watch.step()
    assert watch.telemetry.unseen == {}
    assert torch.isfinite(loss)
    int8 = torch.ao.quantization.convert(copy.deepcopy(model).cpu().eval())
    assert torch.isfinite(int8(batches(1)[0][0])).all()


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_autocast_inside_of_forward(dtype: torch.dtype) -> None:
    class Amp(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cuda", dtype):
                return super().forward(x)

    rows = data()
    unfused = get_default_qat_qconfig("onednn", version=0)
    model = Amp().train().to(GPU)
    here = qx.Session(model, (rows["train"][0][0],), data=rows, qconfig=unfused)
    here.train(1)
    here.goto("convert")
    assert here.evaluate()["int8"].metric is not None
    fused = qx.Session(model, (rows["train"][0][0],), data=rows)
    with pytest.raises(errors.TrainingError) as caught:
        fused.train(1)
    assert "version=0" in caught.value.fix
