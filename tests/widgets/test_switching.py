"""The inspector's button that switches fake quants off, and on again, off the loop."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.session.session import Session
from qatexplorer.widgets.explorer.explorer import Explorer
from tests.support.page_text import visible_text
from tests.support.waiting import until

pytest.importorskip("torchao")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.last = nn.Linear(32, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.last(torch.relu(self.fc(x)))
        return y


def opened(flow: str) -> tuple[Explorer, Session]:
    torch.manual_seed(0)
    x = torch.randn(4, 32)
    data = [(x, torch.tensor([0, 1, 2, 3]))]
    made = qx.explore(Net().train(), x, flow=flow, data={"train": data, "eval": data})
    session = made.session
    assert session is not None
    session.goto(session.flow.prepared_stage)
    return made, session


def said(explorer: Explorer) -> str:
    inspector = explorer.panes.inspector
    return visible_text(inspector.panel.html + inspector.details.html)


def ask(explorer: Explorer) -> None:
    explorer.panes.inspector.details._handle_custom_msg({"ask": "switching"}, [])


@pytest.mark.parametrize("flow", ["pt2e", "torchao"])
def test_the_answer_comes_and_goes_with_the_model(
    flow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    explorer, session = opened(flow)
    if session.flow.calibrates:
        session.calibrate(1)
    threads: list[threading.Thread] = []
    made = Session.switching

    def switching(self: Session) -> Any:
        threads.append(threading.current_thread())
        return made(self)

    monkeypatch.setattr(Session, "switching", switching)
    explorer.select("module:fc")
    until(lambda: "Not tried with the model" in said(explorer))
    assert session.last_switching is None
    ask(explorer)
    until(lambda: "Yes: without the" in said(explorer))
    found = session.last_switching
    assert found is not None
    assert f"differs by up to {found.output:.3g}" in said(explorer)
    assert "on, it rounds; off, it passes the tensor on unchanged." in said(explorer)
    assert threads
    assert threading.main_thread() not in threads
    session.train(epochs=1, progress=False)
    assert session.last_switching is None
    until(lambda: "Not tried with the model" in said(explorer))


def test_where_there_is_nothing_to_switch_there_is_no_question() -> None:
    explorer, session = opened("torchao")
    session.goto("convert")
    explorer.select("module:fc")
    until(lambda: "torchao's tensors" in said(explorer))
    assert "Does switching" not in said(explorer)
