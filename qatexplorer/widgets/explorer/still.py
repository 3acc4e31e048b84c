"""The still picture of an explorer that a notebook keeps: seen where no kernel or no widget is.

JupyterLab shows a widget's output by its widget alone, whatever else lies in its bundle: a saved
notebook without a kernel would say "Loading widget…". There the picture is an output of its own
below the page, hidden while the page lives (still.css), and it follows the stage. Everywhere else
it lies in the bundle of the one output, as what is shown where the widget cannot be.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Literal

FrontEnd = Literal["lab", "voila", "other"]

# In a trusted notebook without its kernel: the picture stands for the output before it, which
# would say "Loading widget…". The rule is void as soon as the page lives.
_FOR_THE_DEAD = (
    "<style>.jp-OutputArea:not(:has(.qx-explorer)) .jp-OutputArea-child:has(+ "
    ".jp-OutputArea-child .qx-still){display:none}</style>"
)


def front_end() -> FrontEnd:
    """What the kernel's outputs go to, as far as a kernel can know."""
    if "VOILA_KERNEL_ID" in os.environ or "VOILA_SERVER_URL" in os.environ:
        return "voila"
    if "google.colab" in sys.modules or any(k.startswith("VSCODE_") for k in os.environ):
        return "other"
    return "lab"


class Still:
    """Shows the picture beside a page, and keeps it up to date.

    ``html()`` gives the picture as it is now.
    """

    def __init__(self, html: Callable[[], str]) -> None:
        self._html = html
        self._handle: Any = None

    @property
    def is_shown(self) -> bool:
        """Whether an output follows the stage."""
        return self._handle is not None

    def show(self, bundle: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Display the widget ``bundle`` with the picture in it or below it."""
        from IPython.display import display

        where = front_end()
        if where == "other":
            bundle = {**bundle, "text/html": self._html()}
        display(bundle, metadata=metadata, raw=True)
        if where == "lab":
            still = {"text/html": self._page(self._html())}
            if self._handle is None:
                self._handle = display(still, raw=True, display_id=True)
            else:  # the same picture in another cell: both follow
                self._handle.display(still, raw=True)

    def update(self, html: str) -> None:
        """Put ``html`` into the outputs that were shown."""
        if self._handle is not None:
            self._handle.update({"text/html": self._page(html)}, raw=True)

    @staticmethod
    def _page(html: str) -> str:
        return f"{_FOR_THE_DEAD}{html}"
