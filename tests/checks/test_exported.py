"""What the evidence on exported models reads off them, and a check of a session in flow pt2e."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qatexplorer as qx
from qatexplorer.app.cli import main
from qatexplorer.checks.evidence.convert_gap import before_norms, convert_gap, run_recorded
from qatexplorer.checks.evidence.exported import (
    modes_of,
    operations_of,
    regions_of,
    weights_rounded,
)
from qatexplorer.checks.families.exported import in_eval, norm_constants, prepared_graph, switched
from qatexplorer.checks.rules import EVERY, QCONFIGS, RULES
from qatexplorer.flows import FLOWS
from qatexplorer.flows.pt2e import Pt2eFlow, export
from tests.checks.examples_exported import Hidden, two
from tests.checks.pt2e_subject import findings, subject_of

pytestmark = pytest.mark.skipif(bool(Pt2eFlow().unavailable()), reason="no torchao 0.18")


class Mixed(nn.Module):
    """A convolution with a batch norm, dropouts of three kinds, one of them in a region."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4, eps=1e-3, momentum=0.2)
        self.drop, self.planes, self.fc = nn.Dropout(0.1), nn.Dropout2d(0.2), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.set_grad_enabled(False):
            hidden = nn.functional.dropout(x, 0.3, self.training).mean()
        x = self.planes(self.norm(self.conv(x)))
        return self.fc(self.drop(x.mean((2, 3)))), hidden


@pytest.fixture(scope="module")
def mixed() -> Any:
    return export(Mixed().train(), (torch.randn(2, 2, 4, 4),))[0]


def test_modes_are_read_with_their_numbers_and_the_users_modules(mixed: Any) -> None:
    found = {one.path or one.name: one for one in modes_of(mixed)}
    assert set(found) == {"norm", "drop", "planes", "dropout"}
    assert all(one.training for one in found.values())
    assert found["norm"].number("eps") == pytest.approx(1e-3)
    assert found["norm"].number("momentum") == pytest.approx(0.2)
    assert found["drop"].number("p") == pytest.approx(0.1)
    assert found["dropout"].inside
    assert not found["drop"].inside
    assert found["drop"].source.startswith("test_exported.py:")


def test_regions_are_told_from_what_the_quantizer_sees(mixed: Any) -> None:
    (region,) = regions_of(mixed)
    assert region.reason == "torch.no_grad() or set_grad_enabled()"
    assert [one.name for one in region.operations] == ["mean"]
    assert [one.name for one in operations_of(mixed)] == ["conv2d", "batch_norm", "mean", "linear"]
    assert {one.node for one in operations_of(mixed)} >= before_norms(mixed) == {"conv2d"}


def test_a_switch_of_a_copy_leaves_the_model_alone(mixed: Any) -> None:
    code = mixed.code
    after = modes_of(switched(mixed, False))
    assert mixed.code == code
    assert {one.name for one in after if one.training} == {"feature_dropout", "dropout"}
    (norm,) = (one for one in after if one.name == "batch_norm")
    assert norm.path == "norm"
    assert norm.number("eps") == pytest.approx(1e-5)


def test_the_code_offered_for_another_eps_computes_the_same() -> None:
    model, inputs = two(lambda: nn.BatchNorm1d(8, eps=1e-2, momentum=0.3))()
    for _ in range(3):
        model(*inputs)
    subject = subject_of(model, inputs)
    graph = export(model, inputs)[0]
    subject._known[prepared_graph] = graph  # to prepare a batch norm takes torchao seconds
    (found,) = norm_constants(subject)
    assert found.path == "between"
    assert "eps 1e-05 in place of 0.01 and momentum 0.1 in place of 0.3" in found.message
    with torch.no_grad():
        before = model.eval()(*inputs)
        exec(found.fix, {"model": model})
        after = model(*inputs)
    assert torch.allclose(before, after, atol=1e-6)
    del subject._known[in_eval]
    assert not list(norm_constants(subject))


def test_weights_come_as_the_fake_quants_get_them() -> None:
    model, inputs = two(nn.Sigmoid)()
    subject = subject_of(model, inputs)
    found = weights_rounded(subject.get(prepared_graph))
    assert {owner: tuple(weight.shape) for owner, weight in found.values()} == {
        "a": (8, 8),
        "b": (3, 8),
    }
    assert any(torch.equal(weight, model.a.weight) for _, weight in found.values())


def test_layers_are_compared_in_the_order_of_the_forward() -> None:
    model, inputs = two(nn.Sigmoid)()
    subject = subject_of(model, inputs)
    gap = subject.get(convert_gap)
    assert [(one.name, one.path) for one in gap.layers] == [
        ("linear", "a"),
        ("sigmoid", "between"),
        ("linear", "b"),
    ]
    assert all(30 < one.decibels < 80 for one in gap.layers)
    assert gap.output == pytest.approx(gap.layers[-1].decibels)
    seen, returned = run_recorded(subject.get(prepared_graph).eval(), inputs)
    assert torch.equal(seen["linear_1"], returned)


def test_a_model_that_nothing_is_wrong_with_has_no_findings() -> None:
    model, inputs = two(nn.Identity)()
    subject = subject_of(model, inputs)
    found = [one for id in RULES if id.startswith("QX7") for one in findings(id, subject)]
    assert {one.severity for one in found} <= {"info"}


def test_rules_are_asked_in_the_flows_that_they_are_about() -> None:
    kinds = {name: flow.kind() for name, flow in FLOWS.items() if name in ("eager", "fx", "pt2e")}
    assert kinds == {"eager": "modules", "fx": "modules", "pt2e": "annotation"}
    assert RULES["QX101"].flows == QCONFIGS
    assert RULES["QX405"].flows == EVERY
    assert not RULES["QX701"].is_about(FLOWS["fx"])


def test_a_session_is_checked_from_its_first_stage_to_its_last() -> None:
    session = qx.Session(Hidden().train(), (torch.randn(4, 8),), flow="pt2e")
    session.warns = False
    first = session.check()
    assert [one.path for one in first.with_id("QX701")] == ["body"]
    assert not [one for one in first.skipped if "failed" in one.why]
    assert "QX101" not in first.checked
    session.goto("lower")
    last = session.check()
    assert "QX709" in last.checked
    assert [one.path for one in last.with_id("QX701")] == ["body"]
    assert not [one for one in last.skipped if "failed" in one.why]


def hidden_model() -> Any:
    """A factory for the command line."""
    return Hidden(), (torch.randn(4, 8),)


def test_the_command_checks_in_this_flow(capsys: pytest.CaptureFixture[str]) -> None:
    target = f"{__name__}:hidden_model"
    assert main(["check", target, "--flow", "pt2e", "--quiet"]) == 1
    assert "QX701" in capsys.readouterr().out


def test_batch_norms_are_folded_where_it_is_worth_the_time(mixed: Any) -> None:
    subject = subject_of(Mixed().train(), (torch.randn(2, 2, 4, 4),))
    subject._known[prepared_graph] = mixed
    found = findings("QX708", subject)
    assert [one.id for one in found.skipped] == ["QX708"]
    assert "thorough" in found.skipped[0].why
