"""The PT2E flow at the level of its stages: annotations, graphs, the watch, exporting, lowering."""

from __future__ import annotations

import copy
import importlib
from importlib import metadata
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from qatexplorer.errors import StageError, TraceFailedError, UnsupportedTorchError
from qatexplorer.flows import pt2e as flow_file
from qatexplorer.flows.annotations import (
    KEY,
    Annotation,
    annotations_of,
    edge_name,
    sharing_groups,
    spec_of,
)
from qatexplorer.flows.base import StageResult
from qatexplorer.flows.pt2e import Pt2eFlow
from qatexplorer.flows.pt2e_authors import annotate_noting
from qatexplorer.flows.pt2e_quantizers import leaving_float, make_quantizer
from qatexplorer.forward.either_mode import trains
from qatexplorer.forward.exported import calls_of, stack_of
from tests.support.pt2e import (
    Branches,
    branches,
    converted,
    images,
    linears,
    options_of,
    rows,
    walked,
)

theirs = pytest.importorskip("torchao.quantization.pt2e.quantizer")
fake_quants = importlib.import_module("torchao.quantization.pt2e.fake_quantize")


@pytest.fixture(scope="module")
def walk() -> tuple[dict[str, StageResult], StageResult]:
    return walked(branches(), (images(),))


@pytest.fixture(scope="module")
def small() -> StageResult:
    """Linear layers only, whose stages are fast: the prepared model, which has seen data."""
    _, prepared = walked(linears(), (rows(),))
    prepared.model(rows())
    return prepared


# -- annotations --------------------------------------------------------------------------------


def test_an_annotation_has_the_pattern_the_inputs_and_what_is_left(walk: Any) -> None:
    found = {one.node: one for one in walk[0]["annotate"].annotations}
    assert {name: one.pattern for name, one in found.items()} == {
        "conv2d": "conv2d_unary",
        "relu": "conv2d_unary",
        "conv2d_1": "conv2d_binary",
        "add": "conv2d_binary",
        "conv2d_2": "conv2d",
        "linear": "linear",
    }
    assert not found["relu"].rounds  # taken by a pattern, and nothing of it is rounded
    given = dict(found["conv2d"].inputs)
    assert list(given) == ["x", "stem_0_weight", "stem_0_bias"]
    data, weight = given["x"], given["stem_0_weight"]
    assert given["stem_0_bias"] is None
    assert data is not None
    assert weight is not None
    assert (data.kind, data.dtype, data.quant_min, data.quant_max) == ("own", "torch.uint8", 0, 255)
    assert (weight.qscheme, weight.ch_axis) == ("torch.per_channel_symmetric", 0)
    assert weight.observer == "FusedMovingAvgObsFakeQuantize"
    assert not weight.dynamic
    assert walk[0]["transform"].annotations == ()


class Pooled(nn.Module):
    """A pool between two convolutions: X86 lets its output share the range of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(nn.functional.max_pool2d(self.first(x), 2))


def test_groups_are_the_places_that_share_a_fake_quant() -> None:
    stages, prepared = walked(Pooled().train(), (images(),))
    found = {one.node: one for one in stages["annotate"].annotations}
    output = found["max_pool2d"].output
    assert output is not None
    assert (output.kind, output.dtype, output.of) == ("shared", "", ("conv2d → max_pool2d",))
    (group,) = stages["annotate"].groups
    assert {"conv2d → max_pool2d", "max_pool2d", "max_pool2d → conv2d_1"} <= set(group)
    # Two nodes of the graph, and one fake quant.
    by_node = {place.nodes: path for path, place in prepared.placed.items()}
    paths = by_node["conv2d",], by_node["max_pool2d",]
    assert paths[0] != paths[1]
    first, second = (prepared.model.get_submodule(path) for path in paths)
    assert first is second


def test_each_kind_of_spec() -> None:
    graph = fx.Graph()
    a = graph.placeholder("a")
    b = graph.call_function(torch.relu, (a,))
    own = theirs.QuantizationSpec(torch.int8, fake_quants.FakeQuantize)
    fixed = theirs.FixedQParamsQuantizationSpec(torch.uint8, scale=1 / 256, zero_point=0)
    derived = theirs.DerivedQuantizationSpec(
        derived_from=[(a, b), b], derive_qparams_fn=lambda *_: None, dtype=torch.int32
    )
    shared = theirs.SharedQuantizationSpec((a, b))
    records = [spec_of(one) for one in (own, fixed, derived, shared)]
    assert [one.kind for one in records if one] == ["own", "fixed", "derived", "shared"]
    assert [one.of for one in records if one] == [(), (), ("a → relu", "relu"), ("a → relu",)]
    assert records[0] is not None
    assert records[0].observer == "FakeQuantize"
    assert spec_of(None) is None
    assert edge_name(a) == "a"


def test_reading_annotations_changes_no_node() -> None:
    exported = Pt2eFlow().apply("export", linears(), options_of((rows(),))).model
    assert isinstance(exported, fx.GraphModule)
    node = next(n for n in exported.graph.nodes if n.name == "linear")
    spec = theirs.QuantizationSpec(torch.int8, fake_quants.FakeQuantize)
    node.meta[KEY] = theirs.QuantizationAnnotation(
        input_qspec_map={node.args[0]: spec, node.args[1]: None}, output_qspec=spec
    )
    before = [(n.name, n.args, dict(n.meta)) for n in exported.graph.nodes]
    (one,) = annotations_of(exported, {"linear": "mine"})
    assert sharing_groups(exported) == ()
    assert {one.node for one in annotations_of(exported, {})} == {"linear"}
    assert [(n.name, n.args, dict(n.meta)) for n in exported.graph.nodes] == before
    assert isinstance(one, Annotation)
    assert one.pattern == "mine"
    assert [given is None for _, given in one.inputs] == [False, True]


# -- the graph in the user's modules ------------------------------------------------------------


def test_the_graph_speaks_of_the_users_modules(walk: Any) -> None:
    prepared = walk[1]
    nodes = {node.id: node for node in prepared.graph.nodes}
    assert {n.path: n.label for n in nodes.values() if n.path} == {
        "stem.0": "Conv2d",
        "stem.1": "ReLU",
        "left": "Conv2d",
        "right": "Conv2d",
        "pool": "MaxPool2d",
        "drop": "Dropout",
        "fc": "Linear",
    }
    assert nodes["conv2d"].scope == "stem"
    assert nodes["conv2d"].shape == (-1, 4, 4, 4)
    assert nodes["conv2d"].source.startswith("pt2e.py:")
    assert nodes["add"].op == "call_function"
    assert prepared.types["stem"] == "torch.nn.modules.container.Sequential"
    assert prepared.types[""].endswith("Branches")
    edges = {(e.source, e.target): e.sites for e in prepared.graph.edges}
    assert edges["relu", "conv2d_1"] == edges["relu", "conv2d_2"]
    assert len(edges["relu", "conv2d_1"]) == 1
    assert edges["conv2d", "relu"] == ()


def test_placements_name_the_module_and_the_call(walk: Any) -> None:
    places = list(walk[1].placed.values())
    assert [(p.kind, p.owner) for p in places] == [
        ("weight", "stem.0"),
        ("weight", "left"),
        ("weight", "right"),
        ("weight", "fc"),
        ("input", ""),
        ("output", "stem.1"),
        ("output", "right"),
        ("output", "drop"),
    ]
    assert all("→ _insert_obs_or_fq(" in place.call for place in places)


class Calls(nn.Module):
    """One block called twice, and a weight that is computed before it is used."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
        self.weight = nn.Parameter(torch.randn(4, 6))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.block(self.block(x)), self.weight * 2.0)


def test_a_module_that_is_called_twice() -> None:
    _, prepared = walked(Calls().train(), (rows(),))
    graph = prepared.model.graph
    assert isinstance(graph, fx.Graph)
    assert {path for node in graph.nodes for path, _ in stack_of(node)} == {
        "",
        "block",
        "block.0",
        "block.1",
    }
    assert calls_of(prepared.model) == {"": 1, "block": 2, "block.0": 2, "block.1": 2}  # type: ignore[arg-type]
    nodes = {node.id: node for node in prepared.graph.nodes} if prepared.graph else {}
    assert [nodes[one].path for one in ("linear", "relu", "linear_1", "relu_1")] == [
        "block.0",
        "block.1",
        "block.0",
        "block.1",
    ]
    (weight,) = (place for place in prepared.placed.values() if place.kind == "weight")
    assert (weight.owner, weight.owner_type) == ("block.0", "Linear")


class Scales(theirs.Quantizer):
    """Rounds a weight before the product that makes the one that is used."""

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        fake_quant = fake_quants.FakeQuantize
        spec = theirs.QuantizationSpec(torch.int8, fake_quant, -127, 127, torch.per_tensor_affine)
        (product,) = (n for n in model.graph.nodes if n.target is torch.ops.aten.mul.Tensor)
        product.meta[KEY] = theirs.QuantizationAnnotation(
            input_qspec_map={product.args[0]: spec}, output_qspec=spec, _annotated=True
        )
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """Nothing to assert."""


def test_what_is_computed_of_parameters_is_no_data_and_belongs_to_who_takes_it() -> None:
    _, prepared = walked(Calls().train(), (rows(),), Scales())
    assert prepared.graph is not None
    assert "mul" not in {node.label for node in prepared.graph.nodes}
    assert [(p.kind, p.owner_type, p.nodes) for p in prepared.placed.values()] == [
        ("weight", "linear", ("linear_2",)),
        ("weight", "linear", ("linear_2",)),
    ]


# -- the watch ----------------------------------------------------------------------------------


class Own(theirs.Quantizer):
    """A user's own quantizer: linear layers, and it counts."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def _annotate_my_linears(self, model: fx.GraphModule) -> None:
        weight = fake_quants.FusedMovingAvgObsFakeQuantize
        spec = theirs.QuantizationSpec(torch.int8, weight, -127, 127, torch.per_tensor_symmetric)
        for node in model.graph.nodes:
            if node.target is torch.ops.aten.linear.default:
                node.meta[KEY] = theirs.QuantizationAnnotation(
                    input_qspec_map={node.args[1]: spec}, _annotated=True
                )

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        self.calls.append("annotate")
        self._annotate_my_linears(model)
        return model

    def validate(self, model: fx.GraphModule) -> None:
        self.calls.append("validate")


def test_the_users_quantizer_is_unchanged_afterwards() -> None:
    mine = Own()
    before = dict(vars(mine))
    stages, prepared = walked(linears(), (rows(),), mine)
    assert vars(mine) == before == {"calls": []}
    assert {one.pattern for one in prepared.annotations} == {"my_linears"}
    assert [place.kind for place in prepared.placed.values()] == ["weight", "weight"]
    assert list(stages) == ["export", "transform", "annotate", "fuse"]


def test_patterns_of_the_parts_of_a_composed_quantizer() -> None:
    composable = theirs.ComposableQuantizer
    embedding = make_quantizer("embedding")

    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.fc = nn.Embedding(9, 6), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.words(x))

    ids = (torch.randint(0, 9, (4, 3)),)
    given = composable([embedding, make_quantizer("x86")])
    _, prepared = walked(Words().train(), ids, given)
    patterns = {one.node: one.pattern for one in prepared.annotations}
    assert patterns == {"embedding": "embedding_ops", "linear": "linear"}
    assert [vars(part).get("annotate") for part in given.quantizers] == [None, None]


def test_noting_who_annotates_leaves_the_order_in_which_nodes_are_found() -> None:
    graph = fx.Graph()
    graph.output(graph.call_function(torch.relu, (graph.placeholder("x"),)))
    model = fx.GraphModule(nn.Module(), graph)
    first = next(node for node in model.graph.nodes if node.op == "call_function")
    with model.graph.inserting_before(first):
        model.graph.call_function(torch.relu, first.args)

    def found() -> list[str]:
        nodes = model.graph.find_nodes(op="call_function", target=torch.relu, sort=False)
        return [node.name for node in nodes]

    before, metas = found(), [node.meta for node in model.graph.nodes]
    annotate_noting(lambda given: given.graph.find_nodes(op="placeholder"), model)
    assert found() == before == ["relu", "relu_1"]
    assert all(node.meta is meta for node, meta in zip(model.graph.nodes, metas, strict=True))


def test_torchaos_functions_are_its_own_again() -> None:
    api = importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
    names = ("prepare", "_fuse_conv_bn_qat", "_fold_conv_bn_qat")
    before = [getattr(api, name) for name in names]
    flow, options = Pt2eFlow(), options_of((rows(),))
    exported = flow.apply("export", linears(), options).model
    # The call is ended at the boundary that is asked for.
    reached = flow.apply("annotate", exported, options)
    assert annotations_of(reached.model, {})
    assert not [n for n in reached.model.graph.nodes if "activation_post_process" in str(n.target)]
    assert [getattr(api, name) for name in names] == before
    assert torch.export.export.__module__ == "torch.export"


# -- exporting ----------------------------------------------------------------------------------


def test_a_batch_of_one_gives_a_model_for_batches_of_any_size() -> None:
    stages, _ = walked(linears(), (rows(1),))
    assert stages["export"].notes == ()
    assert [len(stages["export"].model(rows(n))) for n in (1, 2, 5)] == [1, 2, 5]


class Fixed(nn.Module):
    """Something hangs on the size of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.bias = nn.Linear(6, 4), nn.Parameter(torch.zeros(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) + self.bias


def test_a_batch_that_cannot_be_of_any_size_is_noted() -> None:
    stages, _ = walked(Fixed().train(), (rows(4),))
    (note,) = stages["export"].notes
    assert note.startswith("torch.export has fixed the batch at 4")
    with pytest.raises(Exception, match="== 4"):
        stages["export"].model(rows(3))


class Peeks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Sequential(nn.Linear(6, 6), Looks())

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x)


class Looks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_what_cannot_be_exported_is_reported_with_its_place() -> None:
    with pytest.raises(TraceFailedError) as raised:
        Pt2eFlow().apply("export", Peeks().train(), options_of((rows(),)))
    assert raised.value.where == "part.1"
    assert "torch.export cannot export Looks.forward at test_pt2e_flow.py:" in raised.value.message


# -- where it runs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("torchao", "torch_version", "said"),
    [
        ("0.17.0", "2.13.0+cpu", "torchao 0.17.0 is installed"),
        ("0.19.0.dev1", "2.13.0+cpu", "torchao 0.19.0.dev1 is installed"),
        ("0.18.1", "2.10.2", "torchao 0.18 needs torch 2.11 or newer, and 2.10.2 is running"),
        ("0.18.1+git", "2.11.0", ""),
        (None, "2.13.0", "torchao is not installed: pip install 'torchao>=0.18,<0.19'"),
    ],
)
def test_which_pairs_of_versions_it_runs_with(
    monkeypatch: pytest.MonkeyPatch, torchao: str | None, torch_version: str, said: str
) -> None:
    monkeypatch.setattr(flow_file.importlib.util, "find_spec", lambda _name: torchao)
    monkeypatch.setattr(metadata, "version", lambda _name: torchao)
    monkeypatch.setattr(torch, "__version__", torch_version)
    assert flow_file.unavailable().startswith(said)
    assert bool(flow_file.unavailable()) == bool(said)
    if said:
        with pytest.raises(UnsupportedTorchError):
            Pt2eFlow().apply("export", linears(), options_of((rows(),)))


# -- lowering -----------------------------------------------------------------------------------


def test_what_is_lowered_takes_batches_of_any_size_and_inputs_by_name(small: Any) -> None:
    lowered = converted(small.model, (rows(),), "lower")
    assert lowered.notes == ()
    both = [lowered.model(rows(n)) for n in (1, 4, 7)]
    assert [len(one) for one in both] == [1, 4, 7]
    # As torchao lowers it, for the example inputs only.
    api = importlib.import_module("torchao.quantization.pt2e.lowering")
    reference = converted(small.model, (rows(),), "fold").model
    with torch.no_grad():
        alone = api.lower_pt2e_quantized_to_x86(reference, (rows(),))
    assert torch.equal(alone(rows()), lowered.model(rows()))
    with pytest.raises(RuntimeError, match="to be equal to 4"):
        alone(rows(7))

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 4)

        def forward(self, *, first: Tensor, second: Tensor) -> Tensor:
            return self.fc(first) - second

    inputs = {"second": torch.zeros(4, 4), "first": rows()}
    _, prepared = walked(Named().train(), inputs)
    prepared.model(**inputs)
    named = converted(prepared.model, inputs, "lower").model
    wanted = converted(prepared.model, inputs, "fold").model
    assert torch.allclose(named(**inputs), wanted(**inputs), atol=1e-5)


def test_a_lowered_model_that_is_fixed_to_a_batch_says_so() -> None:
    _, prepared = walked(Fixed().train(), (rows(4),))
    prepared.model(rows(4))
    (note,) = converted(prepared.model, (rows(4),), "lower").notes
    assert note.startswith("Lowering has fixed the batch at 4")


class InvalidCxxCompiler(RuntimeError):
    """The name that inductor's own has."""


def test_without_a_compiler_the_stage_says_so_and_the_reference_stays(
    monkeypatch: pytest.MonkeyPatch, small: Any
) -> None:
    api = importlib.import_module("torchao.quantization.pt2e.lowering")

    def no_compiler(*_: Any) -> Any:
        raise InvalidCxxCompiler("No working C++ compiler found in config.cpp.cxx: (None, 'g++')")

    monkeypatch.setattr(api, "lower_pt2e_quantized_to_x86", no_compiler)
    with pytest.raises(StageError) as raised:
        converted(small.model, (rows(),), "lower")
    assert "Lowering needs a C++ compiler, and inductor finds none" in raised.value.message
    assert len(converted(small.model, (rows(),), "fold").model(rows(3))) == 3
    inductor = importlib.import_module("torch._inductor.exc")
    assert inductor.InvalidCxxCompiler.__name__ == InvalidCxxCompiler.__name__


def test_the_stages_convert_and_fold_of_a_net_with_a_drop_out(walk: Any) -> None:
    model = copy.deepcopy(walk[1].model)
    model(images())
    (drop,) = [n for n in model.graph.nodes if "dropout" in n.name]
    assert drop.args[1:] == (0.1, True)
    reference = converted(model, (images(),), "fold").model
    assert isinstance(reference, fx.GraphModule)
    assert [n.args[2] for n in reference.graph.nodes if "dropout" in str(n.target)] in ([], [False])
    assert isinstance(branches(), Branches)
    assert torch.equal(reference(images()), reference(images()))


class TwoBlocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.second, self.last = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.norm(self.first(x)).relu())).relu()


def test_a_convolution_with_its_batch_norm_is_left_in_float() -> None:
    plain = TwoBlocks().train()
    x = torch.randn(4, 3, 9, 9)
    # torchao alone raises, which is why the flow says more than the quantizer does.
    alone = make_quantizer("x86").set_module_name_qconfig("first", None)
    exported = torch.export.export(copy.deepcopy(plain), (x,)).module()
    with pytest.raises(IndexError):
        importlib.import_module("torchao.quantization.pt2e.quantize_pt2e").prepare_qat_pt2e(
            exported, alone
        )
    _, prepared = walked(plain, (x,), leaving_float(make_quantizer("x86"), ["first"]))
    model: Any = prepared.model
    for _ in range(3):
        model(x)
    weights = {place.owner for place in prepared.placed.values() if place.kind == "weight"}
    assert weights == {"second"}
    off = copy.deepcopy(model).eval()
    for one in off.modules():
        if isinstance(one, fake_quants.FakeQuantizeBase):
            one.disable_fake_quant()
    plain.load_state_dict(batch_norms_of(off), strict=False)
    assert torch.allclose(off(x), plain.eval()(x), atol=1e-5)
    wanted = copy.deepcopy(model).eval()(x)
    reference: Any = converted(model, (x,), "fold").model
    kernels = [n for n in reference.graph.nodes if "dequantize_per_channel" in str(n.target)]
    assert len(kernels) == 1
    step = max(float(n.args[1]) for n in reference.graph.nodes
               if "dequantize_per_tensor" in str(n.target))  # fmt: skip
    assert float((reference(x) - wanted).abs().max()) < 1.5 * step


def batch_norms_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if "running_" in name}


def test_an_instance_norm_has_no_mode() -> None:
    """In eval mode its kernel would read statistics that it has not."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.InstanceNorm2d(4), nn.Flatten(), nn.Linear(64, 2))
    _, prepared = walked(net.train(), (images(),))
    prepared.model(images())
    lowered = converted(prepared.model, (images(),), "lower").model
    assert isinstance(lowered, fx.GraphModule)
    norms = [node for node in lowered.graph.nodes if "batch_norm" in str(node.target)]
    assert [(node.args[3], trains(node)) for node in norms] == [(True, None)]
    wanted = converted(prepared.model, (images(),), "fold").model(images())
    assert torch.allclose(lowered(images()), wanted, atol=0.05)
