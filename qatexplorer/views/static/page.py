"""A whole page as one piece of HTML that needs no widget, no kernel and no script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from qatexplorer.views.static.figure import figure_svg
from qatexplorer.views.static.graph import graph_svg
from qatexplorer.views.static.svg import image
from qatexplorer.views.static.tree import tree_table

_BOX = (
    "color:#1f2328;background:#ffffff;border:1px solid #d0d7de;border-radius:6px;"
    "padding:10px 14px;font-family:system-ui,sans-serif;font-size:13px"
)


@dataclass(frozen=True)
class StillPage:
    """What a still picture shows.

    Attributes:
        title: the model's name. about: what is known of it in a few words.
        stage: title of the stage. call: torch's call that led there, ``""`` for none.
        line: what happened at the stage, as plain text.
        rows: of the tree. scene: of the graph. figures: of plotly, as plain data, in order.
        state: what the tree's last column is called.
    """

    title: str
    about: str
    stage: str
    call: str
    line: str
    rows: Iterable[Mapping[str, Any]]
    scene: Mapping[str, Any]
    figures: Sequence[Mapping[str, Any]] = field(default=())
    state: str = ""


def still_html(page: StillPage) -> str:
    """The page: heading, stage, tree beside graph, and the figures below them. All text escaped."""
    call = f" <code>{escape(page.call)}</code>" if page.call else ""
    line = f'<p style="margin:2px 0 8px">{escape(page.line)}</p>' if page.line else ""
    graph = graph_svg(page.scene)
    reason = escape(str(page.scene.get("reason") or "There is no graph at this stage."))
    drawn = image(graph, "Dataflow graph") if graph else f"<p>{reason}</p>"
    svgs = [svg for svg in map(figure_svg, page.figures) if svg]
    figures = "".join(f'<div style="margin-top:8px">{image(svg, "Figure")}</div>' for svg in svgs)
    part = "flex:1 1 460px;min-width:0;max-height:620px;overflow:auto"
    return (
        f'<div class="qx-still" style="{_BOX}">'
        f'<p style="margin:0 0 2px"><b style="font-size:15px">{escape(page.title)}</b> '
        f'<span style="color:#59636e">{escape(page.about)}</span></p>'
        f'<p style="margin:0 0 2px"><b>{escape(page.stage)}</b>{call}</p>{line}'
        f'<div style="display:flex;flex-wrap:wrap;gap:14px;align-items:flex-start">'
        f'<div style="{part}">{tree_table(page.rows, state=page.state)}</div>'
        f'<div style="{part}">{drawn}</div></div>{figures}'
        '<p style="margin:8px 0 0;color:#59636e">A picture of the explorer. Run the cell for the '
        "live page.</p></div>"
    )
