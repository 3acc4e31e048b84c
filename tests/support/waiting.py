"""Waiting for what other threads do, however busy the machine is."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

PATIENCE_S = 120.0
"""Only a test that fails waits that long."""


def until(holds: Callable[[], Any], timeout_s: float = PATIENCE_S) -> None:
    """Ask ``holds`` until it gives something true; fails if it does not in time."""
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


async def until_on_loop(holds: Callable[[], Any], timeout_s: float = PATIENCE_S) -> None:
    """The same inside of an event loop, which goes on meanwhile."""
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.01)


class Gate:
    """Cross entropy that lets a run come to its step ``at`` (from 0) and no further, until it is
    opened: what is requested meanwhile cannot come too late."""

    def __init__(self, at: int) -> None:
        self._at, self._steps = at, 0
        self._reached, self._opened = threading.Event(), threading.Event()

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        if self._steps == self._at:
            self._reached.set()
            assert self._opened.wait(PATIENCE_S)
        self._steps += 1
        # Those who only wait, in a process without torch, need not pay for it.
        from torch.nn import functional as F

        return F.cross_entropy(output, target)

    def then(self, request: Callable[..., Any], run: Any, state: str) -> None:
        """Once the step is reached, ``request`` it of the run, and wait for its ``state``."""
        assert self._reached.wait(PATIENCE_S)
        request(timeout=0)
        self._opened.set()
        until(lambda: run.state == state)
