"""A run on disk: read back the same, after a kill, on a full disk, and at once however long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qatexplorer as qx
from qatexplorer.errors import InputError, RunFolderError
from qatexplorer.runs.folder import RunFolder
from qatexplorer.runs.sample_files import SampleWriter, about_samples
from qatexplorer.runs.samples import METRIC_INDEX, FakeQuantInfo
from qatexplorer.runs.store import MAX_DETAILED
from qatexplorer.telemetry import METRICS, Telemetry, to_tensorboard
from qatexplorer.telemetry.frame import Counts, StepSamples
from tests.support.training_models import batches, one_thread, prepared  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]


def open_run(folder: Path) -> Telemetry:
    found = qx.open_run(folder).telemetry
    assert found is not None
    return found


def recorded(folder: Path, steps: int = 6, **settings: Any) -> Telemetry:
    model = prepared()
    with qx.watch(model, every=1, folder=folder, **settings) as w:
        for x, _ in batches(steps):
            model(x).sum().backward()
            w.step()
    return w.telemetry


def test_a_run_is_read_back_as_it_was(tmp_path: Path) -> None:
    live = recorded(tmp_path / "run", gradients=True)
    read = open_run(tmp_path / "run")
    assert read.infos == live.infos
    assert read.steps == live.steps == tuple(range(6))
    assert read.states() == live.states()
    assert read.overhead == live.overhead
    assert dict(read.unseen) == dict(live.unseen)
    for path in live.paths:
        for one, two in zip(live.samples(path), read.samples(path), strict=True):
            assert one == two
        histograms = read.histograms(path)
        assert [step for step, _ in histograms] == list(range(6))
        for (_, one), (_, two) in zip(live.histograms(path), histograms, strict=True):
            assert (one.counts, one.zeros, one.codes_used) == (
                two.counts,
                two.zeros,
                two.codes_used,
            )
            assert one.edges == pytest.approx(two.edges)
        assert live.channels(path) == read.channels(path)
        assert live.gradients(path) == read.gradients(path)


def test_pandas_reads_it(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    live = recorded(tmp_path / "run")
    frame = pandas.read_json(tmp_path / "run" / "samples.jsonl", lines=True)
    assert len(frame) == 6 * len(live.paths)
    scales = frame[frame.path == "fc.weight_fake_quant"].scale_median.tolist()
    assert scales == pytest.approx(live.series("fc.weight_fake_quant", "scale_median")[1])
    assert len(pandas.DataFrame(live.rows())) == len(frame)
    states = pandas.read_json(tmp_path / "run" / "states.jsonl", lines=True)
    assert set(states.path) == set(live.paths)


@pytest.mark.slow
def test_a_kernel_killed_in_the_middle_loses_nothing_that_was_seen(tmp_path: Path) -> None:
    code = (
        "import os, signal, torch, qatexplorer as qx\n"
        "from tests.support.training_models import batches, prepared\n"
        "torch.set_num_threads(1)\n"
        f"model, w = prepared(), None\nw = qx.watch(model, every=1, folder={str(tmp_path)!r})\n"
        "w.start()\n"
        "for index, (x, _) in enumerate(batches(9)):\n"
        "    model(x); w.step()\n"
        "    if index == 7: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=env, cwd=ROOT)
    assert done.returncode == -9
    # A kill can also cut a line in half.
    with (tmp_path / "samples.jsonl").open("a") as file:
        file.write('{"step":8,"path":"fc.wei')
    read = open_run(tmp_path)
    assert read.steps == tuple(range(8))
    assert read.histogram("fc.weight_fake_quant") is not None
    assert read.overhead is None
    assert len(read.states()) == len(read.paths)


def test_a_damaged_line_costs_that_line_only(tmp_path: Path) -> None:
    recorded(tmp_path / "run")
    file = tmp_path / "run" / "samples.jsonl"
    lines = file.read_text().splitlines()
    lines[0] = "{" + lines[0][3:]
    file.write_text("\n".join(lines) + "\n")
    read = open_run(tmp_path / "run")
    assert read.steps == tuple(range(6))
    assert [s.step for s in read.samples(read.paths[0])] == [1, 2, 3, 4, 5]
    assert [s.step for s in read.samples(read.paths[1])] == [0, 1, 2, 3, 4, 5]


def test_a_full_disk_ends_the_writing_and_not_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    model = prepared()
    with qx.watch(model, every=1, folder=tmp_path / "run") as w:
        for index, (x, _) in enumerate(batches(5)):
            if index == 2:
                assert w._writer is not None
                file = w._writer._files["samples.jsonl"]
                file.close()
                file._file = os.open("/dev/full", os.O_WRONLY)
            model(x)
            w.step()
    assert w.telemetry.steps == tuple(range(5))
    assert [r for r in caplog.records if "No space left" in r.message]
    assert len(caplog.records) == 1
    assert open_run(tmp_path / "run").steps == (0, 1)


def test_what_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="holds no run"):
        qx.open_run(tmp_path)
    recorded(tmp_path / "run")
    with pytest.raises(RunFolderError, match="already"):
        qx.watch(prepared(), folder=tmp_path / "run").start()
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot be kept"):
        qx.watch(prepared(), folder=tmp_path / "file" / "run").start()
    header = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**header, "format": 99}))
    with pytest.raises(RunFolderError, match="format 99"):
        qx.open_run(tmp_path / "run")


def synthetic(sites: int, channels: int = 64) -> tuple[list[FakeQuantInfo], Any]:
    """Infos of ``sites`` fake quants, and a maker of frames as full as real ones."""
    infos = [
        FakeQuantInfo(f"layers.{i}.conv.weight_fake_quant", "weight", f"layers.{i}.conv", "Conv2d",
                 -128, 127, "torch.qint8", 0)
        for i in range(sites)
    ]  # fmt: skip
    random = np.random.default_rng(0)
    metrics = random.random((sites, len(METRICS)))
    metrics[:, METRIC_INDEX["sampled"]] = metrics[:, METRIC_INDEX["total"]] = 4096
    counts = random.integers(0, 500, (sites, 300)).astype(np.uint16)
    table = random.random((sites, 4, channels)).astype(np.float32)

    def make(step: int) -> StepSamples:
        return StepSamples(
            step,
            metrics + step,
            {i: Counts(100, counts[i].copy(), 0, 0, 250) for i in range(sites)},
            {i: table[i].copy() for i in range(sites)},
            {},
        )

    return infos, make


def resident() -> int:
    """Bytes of memory that this process holds."""
    pages = Path("/proc/self/statm")
    if not pages.exists():
        pytest.skip("reads the memory in use from /proc")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_a_hundred_thousand_steps_of_200_sites_stay_small_and_open(tmp_path: Path) -> None:
    infos, make = synthetic(200)
    telemetry = Telemetry(infos, 256)
    folder = RunFolder.create(tmp_path / "run", about_samples(telemetry), "watch")
    writer = SampleWriter(folder.path, telemetry, failed=pytest.fail)
    before = resident()
    # One step in eight is sampled, as the controller aims at. Only those kept or written need
    # numbers of their own; the others share theirs.
    shared = make(0)
    for step in range(0, 100_000, 8):
        number = step // 8
        own = step >= writer._next or number > 12_500 - MAX_DETAILED or number % 64 == 0
        frame = make(step) if own else replace(shared, step=step, metrics=shared.metrics + step)
        telemetry.add(frame)
        writer.write(frame)
    memory = resident() - before
    writer.close()
    assert memory < 200 * 2**20
    read = open_run(tmp_path / "run")
    assert read.steps[0] == 0
    assert read.steps[-1] == 99_992
    assert len(read.steps) > 300
    gaps = np.diff(read.steps)
    assert gaps.max() <= 100_000 / 60
    histograms = read.histograms(infos[7].path)
    assert histograms[-1][0] == 99_992
    assert len(histograms) > 40


class Writer:
    """What is used of ``torch.utils.tensorboard.SummaryWriter``."""

    def __init__(self) -> None:
        self.scalars: dict[str, list[tuple[int, float]]] = {}
        self.histograms: dict[str, list[dict[str, Any]]] = {}

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.setdefault(tag, []).append((step, value))

    def add_histogram_raw(self, tag: str, **what: Any) -> None:
        assert len(what["bucket_limits"]) == len(what["bucket_counts"])
        self.histograms.setdefault(tag, []).append(what)


def test_tensorboard_gets_numbers_and_histograms(tmp_path: Path) -> None:
    live = recorded(tmp_path / "run")
    writer = Writer()
    assert to_tensorboard(open_run(tmp_path / "run"), writer=writer) is writer
    path = "fc.activation_post_process"
    steps, values = live.series(path, "sqnr_db")
    assert writer.scalars[f"sqnr_db/{path}"] == [
        (s, pytest.approx(v)) for s, v in zip(steps, values, strict=True)
    ]
    newest = writer.histograms[f"histogram/{path}"][-1]
    histogram = live.histogram(path)
    assert histogram is not None
    assert (newest["global_step"], newest["num"]) == (5, sum(histogram.counts))
    assert newest["max"] == pytest.approx(max(histogram.max, histogram.to_real(255.5)), rel=0.3)


def test_tensorboards_own_writer(tmp_path: Path) -> None:
    live = recorded(tmp_path / "run")
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        with pytest.raises(InputError, match="tensorboard is not installed"):
            to_tensorboard(live, tmp_path / "log")
        pytest.skip("tensorboard is not installed; the message that says so was checked")
    to_tensorboard(live, tmp_path / "log")
    events = EventAccumulator(str(tmp_path / "log"), size_guidance={"histograms": 0, "scalars": 0})
    events.Reload()
    path = "quant.activation_post_process"
    scalars = events.Scalars(f"scale_median/{path}")
    assert [e.step for e in scalars] == list(live.steps)
    assert [e.value for e in scalars] == pytest.approx(live.series(path, "scale_median")[1])
    newest = events.Histograms(f"histogram/{path}")[-1].histogram_value
    assert newest.num == 8 * 64
    assert sum(newest.bucket) == newest.num
