"""An exported model in float, fake quant and int8: each number worked out again by other means."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch.nn import functional as F

import qatexplorer as qx
from qatexplorer.errors import InputError
from qatexplorer.flows.pt2e_quantizers import leaving_float
from qatexplorer.quantizers.facts import fake_quants
from tests.support.pt2e_runs import Plain, plain, prepared_by_torchao, session
from tests.support.training_models import data, one_thread  # noqa: F401


@pytest.fixture(scope="module")
def trained() -> qx.Session:
    one = session()
    one.train(1, progress=False)
    one.goto("lower")
    return one


@pytest.fixture(scope="module")
def compared(trained: qx.Session) -> Any:
    return trained.compare(batches=2)


def results(model: Any, x: Tensor) -> dict[str, Any]:
    """What each node gives, by an interpreter of the test's own."""
    found: dict[str, Any] = {}

    class Keep(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            found[n.name] = (
                value.clone() if isinstance(value, Tensor) and n.op != "get_attr" else value
            )
            return value

    with torch.no_grad():
        Keep(model).run(x)
    return found


def decibels(signal: Tensor, other: Tensor) -> float:
    noise = (signal - other).double().square().sum()
    return float(10 * torch.log10(signal.double().square().sum() / noise))


def three_forms(session: qx.Session) -> tuple[Any, Any, Any]:
    """Prepared, the same without rounding, and int8; observers stand still."""
    forms = [session.copy_model("train").eval() for _ in range(2)]
    for number, model in enumerate(forms):
        for module in fake_quants(model).values():
            module.disable_observer()  # type: ignore[operator]
            module.enable_fake_quant(number == 0)  # type: ignore[operator]
    return forms[0], forms[1], session.int8


CODES = {"activation_post_process_2": "relu", "activation_post_process_3": "pool"}
CODES["activation_post_process_5"] = "drop"


@pytest.mark.parametrize("path", CODES)
def test_int8_codes_are_compared_with_the_fake_quant_that_they_are_of(
    trained: qx.Session, compared: Any, path: str
) -> None:
    found = next(row for row in compared if row.path == path)
    assert found.owner == CODES[path]
    prepared, floats, int8 = three_forms(trained)
    fake: Any = prepared.get_submodule(path)
    scale, zero = (float(v) for v in fake.calculate_qparams())
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for x, _ in data(3)[1][:2]:
        y, wanted = results(prepared, x)[path], results(floats, x)[path]
        codes = [v for v in results(int8, x).values() if getattr(v, "dtype", 0) == torch.uint8]
        here = codes[1 + list(CODES).index(path)]  # in the order of the graph, behind the input's
        assert here.shape == y.shape
        z = (here.float() - zero) * scale
        parts.append((wanted.flatten(), y.flatten(), z.flatten()))
    a, b, c = (torch.cat(one) for one in zip(*parts, strict=True))
    steps = ((b - c) / scale).round().abs()  # both are on the grid: whole steps
    assert found.sqnr_fake_quant_db == pytest.approx(decibels(a, b), abs=1e-3)
    assert found.sqnr_int8_db == pytest.approx(decibels(a, c), abs=1e-3)
    assert found.agreement == pytest.approx(float((steps == 0).float().mean()), abs=1e-6)
    assert found.max_steps == pytest.approx(float(steps.max()), abs=1e-3)
    # The module that it is the result of has a row of the same numbers.
    row = next(r for r in compared if (r.path, r.kind) == (CODES[path], "module"))
    assert row.sqnr_int8_db == found.sqnr_int8_db


@pytest.mark.parametrize("owner", ["conv", "mix", "fc"])
def test_int8_weights_are_those_of_the_reference_program(
    trained: qx.Session, compared: Any, owner: str
) -> None:
    found = next(r for r in compared if r.kind == "weight" and r.owner == owner)
    weight = trained.copy_model("train").get_parameter(f"{owner}.weight").detach()
    trained.goto("fold")
    reference: Any = trained.copy_model("fold")
    trained.goto("lower")
    values = results(reference, data(1)[1][0][0])
    stored = [
        values[n.name]
        for n in reference.graph.nodes
        if "dequantize_per_channel" in str(n.target) and values[n.name].shape == weight.shape
    ]
    assert len(stored) == 1
    assert found.sqnr_int8_db == pytest.approx(decibels(weight, stored[0]), abs=1e-3)


def test_size_is_that_of_the_written_state(trained: qx.Session) -> None:
    """Weights that a kernel has packed, which torch cannot write, as the tensors that they were."""
    buffer, state = io.BytesIO(), trained.int8.state_dict()
    state.update({name: value.to_dense() for name, value in state.items() if value.is_mkldnn})
    torch.save(state, buffer)
    found = trained.evaluate(latency=False)
    assert found["int8"].size_bytes == len(buffer.getvalue())


def test_parity_has_the_int8_operations(trained: qx.Session) -> None:
    parity = trained.parity
    assert parity is not None
    assert [row.path for row in parity.rows] == ["x", "relu", "pool", "drop"]
    assert parity.rows[0].far == 0.0


def test_the_output_is_that_of_the_lowered_model(trained: qx.Session, compared: Any) -> None:
    _, floats, int8 = three_forms(trained)
    with torch.no_grad():
        x = torch.cat([floats(x) for x, _ in data(3)[1][:2]])
        z = torch.cat([int8(x) for x, _ in data(3)[1][:2]])
    assert any("within one kernel has none" in note for note in compared.notes)
    row = next(r for r in compared if r.kind == "output")
    assert row.sqnr_int8_db == pytest.approx(decibels(x, z), abs=1e-3)


def by_hand(session: qx.Session, on: set[str]) -> tuple[float, float]:
    """(accuracy, cross entropy) of a copy with only the fake quants ``on``."""
    model: Any = session.copy_model("train").eval()
    for path, module in fake_quants(model).items():
        module.disable_observer()  # type: ignore[operator]
        module.enable_fake_quant(path in on)  # type: ignore[operator]
    batches = data(3)[1]
    with torch.no_grad():
        out = torch.cat([model(x) for x, _ in batches])
    y = torch.cat([y for _, y in batches])
    return float((out.argmax(1) == y).float().mean()), float(F.cross_entropy(out, y))


def test_sensitivity_has_the_numbers_of_a_loop_by_hand(trained: qx.Session) -> None:
    made = trained.sensitivity("exact")
    paths = {row.path for row in made.rows}
    assert paths == set(fake_quants(trained.copy_model("train")))
    wanted = {
        (made.float_metric, made.float_loss): set(),
        (made.quantized_metric, made.quantized_loss): paths,
        **{(row.only, row.loss_only): {row.path} for row in made.rows},
        **{(row.without, row.loss_without): paths - {row.path} for row in made.rows},
    }
    for (metric, loss), on in wanted.items():
        right, entropy = by_hand(trained, on)
        assert metric == pytest.approx(right)
        assert math.isclose(loss or 0, entropy, rel_tol=1e-5)


def test_a_proposal_leaves_modules_in_float_by_the_quantizer(trained: qx.Session) -> None:
    if "gradient" not in trained.last_sensitivity:
        trained.sensitivity("gradient")
    found = trained.propose(wished_metric=2.0)  # which none reaches: all points are measured
    sets = {frozenset(point.modules): point for point in found.points}
    whole = max(found.points, key=lambda point: len(point.modules))
    assert {"conv", "mix", "fc"} <= set(whole.modules)
    assert whole.metric == by_hand(trained, set())[0]  # nothing is rounded any more
    assert whole.size_bytes > sets[frozenset()].size_bytes
    # What one of them leaves is what torchao's own quantizer leaves.
    other = session()
    one = next(point for point in found.points if len(point.modules) == 1)
    other.apply(one)
    other.goto("insert")
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    config = x86.get_default_x86_inductor_quantization_config(is_qat=True)
    quantizer = x86.X86InductorQuantizer().set_global(config)
    quantizer.set_module_name_qconfig(one.modules[0], None)
    theirs = prepared_by_torchao(plain(), data(1)[0][0][0], quantizer)
    assert str(other.copy_model("insert").code) == str(theirs.code)
    assert other.options.quantizer is None
    other.take_back_point()
    assert other.applied is None


def test_bits_are_not_proposed_where_a_quantizer_decides(trained: qx.Session) -> None:
    with pytest.raises(InputError, match="no proposal can give weights 4 bits") as raised:
        trained.propose(wished_metric=0.5, treatment=4)
    assert raised.value.fix == "Use treatment='float'."


def test_a_quantizer_that_cannot_leave_modules_out_says_so() -> None:
    other = session(quantizer="xnnpack")
    with pytest.raises(InputError, match="no module can be left in float") as raised:
        other.propose(wished_metric=0.5)
    assert "XNNPACKQuantizer has no set_module_name_qconfig" in raised.value.why
    with pytest.raises(InputError, match="conv cannot be left in float"):
        leaving_float(object(), ["conv"])
    fixed = session(quantizer="x86", qconfig={"conv": None, "": "x86"})
    fixed.goto("insert")
    assert "conv" not in {site.owner for site in fixed.snapshot.sites if site.kind == "weight"}
    assert isinstance(plain(), Plain)
