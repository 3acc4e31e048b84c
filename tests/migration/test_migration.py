"""One model through several flows: which tensors each rounds, how, and why another does not."""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import (
    DeQuantStub,
    QuantStub,
    get_default_qat_qconfig,
    get_default_qat_qconfig_mapping,
)
from torch.ao.quantization.quantize_fx import prepare_qat_fx
from torch.ao.quantization.stubs import QuantWrapper

import qatexplorer as qx
from qatexplorer.data import call_model
from qatexplorer.errors import ExampleInputError, InputError, StoppedError
from qatexplorer.evaluate.metric import accuracy
from qatexplorer.flows.pt2e import unavailable
from qatexplorer.forward.hooks import hooked
from qatexplorer.migration.records import Cell, Migration, Rounding
from qatexplorer.migration.text import as_text
from qatexplorer.quantizers.facts import find_quantizers, switch
from tests.migration.nets import (
    Deciding,
    Doubled,
    OwnNorms,
    Residual,
    Scores,
    Stubbed,
    Tokens,
    Twice,
    Words,
    batches,
)

IMAGE = (4, 3, 8, 8)
needs_torchao = pytest.mark.skipif(bool(unavailable()), reason=unavailable() or "torchao is here")


def made(model: nn.Module, data: list[tuple[Tensor, Tensor]], **settings: Any) -> Migration:
    torch.manual_seed(0)
    settings = {"flows": ("eager", "fx"), "qconfig": "x86", "int8": False} | settings
    return qx.migrate(model, data[0][0], data=(data, data), **settings)


@pytest.fixture(scope="module")
def residual_net() -> nn.Module:
    torch.manual_seed(1)
    return Residual()


@pytest.fixture(scope="module")
def residual(residual_net: nn.Module) -> Migration:
    """In all three flows where they run, converted in the two whose converting is quick."""
    flows = ("eager", "fx") if unavailable() else ("eager", "fx", "pt2e")
    return made(residual_net, batches(*IMAGE), flows=flows)


@pytest.fixture(scope="module")
def scores() -> Migration:
    torch.manual_seed(1)
    flows = ("eager", "fx") if unavailable() else ("eager", "fx", "pt2e")
    return made(Scores(), batches(16, 6), flows=flows, int8=True)


def cell(found: Migration, key: str, flow: str) -> Cell:
    return found.by_place[key][flow]


def rounding(found: Migration, key: str, flow: str) -> Rounding:
    one = cell(found, key, flow).rounding
    assert one is not None, cell(found, key, flow).why
    return one


# -- where ------------------------------------------------------------------------------------


def test_only_fx_has_a_place_for_what_a_function_adds(residual: Migration) -> None:
    place = "output::add:0"
    assert rounding(residual, place, "fx").site.startswith("activation_post_process_")
    absent = cell(residual, place, "eager")
    assert absent.rounding is None
    assert absent.why == "add is a function or method: this flow works on modules only."
    assert residual.only_in(place) == "fx"
    assert not residual.agree(place)


def test_what_is_fused_is_rounded_behind_its_last_part(residual: Migration) -> None:
    """Eager hooks the convolution before the functional ReLU, FX fuses the two."""
    assert cell(residual, "output:stem::0", "eager").rounding is not None
    assert cell(residual, "output:stem::0", "fx").why == (
        "Fused into stem: what is rounded is the result of relu."
    )
    assert cell(residual, "output::relu:0", "fx").rounding is not None
    # conv and relu are modules, which both fuse.
    both = [cell(residual, "output:relu::0", flow).rounding for flow in ("eager", "fx")]
    assert None not in both
    assert "output:conv::0" not in residual.by_place


def test_a_wrapped_model_keeps_its_own_paths(residual: Migration) -> None:
    """Eager takes a ``QuantWrapper``, below which every module has another path."""
    assert rounding(residual, "weight:conv::0", "eager").site == "module.conv.weight_fake_quant"
    assert rounding(residual, "weight:conv::0", "fx").site == "conv.weight_fake_quant"
    assert rounding(residual, "input:::0", "eager").site == "quant.activation_post_process"
    assert next(c.stubs for c in residual.flows if c.flow == "eager") == "model"


def test_shared_fake_quants_name_each_other(residual: Migration) -> None:
    """Pooling passes values on: FX rounds what goes in and what comes out with one fake quant."""
    before, behind = (rounding(residual, k, "fx") for k in ("output::add:0", "output:pool::0"))
    assert before.site == behind.site
    assert before.scale == behind.scale
    assert before.shared_with == ("output of pool",)
    assert behind.shared_with == ("result of add",)
    column = next(c for c in residual.flows if c.flow == "fx")
    assert column.places == column.fake_quants + 1


def test_places_are_in_the_order_of_the_forward(residual: Migration) -> None:
    labels = [place.label for place in residual.places]
    assert labels[:3] == ["the model's input", "weight of stem", "output of stem"]
    assert labels.index("result of add") < labels.index("output of pool")
    assert labels[-2:] == ["weight of fc", "output of fc"]
    assert residual.places[2].source.startswith("nets.py:")


def test_stubs_of_the_model_round_what_they_get() -> None:
    torch.manual_seed(2)
    found = made(Stubbed(), batches(*IMAGE))
    assert rounding(found, "input:::0", "eager").site == "quant.activation_post_process"
    assert rounding(found, "input:::0", "fx").site == "activation_post_process_0"
    assert rounding(found, "input:::0", "eager").mechanism == "hook"
    assert rounding(found, "input:::0", "fx").mechanism == "node"
    assert {p.key for p in found.places} == {
        "input:::0", "weight:conv::0", "output:relu::0", "weight:last::0", "output:last::0"
    }  # fmt: skip
    assert all(column.stubs == "none" for column in found.flows)
    assert all(cell.rounding for cell in found.cells)


def test_each_call_of_a_module_and_the_weight_of_a_function_have_a_place() -> None:
    torch.manual_seed(3)
    found = made(Twice(), batches(8, 6))
    # One hook in eager mode for both calls; a node each in FX.
    first, second = "output:act::0", "output:act::1"
    assert rounding(found, "output:fc::0", "eager").shared_with == ("output of fc, call 2",)
    assert rounding(found, first, "fx").site != rounding(found, second, "fx").site
    assert cell(found, "weight::linear:0", "fx").rounding is not None
    assert cell(found, "weight::linear:0", "eager").why.startswith("linear is a function")


@needs_torchao
def test_pt2e_rounds_the_tensors_that_its_quantizer_annotates(residual: Migration) -> None:
    assert cell(residual, "output::relu:0", "pt2e").rounding is not None
    assert cell(residual, "output:fc::0", "pt2e").why == (
        "The quantizer annotated it as part of linear, and nothing asks for its result to be "
        "rounded."
    )
    for key in ("weight:stem::0", "weight:conv::0", "weight:fc::0"):
        assert residual.agree(key), residual.differences(key)
    # The qconfig of x86 leaves out a bit of activations, the quantizer of x86 does not.
    assert residual.differences("input:::0")[0] == "codes"
    assert rounding(residual, "input:::0", "pt2e").quant_max == 255


@needs_torchao
def test_another_quantizer_rounds_other_tensors() -> None:
    """The embedding quantizer takes no linear layer, so it rounds nothing here."""
    session = qx.Session(Scores(), torch.randn(2, 6), flow="pt2e", quantizer="embedding")
    found = qx.migrate(session, flows=["fx", "pt2e"], int8=False)
    assert {c.flow for c in found.cells if c.rounding is not None} == {"fx"}
    assert cell(found, "weight:first::0", "pt2e").why


@needs_torchao
def test_torchaos_layers_round_what_they_get() -> None:
    """By groups of values and by token: the input of a linear layer is what the one before gave."""
    torch.manual_seed(4)
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
    found = qx.migrate(net, torch.randn(4, 64), flows=["fx", "torchao"], int8=False)
    assert rounding(found, "input:::0", "torchao").site == "0.activation_fake_quantizer"
    assert rounding(found, "output:1::0", "torchao").site == "2.activation_fake_quantizer"
    assert cell(found, "output:2::0", "torchao").rounding is None
    weight = rounding(found, "weight:0::0", "torchao")
    assert len(weight.scale) == 128
    assert weight.several_scales
    assert not weight.per_channel
    assert "128 scales" in as_text(found)


@needs_torchao
def test_matched_places_hold_the_same_tensor(residual_net: nn.Module, residual: Migration) -> None:
    """Fake quants off, every flow computes the float model: what reaches the fake quants of one
    place is the same tensor in all of them."""
    x = batches(*IMAGE)[0][0]
    seen: dict[str, dict[str, Tensor]] = {}
    for column in residual.taken:
        session = qx.Session(residual_net, x, flow=column.flow, qconfig="x86", stubs=column.stubs)
        session.goto(session.flow.prepared_stage)
        seen[column.flow] = inputs_of_fake_quants(session.model, x)
    compared = 0
    for place in residual.places:
        having = {name: c.rounding for name, c in residual.by_place[place.key].items()
                  if c.rounding is not None and not c.rounding.shared_with}  # fmt: skip
        tensors = [seen[name][one.site] for name, one in having.items()]
        for other in tensors[1:]:
            assert torch.allclose(tensors[0], other, atol=1e-5), place.label
            compared += 1
    assert compared >= 8


@pytest.fixture(scope="module")
def own_norms() -> Migration:
    torch.manual_seed(8)
    flows = ("eager", "fx") if unavailable() else ("eager", "fx", "pt2e")
    return made(OwnNorms(), batches(*IMAGE), flows=flows)


def test_what_tracing_has_frozen_is_found_and_said(own_norms: Migration) -> None:
    """FX opens a norm of the user's own and writes ``self.training`` down as True: every tensor
    behind it is another one, in eval mode too."""
    columns = {column.flow: column for column in own_norms.flows}
    for name in columns.keys() - {"fx"}:
        assert columns[name].departs == ""
        assert columns[name].unrounded < 1e-5
        assert f"{name}: " in as_text(own_norms)
    assert "With all fake quants off it is the float model." in as_text(own_norms)
    words = columns["fx"].departs
    assert words in as_text(own_norms)
    assert "F.batch_norm in norm (and 1 more such calls) was traced with training=True" in words
    assert words.endswith("With training=False there it is the float model.")
    # The same by torch's own calls.
    torch.manual_seed(8)
    net, x = OwnNorms(), batches(*IMAGE)[0][0]
    mapping = get_default_qat_qconfig_mapping("x86")
    theirs = prepare_qat_fx(copy.deepcopy(net).train(), mapping, (x,)).eval()
    theirs.apply(torch.ao.quantization.disable_fake_quant)
    theirs.apply(torch.ao.quantization.disable_observer)
    state = copy.deepcopy(theirs.state_dict())
    with torch.no_grad():
        wanted, found = net.eval()(x), theirs(x)
        share = float((wanted - found).abs().max())
        share /= max(float(wanted.max() - wanted.min()), float(wanted.abs().max()))
        assert columns["fx"].unrounded == pytest.approx(share, rel=1e-4)
        theirs.load_state_dict(state)
        for node in theirs.graph.nodes:
            if node.target is torch.nn.functional.batch_norm:
                node.update_kwarg("training", False)
        theirs.recompile()
        assert torch.allclose(theirs(x), wanted, atol=1e-5)


def test_places_say_where_the_tensor_itself_is_another_one(own_norms: Migration) -> None:
    for key in ("input:::0", "weight:conv::0", "output:conv::0", "weight:fc::0"):
        assert own_norms.other_tensor_in(key) == (), key
    for key in ("output:last::0", "output:fc::0"):
        assert own_norms.other_tensor_in(key) == ("fx",), key
        assert cell(own_norms, key, "fx").apart > 1e-3
        assert cell(own_norms, key, "eager").apart == 0.0
    assert cell(own_norms, "output:end:batch_norm:0", "eager").apart is None  # not rounded there
    line = next(one for one in as_text(own_norms).splitlines() if one.startswith("output of last "))
    assert "tensor in fx, " in line


@needs_torchao
def test_what_a_rewritten_graph_makes_anew_is_found_again(own_norms: Migration) -> None:
    """PT2E's fusing makes new nodes: the norm without an activation is rounded in both graphs, the
    one before a ReLU is a part of its pattern."""
    end = own_norms.by_place["output:end:batch_norm:0"]
    assert {name for name, one in end.items() if one.rounding} == {"fx", "pt2e"}
    assert own_norms.other_tensor_in("output:end:batch_norm:0") == ("fx",)
    assert cell(own_norms, "output:bn::0", "eager").rounding is not None
    assert cell(own_norms, "output:bn::0", "pt2e").why == (
        "The quantizer annotated it as part of qat_conv2d_bn_unary, and nothing asks for its "
        "result to be rounded."
    )
    assert not [place for place in own_norms.places if place.found_in]


@needs_torchao
def test_what_stands_in_a_method_or_is_left_out_is_found() -> None:
    """Exporting knows the lines of ``forward`` only; FX has arguments that nobody gives."""
    torch.manual_seed(9)
    found = qx.migrate(Tokens(), torch.randn(2, 3, 6), flows=["eager", "fx", "pt2e"], int8=False)
    assert not [place for place in found.places if place.found_in]
    assert all(cell(found, "input:::0", flow).rounding for flow in ("eager", "fx", "pt2e"))
    assert not [one.why for one in found.cells if "No operation" in one.why]
    assert all(cell(found, "output::add:0", flow).rounding for flow in ("fx", "pt2e"))
    # An Identity gives on what it gets: no place of its own.
    assert "norm" not in {place.path for place in found.places}


def test_a_tensor_that_is_rounded_twice_says_so_where_it_is_not() -> None:
    class Again(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stub, self.more = QuantStub(), QuantStub()
            self.fc, self.end = nn.Linear(6, 3), DeQuantStub()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.end(self.fc(self.more(self.stub(x))))
            return out

    found = qx.migrate(Again(), torch.randn(2, 6), flows=["eager", "fx"], int8=False)
    assert rounding(found, "input:::0:1", "eager").site == "more.activation_post_process"
    assert cell(found, "input:::0:1", "fx").why == "It rounds this tensor once only."


def inputs_of_fake_quants(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def keep(path: str, _module: nn.Module, args: tuple[Any, ...], _kwargs: Any) -> None:
        found[path] = args[0].detach().clone()

    quants = find_quantizers(model)
    for module in quants.values():
        switch(module, observer=False, fake_quant=False)
    with torch.no_grad(), hooked(quants.items(), running=keep):
        call_model(model.eval(), x)
    return found


# -- how --------------------------------------------------------------------------------------


def calibrated(model: nn.Module, data: list[tuple[Tensor, Tensor]]) -> nn.Module:
    model.eval()
    with torch.no_grad():
        for x, _ in data:
            model(x)
    return model


def quiet_eager(net: nn.Module) -> nn.Module:
    wrapped = QuantWrapper(copy.deepcopy(net))
    wrapped.qconfig = get_default_qat_qconfig("x86")
    torch.ao.quantization.fuse_modules_qat(wrapped, [["module.conv", "module.relu"]], inplace=True)
    return torch.ao.quantization.prepare_qat(wrapped.train())


def quiet_fx(net: nn.Module, x: Tensor) -> nn.Module:
    mapping = get_default_qat_qconfig_mapping("x86")
    return prepare_qat_fx(copy.deepcopy(net).train(), mapping, (x,))


@pytest.fixture(scope="module")
def by_torch(residual_net: nn.Module) -> Iterator[dict[str, nn.Module]]:
    """Torch's own calls on the same model with the same batches."""
    data = batches(*IMAGE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield {
            "eager": calibrated(quiet_eager(residual_net), data),
            "fx": calibrated(quiet_fx(residual_net, data[0][0]), data),
        }


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_numbers_are_those_of_torchs_own_calls(
    flow: str, residual: Migration, by_torch: dict[str, nn.Module]
) -> None:
    modules = dict(by_torch[flow].named_modules(remove_duplicate=False))
    cells = [c for c in residual.cells if c.flow == flow and c.rounding is not None]
    assert len(cells) >= 7
    for one in cells:
        found = one.rounding
        assert found is not None
        theirs: Any = modules[found.site]
        assert found.scale == tuple(theirs.scale.flatten().tolist()), one.place.label
        assert found.zero_point == tuple(theirs.zero_point.flatten().tolist())
        assert found.min_val == tuple(theirs.activation_post_process.min_val.flatten().tolist())
        assert (found.dtype, found.qscheme) == (str(theirs.dtype), str(theirs.qscheme))
        assert (found.quant_min, found.quant_max) == (
            theirs.activation_post_process.quant_min,
            theirs.activation_post_process.quant_max,
        )
        scale, zero = theirs.scale.double(), theirs.zero_point
        assert found.lowest == pytest.approx(float(((found.quant_min - zero) * scale).min()))
        assert found.highest == pytest.approx(float(((found.quant_max - zero) * scale).max()))


def test_outputs_are_compared_as_torch_computes_them(
    residual_net: nn.Module, residual: Migration, by_torch: dict[str, nn.Module]
) -> None:
    data = batches(*IMAGE)
    signal, noise = 0.0, 0.0
    for module in by_torch["fx"].modules():
        if hasattr(module, "disable_observer"):
            module.disable_observer()
    with torch.no_grad():
        for x, _ in data:
            wanted, found = residual_net.eval()(x), by_torch["fx"](x)
            signal += float(wanted.double().square().sum())
            noise += float((wanted - found).double().square().sum())
    residual_net.train()
    gap = residual.gap("float", "fx")
    assert gap is not None
    assert gap.batches == len(data)
    assert gap.sqnr_db == pytest.approx(10 * math.log10(signal / noise), abs=0.1)
    names = ["float", *(c.flow for c in residual.taken)]
    assert len(residual.outputs) == len(names) * (len(names) - 1) // 2


def test_grids_that_differ_say_in_what(residual: Migration) -> None:
    """The last layer's input is rounded in FX and not in eager mode, so its range is another."""
    assert residual.differences("weight:fc::0") == ()
    assert residual.agree("weight:fc::0")
    assert set(residual.differences("output:fc::0")) <= {"scale", "zero point"}
    assert "scale" in residual.differences("output:fc::0")
    assert residual.differences("output::add:0") == ()  # one flow only has it


def test_metrics_and_int8_agreement_are_measured(scores: Migration) -> None:
    data = batches(16, 6)
    assert scores.metric is not None
    assert scores.metric.samples == 48
    torch.manual_seed(1)
    net = Scores().eval()
    wanted = sum(float(accuracy(net(x), y)) for x, y in data) / 3
    assert scores.metric.value == pytest.approx(wanted)
    for column in scores.flows:
        assert column.metric is not None
        assert column.metric.samples == 48
        assert column.parity is not None or column.not_measured["parity"]
    for column in scores.flows[1:]:
        assert column.metric_int8 is not None, column.not_measured
        assert column.parity is not None
        assert column.parity.rows


def test_what_was_not_measured_says_why(residual: Migration, scores: Migration) -> None:
    for column in residual.flows:
        assert column.parity is None
        assert column.not_measured["parity"] == "int8 was not asked for."
    alone = qx.migrate(Scores(), torch.randn(2, 6), flows=["fx"], int8=False)
    assert alone.flows[0].not_measured["metric"] == "there is no evaluation data."
    assert alone.metric is None
    assert alone.on == "the example input"
    assert alone.only_in("weight:first::0") == ""  # one flow is no comparison
    assert alone.summary().endswith("rounded in fx, the only flow that takes this model.")


# -- flows that refuse, and what is left as it was ----------------------------------------------


def test_a_flow_that_refuses_the_model_is_a_column_with_its_message() -> None:
    found = qx.migrate(Deciding(), torch.randn(2, 6), flows=["eager", "fx"], int8=False)
    assert [bool(column.error) for column in found.flows] == [False, True]
    assert "cannot trace" in found.flows[1].error
    assert {c.flow for c in found.cells} == {"eager"}
    assert cell(found, "weight:fc::0", "eager").rounding is not None
    assert "fx refuses it" in repr(found)


def test_a_model_that_stubs_break_is_prepared_without() -> None:
    ids = {"input_ids": torch.randint(0, 9, (2, 5))}
    found = qx.migrate(Words(), ids, flows=["eager"], int8=False)
    column = found.flows[0]
    assert (column.error, column.stubs) == ("", "none")
    assert "unexpected keyword argument 'input_ids'" in column.without_stubs
    assert f"Without stubs, as it does not run with them: {column.without_stubs}" in as_text(found)
    assert cell(found, "weight:head::0", "eager").rounding is not None
    asked = qx.migrate(Words(), ids, flows=["eager"], int8=False, stubs="model")
    assert asked.flows[0].error  # what was asked for is not replaced


def test_the_users_model_and_the_random_numbers_stay_as_they_were() -> None:
    torch.manual_seed(5)
    net = Stubbed().eval()
    before = copy.deepcopy(net.state_dict())
    hooks = [len(m._forward_hooks) for m in net.modules()]
    state = torch.get_rng_state()
    qx.migrate(net, torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)),
               flows=["eager", "fx"], int8=False)  # fmt: skip
    assert torch.equal(state, torch.get_rng_state())
    assert not any(m.training for m in net.modules())
    assert [len(m._forward_hooks) for m in net.modules()] == hooks
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_every_flow_sees_the_same_batches_of_a_loader_that_shuffles() -> None:
    class Shuffling:
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            return iter([(torch.randn(4, 6), torch.zeros(4, dtype=torch.long)) for _ in range(2)])

    found = qx.migrate(
        Scores(), torch.randn(2, 6), data=(Shuffling(), batches(4, 6)),
        flows=["eager", "fx"], int8=False, calibrate=2,
    )  # fmt: skip
    assert found.batches == 2
    ranges = {rounding(found, "input:::0", flow).max_val for flow in ("eager", "fx")}
    assert len(ranges) == 1


def test_a_session_gives_its_edited_model_data_and_metric() -> None:
    data = batches(16, 6)
    session = qx.Session(Doubled(), data[0][0], data=(data, data), metric=mean_of_the_second)
    session.edit("unshare", "again")
    found = qx.migrate(session, flows=["eager"], int8=False)
    assert found.flows[0].metric is not None
    assert found.flows[0].metric.name == "mean_of_the_second"
    # As it was given, both names are one module, which has one fake quant for both.
    assert {"output:act::0", "output:again::0"} <= {place.key for place in found.places}
    assert session.stage == session.stages[0]


def mean_of_the_second(output: Tensor, _target: Tensor) -> Tensor:
    return output[:, 1].mean()


def test_wrong_use_raises_before_anything_runs() -> None:
    x = torch.randn(2, 6)
    with pytest.raises(InputError, match="no flow 'nope'"):
        qx.migrate(Scores(), x, flows=["nope"])
    with pytest.raises(InputError, match="no flow was named"):
        qx.migrate(Scores(), x, flows=[])
    with pytest.raises(InputError, match="calibrate is 0"):
        qx.migrate(Scores(), x, flows=["fx"], calibrate=0)
    with pytest.raises(ExampleInputError):
        qx.migrate(Scores(), torch.randn(2, 5), flows=["eager", "fx"])


def test_it_can_be_stopped_and_says_how_far_it_is() -> None:
    said: list[tuple[str, float]] = []
    qx.migrate(Scores(), torch.randn(2, 6), flows=["fx"], progress=lambda *a: said.append(a))
    shares = [share for _, share in said]
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert shares[-1] < 1.0
    assert said[0][0] == "fx: preparing"
    with pytest.raises(StoppedError):
        qx.migrate(Scores(), torch.randn(2, 6), flows=["fx"], should_stop=lambda: len(said) > 0)


# -- as tables --------------------------------------------------------------------------------


def test_it_is_plain_data_and_a_table(residual: Migration) -> None:
    plain = json.loads(json.dumps(residual.to_json(), allow_nan=False))
    first = plain["places"][0]
    assert first["kind"] == "input"
    assert first["flows"]["fx"]["quant_max"] == 127  # x86 leaves a bit out
    add = next(p for p in plain["places"] if p["key"] == "output::add:0")
    assert add["flows"]["eager"] == {"why": cell(residual, "output::add:0", "eager").why}
    frame = residual.to_pandas()
    assert len(frame) == len(residual) == len(residual.places) * len(residual.taken)
    assert {"place.key", "flow", "rounding.scale", "rounding.quant_min", "why"} <= set(frame)
    assert len(residual.to_pandas("places")) == len(residual.places)
    assert list(residual.to_pandas("outputs")["batches"]) == [3] * len(residual.outputs)
    assert repr(residual).startswith("Migration of Residual:")
