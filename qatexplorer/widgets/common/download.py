"""Buttons that save a file: the widgets of ipywidgets have none."""

from __future__ import annotations

import gzip
from typing import Any

import anywidget
import traitlets

from qatexplorer.widgets.common.assets import css, esm


class DownloadButton(anywidget.AnyWidget):
    """Lets the browser save ``text``, which is on the page already: a click asks no kernel.

    Attributes:
        label, tip: what the button says, and its tooltip.
        filename: the name that the browser proposes.
        type: of the file, as MIME names it.
        text: what is in the file; with ``""`` the button cannot be pressed, unless it is held.
        held: whether Python has it, and gives it for a click.
    """

    _esm = esm("download")
    _css = css()

    label: Any = traitlets.Unicode("Save").tag(sync=True)
    tip: Any = traitlets.Unicode("").tag(sync=True)
    filename: Any = traitlets.Unicode("file.txt").tag(sync=True)
    type: Any = traitlets.Unicode("text/plain").tag(sync=True)
    text: Any = traitlets.Unicode("").tag(sync=True)
    held: Any = traitlets.Bool(False).tag(sync=True)


class HeldDownload(DownloadButton):
    """Lets the browser save a text that stays in the kernel until it is asked for, so that it is in
    no saved notebook."""

    MOST = 2_000_000
    """Bytes that are handed over at the most, compressed; a notebook's server drops messages that
    are much larger."""

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self._packed = b""
        self.on_msg(self._answer)

    @classmethod
    def packed(cls, text: str) -> bytes:
        """``text`` made ready for :meth:`hold`, ``b""`` if that is too much."""
        made = gzip.compress(text.encode(), compresslevel=6, mtime=0)
        return made if len(made) <= cls.MOST else b""

    def hold(self, filename: str, packed: bytes) -> None:
        """Have what :meth:`packed` gave ready for a click; ``b""`` is nothing."""
        self._packed = packed
        self.filename, self.held = filename, bool(packed)

    def _answer(self, _widget: Any, message: Any, _buffers: Any) -> None:
        if isinstance(message, dict) and isinstance(message.get("ask"), str) and self._packed:
            self.send({"answers": message["ask"]}, [self._packed])
