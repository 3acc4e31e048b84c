"""A user's quantizer whose bias has a derived spec, whose sigmoid a fixed one, and whose poolings
share along a chain: through every stage, and what is said of them."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
import torch

import qatexplorer as qx

pytest.importorskip("torchao")

from qatexplorer.flows.pt2e_patterns import patterns_kept
from qatexplorer.quantizers.facts import derived_from, has_range, seen_data
from qatexplorer.views.annotations.groups import groups_of
from qatexplorer.views.annotations.tables import annotation_rows
from qatexplorer.views.inspector.page import inspect_html
from tests.against_torch.pt2e_reference import compare_pt2e
from tests.support.derived_specs import Biased, BiasQuantizer
from tests.support.training_models import data, one_thread  # noqa: F401

BIAS, FIXED = "activation_post_process_2", "activation_post_process_7"
LARGEST = 2**31 - 1


@pytest.fixture(scope="module")
def session() -> qx.Session:
    torch.manual_seed(0)
    source = data(3)
    made = qx.Session(
        Biased().train(), source[0][0][0], flow="pt2e", data=source, quantizer=BiasQuantizer()
    )
    made.goto("insert")
    return made


def site(session: qx.Session, path: str) -> Any:
    return session.snapshot.site_by_path[path]


def words(session: qx.Session, path: str) -> str:
    page = inspect_html(session.snapshots, session.stage, f"site:{path}")
    return " ".join(unescape(re.sub("<[^>]+>", " ", page)).split())


def test_every_stage_equals_the_unwatched_calls() -> None:
    """Code, keys, values, five training steps, reference and lowered outputs, bit for bit."""
    torch.manual_seed(0)
    with patterns_kept():
        walk = compare_pt2e(Biased().train(), (data(1)[0][0][0],), BiasQuantizer)
    assert len(walk.prepared.placed) == 11  # names: three share one more's fake quant
    assert not walk.not_lowered


def test_annotations_say_what_is_derived_fixed_and_shared(session: qx.Session) -> None:
    found = {one.node: one for one in session.snapshots["annotate"].annotations}
    bias = dict(found["conv2d"].inputs)["conv_bias"]
    assert (bias.kind, bias.dtype, bias.quant_min, bias.quant_max) == (
        "derived", "torch.int32", -LARGEST - 1, LARGEST,
    )  # fmt: skip
    assert bias.of == ("x → conv2d", "conv_weight → conv2d")
    assert found["sigmoid"].output.kind == "fixed"
    assert [found[n].output.of for n in ("relu", "max_pool2d", "max_pool2d_1")] == [
        ("conv2d → relu",), ("relu",), ("max_pool2d",)
    ]  # fmt: skip
    # Methods of the quantizer that are given one node.
    assert {n: one.pattern for n, one in found.items()} == {
        "conv2d": "layer", "linear": "layer", "sigmoid": "sigmoid",
        "relu": "sharing", "max_pool2d": "sharing", "max_pool2d_1": "sharing",
    }  # fmt: skip
    (group,) = groups_of(session.snapshots["annotate"])
    assert {"conv2d", "relu", "max_pool2d", "max_pool2d_1"} <= set(group.nodes)


def test_the_table_of_annotations_has_them(session: qx.Session) -> None:
    rows = {row["id"]: row for row in annotation_rows(session.snapshots)}
    conv = rows["conv2d"]
    assert "derived" in conv["flags"]
    assert "conv.bias: int32 −2.147e+09..2.147e+09, per channel, derived from" in conv["cells"][3]
    assert (
        "scale and zero point computed of x → conv2d and conv_weight → conv2d"
        in (conv["tips"]["3"])
    )
    assert rows["sigmoid"]["cells"][4] == "uint8 0..255, fixed"
    assert rows["max_pool2d_1"]["cells"][4] == "that of max_pool2d"
    assert "shared" in rows["max_pool2d_1"]["flags"]


def test_a_derived_scale_is_that_of_the_others(session: qx.Session) -> None:
    """The bias is named, its scale is computed of what the others have seen, and no sentence says
    that a range follows the data."""
    bias = site(session, BIAS)
    assert (bias.kind, bias.owner, bias.parameter, bias.seen) == (
        "weight", "conv", "bias", "derived"
    )  # fmt: skip
    assert bias.tensor_shape == (4,)
    before = session.copy_model()
    quant: Any = before.get_submodule(BIAS)
    assert [seen_data(one) for one in derived_from(quant)] == ["nothing", "nothing"]
    assert not has_range(quant)
    assert bias.scale == ()
    session.calibrate()
    bias = site(session, BIAS)
    weight, given = (
        site(session, "activation_post_process_1"),
        site(session, "activation_post_process_0"),
    )
    assert bias.scale == pytest.approx([given.scale[0] * one for one in weight.scale], rel=0.01)
    quant = session.copy_model().get_submodule(BIAS)
    assert bias.scale == tuple(quant.calculate_qparams()[0].tolist())
    assert bias.zero_point == (0, 0, 0, 0)
    said = words(session, BIAS)
    assert "the bias of conv" in said
    assert "the weight of conv" not in said
    assert "none: its scale is computed of those of other fake quants" in said
    assert "follows the data" not in said
    fixed = words(session, FIXED)
    assert "none: the operation fixes it" in fixed
    assert "follows the data" not in fixed
    assert "updates the range" not in fixed
    row = next(one for one in session.ledger().rows if one.path == BIAS)
    assert row.cause_text == "The scale is computed of those of other fake quants, not observed."


def test_the_guide_names_the_bias(session: qx.Session) -> None:
    found = qx.migrate(session, flows=["eager", "pt2e"], int8=False)
    cells = found.by_place["weight:conv:bias:0"]
    assert cells["pt2e"].place.label == "bias of conv"
    assert cells["pt2e"].rounding.seen == "derived"
    assert cells["eager"].why == "prepare put no fake quant on its bias."
    assert all(one.departs == "" for one in found.flows)


def test_the_reference_has_the_bias_in_whole_numbers(session: qx.Session) -> None:
    """As many steps of scale of input times scale of weight as the trained bias is worth."""
    session.train(1, progress=False)
    trained = session.copy_model("train")
    quants: list[Any] = list(derived_from(trained.get_submodule(BIAS)))
    (given, _), (weight, _) = (one.calculate_qparams() for one in quants)
    bias = trained.get_parameter("conv.bias").detach()
    session.goto("convert")
    reference: Any = session.copy_model("convert")
    (node,) = (
        n
        for n in reference.graph.nodes
        if "quantize_per_channel" in str(n.target) and n.args[-1] is torch.int32
        and "dequantize" not in str(n.target)
    )  # fmt: skip
    assert node.args[3:6] == (0, -LARGEST - 1, LARGEST)
    assert torch.equal(reference.get_buffer(node.args[1].target), given * weight)
    session.goto("fold")
    values = [
        one for one in session.copy_model("fold").state_dict().values() if one.dtype is torch.int32
    ]
    codes = [one for one in values if one.any()]
    assert len(codes) == 1
    assert torch.equal(codes[0], (bias / (given * weight)).round().int())
