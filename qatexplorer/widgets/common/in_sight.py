"""Panels that work only while they can be seen."""

from __future__ import annotations


class InSight:
    """Base of a panel that begins its work when its tab is opened."""

    _active = False

    @property
    def active(self) -> bool:
        """Whether the panel is in sight."""
        return self._active

    @active.setter
    def active(self, value: bool) -> None:
        opened = value and not self._active
        self._active = value
        if opened:
            self._opened()

    def _opened(self) -> None:
        """It has come in sight."""
        raise NotImplementedError
