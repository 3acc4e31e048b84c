"""A minimal signal: the headless core reports to observers that something changed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Signal(Generic[T]):
    """Callbacks that get each emitted value, in order of subscription, on the emitting thread.

    A callback that raises does not keep the others from running; the first error is raised after
    all have run.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[T], Any]] = []

    def subscribe(self, callback: Callable[[T], Any]) -> Callable[[], None]:
        """Call ``callback`` with every value from now on. Returns the function that ends it."""
        with self._lock:
            self._callbacks.append(callback)

        def unsubscribe() -> None:
            with self._lock:
                if callback in self._callbacks:
                    self._callbacks.remove(callback)

        return unsubscribe

    def emit(self, value: T) -> None:
        """Hand ``value`` to every subscriber."""
        with self._lock:
            callbacks = tuple(self._callbacks)
        errors: list[BaseException] = []
        for callback in callbacks:
            try:
                callback(value)
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]
