"""The kernel's side of ``bench_page``: epochs under the explorer and the same loop bare."""

from __future__ import annotations

import statistics
import threading
import time

import ipywidgets as widgets
import torch
from IPython.display import display
from torch import nn
from torch.nn import functional as F

import qatexplorer as qx
from qatexplorer.flows.base import copy_sharing_parameters, own_parameters

EPOCHS = 4


def bare_epochs(model: nn.Module, data: qx.Data) -> float:
    """Seconds of an epoch of the plainest loop: no telemetry, no page, evaluation as in a run."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    times = []
    for _ in range(EPOCHS):
        start = time.perf_counter()
        model.train()
        for inputs, target in data.train:
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), target).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            for inputs, target in data.eval:
                (model(inputs).argmax(1) == target).float().mean().item()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def watched_epochs(session: qx.Session) -> float:
    """Seconds of an epoch in the explorer's own run, with the page following it."""
    run = session.start_training(epochs=EPOCHS)
    run.wait()
    return statistics.median(e.seconds for e in run.history.epochs)


def show(rounds: int) -> None:
    """An explorer with a fake quant selected, and a button that measures."""
    example = qx.zoo.load("digits_cnn")
    explorer = qx.explore(example.model, example.example_inputs, data=example.data)
    session = explorer.session
    assert session is not None
    session.goto("train")
    explorer.select("site:conv2.activation_post_process")
    button = widgets.Button(description="Measure")
    result = widgets.HTML("")
    result.add_class("bench-result")

    def body() -> None:
        bare, watched = [], []
        for _ in range(rounds):
            model = copy_sharing_parameters(session._models.work)
            own_parameters(model)
            bare.append(bare_epochs(model, example.data))
            watched.append(watched_epochs(session))
        ratio = statistics.median(w / b for w, b in zip(watched, bare, strict=True))
        text = (
            f"measured: QAT epoch {statistics.median(bare):.3f} s bare, "
            f"{statistics.median(watched):.3f} s with the page open and histograms live; "
            f"median ratio {ratio:.2f} of {rounds} pairs (target 1.10)"
        )
        explorer.bridge.post("bench", lambda: setattr(result, "value", text))

    button.on_click(lambda _: threading.Thread(target=body, daemon=True).start())
    display(widgets.VBox([button, result, explorer]))
