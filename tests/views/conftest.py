"""Figures are made without plotly's checks, which take most of the time; here they are made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import plotly.graph_objects as go
import pytest

from qatexplorer.views.common import theme


@pytest.fixture(autouse=True)
def plotly_checks_every_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    def checked(spec: dict[str, Any], _validate: bool = True) -> go.Figure:
        return go.Figure(spec)

    monkeypatch.setattr(theme, "go", SimpleNamespace(Figure=checked))
