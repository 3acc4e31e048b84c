"""``qatexplorer train``: quantization-aware training from a terminal, in one process or several.

Exit codes: 0 all epochs are done, 1 the training has failed, 2 wrong usage (options, settings, a
run folder that is taken or holds no run), 3 the model, its data, a function or the rules could not
be loaded or prepared, 130 stopped before the last epoch. Progress goes to stderr, the evaluation
and where the run lies to stdout. Started by ``torchrun`` its processes train as one
(:mod:`qatexplorer.training.team`); only rank 0 writes and prints, but for errors.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qatexplorer.app.load_model import LoadedModel, load_function, load_model
from qatexplorer.app.session_of import check_quantizer_option
from qatexplorer.app.train_options import settings_of
from qatexplorer.errors import BusyError, FactoryError, InputError, QatExplorerError, RunFolderError
from qatexplorer.runs.config import TrainingConfig
from qatexplorer.runs.folder import ABOUT, read_about
from qatexplorer.runs.place import default_folder
from qatexplorer.runs.records import Progress
from qatexplorer.session.session import Session
from qatexplorer.training.run import TrainingRun
from qatexplorer.training.team import Alone, together

DONE, FAILED, USAGE, NO_MODEL, STOPPED = 0, 1, 2, 3, 130
LINE_EVERY_S = 10.0


class _Ended(Exception):
    """The command is to end with ``code``, because of ``error``."""

    def __init__(self, error: QatExplorerError, code: int) -> None:
        super().__init__(str(error))
        self.error, self.code = error, code


def run(args: argparse.Namespace) -> int:
    """Do what ``args`` say; returns the exit code."""
    who = "qatexplorer"
    try:
        with _terminated_is_interrupted(), together() as team:
            if team.size > 1:
                who = f"qatexplorer (process {team.rank} of {team.size})"
            return _train(args, team)
    except _Ended as ended:
        print(f"{who}: {ended.error.full_text()}", file=sys.stderr)
        return ended.code
    except QatExplorerError as error:
        print(f"{who}: {error.full_text()}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(f"{who}: stopped.", file=sys.stderr)
        return STOPPED


def _train(args: argparse.Namespace, team: Alone) -> int:
    with _ending_with(USAGE):
        folder = _folder(args, team)
        check_quantizer_option(args.quantizer, _flow(args, folder))
        settings = {name: _given(name, value) for name, value in settings_of(args).items()}
        if not args.resume:
            TrainingConfig(**settings)
    # A model's code may print; stdout is for the result.
    with contextlib.redirect_stdout(sys.stderr):
        with _ending_with(NO_MODEL):
            session = _session(args, folder)
        if team.writes:
            print(f"The run is kept in {folder}", file=sys.stderr)
        trained = _run(session, args, folder, settings, team)
    if not team.writes:
        return DONE if trained.state == "finished" else STOPPED
    if trained.state != "finished":
        print(f"Stopped at step {trained.progress.step:,}. The run lies in {folder}")
        print("Go on with the same command and --resume.")
        return STOPPED
    with contextlib.redirect_stdout(sys.stderr):
        found = session.evaluate()
    print(found)
    print(f"The run lies in {folder}")
    return DONE


def _folder(args: argparse.Namespace, team: Alone) -> Path:
    """Where the run is kept. Raises RunFolderError before anything long is begun."""
    given: Path | None = args.run_dir
    if args.resume:
        if given is None:
            raise RunFolderError(
                "--resume needs the folder of the run.", fix="Name it with --run-dir."
            )
        if args.calibrate:
            raise InputError(
                "--calibrate comes before a run, and --resume goes on with one.",
                fix="Leave --calibrate out: what the observers saw is in the checkpoint.",
            )
        read_about(given.expanduser().absolute())
    elif given is None:
        now = datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S")
        name = re.sub(r"\W+", "-", args.model).strip("-")
        given = Path(default_folder()) / f"{name}-{now}"
    elif team.writes and (given.expanduser() / ABOUT).exists():
        raise RunFolderError(
            f"{given} holds a run already.",
            fix="Go on with it with --resume, or name another --run-dir.",
        )
    return given.expanduser().absolute()


def _given(name: str, value: Any) -> Any:
    """A setting that may be a function is one if it is spelled as one."""
    if isinstance(value, str) and ":" in value and name in ("optimizer", "scheduler"):
        with _ending_with(NO_MODEL):
            return load_function(value)
    return value


def _session(args: argparse.Namespace, folder: Path) -> Session:
    loaded = load_model(args.model)
    if loaded.data is None:
        raise FactoryError(
            f"{args.model} returned no data, and training needs it.",
            fix="Return (model, example_inputs, data), data being (train, eval) loaders.",
        )
    rules = args.qconfig if _is_file(args.qconfig) else None
    session = Session(
        loaded.model,
        loaded.example_inputs,
        flow=_flow(args, folder),
        quantizer=args.quantizer,
        qconfig=_qconfig(args, loaded, rules),
        stubs=args.stubs,
        data=loaded.data,
        loss=load_function(args.loss) if args.loss else None,
        **{**loaded.settings, **({"metric": load_function(args.metric)} if args.metric else {})},
    )
    if rules is not None:
        session.load_qconfig(rules)
    session.goto(session.flow.train_stage)
    return session


def _flow(args: argparse.Namespace, folder: Path) -> str:
    kept = read_about(folder).get("flow") if args.resume else None
    return str(args.flow or kept or "eager")


def _qconfig(args: argparse.Namespace, loaded: LoadedModel, rules: str | None) -> Any:
    name = args.qconfig if rules is None else None
    return name or loaded.suggested.get("qconfig")


def _is_file(name: str | None) -> bool:
    return name is not None and Path(name).suffix.lower() in (".toml", ".json")


def _run(
    session: Session, args: argparse.Namespace, folder: Path, settings: dict[str, Any], team: Alone
) -> TrainingRun:
    bar = team.writes and sys.stderr.isatty()
    lines = _Lines(session) if team.writes and not bar else lambda event: None
    unsubscribe = session.signal.subscribe(lines)
    try:
        if args.resume:
            return session.resume(folder, background=False, progress=bar, **settings)
        if args.calibrate:
            session.calibrate(args.calibrate)
        return session.train(run_dir=folder, progress=bar, **settings)
    except (InputError, BusyError) as error:
        raise _Ended(error, USAGE) from error
    finally:
        unsubscribe()


class _Lines:
    """Tells on stderr how far the run is, a line at a time; hears the events of ``session``."""

    def __init__(self, session: Session) -> None:
        self._session, self._epochs = session, -1
        self._told, self._state = time.monotonic(), ""

    def __call__(self, event: Any) -> None:
        progress = event.detail
        if not isinstance(progress, Progress) or event.kind != "progress":
            return
        assert self._session.run is not None
        history = self._session.run.history
        epochs = history.epochs
        if self._epochs < 0:  # what a run that is resumed had done before
            self._epochs = len(epochs) if progress.step else 0
        for record in epochs[self._epochs :]:
            line = f"epoch {record.epoch + 1} of {progress.epochs} is done: loss "
            line += f"{record.train_loss:.4g}, "
            if record.metric is not None:
                line += f"{history.metric_name} {record.metric:.4g}, "
            self._say(f"{line}{record.seconds:.1f} s")
        self._epochs = len(epochs)
        late = time.monotonic() - self._told >= LINE_EVERY_S and progress.state == "running"
        if progress.state != self._state or late:
            self._state = progress.state
            self._say(_where(progress))

    def _say(self, line: str) -> None:
        self._told = time.monotonic()
        print(line, file=sys.stderr, flush=True)


def _where(progress: Progress) -> str:
    total = f" of {progress.total_steps:,}" if progress.total_steps else ""
    epoch = min(progress.epoch + 1, progress.epochs)
    line = f"{progress.state}: epoch {epoch} of {progress.epochs}, step {progress.step:,}{total}"
    if progress.loss is not None:
        line += f", loss {progress.loss:.4g}"
    if progress.state == "running" and progress.eta_s is not None:
        line += f", {progress.eta_s:,.0f} s left"
    return line


@contextlib.contextmanager
def _ending_with(code: int) -> Iterator[None]:
    """An error of ours inside ends the command with ``code``."""
    try:
        yield
    except QatExplorerError as error:
        raise _Ended(error, code) from error


@contextlib.contextmanager
def _terminated_is_interrupted() -> Iterator[None]:
    """SIGTERM, with which torchrun and job schedulers end a process, is like Ctrl-C inside."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
