"""The still picture of an explorer that a notebook keeps: seen where no kernel or no widget is.

JupyterLab shows a widget's output by its widget alone, whatever else lies in its bundle: a saved
notebook without a kernel would say "Loading widget…". There the picture is an output of its own
below the page, hidden while the page lives (still.css), and it follows the stage. Everywhere else
it lies in the bundle of the one output, as what is shown where the widget cannot be.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Literal

from qatexplorer.errors import QatExplorerError
from qatexplorer.session.session import Session
from qatexplorer.views.common.names import count
from qatexplorer.views.common.news import news_of
from qatexplorer.views.graph.scene import build_scene
from qatexplorer.views.inspector.figures import histogram_figure, scales_of_site
from qatexplorer.views.static.page import StillPage
from qatexplorer.views.training.figures import curves_figure
from qatexplorer.views.tree import build_tree, state_label
from qatexplorer.widgets.common.packed import Packed
from qatexplorer.widgets.explorer.panes import selected_site

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
    return "other" if "google.colab" in sys.modules or _in_vs_code() else "lab"


def _in_vs_code() -> bool:
    """A terminal of VS Code hands its variables on to a JupyterLab that is started in it, so they
    alone prove nothing: Jupyter's own server names the session of each kernel."""
    from IPython import get_ipython

    shell: Any = get_ipython()
    if shell is not None and "__vsc_ipynb_file__" in shell.user_ns:
        return True
    return "VSCODE_PID" in os.environ and "JPY_SESSION_NAME" not in os.environ


def metadata_of(widget: Any) -> dict[str, Any]:
    """What has to stand beside the output of an anywidget: in Colab, where its manager is."""
    from IPython.core.formatters import DisplayFormatter

    formatter: Any = DisplayFormatter()
    _data, metadata = formatter.format(widget)
    return dict(metadata)


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
        from IPython import display as ipython

        display: Any = ipython.display
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


def still_of(session: Session, selection: str, drawn: tuple[Packed, Packed] | None) -> StillPage:
    """What the picture shows of the stage in view.

    Args:
        selection: of the page; its figures are drawn, else those of the first fake quant that has
            a histogram already.
        drawn: the tree's rows and the graph's scene where the page has them for this stage.
    """
    stage, snapshot = session.flow.stage(session.stage), session.snapshot
    if drawn is None:
        change = session.diff_at(session.stage)
        paths = change.paths if change is not None else frozenset()
        first = session.snapshots.get(session.stages[0])
        before = session.snapshots.get(change.before) if change is not None else None
        rows: Any = build_tree(snapshot, change, before)
        scene: Any = build_scene(snapshot, paths, before=first)
    else:
        rows, scene = (packed.value for packed in drawn)
    root = snapshot.modules[0]
    return StillPage(
        title=session.snapshots[session.stages[0]].modules[0].type_name,
        about=f"{count(root.param_count, 'parameter')}, flow {session.flow.name}",
        stage=stage.title,
        call=stage.call,
        line=news_of(session.flow.stages, session.snapshots).get(stage.name, ""),
        rows=rows,
        scene=scene,
        figures=list(_figures(session, selection)),
        state=state_label(snapshot),
    )


def _figures(session: Session, selection: str) -> Iterator[dict[str, Any]]:
    snapshot = session.snapshot
    site = selected_site(snapshot, selection)
    if site is None and not selection:
        site = next((s for s in snapshot.sites if session.has_histogram(s.path)), None)
    if site is not None and session.has_histogram(site.path):
        with suppress(QatExplorerError):  # one that does not run has none
            yield histogram_figure(session.histogram(site.path), site).to_plotly_json()
    scales = scales_of_site(site) if site is not None and selection else None
    if scales is not None:
        yield scales.to_plotly_json()
    if session.run is not None and session.run.history.steps:
        yield curves_figure(session.run.history).to_plotly_json()
