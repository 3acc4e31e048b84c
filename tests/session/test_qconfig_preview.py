"""What rules of the qconfig would do, and which of them say what of each module."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.ao.quantization import QConfigMapping, get_default_qat_qconfig

import qatexplorer as qx
from qatexplorer.errors import QConfigError
from qatexplorer.flows.exceptions import with_exceptions
from qatexplorer.flows.quant_spec import QuantSpec
from qatexplorer.forward.noise import noise_of

FOUR = QuantSpec(bits=4, signed=True, scheme="symmetric", per_channel=True)


def net() -> nn.Module:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), block, nn.Flatten(), nn.Linear(64, 3)
    ).train()


def session(flow: str = "eager", **settings: object) -> qx.Session:
    stubs = {"stubs": "model"} if flow == "eager" else {}
    inputs = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    given = {"flow": flow, "qconfig": "onednn", **stubs, **settings}
    return qx.Session(net(), inputs, **given)  # type: ignore[arg-type]


def codes(walk: qx.Session, kind: str = "weight") -> list[int]:
    """Codes of each fake quant of a kind, in order."""
    walk.goto(walk.flow.prepared_stage)
    sites = [site for site in walk.snapshot.sites if site.kind == kind]
    return [site.quant_max - site.quant_min + 1 for site in sites]


def test_a_mapping_that_was_given_stays_around_the_rules() -> None:
    mapping = QConfigMapping().set_global(get_default_qat_qconfig("onednn"))
    mapping.set_module_name("5", None)
    walk = session("fx", qconfig=mapping)
    walk.set_qconfig("0", weight=FOUR)
    assert codes(walk) == [16, 256]
    assert "0" not in mapping.module_name_qconfigs


def test_undo_and_redo_and_rules_for_another_qconfig_are_gone() -> None:
    walk = session()
    walk.set_qconfig("0", weight=FOUR)
    walk.set_qconfig("5", weight=FOUR)
    walk.undo_qconfig()
    assert codes(walk) == [16, 256, 256]
    walk.redo_qconfig()
    assert codes(walk) == [16, 256, 16]
    assert not walk.can_redo_qconfig
    walk.configure(stubs="none")  # another setting
    assert len(walk.qconfig_rules) == 2
    walk.configure(qconfig="x86", stubs="model")
    assert walk.qconfig_rules == ()
    assert not walk.can_undo_qconfig
    assert codes(walk) == [256, 256, 256]


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_the_preview_is_what_preparing_gives_then(flow: str) -> None:
    walk = session(flow)
    rules = walk.with_rule("0", weight=FOUR)
    rows = {(row.owner, row.kind): row for row in walk.preview_rules(rules, ["0"])}
    assert walk.qconfig_rules == ()
    assert walk.reached == walk.stages[0]
    found = {}
    for name in ("before", "after"):
        if name == "after":
            walk.set_qconfig("0", weight=FOUR)
        walk.goto(walk.flow.prepared_stage)
        noise = noise_of(walk.copy_model(), walk.options.example_inputs)
        site = next(s for s in walk.snapshot.sites if s.kind == "weight")
        found[name] = noise[site.path]
    weight = rows["0", "weight"]
    assert (weight.before_db, weight.after_db) == pytest.approx((found["before"], found["after"]))
    assert weight.histogram is not None
    assert (weight.histogram.quant_min, weight.histogram.quant_max) == (-8, 7)
    assert weight.histogram.total == 36


def test_a_preview_of_what_is_left_to_float_has_no_grid() -> None:
    walk = session()
    rows = walk.preview_rules(walk.with_rule("5", to_float=True), ["5"])
    assert {row.kind for row in rows} == {"weight", "output"}
    assert all(row.before_db is not None and row.after_db is None for row in rows)
    assert all(row.site is None and row.histogram is None for row in rows)


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_a_preview_is_refused_as_the_rules_are(flow: str) -> None:
    walk = session(flow)
    affine = QuantSpec(signed=True, per_channel=True)  # onednn takes symmetric weights only
    for rules in (
        walk.with_rule("5", weight=affine),
        walk.with_rule("nowhere", to_float=True),
    ):
        with pytest.raises(QConfigError) as said:
            walk.preview_rules(rules, [""])
        with pytest.raises(QConfigError) as refused:
            walk.use_qconfig_rules(rules)
        assert said.value.message == refused.value.message


def test_a_preview_of_a_learned_step_size() -> None:
    walk = session()
    learned = QuantSpec(signed=True, scheme="symmetric", fake_quant="_LearnableFakeQuantize")
    [row] = [r for r in walk.preview_rules(walk.with_rule("5", weight=learned), ["5"])
             if r.kind == "weight"]  # fmt: skip
    assert row.before_db is not None
    assert row.after_db is not None
    assert 20 < row.after_db < 60
    assert row.histogram is not None


def test_each_part_of_a_module_has_its_own_rule() -> None:
    walk = session()
    assert walk.ruled() == {}
    walk.set_qconfig("Conv2d", by="type", weight=FOUR)
    walk.set_qconfig(r"\d", by="regex", activation=QuantSpec(bits=6))
    walk.set_qconfig("5", to_float=True)
    ruled = walk.ruled()
    kinds = {path: {part: rule.by for part, rule in of.items()} for path, of in ruled.items()}
    assert kinds["0"] == {"activation": "regex", "weight": "type"}
    assert kinds["5"] == {"activation": "path", "weight": "path"}
    assert kinds["2"] == {"activation": "regex"}
    assert "" not in kinds


def test_what_others_change_cannot_be_undone_over_it() -> None:
    walk = session()
    walk.set_qconfig("0", weight=FOUR)
    assert walk.can_undo_qconfig
    walk.configure(qconfig="x86")
    assert not walk.can_undo_qconfig
    walk.undo_qconfig()
    assert walk.qconfig_rules == ()
    walk.set_qconfig("5", weight=FOUR)
    walk.undo_qconfig()
    assert walk.qconfig_rules == ()
    assert not walk.can_undo_qconfig


def test_a_proposal_that_leaves_a_module_in_float_wins_over_its_rule() -> None:
    walk = session()
    walk.set_qconfig(["0", "5"], weight=FOUR)
    plan = with_exceptions(walk.options.qconfig, {"5": None})
    walk.configure(qconfig=plan)
    assert codes(walk) == [16, 256]
