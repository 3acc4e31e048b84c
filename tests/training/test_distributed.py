"""A run of two processes: DDP on gloo, stopped by one of them and gone on with, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from qatexplorer.errors import InputError, TrainingError
from qatexplorer.runs.opened import open_run
from qatexplorer.runs.records import TrainingConfig
from qatexplorer.training import team
from qatexplorer.training.run import TrainingRun
from qatexplorer.training.shard import Rounds, shard
from tests.support.everything import loaders
from tests.support.processes import ended, processes
from tests.support.training_models import batches, prepared

CHILD = """
import hashlib, json, sys
from pathlib import Path
import torch
from torch import nn
from torch.ao.quantization import MovingAverageMinMaxObserver, QConfig
from torch.ao.quantization._learnable_fake_quantize import _LearnableFakeQuantize as Learnable
from qatexplorer.runs.opened import open_run
from qatexplorer.runs.records import TrainingConfig
from qatexplorer.training.run import TrainingRun
from qatexplorer.training.team import together
from tests.support.everything import EVERYTHING, loaders, losses
from tests.support.training_models import batches, prepared

def learning(low, high, dtype, scheme):
    return Learnable.with_args(
        observer=MovingAverageMinMaxObserver, quant_min=low, quant_max=high, dtype=dtype,
        qscheme=scheme, use_grad_scaling=True)

learned = QConfig(learning(0, 255, torch.quint8, torch.per_tensor_affine),
                  learning(-128, 127, torch.qint8, torch.per_tensor_symmetric))
folder = Path(sys.argv[1])
config = TrainingConfig(**{**EVERYTHING, "telemetry_every": 2})

def digest(model):
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()

def ended(run):
    assert run.error is None, run.error
    return {"state": run.state, "step": run.progress.step, "losses": losses(run),
            "model": digest(run.model), "kept": run.run_dir is not None,
            "metrics": [e.metric for e in run.history.epochs]}

def stopped(run, step):
    report = run._report
    def watch():
        report()
        if run.progress.step == step:
            run._control.request("stop")
    run._loop._report = watch
    return run.run()

found = {}
with together() as team:
    for kind in ("loader", "list", "learned"):
        qconfig = learned if kind == "learned" else None
        data = loaders() if kind == "loader" else (batches(7), batches(2, seed=2))
        # Another start in each process: that of the first counts.
        make = lambda: prepared(team.rank, qconfig=qconfig)
        whole = TrainingRun(make(), data, config, run_dir=folder / f"{kind}-whole").run()
        found[f"{kind} whole"] = ended(whole)
        path = folder / f"{kind}-broken"
        broken = TrainingRun(make(), data, config, run_dir=path)
        at = 7 if team.rank == 1 else 10_000  # the one that writes nothing asks for it
        found[f"{kind} broken"] = ended(stopped(broken, at))
        opened = open_run(path)
        saved = opened.read()
        again = TrainingRun(prepared(9, qconfig=qconfig), data, opened.config(),
                            run_dir=path, saved=saved)
        again.run()
        found[f"{kind} again"] = ended(again)
        if qconfig is not None:
            first = make().fc.weight_fake_quant.scale
            assert whole.model.fc.weight_fake_quant.scale != first  # it was learned
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    plain = TrainingRun(net, (batches(6), batches(2)), TrainingConfig(epochs=2, lr=0.01)).run()
    found["plain"] = ended(plain)
(folder / f"{team.rank}.json").write_text(json.dumps(found))
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """What both processes have found, and the folder of their runs."""
    folder = tmp_path_factory.mktemp("two")
    started = processes(CHILD, 2, folder)
    said = ended(started)
    assert [one.returncode for one in started] == [0, 0], said
    return folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["loader", "list", "learned"])
def test_a_resumed_run_is_bit_for_bit_the_unbroken_one(two: Any, kind: str) -> None:
    _, (first, second) = two
    whole, broken, again = (first[f"{kind} {name}"] for name in ("whole", "broken", "again"))
    assert broken["state"] == "stopped"
    assert broken["step"] == second[f"{kind} broken"]["step"] == 7
    assert again["state"] == whole["state"] == "finished"
    assert again["losses"] == whole["losses"]
    assert len(whole["losses"]) == whole["step"] >= 12
    assert again["model"] == whole["model"]
    assert again["metrics"] == whole["metrics"]
    assert None not in whole["metrics"]


@pytest.mark.slow
def test_all_processes_end_with_the_same_model_and_one_keeps_the_run(two: Any) -> None:
    folder, (first, second) = two
    for name, found in first.items():
        other = second[name]
        assert other["model"] == found["model"], name  # ranges of observers and batch norms too
        assert other["losses"] == found["losses"], name
        assert found["kept"] == (name != "plain")
        assert not other["kept"]
    opened = open_run(folder / "loader-whole")
    assert opened.about["processes"] == 2
    assert opened.telemetry is not None
    assert [step.samples for step in opened.history.steps[:2]] == [16, 16]


@pytest.mark.slow
def test_gradients_are_averaged(two: Any) -> None:
    """Two processes with a batch each make the steps of one with both batches."""
    _, (first, _) = two
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    single = batches(6)
    pairs = [
        (torch.cat([a[0], b[0]]), torch.cat([a[1], b[1]]))
        for a, b in zip(single[::2], single[1::2], strict=True)
    ]
    run = TrainingRun(net, (pairs, batches(2)), TrainingConfig(epochs=2, lr=0.01)).run()
    alone = [step.loss for step in run.history.steps]
    assert len(alone) == 6
    assert first["plain"]["losses"] == pytest.approx(alone, rel=1e-5)


@pytest.mark.slow
def test_one_process_refuses_to_go_on_with_a_run_of_two(two: Any) -> None:
    opened = open_run(two[0] / "loader-broken")
    config = opened.config(epochs=9)
    with pytest.raises(InputError, match="made by 2 processes, and here there is 1"):
        TrainingRun(prepared(), loaders(), config, run_dir=opened.path, saved=opened.read())


FAILING = """
import sys
from pathlib import Path
from qatexplorer.runs.records import TrainingConfig
from qatexplorer.training.run import TrainingRun
from qatexplorer.training.team import together
from tests.support.training_models import batches, prepared
with together() as team:
    def loss(output, target):
        if team.rank == 1 and run.progress.step == 3:
            raise ValueError("boom")
        return output.square().mean()
    run = TrainingRun(prepared(), (batches(12), batches(2)), TrainingConfig(epochs=5), loss=loss,
                      run_dir=Path(sys.argv[1]) / "a")
    run.run()
    print(run.error.full_text(), file=sys.stderr)
"""


@pytest.mark.slow
def test_a_process_that_fails_ends_the_others_and_a_checkpoint_is_left(tmp_path: Path) -> None:
    first, second = ended(processes(FAILING, 2, tmp_path))
    assert "boom" in second
    assert "Another process of this run has ended" in first
    opened = open_run(tmp_path / "a")
    assert opened.state == "failed"
    assert opened.last_checkpoint is not None
    assert opened.last_checkpoint.position.step == 3


# -- each its part ---------------------------------------------------------------------------------


def numbers(count: int) -> TensorDataset:
    return TensorDataset(torch.arange(count), torch.arange(count))


def drawn(part: Any) -> list[int]:
    return [int(value) for batch in part for value in batch[0]]


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_loader_is_shared_by_samples(shuffle: bool) -> None:
    loader = DataLoader(numbers(40), batch_size=5, shuffle=shuffle)
    parts = [shard(loader, rank, 2, seed=3) for rank in range(2)]
    found = [drawn(part) for part, _ in parts]
    assert sorted(found[0] + found[1]) == list(range(40))
    assert [len(part) for part, _ in parts] == [4, 4]  # type: ignore[arg-type]
    for _, sampler in parts:
        sampler.set_epoch(1)
    assert ([drawn(part) for part, _ in parts] != found) == shuffle


def test_what_draws_in_its_own_way_is_shared_by_batches() -> None:
    weighted = DataLoader(numbers(40), batch_size=5, sampler=WeightedRandomSampler([1.0] * 40, 40))
    part, sampler = shard(weighted, 0, 2, seed=0)
    assert isinstance(part, Rounds)
    assert sampler is None
    assert len(part) == 4


def test_batches_of_a_list_go_round() -> None:
    listed: list[tuple[Tensor, Tensor]] = [(torch.tensor([n]), torch.tensor([n])) for n in range(7)]
    parts = [Rounds(listed, rank, 3) for rank in range(3)]
    assert [drawn(part) for part in parts] == [[0, 3, 6], [1, 4, 6], [2, 5, 6]]
    assert [len(part) for part in parts] == [3, 3, 3]


def test_without_torchrun_a_run_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with team.together() as alone:
        assert (alone.rank, alone.size, alone.writes) == (0, 1, True)
        run = TrainingRun(prepared(), (batches(2), batches(1)), TrainingConfig(epochs=1))
        assert run.run().state == "finished"


def test_processes_that_are_not_there_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="do not find one another"), team.together():
        pass
