"""Full disks, broken data, interrupts: one message, and what was good is still there."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qatexplorer.errors import CheckpointError, DivergedError, RunFolderError
from qatexplorer.runs import checkpoint
from qatexplorer.runs.codec import pack, unpack
from qatexplorer.runs.opened import open_run
from qatexplorer.runs.records import TrainingConfig
from qatexplorer.training.run import TrainingRun
from tests.support.training_models import (  # noqa: F401
    SmallNet,
    batches,
    data,
    one_thread,
    prepared,
    same,
    state,
)

pytestmark = pytest.mark.slow


def losses(run: TrainingRun) -> list[float]:
    return [s.loss for s in run.history.steps]


def resumed(path: Path, source: Any, **changes: Any) -> TrainingRun:
    opened = open_run(path)
    config = opened.config(**changes)
    return TrainingRun(prepared(9), source, config, run_dir=path, saved=opened.read()).run()


def test_full_disk_is_reported_once_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = checkpoint._write_tensors, []

    def full(path: Path, tensors: dict[str, Tensor]) -> None:
        written.append(path)
        if 2 <= len(written) <= 4:
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, tensors)

    monkeypatch.setattr(checkpoint, "_write_tensors", full)
    reference = TrainingRun(prepared(), data(), TrainingConfig(epochs=6)).run()
    run = TrainingRun(prepared(), data(), TrainingConfig(epochs=6), run_dir=tmp_path)
    reported: list[CheckpointError] = []
    run.signal.subscribe(lambda p: reported.append(run.trouble) if run.trouble else None)
    run.run()
    assert run.state == "finished", run.error
    assert losses(run) == losses(reference)
    assert reported
    assert "disk is full" in reported[0].message
    assert "epoch 1" in reported[0].why
    assert "goes on" in reported[0].fix
    assert run.trouble is None, "the fifth could be written again"
    failed = [m for m in run.history.markers if m.kind == "checkpoint failed"]
    assert [m.step for m in failed] == [12, 18, 24]
    kept = open_run(tmp_path).checkpoints
    assert [c.position.step for c in kept] == [6, 30, 36]
    assert not list((tmp_path / "checkpoints").glob(".*"))


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"cannot mount a small disk: {error}")
    if done.returncode:
        pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_really_full(tiny_disk: Path) -> None:
    model = prepared()
    config = TrainingConfig(epochs=14, keep_checkpoints=50, telemetry_every=1)
    run = TrainingRun(model, data(), config, run_dir=tiny_disk / "a").run()
    assert run.state == "finished", run.error
    assert len(run.history.steps) == 84
    assert run.trouble is not None
    assert "full" in run.trouble.message
    opened = open_run(tiny_disk / "a")
    assert opened.checkpoints
    assert opened.history.steps[0] == run.history.steps[0]
    with suppress(OSError), open(tiny_disk / "filler", "wb", buffering=0) as file:
        while file.write(b"x" * 512) == 512:
            pass
    with pytest.raises(RunFolderError, match="No space left"):
        resumed(tiny_disk / "a", data())
    (tiny_disk / "filler").unlink()
    shutil.rmtree(opened.checkpoints[0].path)
    again = resumed(tiny_disk / "a", data(), keep_checkpoints=1)
    assert losses(again) == losses(run)


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderError, match="cannot be kept"):
        TrainingRun(prepared(), data(), run_dir=tmp_path / "file" / "a")


@pytest.mark.parametrize("at", [4, 8])
def test_data_that_raises_leaves_a_checkpoint_of_the_last_step(at: int, tmp_path: Path) -> None:
    class Broken:
        def __init__(self) -> None:
            self.left = at

        def __len__(self) -> int:
            return 6

        def __iter__(self) -> Iterator[Any]:
            for batch in batches():
                torch.rand(3)
                self.left -= 1
                if self.left < 0:
                    raise OSError("the disk is gone")
                yield batch

    class Whole(Broken):
        def __init__(self) -> None:
            self.left = 10**9

    reference = TrainingRun(prepared(), (Whole(), batches(1))).run()
    run = TrainingRun(prepared(), (Broken(), batches(1)), run_dir=tmp_path).run()
    assert run.state == "failed"
    assert run.error is not None
    assert f"batch {at % 6} of epoch {at // 6}" in run.error.message
    opened = open_run(tmp_path)
    assert opened.state == "failed"
    assert opened.status["error"]["message"] == run.error.message
    last = opened.last_checkpoint
    assert last is not None
    assert (last.position.step, last.reason) == (at, "failed")
    assert losses(resumed(tmp_path, (Whole(), batches(1)))) == losses(reference)


def test_a_bad_batch_leaves_the_state_before_it(tmp_path: Path) -> None:
    bad = batches()
    bad[3][0][2, 0, 1, 1] = float("nan")
    reference = TrainingRun(prepared(), data()).run()
    run = TrainingRun(prepared(), (bad, batches(2, seed=2)), run_dir=tmp_path).run()
    assert isinstance(run.error, DivergedError)
    last = open_run(tmp_path).last_checkpoint
    assert last is not None
    assert last.position.step == 3
    assert losses(resumed(tmp_path, data())) == losses(reference)


def test_ruined_weights_are_never_saved(tmp_path: Path) -> None:
    calls = [0]

    def wild(optimizer: torch.optim.Optimizer) -> Any:
        def factor(step: int) -> float:
            return 1e30 if step == 8 else 1.0

        return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    config = TrainingConfig(optimizer="sgd", scheduler=wild, lr=0.01)
    run = TrainingRun(prepared(), data(), config, run_dir=tmp_path).run()
    assert isinstance(run.error, DivergedError)
    assert calls == [0]
    opened = open_run(tmp_path)
    assert [c.position.step for c in opened.checkpoints] == [6]
    model = opened.load_model(prepared(2))
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_out_of_memory_names_batch_and_module_and_keeps_the_last_step(tmp_path: Path) -> None:
    class Greedy(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Greedy.calls += 1
            return x + torch.empty(2**48).sum() if Greedy.calls == 3 else x

    class Net(SmallNet):
        def __init__(self) -> None:
            super().__init__()
            self.greedy = Greedy()

        def forward(self, x: Tensor) -> Tensor:
            return self.greedy(super().forward(x))

    run = TrainingRun(prepared(make=Net), data(), run_dir=tmp_path).run()
    assert run.error is not None
    assert "epoch 0, batch 2" in run.error.message
    assert run.error.where == "greedy"
    last = open_run(tmp_path).last_checkpoint
    assert last is not None
    assert last.position.step == 2


def test_interrupt_in_front_leaves_a_checkpoint(tmp_path: Path) -> None:
    config = TrainingConfig(epochs=10)
    reference = TrainingRun(prepared(), data(), config).run()
    run = TrainingRun(prepared(), data(), config, run_dir=tmp_path)
    hit: list[int] = []

    def interrupt() -> None:
        if run.progress.step == 9 and not hit:
            hit.append(9)
            os.kill(os.getpid(), signal.SIGINT)

    run._loop._report = interrupt
    run.run()
    assert run.state == "stopped"
    last = open_run(tmp_path).last_checkpoint
    assert last is not None
    assert last.position.step in (9, 10)
    assert losses(resumed(tmp_path, data())) == losses(reference)


def test_interrupt_in_the_middle_of_a_step_leaves_the_step_before(tmp_path: Path) -> None:
    class Interrupted(nn.Module):
        left = 4

        def forward(self, x: Tensor) -> Tensor:
            Interrupted.left -= 1
            if Interrupted.left < 0:
                raise KeyboardInterrupt
            return x

    class Net(SmallNet):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Interrupted()

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.inner(x))

    run = TrainingRun(prepared(make=Net), data(), run_dir=tmp_path).run()
    assert run.state == "stopped"
    last = open_run(tmp_path).last_checkpoint
    assert last is not None
    assert (last.position.step, last.reason) == (4, "interrupted")


ENDS = """
import sys, time, torch
torch.set_num_threads(1)
from qatexplorer.runs.records import TrainingConfig
from qatexplorer.training.run import TrainingRun
from tests.support.training_models import data, prepared
run = TrainingRun(prepared(), data(), TrainingConfig(epochs=10**6), run_dir=sys.argv[1]).start()
while len(run.history.steps) < 9:
    time.sleep(0.01)
"""


def test_a_process_that_ends_in_good_order_leaves_its_last_step(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", ENDS, str(tmp_path)]
    done = subprocess.run(command, env=env, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    opened = open_run(tmp_path)
    assert opened.state == "stopped"
    last = opened.last_checkpoint
    assert last is not None
    assert last.position.step == len(opened.history.steps) >= 9


def test_optimizer_that_keeps_a_function_is_reported(tmp_path: Path) -> None:
    class Odd(torch.optim.SGD):
        def state_dict(self) -> dict[str, Any]:
            return {**super().state_dict(), "hook": print}

    config = TrainingConfig(epochs=1, optimizer=lambda p: Odd(p, lr=0.1))
    run = TrainingRun(prepared(), data(), config, run_dir=tmp_path).run()
    assert run.state == "finished"
    assert run.trouble is not None
    assert "optimizer/hook" in run.trouble.message
    assert not open_run(tmp_path).checkpoints


def test_opening_runs_no_code(tmp_path: Path) -> None:
    for bad in ({"~": "call", "text": "print"}, {"~": "dtype", "text": "load"}, {"~": "tensor"}):
        with pytest.raises(CheckpointError, match="damaged"):
            unpack(bad, {})
    TrainingRun(prepared(), data(), TrainingConfig(epochs=1), run_dir=tmp_path).run()
    kinds = {p.suffix for p in tmp_path.rglob("*") if p.is_file() and p.name != "lock"}
    assert kinds == {".json", ".jsonl", ".safetensors"}


def test_packing_gives_back_what_it_was_given() -> None:
    from collections import Counter

    value = {
        3: [1.5, None, True, "x", float("inf")],
        "t": (torch.arange(3), (torch.zeros(0), torch.tensor(2.5, dtype=torch.bfloat16))),
        ("a", 1): Counter({2: 1}),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
    }
    tensors: dict[str, Tensor] = {}
    back = unpack(pack(value, "v", tensors), tensors)
    assert back[3] == value[3]
    assert torch.equal(back["t"][0], torch.arange(3))
    assert back["t"][1][0].shape == (0,)
    assert back["t"][1][1].dtype == torch.bfloat16
    assert back["a", 1][7] == 0
    assert (back["dtype"], back["device"]) == (torch.float16, torch.device("cpu"))


def test_torn_lines_are_left_out_and_appending_goes_on(tmp_path: Path) -> None:
    run = TrainingRun(prepared(), data(), TrainingConfig(epochs=2), run_dir=tmp_path).run()
    with open(tmp_path / "curves.jsonl", "ab") as file:
        file.write(b'{"t":"step","step":12,"ep')
    assert losses(resumed(tmp_path, data(), epochs=3))[:12] == losses(run)
    assert [s.step for s in open_run(tmp_path).history.steps] == list(range(18))


def test_models_state_survives_with_grown_buffers(tmp_path: Path) -> None:
    model = prepared()
    TrainingRun(model, data(), TrainingConfig(epochs=1), run_dir=tmp_path).run()
    fresh = prepared(3)
    assert fresh.conv.weight_fake_quant.scale.shape != model.conv.weight_fake_quant.scale.shape  # type: ignore[union-attr]
    assert same(state(open_run(tmp_path).load_model(fresh)), state(model))
