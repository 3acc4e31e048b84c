"""The drawer at the lower edge: a strip of tabs that is always in sight, and the chosen panel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import anywidget
import ipywidgets as widgets
import traitlets

from qatexplorer.widgets.common.assets import css, esm
from qatexplorer.widgets.explorer.splitter import Splitter


class TabStrip(anywidget.AnyWidget):
    """The tabs.

    Attributes:
        titles: of the tabs.
        selected: index of the chosen tab, both ways.
        opened: whether the drawer is open, both ways.
        settled: whether somebody has opened, closed or chosen; until then the browser puts back
            what it remembers of the last page.
    """

    _esm = esm("tabstrip")
    _css = css("explorer/drawer.css")

    titles: Any = traitlets.List(traitlets.Unicode()).tag(sync=True)
    selected: Any = traitlets.Int(0).tag(sync=True)
    opened: Any = traitlets.Bool(False).tag(sync=True)
    settled: Any = traitlets.Bool(False).tag(sync=True)


class Drawer(widgets.VBox):
    """Panels, of which one is shown while the drawer is open.

    ``panels`` has them by their titles. ``on_change()`` is called when another panel, or none, is
    in sight.
    """

    def __init__(self, panels: Mapping[str, widgets.Widget], on_change: Callable[[], None]) -> None:
        self.panels = tuple(panels.values())
        self.titles = tuple(panels)
        self.strip = TabStrip(titles=list(panels))
        self.pages = widgets.Box(list(self.panels))
        self.pages.add_class("qx-pages")
        self.strip.observe(lambda _change: on_change(), ["selected", "opened"])
        super().__init__([Splitter("drawer"), self.strip, self.pages])
        self.add_class("qx-drawer")
        self.add_class("qx-part-drawer")

    def show_panel(self, panel: widgets.Widget) -> None:
        """Open the drawer on ``panel``. Raises ValueError if it is none of the panels."""
        at = self.panels.index(panel)
        with self.strip.hold_sync():
            self.strip.selected, self.strip.opened, self.strip.settled = at, True, True

    def exchange(self, panel: widgets.Widget, instead: widgets.Widget, title: str) -> None:
        """Let ``panel`` have the tab of ``instead``, under ``title``. Raises ValueError if
        ``instead`` is none of the panels."""
        at = self.panels.index(instead)
        self.panels = (*self.panels[:at], panel, *self.panels[at + 1 :])
        self.titles = (*self.titles[:at], title, *self.titles[at + 1 :])
        self.pages.children = self.panels
        self.strip.titles = list(self.titles)

    def call(self, panel: widgets.Widget, title: str) -> None:
        """Give the tab of ``panel`` another title. Raises ValueError if there is no such panel."""
        at = self.panels.index(panel)
        if self.titles[at] != title:
            self.titles = (*self.titles[:at], title, *self.titles[at + 1 :])
            self.strip.titles = list(self.titles)

    def in_sight(self, panel: widgets.Widget) -> bool:
        """Whether ``panel`` is shown."""
        strip = self.strip
        return bool(strip.opened and self.panels[strip.selected] is panel)

    def close_drawer(self) -> None:
        """Leave the strip of tabs only."""
        with self.strip.hold_sync():
            self.strip.opened, self.strip.settled = False, True
