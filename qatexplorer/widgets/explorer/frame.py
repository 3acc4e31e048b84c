"""What holds the page together: its place and height, and the sheet of keys."""

from __future__ import annotations

import anywidget

from qatexplorer.widgets.common.assets import css, esm


class Frame(anywidget.AnyWidget):
    """The button ``?`` with the sheet of keys. It makes the explorer around it fill Voila's window
    or a JupyterLab tab of its own, and gives it a height among other outputs."""

    _esm = esm("frame")
    _css = css(
        "explorer/explorer.css",
        "explorer/compare.css",
        "explorer/frame.css",
        "explorer/controls.css",
    )
