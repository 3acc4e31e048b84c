"""A watch inside the training loops of other libraries, which are imported only when asked for."""

from __future__ import annotations

import importlib
from typing import Any, Protocol

from qatexplorer.errors import InputError


class Watched(Protocol):
    """What a training loop does to a :class:`~qatexplorer.telemetry.watch.Watch`."""

    def start(self) -> Any: ...
    def step(self) -> Any: ...
    def close(self) -> Any: ...


def transformers_callback(watch: Watched) -> Any:
    """A ``transformers.TrainerCallback`` for ``Trainer(callbacks=[…])``.

    It begins with the training, ends each optimizer step and closes at the end. ``Trainer`` calls
    no callback when the training raises: inside ``with watch:`` the hooks go then, too.

    Raises InputError if transformers is not installed.
    """
    base: Any = _first("TrainerCallback", "transformers")

    class WatchCallback(base):
        """Steps the watch after each optimizer step."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            watch.start()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            watch.step()

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            watch.close()

    return WatchCallback()


def lightning_callback(watch: Watched) -> Any:
    """A Lightning ``Callback`` for ``Trainer(callbacks=[…])``; either package name will do.

    A batch that only accumulates gradients is no step of its own.

    Raises InputError if Lightning is not installed.
    """
    return make_lightning_callback(
        watch, _first("Callback", "lightning.pytorch", "pytorch_lightning")
    )


def make_lightning_callback(watch: Watched, base: Any) -> Any:
    """The same on a ``base`` class with Lightning's protocol."""

    class WatchCallback(base):
        """Steps the watch whenever ``trainer.global_step`` has grown."""

        _last = 0

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self._last = trainer.global_step
            watch.start()

        def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
            if trainer.global_step != self._last:
                self._last = trainer.global_step
                watch.step()

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            watch.close()

        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
            watch.close()

    return WatchCallback()


def _first(name: str, *packages: str) -> type:
    for package in packages:
        try:
            found: type = getattr(importlib.import_module(package), name)
            return found
        except ImportError:
            continue
    raise InputError(
        f"{packages[0]} is not installed, so there is no {name} to make.",
        fix=f"pip install {packages[0].partition('.')[0]}, or call watch.step() after each "
        "training step of your own loop.",
    )
