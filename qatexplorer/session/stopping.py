"""Long calls that say what they do are asked at the same places whether to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qatexplorer.errors import StoppedError


def unless_stopped(
    what: str, progress: Callable[[str], Any] | None, should_stop: Callable[[], bool] | None
) -> Callable[[str], None]:
    """``progress``, which raises StoppedError in place of the next step when it is to stop.

    ``what`` names the call, such as ``"the export"``.
    """

    def say(step: str) -> None:
        if should_stop is not None and should_stop():
            raise StoppedError(f"{what} was stopped; nothing was written.")
        if progress is not None:
            progress(step)

    return say
