"""A check makes one dry run, for its rules and for the session, and says one thing once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.checks.records import Finding, Fix
from qatexplorer.session.checked import without_generals
from qatexplorer.session.models import Models
from tests.support.models import ConvBnRelu, NoStubs, PlainAdd, Residual, image, loader

QUIET = pytest.mark.filterwarnings("ignore::qatexplorer.errors.QatExplorerWarning")


@QUIET
@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_a_check_converts_once(
    flow: str, calibrated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = image()
    session = qx.Session(Residual(), x, flow=flow, data={"train": loader(x), "eval": loader(x)})
    if calibrated:
        session.calibrate(1)
    made: list[str] = []
    for name in ("rebuild", "convert_copy"):
        usual = getattr(Models, name)

        def counted(*args: Any, usual: Any = usual, name: str = name, **named: Any) -> Any:
            made.append(name)
            return usual(*args, **named)

        monkeypatch.setattr(Models, name, counted)
    found = session.check()
    assert made.count("convert_copy") == 1
    assert found.with_id("int8-fails") == ()
    session.findings()  # it knows what the check has tried
    assert made.count("convert_copy") == 1


@QUIET
@pytest.mark.parametrize("calibrated", [False, True])
def test_a_check_runs_the_model_four_times(
    calibrated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The float model, the prepared one without and with rounding, the int8 one."""
    x = image()
    session = qx.Session(ConvBnRelu(), x, data={"train": loader(x), "eval": loader(x)})
    if calibrated:
        session.calibrate(1)
    ran: list[str] = []
    usual = nn.Module.__call__

    def counted(self: nn.Module, *args: Any, **named: Any) -> Any:
        if isinstance(self, ConvBnRelu):
            ran.append(type(self).__name__)
        return usual(self, *args, **named)

    monkeypatch.setattr(nn.Module, "__call__", counted)
    session.check()
    assert len(ran) == 4


@QUIET
@pytest.mark.parametrize("make", [NoStubs, PlainAdd])
def test_what_the_dry_run_shows_is_what_a_trial_shows(make: Any) -> None:
    x = image() if make is NoStubs else torch.randn(4, 6)
    tried, checked = qx.Session(make(), x), qx.Session(make(), x)
    by_trial = tried.findings()
    checked.check()
    by_check = [one for one in checked.findings() if one.id.startswith("QX9")]
    assert [(one.id, one.path, one.message) for one in by_trial] == [
        (one.id, one.path, one.message) for one in by_check
    ]


def finding(name: str, path: str, *, severity: Any = "error", **more: Any) -> Finding:
    return Finding("QX000", name, severity, path, "convert", f"{name} at {path}", **more)


def test_a_cause_replaces_the_general_error_of_its_place_and_takes_its_fixes() -> None:
    fix = Fix("Use FX", "configure", (("flow", "fx"),))
    general = finding("int8-fails", "body.conv", fixes=(fix,))
    cause = finding("string-padding", "body.conv")
    elsewhere = finding("string-padding", "other")
    found, left = without_generals((cause, elsewhere), (general,))
    assert left == ()
    assert found[0].fixes == (fix,)
    assert found[1].fixes == ()


def test_a_general_error_of_another_place_or_without_a_cause_stays() -> None:
    general = finding("int8-fails", "body.conv", source="net.py:3")
    for other in (
        finding("string-padding", "other"),
        finding("hint", "body.conv", severity="warning"),
        finding("float-parity", "body.conv"),
    ):
        assert without_generals((other,), (general,)) == ((other,), (general,))
    nowhere = finding("int8-fails", "")
    assert without_generals((finding("hooks", ""),), (nowhere,))[1] == (nowhere,)
    same_line = finding("by-keyword", "", source="net.py:3")
    assert without_generals((same_line,), (general,))[1] == ()
    assert without_generals((same_line,), (finding("no-stub", "body.conv"),))[1] != ()
