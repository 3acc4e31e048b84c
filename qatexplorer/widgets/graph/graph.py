"""The dataflow graph as a two-way widget: the browser lays out, draws and selects."""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets

from qatexplorer.widgets.common.assets import esm, read_text
from qatexplorer.widgets.common.packed import PackedTrait


class GraphWidget(anywidget.AnyWidget):
    """Layered picture of a model's dataflow, grouped by module, with its fake quants.

    It computes nothing: ``scene`` comes from :func:`qatexplorer.views.graph.scene.build_scene`.

    Traits, all synchronized with the page:

    - ``scene`` (in): what to draw. A new one keeps pan, zoom, open groups and selection; ``{}``
      shows an empty canvas, a scene with ``reason`` says why there is nothing.
    - ``selected`` (both ways): selection string: ``"module:<path>"``, ``"site:<path>"``,
      ``"node:<id>"``, ``"edge:<source>:<target>"`` or ``""``. Set from Python, the groups around
      the thing are opened and it is panned into view, if it is not in view already; a click or a
      key in the page sets it without moving anything.
    - ``opened`` (both ways): ids of the open groups, least recently used first. Left empty, the
      first picture opens a small model fully and a large one not at all.
    - ``identities`` (both ways): whether ``nn.Identity`` modules that only pass a tensor on are
      drawn as boxes; else an edge with a dot stands for them.
    - ``height`` (in): of the drawing, in CSS px; where what holds the widget has a height of its
      own, the widget fills that.
    - ``dark`` (out): whether the page's theme is dark.
    - ``status`` (out): what happened last, such as ``"laid out 34 marks in 12 ms"``, ``"collapsed
      layer1 to stay under 300 marks; …"`` or ``"cancelled"``.
    - ``metrics`` (out): of the last picture: ``what`` (``"scene"``, ``"open"``, ``"close"``,
      ``"root"``, ``"direction"``, ``"identities"``), ``marks``, ``layout_ms``, ``draw_ms``,
      ``total_ms``.
    - ``overlay`` (in): numbers to colour by, from
      :func:`qatexplorer.views.graph.overlays.overlay_picture`, or ``title`` with ``busy`` (what is
      being measured) or ``error``; ``{}`` for none.
    - ``compared`` (in): of two graphs side by side, from
      :func:`qatexplorer.views.graph.compare.compared_picture`; ``{}`` where there is one.
    - ``findings`` (in): marks at selection strings, from
      :func:`qatexplorer.views.checks.marks.finding_marks`.
    - ``pickers`` (in): selects in the tool bar: ``id``, ``label``, ``title``, ``options`` (value
      and text of each).
    - ``picked`` (both ways): what is chosen, by ``id`` of the picker.
    """

    _esm = esm("graph")
    _css = read_text("graph/graph.css") + read_text("graph/overlay.css")

    scene: Any = PackedTrait({})
    selected = traitlets.Unicode("").tag(sync=True)
    opened = traitlets.List(traitlets.Unicode()).tag(sync=True)
    identities = traitlets.Bool(False).tag(sync=True)
    height = traitlets.Int(520).tag(sync=True)
    dark = traitlets.Bool(False).tag(sync=True)
    status = traitlets.Unicode("").tag(sync=True)
    metrics = traitlets.Dict().tag(sync=True)
    overlay: Any = PackedTrait({})
    compared: Any = PackedTrait({})
    findings = traitlets.Dict().tag(sync=True)
    pickers = traitlets.List(traitlets.Dict()).tag(sync=True)
    picked = traitlets.Dict().tag(sync=True)

    def __init__(self, scene: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(scene=scene or {}, **kwargs)
