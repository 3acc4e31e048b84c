"""What errors of the PT2E flow say to do, done."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest

import qatexplorer as qx
from qatexplorer.app.session_of import check_settings
from qatexplorer.errors import InputError, QConfigError, StageError
from qatexplorer.takehome.script import script_of
from tests.support.pt2e_runs import Normed, plain, session
from tests.support.toy_flow import ToyFlow
from tests.support.training_models import data, one_thread  # noqa: F401


@pytest.fixture(scope="module")
def inserted() -> qx.Session:
    one = session()
    one.calibrate(1)
    return one


def test_modules_left_in_float() -> None:
    """Use quantizer='x86' or 'arm', or leave the module out in your own annotate."""
    kept = {"conv": None, "": "x86"}
    words = "conv cannot be left in float: XNNPACKQuantizer"
    with pytest.raises(InputError, match=words) as raised:
        session(quantizer="xnnpack", qconfig=kept).goto("insert")
    assert raised.value.fix == (
        "Use quantizer='x86' or 'arm', or leave the module out in your own annotate."
    )
    for name in ("x86", "arm"):
        one = session(quantizer=name, qconfig=kept)
        one.goto("insert")
        assert "conv" not in {site.owner for site in one.snapshot.sites if site.kind == "weight"}


def test_bits_of_a_proposal(inserted: qx.Session) -> None:
    """Use treatment='float'."""
    with pytest.raises(InputError, match="no proposal can give weights 4 bits") as raised:
        inserted.propose(max_drop=0.1, treatment=4)
    assert raised.value.fix == "Use treatment='float'."
    inserted.sensitivity("gradient")
    assert inserted.propose(max_drop=0.1, treatment="float").points


def test_a_quantizer_for_a_proposal(inserted: qx.Session) -> None:
    """Use a session with quantizer='x86'."""
    with pytest.raises(InputError, match="no module can be left in float on its own") as raised:
        session(quantizer="xnnpack").propose(max_drop=0.1)
    assert raised.value.fix == "Use a session with quantizer='x86'."
    inserted.sensitivity("gradient")
    assert inserted.propose(max_drop=0.1).points


def test_a_flow_that_has_no_script(inserted: qx.Session) -> None:
    """Use flow='eager', 'fx' or 'pt2e'."""
    walk = inserted._walk()
    with pytest.raises(InputError, match="cannot be written as a script") as raised:
        script_of(replace(walk, flow=ToyFlow()))
    assert raised.value.fix == "Use flow='eager', 'fx' or 'pt2e'."
    assert "prepare_qat_pt2e" in script_of(walk)


def gamma(value: float) -> qx.Session:
    model = plain(Normed)
    model.get_parameter("bn.weight").data.fill_(value)
    return qx.Session(model, data(1)[0][0][0], flow="pt2e", data=data(1))


def test_a_gamma_of_zero() -> None:
    """Train the float model first, or build it with zero_init_last=False."""
    with pytest.raises(qx.errors.DivergedError, match="Training diverged") as raised:
        gamma(0.0).train(1, progress=False)
    assert raised.value.where == "conv"
    assert "or build it with zero_init_last=False" in raised.value.fix
    assert gamma(1e-2).train(1, progress=False).state == "finished"


def arguments(**given: str | None) -> argparse.Namespace:
    usual = {"flow": "eager", "stubs": "none", "qconfig": None, "quantizer": None}
    return argparse.Namespace(**{**usual, **given})


def test_the_option_for_a_quantizer() -> None:
    """Leave --quantizer away, or take --flow pt2e."""
    with pytest.raises(InputError, match="--quantizer arm means nothing in flow eager") as raised:
        check_settings(arguments(quantizer="arm"))
    assert "decided by its qconfig" in raised.value.why
    assert raised.value.fix == "Leave --quantizer away, or take --flow pt2e."
    check_settings(arguments())
    check_settings(arguments(quantizer="arm", flow="pt2e"))
    with pytest.raises(InputError, match="there is no quantizer 'leg'"):
        check_settings(arguments(quantizer="leg", flow="pt2e"))


def test_what_needs_modules_or_a_qconfig_says_so(inserted: qx.Session) -> None:
    why = {cure.name: cure.why_not for cure in inserted.cures}
    assert "operations of a graph" in why["biases"]
    assert "operations of a graph" in why["batch_norms"]
    assert "decided by the quantizer" in why["ranges"]
    with pytest.raises(QConfigError, match="a rule of the qconfig decides nothing") as raised:
        inserted.set_qconfig("conv", to_float=True)
    assert "decided by the quantizer" in raised.value.why
    inserted.goto("lower")
    with pytest.raises(StageError, match="cannot be worked out by hand") as hand:
        inserted.int8_layer("conv")
    assert "session.compare()" in hand.value.why
    assert "quantizer x86" in repr(inserted)
