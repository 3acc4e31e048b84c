"""Python's collector of cycles, kept from standing in the way of work that makes many objects."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_inside = 0
_was_enabled = False


@contextmanager
def cycles_collected_later() -> Iterator[None]:
    """For work that makes many objects, nearly all of which stay; may be nested, and on threads.

    A collection goes through all young objects, or through all of the process, in one go: no other
    thread runs meanwhile. In here there is none, and what was made is counted among the old
    objects at the end (frozen and unfrozen, which scans nothing): the next full collection, which
    comes when enough has been made since the last, looks at it as at everything else.
    """
    global _inside, _was_enabled
    with _lock:
        _inside += 1
        if _inside == 1:
            _was_enabled = gc.isenabled()
            gc.disable()
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and _was_enabled:
                if not gc.get_freeze_count():  # what its user has frozen stays frozen
                    gc.freeze()
                    gc.unfreeze()
                gc.enable()
