"""Rules that give modules another qconfig: whom they match, what they make, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.ao.quantization import QConfigMapping, get_default_qat_qconfig

import qatexplorer as qx
from qatexplorer.errors import QConfigError
from qatexplorer.flows.module_rules import QConfigRule, QuantSpec
from qatexplorer.flows.rules_text import read_rules, rules_text
from qatexplorer.forward.noise import noise_of

FOUR = QuantSpec(bits=4, per_channel=True, symmetric=True)


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


@pytest.mark.parametrize("flow", ["eager", "fx"])
@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("0", [16, 256, 256]),
        ("3", [256, 16, 256]),
        ("type:Conv2d", [16, 16, 256]),
        ("re:[35]", [256, 16, 16]),
        (["0", "5"], [16, 256, 16]),
        ("", [16, 16, 16]),
    ],
)
def test_a_rule_holds_for_whom_it_names(flow: str, where: object, expected: list[int]) -> None:
    walk = session(flow)
    walk.set_qconfig(where, weight=FOUR)  # type: ignore[arg-type]
    assert codes(walk) == expected


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_only_what_a_rule_names_is_changed(flow: str) -> None:
    walk, plain = session(flow), session(flow)
    walk.set_qconfig("0", weight=FOUR)
    assert codes(walk, "output") == codes(plain, "output")
    walk.set_qconfig("0", activation=QuantSpec(bits=3))
    assert codes(walk)[0] == 256  # a rule for the same place is replaced
    assert 8 in codes(walk, "output")


def test_the_later_rule_wins_and_what_is_named_inside_is_more_than_what_is_around() -> None:
    walk = session()
    walk.set_qconfig("3", in_float=True)
    assert codes(walk) == [256, 256]
    walk.set_qconfig("3.0", weight=FOUR, activation=QuantSpec())
    assert codes(walk) == [256, 16, 256]
    walk.set_qconfig("type:Sequential", weight=FOUR)
    assert [rule.where for rule in walk.qconfig_rules] == ["3", "3.0", "type:Sequential"]
    assert codes(walk) == [16, 16, 16]
    assert set(walk.ruled()) == {path for path, _ in net().named_modules()}


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
    rows = {(row.owner, row.kind): row for row in walk.preview(rules, ["0"])}
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


def test_a_preview_of_what_is_left_in_float_has_no_grid() -> None:
    walk = session()
    rows = walk.preview(walk.with_rule("5", in_float=True), ["5"])
    assert {row.kind for row in rows} == {"weight", "output"}
    assert all(row.before_db is not None and row.after_db is None for row in rows)
    assert all(row.site is None and row.histogram is None for row in rows)


@pytest.mark.parametrize("form", ["toml", "json"])
def test_rules_come_back_from_their_text(form: str, tmp_path: Path) -> None:
    odd = 're:a"b\\.\n\x7f\t[é]'
    rules = (
        QConfigRule("0", weight=FOUR, activation=QuantSpec("histogram", 5, reduce_range=True)),
        QConfigRule(odd, in_float=True),
    )
    assert read_rules(rules_text(rules, form)) == rules  # type: ignore[arg-type]
    walk, other = session(), session()
    walk.set_qconfig(["0", "type:Linear"], weight=FOUR)
    file = tmp_path / f"rules.{form}"
    walk.save_qconfig(file)
    other.load_qconfig(file)
    assert other.qconfig_rules == walk.qconfig_rules
    assert codes(other) == [16, 256, 16]


def test_a_refused_rule_changes_nothing() -> None:
    walk = session()
    walk.goto("insert")
    for where, spec in (("nowhere", FOUR), ("0", QuantSpec(bits=9)), ("re:(", FOUR)):
        with pytest.raises(QConfigError):
            walk.set_qconfig(where, weight=spec)
    assert walk.stage == "insert"
    assert walk.qconfig_rules == ()
