"""One run folder for sessions and for watch: opened, listed, resumed, never shown empty."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import qatexplorer as qx
from qatexplorer.errors import RunFolderError
from qatexplorer.runs import sample_files
from qatexplorer.runs.folder import FORMAT
from qatexplorer.runs.store import Telemetry
from qatexplorer.training.run import TrainingRun
from qatexplorer.views.training.runs import run_html, run_line
from qatexplorer.widgets.common.bridge import Bridge
from qatexplorer.widgets.common.page import PageState
from qatexplorer.widgets.training.live import LivePanel
from qatexplorer.widgets.training.runs import RunsPanel
from tests.support.training_models import batches, data, one_thread, prepared  # noqa: F401

FORMAT_1 = Path(__file__).parent / "format_1"
ROOT = Path(__file__).resolve().parents[2]


def trained(folder: Path, **settings: object) -> TrainingRun:
    config = qx.TrainingConfig(epochs=2, telemetry_every=2, **settings)  # type: ignore[arg-type]
    run = TrainingRun(prepared(), data(), config, run_dir=folder).run()
    assert run.error is None
    return run


def watched(folder: Path, steps: int = 5) -> Telemetry:
    model = prepared()
    with qx.watch(model, every=1, folder=folder) as w:
        for x, _ in batches(steps):
            model(x).sum().backward()
            w.step()
    return w.telemetry


def telemetry_of(folder: Path) -> Telemetry:
    found = qx.open_run(folder).telemetry
    assert found is not None
    return found


def test_a_session_keeps_all_that_a_watch_keeps(tmp_path: Path) -> None:
    run = trained(tmp_path / "session", freeze_observer_epoch=1)
    watched(tmp_path / "watch")
    live, read = run.telemetry, telemetry_of(tmp_path / "session")
    assert live is not None
    assert read.infos == live.infos
    assert read.steps == live.steps == (0, 2, 4, 6, 8, 10)
    assert read.states() == live.states()
    assert read.overhead == live.overhead is not None
    assert list(read.rows()) == list(live.rows())
    path = "fc.weight_fake_quant"
    assert any(not sample.observer_enabled for sample in read.samples(path))
    for path in live.paths:
        assert read.samples(path) == live.samples(path)
        assert read.histograms(path) == live.histograms(path)
        assert read.samples(path)[-1].histogram is not None
    for metric in ("sqnr_db", "drift", "oscillating", "flipped", "dead_channels"):
        of_watch = {p for p in live.paths if telemetry_of(tmp_path / "watch").series(p, metric)[1]}
        assert {p for p in live.paths if read.series(p, metric)[1]} == of_watch != set()


def test_open_run_says_which_kind_it_is(tmp_path: Path) -> None:
    trained(tmp_path / "session")
    live = watched(tmp_path / "watch")
    session, watch = qx.open_run(tmp_path / "session"), qx.open_run(tmp_path / "watch")
    assert (session.kind, watch.kind) == ("session", "watch")
    assert (session.state, watch.state) == ("finished", "finished")
    assert watch.status["step"] == 5
    assert watch.telemetry is not None
    assert watch.telemetry.steps == live.steps
    assert watch.history.steps == ()
    for call in (watch.read, watch.config, lambda: watch.request("stop")):
        with pytest.raises(RunFolderError, match="The run in") as caught:
            call()
        assert "not ours" in caught.value.why
    example = qx.zoo.load("digits_mlp")
    one = qx.Session(example.model, example.example_inputs, data=example.data)
    with pytest.raises(RunFolderError, match="no settings of ours"):
        one.resume(tmp_path / "watch")
    lines = {line.path.name: line for line in qx.list_runs(tmp_path)}
    assert {name: (line.kind, line.state, line.step) for name, line in lines.items()} == {
        "session": ("session", "finished", 12),
        "watch": ("watch", "finished", 5),
    }
    assert "watch · watch" in run_line(lines["watch"])
    assert "epoch" not in run_line(lines["watch"])
    assert "in a training loop of your own" in run_html(watch)
    assert "Last checkpoint" in run_html(session)


def test_a_watch_that_goes_on_or_has_failed_says_so(tmp_path: Path) -> None:
    model = prepared()
    with pytest.raises(ZeroDivisionError), qx.watch(model, every=1, folder=tmp_path) as w:  # noqa: PT012
        model(batches(1)[0][0])
        w.step()
        assert qx.open_run(tmp_path).state == "running"
        assert telemetry_of(tmp_path).steps == (0,)
        1 / 0  # noqa: B018
    assert qx.open_run(tmp_path).state == "failed"


@pytest.mark.parametrize("kind", ["session", "watch"])
def test_a_folder_of_format_1_is_refused_in_words(kind: str, tmp_path: Path) -> None:
    assert FORMAT == 2
    shutil.copytree(FORMAT_1 / kind, tmp_path / kind)
    with pytest.raises(RunFolderError, match="holds a run in format 1; this release") as caught:
        qx.open_run(tmp_path / kind)
    assert "empty" in caught.value.why
    (line,) = qx.list_runs(tmp_path)
    assert (line.kind, line.state) == (None, "unreadable")
    assert "unreadable" in run_line(line)
    panel = RunsPanel(Bridge(), lambda call: call(), lambda *args: None)
    panel.folder.value = str(tmp_path)
    panel.use(None)
    assert "holds a run in format 1" in panel.details.html
    assert panel.inside.disabled
    assert panel.resume.disabled


def test_a_resumed_run_has_the_samples_of_the_unbroken_one(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole").telemetry
    config = qx.TrainingConfig(epochs=2, telemetry_every=2, checkpoint_every=4)
    first = TrainingRun(prepared(), data(), config, run_dir=tmp_path / "a")
    # Samples of steps 4 and 6 are on disk when the run goes back to the checkpoint at step 4.
    first.signal.subscribe(lambda p: first.stop(0) if p.step >= 7 else None)
    report, first._loop._report = first._loop._report, lambda: None

    def each_step() -> None:
        report()
        if first.progress.step >= 7:
            first.stop()

    first._loop._report = each_step
    assert first.run().state == "stopped"
    opened = qx.open_run(tmp_path / "a")
    at = next(c for c in opened.checkpoints if c.position.step == 4)
    again = TrainingRun(
        prepared(5), data(), opened.config(), run_dir=tmp_path / "a", saved=opened.read(at)
    ).run()
    assert again.error is None
    live, read = again.telemetry, telemetry_of(tmp_path / "a")
    assert whole is not None
    assert live is not None
    assert whole.steps == live.steps == read.steps == (0, 2, 4, 6, 8, 10)
    for path in live.paths:
        assert live.samples(path) == read.samples(path)
        for one, two in zip(whole.samples(path), read.samples(path), strict=True):
            # Whether a weight has flipped is told against the last sample, which is gone.
            assert one.scale == two.scale
            assert one.histogram == two.histogram
    assert read.states() == live.states() == whole.states()


@pytest.mark.slow
def test_a_resumed_run_may_watch_other_fake_quants(tmp_path: Path) -> None:
    trained(tmp_path, telemetry_paths=("fc.weight_fake_quant",))
    opened = qx.open_run(tmp_path)
    config = opened.config(epochs=3, telemetry_paths=("quant.activation_post_process",))
    run = TrainingRun(prepared(), data(), config, run_dir=tmp_path, saved=opened.read()).run()
    assert run.error is None
    assert run.telemetry is not None
    for telemetry in (run.telemetry, telemetry_of(tmp_path)):
        assert [s.step for s in telemetry.samples("fc.weight_fake_quant")] == [0, 2, 4, 6, 8, 10]
        activation = telemetry.samples("quant.activation_post_process")
        assert [s.step for s in activation] == [12, 14, 16]
        assert activation[-1].histogram is not None


def test_the_newest_sample_is_on_disk_at_each_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_files, "GROWTH", 100.0)
    run = TrainingRun(
        prepared(), data(), qx.TrainingConfig(epochs=2, telemetry_every=2), run_dir=tmp_path
    )
    seen = []
    run.signal.subscribe(lambda p: seen.append(telemetry_of(tmp_path).steps))
    run.run()
    assert telemetry_of(tmp_path).steps == (0, 2, 4, 10)
    assert telemetry_of(tmp_path).samples("fc.weight_fake_quant")[-1].histogram is not None


def test_a_new_kernel_shows_the_run_in_the_live_panel(tmp_path: Path) -> None:
    trained(tmp_path / "a")
    code = (
        "import qatexplorer as qx\n"
        "from qatexplorer.widgets.common.bridge import Bridge\n"
        "from qatexplorer.widgets.common.page import PageState\n"
        "from qatexplorer.widgets.training.live import LivePanel\n"
        "panel = LivePanel(Bridge(), PageState())\n"
        f"panel.show(qx.open_run({str(tmp_path / 'a')!r}))\n"
        "assert panel.words.value.startswith('a: '), panel.words.value\n"
        "assert 'clipped share' in panel.multiples.rows[0]['label']\n"
        "ticks = panel.histograms.plot.figure['layout']['yaxis']['ticktext']\n"
        "assert ticks == ['0', '2', '4', '6', '8', '10'], ticks\n"
        "assert panel.scales.plot.figure['data']\n"
        "assert panel.oscillation.plot.figure['data']\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_the_runs_tab_opens_a_run_inside_the_explorer(tmp_path: Path) -> None:
    watched(tmp_path / "mine")
    example = qx.zoo.load("digits_mlp")
    explorer = qx.explore(example.model, example.example_inputs, data=example.data)
    explorer.runs.folder.value = str(tmp_path)
    assert not explorer.runs.inside.disabled
    explorer.runs.inside.click()
    assert explorer.drawer.in_sight(explorer.live)
    assert "fc.weight_fake_quant" in [row["path"] for row in explorer.live.multiples.rows]
    assert explorer.runs.resume.disabled
    assert explorer.runs.stop.disabled
    # A run of the session takes its place again.
    assert explorer.session is not None
    explorer.session.train(epochs=1)
    explorer.live.draw()
    assert explorer.live.telemetry is explorer.session.run.telemetry  # type: ignore[union-attr]


def test_live_panel_without_a_session(tmp_path: Path) -> None:
    panel = LivePanel(Bridge(), PageState())
    panel.show(watched(tmp_path / "w"))
    assert "fake quants watched" in panel.words.value
    panel.show(None)
    assert "Nothing seen yet" in panel.words.value


def test_opening_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    trained(tmp_path)

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("something is unpickled")

    for where, name in (
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
        (torch, "load"),
    ):
        monkeypatch.setattr(where, name, refuse)
    opened = qx.open_run(tmp_path)
    assert opened.telemetry is not None
    assert opened.telemetry.samples("fc.weight_fake_quant")
    opened.load_model(prepared(3))


def test_tables_of_a_run(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    run = trained(tmp_path / "session")
    watched(tmp_path / "watch")
    runs = qx.list_runs(tmp_path)
    curves = pandas.read_json(tmp_path / "session" / "curves.jsonl", lines=True)
    assert len(curves[curves.t == "step"]) == 12
    assert run.history.to_pandas().loss.tolist() == [s.loss for s in run.history.steps]
    assert len(run.history.to_pandas("epochs")) == 2
    assert run.telemetry is not None
    table = run.telemetry.to_pandas()
    assert len(table) == 6 * len(run.telemetry.paths)
    assert table.observer_enabled.all()
    assert sorted(runs.to_pandas().kind) == ["session", "watch"]
