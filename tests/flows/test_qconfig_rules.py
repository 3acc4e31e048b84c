"""Specs and rules as plain data: what torch makes of them, what is read back, what is refused."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.ao.quantization import (
    default_fixed_qparams_range_0to1_fake_quant,
    default_symmetric_qnnpack_qat_qconfig,
    get_default_qat_qconfig,
)

from qatexplorer.errors import QConfigError
from qatexplorer.flows.qconfig_rules import QConfigRule
from qatexplorer.flows.quant_spec import QuantSpec, spec_of
from qatexplorer.flows.rules_file import read_rules, write_rules

GRID = list(
    itertools.product(
        (2, 3, 4, 8),
        (False, True),
        ("affine", "symmetric"),
        (False, True),
        ("FakeQuantize", "FusedMovingAvgObsFakeQuantize", "_LearnableFakeQuantize"),
    )
)


@pytest.mark.parametrize("of", GRID, ids=str)
def test_a_spec_is_read_back_from_what_it_makes(of: tuple[Any, ...]) -> None:
    bits, signed, scheme, per_channel, kind = of
    spec = QuantSpec(bits, signed, scheme, per_channel, fake_quant=kind)
    made: Any = spec.make(channels=3)
    assert spec_of(made) == spec
    assert (made.quant_min, made.quant_max) == spec.quant_range
    assert spec.quant_range[1] - spec.quant_range[0] == 2**bits - 1
    assert QuantSpec.from_json(spec.to_json()) == spec
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    codes = torch.unique(made(x)[0])
    assert len(codes) <= 2**bits


@pytest.mark.parametrize("backend", ["fbgemm", "x86", "qnnpack", "onednn"])
@pytest.mark.parametrize("version", [0, 1])
def test_torchs_own_defaults_can_be_said(backend: str, version: int) -> None:
    qconfig = get_default_qat_qconfig(backend, version=version)
    for part in (qconfig.activation, qconfig.weight):
        spec = spec_of(part())
        assert spec is not None
        made: Any = spec.make()
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
        assert torch.equal(made(x), part()(x))


def test_the_symmetric_qconfig_of_qnnpack_can_be_said() -> None:
    spec = spec_of(default_symmetric_qnnpack_qat_qconfig.weight())
    assert spec is not None
    assert (spec.narrow_range, spec.quant_range) == (True, (-127, 127))
    assert spec.eps == 2**-12


def test_what_no_spec_can_say_is_none() -> None:
    assert spec_of(default_fixed_qparams_range_0to1_fake_quant()) is None
    assert spec_of(torch.nn.Identity()) is None


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"bits": 9}, "bits is 9"),
        ({"bits": True}, "bits is True"),
        ({"scheme": "odd"}, "scheme is 'odd'"),
        ({"signed": 1}, "signed is 1"),
        ({"observer": "os.system"}, "observer is"),
        ({"observer": "MinMaxObserver"}, "takes no MinMaxObserver"),
        ({"averaging_constant": 0.0}, "averaging_constant is"),
        ({"narrow_range": True}, "for signed codes"),
        ({"fake_quant": "_LearnableFakeQuantize", "reduce_range": True}, "takes no reduce_range"),
        (
            {"fake_quant": "FakeQuantize", "observer": "HistogramObserver", "per_channel": True},
            "no sibling per channel",
        ),
        (
            {
                "fake_quant": "FakeQuantize",
                "observer": "HistogramObserver",
                "averaging_constant": 0.5,
            },
            "has no averaging_constant",
        ),
        ({"colour": 3}, "no setting 'colour'"),
    ],
)
def test_what_torch_cannot_make_is_refused_by_name(wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(QConfigError, match=match):
        QuantSpec.from_json(wrong)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('format = 1\n[[rule]]\npath = "a"\nweight = { bits = 12 }', r"rule 1: weight: bits is 12"),
        ('format = 1\n[[rule]]\npath = "a"\nrun = "rm"', "no key 'run'"),
        ('format = 1\n[[rule]]\npath = "a"\ntype = "b"', "names path and type"),
        ('format = 1\n[[rule]]\npath = "a"', "says nothing"),
        ('format = 1\n[[rule]]\npath = "a"\nfloat = 1', "float is 1"),
        ('format = 1\n[[rule]]\nregex = "("\nfloat = true', "no regular expression"),
        ("format = 2", "format is 2"),
        ("format = 1\nother = 3", "'other'"),
        ("format = ", "is not TOML"),
        ("format = 1\nrule = 3", "no list of tables"),
        (
            'format = 1\n[[rule]]\npath = "a"\nfloat = true\n[[rule]]\npath = "a"\nfloat = true',
            "there is a rule for 'a' before it",
        ),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_key(text: str, match: str, tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(text)
    with pytest.raises(QConfigError, match=match):
        read_rules(file)


@pytest.mark.parametrize("ending", ["toml", "json"])
def test_a_file_gives_back_what_was_written(ending: str, tmp_path: Path) -> None:
    rules = (
        QConfigRule('odd "name" \\ ü \x7f', "glob", to_float=True),
        QConfigRule("", "model", activation=QuantSpec(3, averaging_constant=0.05)),
        QConfigRule("fc", weight=QuantSpec(4, True, "symmetric", eps=2**-12)),
    )
    assert read_rules(write_rules(tmp_path / f"r.{ending}", rules)) == rules
