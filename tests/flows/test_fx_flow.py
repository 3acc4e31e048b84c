"""The FX flow as a session shows it: stages, models, sites, graph."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.ao.quantization import QConfig, QConfigMapping, get_default_qat_qconfig_mapping
from torch.ao.quantization.quantize_fx import prepare_qat_fx

import qatexplorer as qx
from qatexplorer.app import cli
from qatexplorer.errors import EvalModeError
from qatexplorer.flows.qconfig import qat_qconfig, resolve_qconfig
from qatexplorer.quantizers.facts import is_quantizer
from qatexplorer.snapshot.follow import moved_selection
from qatexplorer.views.graph.scene import build_scene
from qatexplorer.views.inspector.page import inspect_html
from qatexplorer.views.tree import build_tree
from tests.support.models import ConvBnRelu, NoStubs, Residual, image, loader
from tests.support.models_fx import (
    Flattened,
    FunctionalWeights,
    Inception,
    QuantizableMobileNet,
    QuantizableResNet,
    TinyViT,
    rgb,
)

STAGES = ("float", "trace", "fuse", "propagate", "swap", "insert", "train", "convert", "lower")


def fx_session(model: nn.Module, x: Any, **settings: Any) -> qx.Session:
    torch.manual_seed(0)
    settings.setdefault("qconfig", "onednn")
    return qx.Session(model.train(), (x,), flow="fx", **settings)


@pytest.fixture(scope="module")
def stepped() -> qx.Session:
    """A quantizable ResNet at the last stage, with one batch seen."""
    session = fx_session(QuantizableResNet(), rgb(16))
    session.goto("train")
    session.model(rgb(16))
    session.goto("lower")
    return session


def test_stages_and_their_models(stepped: qx.Session) -> None:
    assert stepped.stages == STAGES
    for stage in STAGES[1:]:
        stepped.goto(stage)
        assert isinstance(stepped.model, torch.fx.GraphModule)
        assert stepped.snapshot.stage == stage
        with torch.no_grad():
            assert copy.deepcopy(stepped.model)(rgb(16)).shape == (4, 10)
    assert stepped.model is stepped.int8
    stepped.goto("convert")
    weights = [id(p) for p in stepped.model.parameters()]
    assert weights == [id(p) for p in stepped.model.parameters()]


def test_one_call_makes_five_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    import qatexplorer.flows.fx as flow

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return prepare_qat_fx(*args, **kwargs)

    monkeypatch.setattr(flow, "prepare_qat_fx", counted)
    session = fx_session(NoStubs(), image())
    for stage in STAGES[1:6]:
        assert session.step().stage == stage
    assert calls == [1]
    events: list[str] = []
    session.signal.subscribe(lambda event: events.append(event.kind))
    session.back()
    assert events == ["stage"]
    assert calls == [1]


def test_stage_by_stage_the_model_is_what_torch_had_then() -> None:
    session = fx_session(ConvBnRelu(), image())
    kinds = {}
    for stage in STAGES[1:6]:
        session.goto(stage)
        model = session.model
        kinds[stage] = (type(model.conv1).__module__, hasattr(model.conv1, "qconfig"))
    assert kinds["trace"] == ("torch.nn.modules.conv", False)
    assert kinds["fuse"] == ("torch.ao.nn.intrinsic.modules.fused", False)
    assert kinds["propagate"] == ("torch.ao.nn.intrinsic.modules.fused", True)
    assert kinds["swap"] == ("torch.ao.nn.intrinsic.qat.modules.conv_fused", True)
    counts = {s: len(session.snapshots[s].sites) for s in STAGES[1:6]}
    assert counts["propagate"] == 0 < counts["swap"] < counts["insert"]


def test_the_users_model_is_left_alone() -> None:
    torch.manual_seed(0)
    model = Residual().train()
    before = copy.deepcopy(model.state_dict())
    kinds = [type(m) for m in model.modules()]
    session = qx.Session(model, (image(),), flow="fx", data=(loader(image()), loader(image())))
    session.train(epochs=1)
    session.goto("lower")
    assert [type(m) for m in model.modules()] == kinds
    assert not any(hasattr(m, "qconfig") for m in model.modules())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert session.int8(image()).shape == (4, 4)


def test_models_of_the_stages_share_no_parameter_with_each_other() -> None:
    session = fx_session(NoStubs(), image())
    models = []
    for stage in STAGES[:8]:
        session.goto(stage)
        models.append(session.model)
    models.pop(6)  # insert and train are one model
    owners = [id(p) for m in models for p in {id(p): p for p in m.parameters()}.values()]
    assert len(owners) == len(set(owners))
    storages = [p.data_ptr() for m in models for p in m.parameters()]
    assert len(storages) == len(set(storages))


def test_training_drops_what_was_converted_before() -> None:
    data = (loader(image()), loader(image()))
    session = fx_session(NoStubs(), image(), data=data)
    session.goto("lower")
    first = session.int8
    session.train(epochs=1)
    assert session.reached == "train"
    session.goto("lower")
    assert session.int8 is not first
    rows = session.evaluate(latency=False)
    assert rows["int8"].metric is not None


def test_eval_mode_is_refused_though_torch_accepts_it() -> None:
    model = NoStubs().eval()
    assert prepare_qat_fx(copy.deepcopy(model), get_default_qat_qconfig_mapping(), (image(),))
    session = qx.Session(model, (image(),), flow="fx")
    with pytest.raises(EvalModeError):
        session.step()
    session.use_train_mode()
    assert session.goto("insert").sites


# -- fake quants ---------------------------------------------------------------------------------


def test_sites_against_the_graph_module(stepped: qx.Session) -> None:
    """Every fake quant module of torch's model, counted and placed by reading its graph."""
    stepped.goto("insert")
    snapshot, model = stepped.snapshots["insert"], stepped._models.work
    modules = dict(model.named_modules(remove_duplicate=False))
    inner = {id(m) for n, m in modules.items() if n.endswith(".activation_post_process")}
    objects = {id(m) for m in modules.values() if is_quantizer(m)} - inner
    assert len(snapshot.sites) == len(objects)
    nodes = {n.name: n for n in model.graph.nodes}
    for site in snapshot.sites:
        if site.path.endswith("weight_fake_quant"):
            assert (site.mechanism, site.stage, site.nodes) == ("forward", "swap", ())
            continue
        names = {site.path, *site.aliases}
        users = [n for n in nodes.values() if n.op == "call_module" and n.target in names]
        assert site.mechanism == "node"
        assert site.stage == "insert"
        assert "_insert_obs_or_fq" in site.call
        assert site.calls_per_forward == len(users)
        assert site.nodes == tuple(dict.fromkeys(n.args[0].name for n in users))
        first = users[0].args[0]
        assert site.kind == ("input" if first.op == "placeholder" else "output")
        if first.op == "call_module":
            assert site.owner == first.target
        assert bool(site.shared_by) == bool(site.aliases)


def test_input_kind_weight_kind_and_op_owner() -> None:
    session = fx_session(FunctionalWeights(), rgb())
    sites = {node: s for s in session.goto("insert").sites for node in s.nodes}
    assert sites["x"].kind == "input"
    assert sites["kernel"].kind == sites["weight"].kind == "weight"
    assert sites["kernel"].per_channel
    assert sites["mean"].kind == "output"
    assert (sites["linear"].owner, sites["linear"].owner_type) == ("", "linear")


@pytest.mark.parametrize(
    ("how", "same"), [("method", False), ("function", True), ("module", False)]
)
def test_flatten_shares_or_doubles(how: str, same: bool) -> None:
    session = fx_session(Flattened(how), rgb())
    snapshot = session.goto("insert")
    graph = snapshot.graph
    assert graph is not None
    (into,) = [e for e in graph.edges if e.target == "flatten"]
    (out,) = [e for e in graph.edges if e.source == "flatten"]
    before, after = (snapshot.site_by_path[e.sites[0]] for e in (into, out))
    assert (before is after) is same
    assert ("flatten" in after.shared_by) is same


def test_shared_by_cat() -> None:
    snapshot = fx_session(Inception(), rgb()).goto("insert")
    (site,) = [s for s in snapshot.sites if "cat" in s.shared_by]
    assert {"a_0", "b_0", "cat"} <= set(site.nodes)
    assert site.calls_per_forward == len(site.aliases) + 1


def test_sites_keep_their_place_through_training() -> None:
    session = fx_session(Residual(), image(), data=(loader(image()), loader(image())))
    before = {s.path: s for s in session.goto("insert").sites}
    session.train(epochs=1)
    for site in session.snapshots["train"].sites:
        old = before[site.path]
        for field in ("kind", "owner", "nodes", "call", "stage", "shared_by", "mechanism"):
            assert getattr(site, field) == getattr(old, field), field
        assert site.scale != old.scale or site.observer_class.startswith("FixedQParams")
    assert session.histogram("activation_post_process_0").total > 0


# -- graph ---------------------------------------------------------------------------------------


def test_graph_is_torchs_own_without_the_fake_quants(stepped: qx.Session) -> None:
    stepped.goto("insert")
    graph = stepped.snapshot.graph
    assert graph is not None
    work = stepped._models.work
    theirs = [n for n in work.graph.nodes if "activation_post_process" not in str(n.target)]
    assert [n.id for n in graph.nodes] == [n.name for n in theirs]
    assert all(n.shape for n in graph.nodes)
    sources = {n.id: n.source for n in graph.nodes}
    assert sources["conv1"].startswith("models_fx.py:")
    scopes = {n.id: n.scope for n in graph.nodes}
    assert scopes["layer2_0_conv1"] == "layer2.0"
    assert scopes["layer2_0_downsample_0"] == "layer2.0.downsample"
    assert scopes["flatten"] == ""
    on_the_way = {path for e in graph.edges for path in e.sites}
    placed = {p for s in stepped.snapshot.sites if s.nodes for p in (s.path, *s.aliases)}
    assert on_the_way == placed


def test_scopes_and_lines_stay_where_the_user_turned_stack_traces_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = fx_session(QuantizableMobileNet(), rgb(16)).goto("lower").graph
    monkeypatch.setattr(torch.fx.config, "do_not_emit_stack_traces", True, raising=False)
    graph = fx_session(QuantizableMobileNet(), rgb(16)).goto("lower").graph
    assert graph is not None
    assert any(n.source for n in graph.nodes)
    assert graph == known
    assert torch.fx.config.do_not_emit_stack_traces


def test_scopes_after_lowering_with_one_class_used_twice() -> None:
    session = fx_session(QuantizableMobileNet(), rgb(16))
    session.goto("train")
    session.model(rgb(16))
    graph = session.goto("lower").graph
    assert graph is not None
    adds = [n for n in graph.nodes if n.target == "quantized.add"]
    assert [n.scope for n in adds] == ["features.3", "features.5"]
    assert [n.dtype for n in adds] == ["torch.quint8"] * 2
    assert not any(n.id.startswith(("features_0_scale", "features_0_zero")) for n in graph.nodes)


def test_scene_tree_and_inspector(stepped: qx.Session) -> None:
    for stage in STAGES:
        stepped.goto(stage)
        scene = build_scene(stepped.snapshot, stepped.diff.paths if stepped.diff else frozenset())
        assert not scene["reason"]
        marks = [m for item in (*scene["nodes"], *scene["groups"]) for m in item["marks"]]
        assert {m["site"] for m in marks} == {s.path for s in stepped.snapshot.sites}
        if stage in ("insert", "train"):
            tails = {n["path"]: n["marks"] for n in scene["nodes"] if n["path"]}
            assert [m["role"] for m in tails["conv1"]] == ["side", "tail"]
        rows = build_tree(stepped.snapshot)
        assert not [r["id"] for r in rows if r["float"]]
        assert inspect_html(stepped.snapshots, stage, "module:layer1.0.conv1")
    scene = build_scene(stepped.snapshot)
    int8 = {n["label"] for n in scene["nodes"] if n["precision"] == "int8"}
    assert {"conv1", "maxpool", "fc"} <= int8
    html = inspect_html(stepped.snapshots, "insert", "site:activation_post_process_1")
    assert "_insert_obs_or_fq" in html
    assert 'data-select="node:' in html
    edge = inspect_html(stepped.snapshots, "insert", "edge:x:conv1")
    edges = stepped.snapshots["insert"].graph.edges
    (on_it,) = next(e.sites for e in edges if (e.source, e.target) == ("x", "conv1"))
    assert "1 fake quant on this tensor." in edge
    assert f'data-select="site:{on_it}"' in edge
    assert "No fake quant on this tensor." in inspect_html(
        stepped.snapshots, "trace", "edge:x:conv1"
    )
    pickle.loads(pickle.dumps(stepped.snapshots["insert"]))


def test_selection_of_a_fake_quant_falls_back_to_its_owner(stepped: qx.Session) -> None:
    insert, swap = stepped.snapshots["insert"], stepped.snapshots["swap"]
    site = next(s for s in insert.sites if s.owner == "layer1.0.conv1" and s.nodes)
    assert moved_selection(f"site:{site.path}", insert, swap) == "module:layer1.0.conv1"


def test_notes_say_what_happened(stepped: qx.Session) -> None:
    notes = {stage: " ".join(stepped.snapshots[stage].notes) for stage in STAGES}
    assert "stubs do nothing in FX" in notes["trace"]
    assert "One fake quant for input and output" in notes["insert"]
    assert "_lower_static_weighted_ref_module" in notes["lower"]


def test_attention_from_parts_and_dict_inputs() -> None:
    torch.manual_seed(0)
    session = qx.Session(TinyViT().train(), {"x": rgb()}, flow="fx")
    session.goto("train")
    session.model(x=rgb())
    assert session.goto("lower").graph is not None
    assert session.preflight().ok


# -- settings ------------------------------------------------------------------------------------


def test_mapping_by_type_name_and_regex() -> None:
    plan = resolve_qconfig({"": "onednn", nn.Linear: None, "conv": "x86"})
    mapping = plan.as_mapping(NoStubs())
    default = get_default_qat_qconfig_mapping("onednn")
    assert set(default.object_type_qconfigs) < set(mapping.object_type_qconfigs)
    assert mapping.object_type_qconfigs[nn.Linear] is None
    assert mapping.module_name_qconfigs["conv"] is not None
    given = QConfigMapping().set_global(qat_qconfig("x86")).set_module_name_regex("fc.*", None)
    assert resolve_qconfig(given).as_mapping(NoStubs()) is given
    # torch does not look at a regex when it swaps modules, so weights are fake-quantized yet.
    sites = fx_session(NoStubs(), image(), qconfig=given).goto("insert").sites
    assert not {s.owner for s in sites if s.nodes} & {"fc1", "fc2"}
    assert "conv" in {s.owner for s in sites if s.nodes}
    one: QConfig = qat_qconfig("x86")
    alone = resolve_qconfig(one).as_mapping(NoStubs())
    assert alone.global_qconfig is one
    assert not alone.object_type_qconfigs


def test_torchs_own_default_mapping_is_taken_by_both_flows() -> None:
    for flow in ("eager", "fx"):
        mapping = get_default_qat_qconfig_mapping("onednn")
        session = qx.Session(ConvBnRelu().train(), (image(),), flow=flow, qconfig=mapping)
        assert session.goto("insert").sites


def test_the_flow_can_be_changed_and_changed_back() -> None:
    session = qx.Session(NoStubs().train(), (image(),))
    session.goto("insert")
    events: list[str] = []
    session.signal.subscribe(lambda event: events.append(event.kind))
    assert session.configure(flow="fx").flow == "fx"
    assert "config" in events
    assert session.stages == STAGES
    assert session.goto("lower").stage == "lower"
    assert session.stub_options() == ()
    session.configure(flow="eager")
    assert session.stages[-1] == "convert"
    assert len(session.stub_options()) == 3


def test_stubs_and_fusion_mean_nothing_here_and_harm_nothing() -> None:
    plain = fx_session(NoStubs(), image())
    plain.goto("insert")
    session = fx_session(NoStubs(), image(), stubs="layers", fusion=[["conv", "bn"]])
    session.goto("insert")
    assert session.model.code == plain.model.code


def test_inspect_prints_the_fx_stages(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", "zoo:digits_cnn", "--flow", "fx", "--to", "swap"]) == 0
    text = capsys.readouterr().out
    assert "flow fx, stage swap" in text
    assert "Conv2d → ConvBnReLU2d" in text
    assert cli.main(["inspect", "zoo:digits_cnn", "--flow", "jit"]) != 0
    assert "'eager', 'fx'" in capsys.readouterr().err
