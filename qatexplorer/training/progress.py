"""A run in the foreground, with a progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qatexplorer.runs.records import Progress
    from qatexplorer.training.run import TrainingRun


@contextmanager
def progress_bar(run: TrainingRun, shown: bool = True) -> Iterator[None]:
    """Show steps, epoch and loss of ``run`` while inside; tqdm's own bar, in notebooks as a
    widget."""
    if not shown:
        yield
        return
    from tqdm.auto import tqdm

    first = run.progress
    bar = tqdm(total=first.total_steps or None, initial=first.step, unit="step", leave=True)

    def follow(progress: Progress) -> None:
        if progress.total_steps:
            bar.total = progress.total_steps
        epoch = min(progress.epoch + 1, progress.epochs)
        bar.set_description(f"epoch {epoch}/{progress.epochs}", refresh=False)
        if progress.loss is not None:
            bar.set_postfix(loss=f"{progress.loss:.4g}", refresh=False)
        bar.update(progress.step - bar.n)

    unsubscribe = run.signal.subscribe(follow)
    try:
        yield
    finally:
        unsubscribe()
        bar.close()


def run_in_front(run: TrainingRun, progress: bool = False) -> TrainingRun:
    """Train here and now, with the bar if ``progress``. Raises the run's error if it fails."""
    with progress_bar(run, progress):
        run.run()
    if run.error is not None:
        raise run.error
    return run
