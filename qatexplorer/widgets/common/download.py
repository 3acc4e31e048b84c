"""A button that saves a file: the widgets of ipywidgets have none."""

from __future__ import annotations

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
        text: what is in the file; with ``""`` the button cannot be pressed.
    """

    _esm = esm("download")
    _css = css()

    label: Any = traitlets.Unicode("Save").tag(sync=True)
    tip: Any = traitlets.Unicode("").tag(sync=True)
    filename: Any = traitlets.Unicode("file.txt").tag(sync=True)
    type: Any = traitlets.Unicode("text/plain").tag(sync=True)
    text: Any = traitlets.Unicode("").tag(sync=True)
