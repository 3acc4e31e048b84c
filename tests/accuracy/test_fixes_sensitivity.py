"""Each fix of the sensitivity, to the letter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.errors import QatExplorerError
from tests.accuracy.sensitivity_models import session_of
from tests.support.models import ConvBnRelu, image, loader


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(QatExplorerError) as caught:
        call()
    return caught.value.fix


def new(**settings: Any) -> qx.Session:
    torch.manual_seed(0)
    data = {"train": loader(image()), "eval": loader(image())}
    session = qx.Session(ConvBnRelu().train(), image(), data=data, **settings)
    session.warns = False
    return session


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_too_early(flow: str) -> None:
    session = new(flow=flow)
    fix = refused(session.sensitivity)
    assert fix == f"Call session.goto({session.flow.prepared_stage!r}) first."
    session.goto(session.flow.prepared_stage)
    assert "Call session.calibrate() or session.train(1) first." in refused(session.sensitivity)
    session.calibrate()
    assert session.sensitivity().complete
    trained = new(flow=flow)
    trained.train(1, progress=False)
    assert trained.sensitivity().complete


def test_without_fake_quants() -> None:
    session = new(qconfig={"": None})
    session.goto(session.flow.prepared_stage)
    fix = refused(session.sensitivity)
    assert fix == "Choose a qconfig of QAT, such as qconfig='onednn'."
    session.configure(qconfig="onednn")
    session.calibrate()
    assert session.sensitivity().rows


def test_arguments() -> None:
    session = new()
    session.calibrate()
    fix = refused(lambda: session.sensitivity("hessian"))  # type: ignore[arg-type]
    assert "The methods are: " in fix
    for method in ("exact", "shadow", "gradient"):
        assert repr(method) in fix
        assert session.sensitivity(method).rows  # type: ignore[arg-type]
    fix = refused(lambda: session.sensitivity(batches=0))
    assert fix == "Pass a number of batches, or batches=None for all."
    assert session.sensitivity(batches=None).batches == 2
    fix = refused(lambda: session.sensitivity(metric_mode="up"))  # type: ignore[arg-type]
    assert fix == "Use 'max' where a high metric is good, 'min' where a low one is."
    assert session.sensitivity(metric_mode="min").metric_mode == "min"
    fix = refused(lambda: session.sensitivity(memory_mb=-1))
    assert fix == "Pass 0 to remember nothing, or more."
    assert session.sensitivity(memory_mb=0).rows


def test_no_batches() -> None:
    session = session_of("conv_bn_relu")
    assert session.data is not None
    full = session.data
    session.data = qx.Data(full.train, [])
    fix = refused(session.sensitivity)
    assert fix == "Pass data whose eval part yields (input, target) batches."
    session.data = full
    assert session.sensitivity().rows


def test_a_loss_without_gradient() -> None:
    session = session_of("conv_bn_relu", loss=lambda out, y: (out.argmax(1) != y).float().mean())
    fix = refused(lambda: session.sensitivity("gradient"))
    assert fix == "Pass a loss=function(output, target) of torch operations to the session."
    other = session_of("conv_bn_relu", loss=lambda out, y: nn.functional.cross_entropy(out, y))
    assert other.sensitivity("gradient").rows


def test_a_busy_session() -> None:
    session, fixes = session_of("conv_bn_relu"), []

    def look(what: str, share: float) -> None:
        fixes.append(refused(lambda: session.calibrate(1)))

    stopped = session.sensitivity(progress=look, should_stop=lambda: len(fixes) > 2)
    assert fixes[0] == "Stop the measurement first, or wait for it."
    assert not stopped.complete
    session.calibrate(1)


def test_folders(tmp_path: Path) -> None:
    session_of("residual").sensitivity("shadow", folder=tmp_path)
    session = session_of("conv_bn_relu")
    fix = refused(lambda: session.sensitivity("shadow", folder=tmp_path))
    assert fix == "Choose another folder, or delete that file."
    assert session.sensitivity("shadow", folder=tmp_path / "other").rows
    (tmp_path / "sensitivity-shadow.json").write_text("[]")
    assert refused(lambda: session.sensitivity("shadow", folder=tmp_path)) == fix
    (tmp_path / "sensitivity-shadow.json").unlink()
    assert session.sensitivity("shadow", folder=tmp_path).rows
    (tmp_path / "file").write_text("")
    fix = refused(lambda: session.sensitivity("shadow", folder=tmp_path / "file" / "below"))
    assert fix == "Choose a folder that can be written to."
    assert session.sensitivity("shadow", folder=tmp_path / "good").rows
