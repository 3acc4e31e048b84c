"""Sessions that keep their runs, resume them, and are found again."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import qatexplorer as qx
from qatexplorer.errors import BusyError, InputError, NoDataError, RunFolderError
from qatexplorer.session import running as registry
from qatexplorer.widgets.common.bridge import Bridge, Jobs
from qatexplorer.widgets.training.runs import RunsPanel
from qatexplorer.widgets.training.schedules import ScheduleFields
from tests.support.training_models import one_thread  # noqa: F401
from tests.support.waiting import PATIENCE_S, Gate, until


def new_session(name: str = "digits_mlp", **settings: Any) -> qx.Session:
    example = qx.zoo.load(name)
    return qx.Session(example.model, example.example_inputs, data=example.data, **settings)


def losses(history: Any) -> list[float]:
    return [s.loss for s in history.steps]


def test_resume_in_another_session_is_the_unbroken_run(tmp_path: Path) -> None:
    whole = new_session(stubs="layers").train(epochs=3, ema_decay=0.99, scheduler="linear")
    gate = Gate(at=10)
    first = new_session(stubs="layers", loss=gate)
    run = first.start_training(
        epochs=3, ema_decay=0.99, scheduler="linear", run_dir=tmp_path, checkpoint_every=7
    )
    gate.then(run.stop, run, "stopped")
    run.wait()
    second = new_session()
    again = second.resume(tmp_path, background=False)
    assert losses(again.history) == losses(whole.history)
    assert again.history.baseline == run.history.baseline is not None
    assert second.stage == "train"
    assert second.goto("convert") is second.snapshot
    assert second.observed
    opened = qx.open_run(tmp_path)
    assert opened.state == "finished"
    assert losses(opened.history) == losses(whole.history)


@pytest.mark.slow
def test_the_settings_of_the_run_are_taken_over(tmp_path: Path) -> None:
    first = new_session("digits_cnn", qconfig="qnnpack", stubs="layers")
    runs = first.fusion[:1]
    first.configure(fusion=runs)
    first.train(epochs=1, run_dir=tmp_path)
    second = new_session("digits_cnn")
    assert second.fusion != runs
    second.resume(tmp_path, background=False, epochs=2)
    assert second.options.stubs == "layers"
    assert second.options.qconfig.name == "qnnpack"
    assert second.fusion == runs
    snapshot = second.snapshots["train"]
    assert {s.path for s in snapshot.sites} == {s.path for s in first.snapshots["train"].sites}


@pytest.mark.slow
def test_a_qconfig_of_ones_own_must_be_brought_again(tmp_path: Path) -> None:
    from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver, QConfig

    own = FakeQuantize.with_args(observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=15)
    weight = qx.Session(
        *_model(), data=qx.zoo.load("digits_mlp").data, qconfig="onednn"
    ).options.qconfig.default.weight  # type: ignore[union-attr]
    qconfig = QConfig(activation=own, weight=weight)
    new_session(qconfig=qconfig).train(epochs=1, run_dir=tmp_path)
    with pytest.raises(RunFolderError, match="qconfig of its own"):
        new_session().resume(tmp_path, epochs=2)
    run = new_session(qconfig=qconfig).resume(tmp_path, epochs=2, background=False)
    assert run.state == "finished"


@pytest.mark.slow
def test_a_run_goes_on_where_another_engine_runs_int8(tmp_path: Path) -> None:
    """Training does not use the engine: a checkpoint of one machine goes on on another."""
    from qatexplorer.quantizers.engine import available_engines
    from qatexplorer.zoo.digits_depthwise import per_tensor_qconfig

    one, *others = available_engines()
    own = per_tensor_qconfig()
    new_session(qconfig=own, engine=one).train(epochs=1, run_dir=tmp_path / "own")
    session = new_session(qconfig=own, engine=others[-1] if others else one)
    before = session.options
    session.resume(tmp_path / "own", epochs=2, background=False)
    assert session.options is before
    # By name too.
    new_session(engine=one, qconfig="onednn").train(epochs=1, run_dir=tmp_path / "named")
    session = new_session(engine=one, qconfig="qnnpack")
    session.resume(tmp_path / "named", epochs=2, background=False)
    assert (session.options.qconfig.name, session.options.qconfig.backend) == ("onednn", one)


def _model() -> tuple[Any, Any]:
    example = qx.zoo.load("digits_mlp")
    return example.model, example.example_inputs


@pytest.mark.slow
def test_another_checkpoint_can_be_taken(tmp_path: Path) -> None:
    run = new_session().train(epochs=3, run_dir=tmp_path)
    opened = qx.open_run(tmp_path)
    assert len(opened.checkpoints) == 3
    second = new_session()
    again = second.resume(tmp_path, checkpoint=opened.checkpoints[0], background=False)
    assert losses(again.history) == losses(run.history)
    assert qx.open_run(tmp_path).last_checkpoint != opened.last_checkpoint


def test_refusals(tmp_path: Path) -> None:
    session = new_session()
    with pytest.raises(RunFolderError, match="holds no run"):
        session.resume(tmp_path / "none")
    session.train(epochs=1, run_dir=tmp_path / "a")
    with pytest.raises(RunFolderError, match="holds a run already"):
        session.start_training(run_dir=tmp_path / "a")
    with pytest.raises(TypeError, match="epoch"):
        session.resume(tmp_path / "a", epoch=4)
    with pytest.raises(NoDataError):
        qx.Session(*_model()).resume(tmp_path / "a")
    with pytest.raises(InputError, match="never be on"):
        session.start_training(epochs=2, fake_quant_start_epoch=2)
    run = session.start_training(epochs=10_000, run_dir=tmp_path / "b")
    with pytest.raises(BusyError):
        session.resume(tmp_path / "a", epochs=2)
    until(lambda: qx.open_run(tmp_path / "b").checkpoints)
    with pytest.raises(BusyError, match="A run is going on"):
        new_session().resume(tmp_path / "b")
    run.stop()


@pytest.mark.usefixtures("few_objects")
def test_a_training_is_found_again_in_its_kernel(tmp_path: Path) -> None:
    session: qx.Session | None = new_session()
    assert session is not None
    run = session.start_training(epochs=10_000, run_dir=tmp_path)
    # The page is gone and with it the only name of the session; the training holds it.
    del session
    gc.collect()
    found = registry.session_of(tmp_path)
    assert found is not None
    assert found.run is run
    assert found in registry.training()
    run.stop(PATIENCE_S)
    assert found not in registry.training()
    assert registry.session_of(tmp_path / "other") is None


def test_suggested_schedules_reach_the_run_and_text_is_refused() -> None:
    fields = ScheduleFields()
    fields.use(None, {"scheduler": "cosine", "freeze_observer_epoch": 2, "ema_decay": 0.999})
    fields.warmup.value, fields.clip.value, fields.smoothing.value = 5, "1.5", "0.1"
    settings = fields.settings()
    config = qx.TrainingConfig(epochs=4, **settings)
    assert (config.scheduler, config.warmup_steps, config.ema_decay) == ("cosine", 5, 0.999)
    assert (config.clip_grad_norm, config.label_smoothing) == (1.5, 0.1)
    assert config.freeze_observer_epoch == 2
    fields.use(None)
    assert qx.TrainingConfig(**fields.settings()) == qx.TrainingConfig(optimizer="adam")
    fields.clip.value = "much"
    with pytest.raises(InputError, match="Gradient norm"):
        fields.settings()
    fields.use(None)
    fields.freeze_bn.value = "soon"
    with pytest.raises(InputError, match="BN statistics"):
        fields.settings()


class Desk:
    """A panel without an explorer around it."""

    def __init__(self, root: Path) -> None:
        self.bridge = Bridge()
        self.jobs = Jobs(self.bridge, lambda: None)
        self.errors: list[Exception] = []
        self.attached: list[qx.Session] = []
        self.panel = RunsPanel(self.bridge, self.act, self.start_job, self.attached.append)
        self.panel.folder.value = str(root)

    def act(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as error:
            self.errors.append(error)

    def start_job(self, name: str, work: Any, done: Any = None) -> None:
        self.jobs.start(name, work, done or (lambda _: None), self.errors.append)
        self.jobs.wait(PATIENCE_S)
        until(lambda: self.jobs.current is None)


def test_runs_are_listed_opened_and_resumed(tmp_path: Path) -> None:
    gate = Gate(at=30)
    first = new_session(loss=gate)
    desk = Desk(tmp_path)
    desk.panel.use(first)
    assert "No run is kept" in desk.panel.details.html
    assert desk.panel.resume.disabled
    folder = desk.panel.run_dir()
    assert folder is not None
    assert folder.parent == tmp_path
    run = first.start_training(epochs=3, run_dir=folder)
    gate.then(run.stop, run, "stopped")
    run.wait()
    desk.panel.on_training()
    assert "stopped" in desk.panel.list.options[0][0]
    assert "Last checkpoint" in desk.panel.details.html
    assert desk.panel.curves.plot.figure["data"]
    second = new_session()
    desk.panel.use(second)
    assert not desk.panel.resume.disabled
    desk.panel.resume.click()
    assert desk.errors == []
    assert second.run is not None
    second.run.wait()
    assert second.run.state == "finished"
    assert second.run.history.epochs[-1].epoch == 2
    desk.panel.read()
    assert "finished" in desk.panel.list.options[0][0]
    desk.panel.keep.value = False
    assert desk.panel.run_dir() is None


def read_until(desk: Desk, holds: Callable[[], Any]) -> None:
    """The folder says what the thread has done a moment after the thread has done it."""

    def read() -> Any:
        desk.panel.read()
        return holds()

    until(read)


def test_a_running_training_is_attached_or_stopped_from_another_page(tmp_path: Path) -> None:
    first = new_session()
    run = first.start_training(epochs=100_000, run_dir=tmp_path / "a")
    until(lambda: run.history.steps)
    desk = Desk(tmp_path)
    desk.panel.use(new_session())
    assert desk.panel.resume.disabled
    assert desk.panel.attach.layout.display == ""
    desk.panel.attach.click()
    assert desk.attached == [first]
    desk.panel.pause.click()
    until(lambda: run.state == "paused")
    read_until(desk, lambda: not desk.panel.go_on.disabled)
    desk.panel.stop.click()
    until(lambda: run.state == "stopped")
    run.wait()
    read_until(desk, lambda: not desk.panel.resume.disabled)
    assert desk.errors == []


def test_names_of_users_are_escaped(tmp_path: Path) -> None:
    run_dir = tmp_path / "<img src=x>"

    def evil(output: Any, target: Any) -> Tensor:
        raise ValueError("<script>")

    example = qx.zoo.load("digits_mlp")
    session = qx.Session(example.model, example.example_inputs, data=example.data, loss=evil)
    session.start_training(epochs=1, run_dir=run_dir).wait()
    desk = Desk(tmp_path)
    desk.panel.use(session)
    html = desk.panel.details.html
    assert "&lt;script&gt;" in html
    assert "&lt;img" in html
    assert "<script>" not in html
    assert "<img" not in html
    about = json.loads((run_dir / "run.json").read_text())
    assert about["config"]["epochs"] == 1


def test_the_explorer_shows_a_session_that_trains_and_its_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qatexplorer.runs import checkpoint

    def full(path: Path, tensors: Any) -> None:
        raise OSError(28, "No space left on device")

    session = new_session()
    run = session.start_training(epochs=100_000, run_dir=tmp_path)
    try:
        until(lambda: run.history.steps)
        assert session in qx.running()
        explorer = qx.explore(session)
        assert explorer.session is session
        assert "running" in explorer.training.words.value
        assert not explorer.training.stop.disabled
        monkeypatch.setattr(checkpoint, "_write_tensors", full)
        until(lambda: "disk is full" in explorer.message.html)
    finally:
        run.stop(PATIENCE_S)
    assert session not in qx.running()


def test_a_config_is_taken_whole_and_a_bar_shows_how_far_it_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    session = new_session()
    config = qx.TrainingConfig(epochs=1, lr=2e-3, telemetry_every=0)
    run = session.train(config=config)
    assert run.config == config
    shown = capsys.readouterr().err
    assert "epoch 1/1" in shown
    assert "100%" in shown
    assert "loss=" in shown
    run = session.train(config=config, progress=False)
    assert run.state == "finished"
    assert capsys.readouterr().err == ""
    beside = session.train(config=config, lr=1e-3, progress=False).config
    assert (beside.lr, beside.epochs) == (1e-3, 1)
    assert session.start_training(config=config, run_dir=tmp_path / "a").wait().config == config
    assert qx.open_run(tmp_path / "a").config() == config
