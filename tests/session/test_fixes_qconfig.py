"""The fixes of specs, rules, their files and of a session that edits them do what they say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qatexplorer.errors import QConfigError
from qatexplorer.flows.qconfig_rules import QConfigRule
from qatexplorer.flows.quant_spec import QuantSpec
from qatexplorer.flows.rules_file import read_rules, write_rules
from tests.support.qconfig_session import W4, Net, X, session_of

Kept = dict[str, Any]
PLAIN, MINMAX, HISTOGRAM = "FakeQuantize", "MinMaxObserver", "HistogramObserver"
LEARNED = "_LearnableFakeQuantize"


@pytest.mark.parametrize(
    ("wrong", "fix", "right"),
    [
        ({"bits": 1}, "a whole number from 2 to 8", {"bits": 2}),
        ({"signed": 1}, "true or false", {"signed": True}),
        ({"scheme": "odd"}, "Give scheme one of", {"scheme": "affine"}),
        ({"eps": 2}, "a number above 0 and at most 1", {"eps": 1e-3}),
        ({"bit": 8}, "Its settings are bits", {"bits": 8}),
        (
            {"fake_quant": PLAIN, "observer": HISTOGRAM, "per_channel": True},
            "Set per_channel to false, or observer to 'MinMaxObserver'",
            {"fake_quant": PLAIN, "observer": MINMAX, "per_channel": True},
        ),
        (
            {"observer": MINMAX},
            "Set fake_quant to 'FakeQuantize' with that observer",
            {"fake_quant": PLAIN, "observer": MINMAX},
        ),
        (
            {"fake_quant": PLAIN, "observer": MINMAX, "averaging_constant": 0.5},
            "Leave averaging_constant out, or set observer to 'MovingAverageMinMaxObserver'",
            {"fake_quant": PLAIN, "observer": MINMAX},
        ),
        (
            {"fake_quant": LEARNED, "reduce_range": True},
            "Leave reduce_range out and take one bit less",
            {"fake_quant": LEARNED, "bits": 7},
        ),
        (
            {"narrow_range": True},
            "Leave narrow_range out, or set signed to true",
            {"narrow_range": True, "signed": True},
        ),
    ],
)
def test_specs(wrong: Kept, fix: str, right: Kept) -> None:
    assert fix in fix_of(lambda: QuantSpec.from_json(wrong))
    QuantSpec.from_json(right).make()


@pytest.mark.parametrize(
    ("wrong", "fix", "right"),
    [
        (
            {"path": 3, "float": True},
            "Give where a path, a pattern or a type's name",
            {"path": "a"},
        ),
        ({"path": ""}, "is where='' and by='model'; all else has a name", {"model": ""}),
        ({"float": True}, "Give each rule one of the keys", {"path": "a"}),
        ({"path": "a", "run": 1}, "activation, weight and float", {"path": "a"}),
        ({"path": "a", "float": 1}, "true or false", {"path": "a"}),
        ({"path": "a", "weight": 4}, "a table, { bits = 8 }", {"path": "a"}),
        (
            {"path": "a", "float": False},
            "Give it activation, weight or both, or leave it in float",
            {"path": "a"},
        ),
        (
            {"regex": "("},
            "Correct the regular expression, or name the modules by a glob",
            {"glob": "("},
        ),
    ],
)
def test_rules(wrong: Kept, fix: str, right: Kept) -> None:
    wrong = wrong if len(wrong) > 1 or "float" in wrong else {**wrong, "float": True}
    assert fix in fix_of(lambda: QConfigRule.from_json(wrong))
    QConfigRule.from_json({**right, "float": True})


def test_records_given_by_hand() -> None:
    wrong: Any = {"by": "name"}
    assert "Give by one of" in fix_of(lambda: QConfigRule("a", to_float=True, **wrong))
    wrong = {"weight": 4}
    assert "a QuantSpec, or leave it out" in fix_of(lambda: QConfigRule("a", **wrong))
    QConfigRule("a", "path", weight=W4)


RULE = '[[rule]]\npath = "a"\nfloat = true\n'


@pytest.mark.parametrize(
    ("wrong", "fix", "right"),
    [
        ("format = 1\nrules = 2", "write each rule below its own [[rule]]", f"format = 1\n{RULE}"),
        (RULE, "Write format =", f"format = 1\n{RULE}"),
        ("format = 1\nrule = 2", "Write [[rule]] before each", f"format = 1\n{RULE}"),
        ("format = ", "Correct the file at that line", "format = 1"),
        (f"format = 1\n{RULE}{RULE}", "Keep one of the two rules", f"format = 1\n{RULE}"),
    ],
)
def test_files(wrong: str, fix: str, right: str, tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text(wrong)
    assert fix in fix_of(lambda: read_rules(file))
    file.write_text(right)
    read_rules(file)


def test_names_of_files(tmp_path: Path) -> None:
    missing = tmp_path / "none" / "r.toml"
    assert "a file of rules that is there and is UTF-8 text" in fix_of(lambda: read_rules(missing))
    assert "a file in a folder that is there" in fix_of(lambda: write_rules(missing, ()))
    wrong = tmp_path / "r.yaml"
    assert "End the file's name in .toml or .json" in fix_of(lambda: write_rules(wrong, ()))
    assert read_rules(write_rules(tmp_path / "r.toml", ())) == ()


def test_sessions() -> None:
    session = session_of("eager")
    fix = fix_of(lambda: session.set_qconfig("fcc", weight=W4))
    assert "Nearest: fc" in fix
    fix = fix_of(lambda: session.set_qconfig("zzzzzz", weight=W4))
    assert "Take a path or a type of a module that model.named_modules() lists" in fix
    session.set_qconfig("fc", weight=W4)
    fix = fix_of(lambda: session.qconfig_at("fcc"))
    assert "Paths are those of the float stage's model.named_modules()" in fix
    assert set(dict(session.copy_model("float").named_modules())) == set(
        dict(Net().named_modules())
    )
    fix = fix_of(lambda: session.preview("block.1", W4, "weight"))
    assert "a path of the float stage whose module has a weight, or an output" in fix
    session.preview("block.1", W4, "activation")
    fix = fix_of(lambda: session.set_qconfig("fc", activation=QuantSpec(per_channel=True)))
    assert "Give weights signed symmetric codes, activations unsigned codes per tensor" in fix
    session.set_qconfig("fc", activation=QuantSpec(), weight=W4)


def test_a_module_that_does_not_run_has_no_output_to_preview() -> None:
    from torch import nn

    import qatexplorer as qx

    class Spare(Net):
        def __init__(self) -> None:
            super().__init__()
            self.spare = nn.Linear(2, 2)

    session = qx.Session(Spare().train(), X, qconfig="fbgemm")
    fix = fix_of(lambda: session.preview("spare", W4, "activation"))
    assert "Preview a module whose output is one tensor, or its weight" in fix
    session.preview("spare", W4, "weight")


def fix_of(call: Callable[[], Any]) -> str:
    with pytest.raises(QConfigError) as caught:
        call()
    return caught.value.fix
