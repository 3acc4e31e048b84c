"""Each fix of the errors of qconfig rules, done to the letter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.errors import QConfigError
from qatexplorer.flows.module_rules import QConfigRule, QuantSpec
from qatexplorer.flows.rules_text import read_rules

WEIGHT = QuantSpec(symmetric=True)


def session(**settings: object) -> qx.Session:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()).train()
    given = {"qconfig": "onednn", "stubs": "model", **settings}
    return qx.Session(model, torch.randn(2, 1, 6, 6), **given)  # type: ignore[arg-type]


def fix_of(rule: QConfigRule) -> str:
    with pytest.raises(QConfigError) as refused:
        session().use_qconfig_rules([rule])
    assert refused.value.fix is not None
    return refused.value.fix


@pytest.mark.parametrize(
    ("refused", "said", "possible"),
    [
        (
            QConfigRule("0", weight=WEIGHT, in_float=True),
            "Leave out the specs, or in_float.",
            QConfigRule("0", weight=WEIGHT),
        ),
        (
            QConfigRule("0"),
            "Give a QuantSpec for one of them, or in_float=True.",
            QConfigRule("0", weight=WEIGHT),
        ),
        (
            QConfigRule("0", QuantSpec("minmax")),  # type: ignore[arg-type]
            "Choose one of moving_average, min_max, histogram.",
            QConfigRule("0", QuantSpec("min_max")),
        ),
        (
            QConfigRule("0", QuantSpec(bits=9)),
            "Choose 2 to 8 bits.",
            QConfigRule("0", QuantSpec(bits=2)),
        ),
        (
            QConfigRule("0", QuantSpec(per_channel=True)),
            "Quantize activations per tensor; weights may be per channel.",
            QConfigRule("0", QuantSpec(), QuantSpec(per_channel=True, symmetric=True)),
        ),
        (
            QConfigRule("0", weight=QuantSpec("histogram", per_channel=True, symmetric=True)),
            "Choose moving_average or min_max, or one grid per tensor.",
            QConfigRule("0", weight=QuantSpec("histogram", symmetric=True)),
        ),
        (
            QConfigRule("0", weight=QuantSpec()),
            "Choose symmetric weights.",
            QConfigRule("0", weight=WEIGHT),
        ),
        (
            QConfigRule("0", QuantSpec(bits=4, reduce_range=True)),
            "Leave out reduce_range below 8 bits.",
            QConfigRule("0", QuantSpec(bits=4)),
        ),
        (
            QConfigRule("re:(", weight=WEIGHT),
            "Write one that re.match takes, such as 're:layer1.*'.",
            QConfigRule("re:0.*", weight=WEIGHT),
        ),
        (QConfigRule("type:Conv", weight=WEIGHT), "Nearest: type:Conv2d.",
         QConfigRule("type:Conv2d", weight=WEIGHT)),
        (
            QConfigRule("zzz", weight=WEIGHT),
            "Take a path or a type of a module that model.named_modules() lists.",
            QConfigRule("0", weight=WEIGHT),
        ),
    ],
)  # fmt: skip
def test_a_rule_that_is_refused(refused: QConfigRule, said: str, possible: QConfigRule) -> None:
    assert fix_of(refused) == said
    walk = session()
    walk.use_qconfig_rules([possible])
    walk.goto(walk.flow.int8_stage)


def test_affine_weights_on_an_engine_that_takes_them() -> None:
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("needs fbgemm")
    walk = session(qconfig="fbgemm")
    walk.set_qconfig("0", weight=QuantSpec())
    walk.goto(walk.flow.int8_stage)


def test_half_a_qconfig() -> None:
    walk = session(qconfig={"0": None})
    with pytest.raises(QConfigError) as refused:
        walk.set_qconfig("0", weight=WEIGHT)
    assert refused.value.fix == "Give a QuantSpec for the activation too."
    walk.set_qconfig("0", weight=WEIGHT, activation=QuantSpec())
    walk.goto(walk.flow.int8_stage)


def test_nothing_to_undo() -> None:
    walk = session()
    for back in (walk.undo_qconfig, walk.redo_qconfig):
        with pytest.raises(QConfigError) as refused:
            back()
        assert refused.value.fix == "Change the qconfig first, with set_qconfig."
    walk.set_qconfig("0", weight=WEIGHT)
    walk.undo_qconfig()
    walk.redo_qconfig()


FORM = 'Write [[rule]] with where = "conv1" and weight = { bits = 4, symmetric = true }.'
SPEC_KEYS = (
    "Of these keys there may be some: observer, bits, per_channel, symmetric, reduce_range; "
    "bits is a number, observer a word, the others are true or false."
)
GOOD = '[[rule]]\nwhere = "conv1"\nweight = { bits = 4, symmetric = true }\n'


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("[[", FORM),
        ("{", FORM),
        ("rules = []", FORM),
        ("[[rule]]\nbits = 4", FORM),
        ('[[rule]]\nwhere = "conv1"\nweight = 4', FORM),
        (
            '[[rule]]\nwhere = "conv1"\nbits = 4',
            "Of these keys there may be some: where, float, activation, weight.",
        ),
        (
            '[[rule]]\nwhere = "conv1"\nweight = { bit = 4 }',
            SPEC_KEYS,
        ),
    ],
)
def test_a_text_that_is_not_understood(text: str, fix: str) -> None:
    with pytest.raises(QConfigError) as refused:
        read_rules(text)
    assert refused.value.fix == fix
    [rule] = read_rules(GOOD)
    assert rule == QConfigRule("conv1", weight=QuantSpec(bits=4, symmetric=True))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    walk = session()
    with pytest.raises(QConfigError) as refused:
        walk.load_qconfig(tmp_path / "none.toml")
    assert refused.value.fix == "Name a file that save_qconfig has written."
    walk.set_qconfig("0", weight=WEIGHT)
    walk.save_qconfig(tmp_path / "some.toml")
    session().load_qconfig(tmp_path / "some.toml")
