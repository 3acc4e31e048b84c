"""How much is trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Effort:
    """How much is trained. ``share`` of all epochs; ``samples`` of the training images, None is
    all 1,257; ``name`` is for the table."""

    name: str = "full"
    share: float = 1.0
    samples: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


FULL = Effort()
QUICK = Effort("quick", 0.25)
