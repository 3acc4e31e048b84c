"""Threads of the page that run torch: short, and never cut off in the middle of a kernel."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

LAST_WAIT_S = 10.0
"""How long an interpreter that ends waits for them, all together."""

_started: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def in_background(body: Callable[[], Any], name: str) -> threading.Thread:
    """Start ``body`` on a thread named ``qatexplorer-<name>``.

    An interpreter that ends waits a while for it: one that ends inside of a torch kernel aborts the
    process instead.
    """
    thread = threading.Thread(target=body, name=f"qatexplorer-{name}", daemon=True)
    _started.add(thread)
    thread.start()
    return thread


@atexit.register
def _wait_for_all() -> None:
    end = time.monotonic() + LAST_WAIT_S
    for thread in list(_started):
        thread.join(max(0.0, end - time.monotonic()))
