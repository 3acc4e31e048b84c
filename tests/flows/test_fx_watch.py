"""Watching torch's calls: moved internals are reported, nothing stays patched, threads are
apart."""

from __future__ import annotations

import copy
import importlib
import threading
from typing import Any

import pytest
import torch
from torch import nn
from torch.ao.quantization import QConfigMapping, get_default_qat_qconfig_mapping
from torch.ao.quantization.fx.custom_config import PrepareCustomConfig
from torch.ao.quantization.quantize_fx import prepare_qat_fx

import qatexplorer as qx
from qatexplorer._tested import TESTED
from qatexplorer.errors import UnsupportedTorchError
from qatexplorer.flows import fx_watch
from qatexplorer.flows.fx_watch import CONVERT_CALLS, PREPARE_CALLS, ConvertWatch, PrepareWatch
from tests.support.models import ConvBnRelu, NoStubs, image
from tests.support.models_fx import Inception, QuantizableResNet, rgb

MAPPING = get_default_qat_qconfig_mapping("onednn")


def names_now() -> dict[tuple[str, str], Any]:
    """What every watched name holds, and the tracer's own methods."""
    found: dict[tuple[str, str], Any] = {
        (w.module, w.name): getattr(importlib.import_module(w.module), w.name)
        for w in (*PREPARE_CALLS, *CONVERT_CALLS)
    }
    tracer = importlib.import_module("torch.ao.quantization.quantize_fx").QuantizationTracer
    found |= {("tracer", name): tracer.__dict__.get(name) for name in ("call_module", "getattr")}
    return found


@pytest.fixture(autouse=True)
def nothing_stays_patched() -> Any:
    before = names_now()
    yield
    assert names_now() == before


def watched(model: nn.Module, x: torch.Tensor, **given: Any) -> tuple[list[str], PrepareWatch]:
    seen: list[str] = []
    watch = PrepareWatch(lambda name, module: seen.append(name))
    with watch.open():
        prepare_qat_fx(copy.deepcopy(model), MAPPING, (x,), **given)
    return seen, watch


def test_boundaries_come_in_order_once() -> None:
    seen, watch = watched(QuantizableResNet().train(), rgb(16))
    assert seen == watch.log.reached == ["trace", "fuse", "propagate", "swap"]


def test_every_fake_quant_node_was_seen_being_inserted() -> None:
    """The events against the finished graph, which knows nothing of them."""
    model = Inception().train()
    prepared = prepare_qat_fx(copy.deepcopy(model), MAPPING, (rgb(),))
    nodes = [n for n in prepared.graph.nodes if str(n.target).startswith("activation_post_proc")]
    _, watch = watched(model, rgb())
    log = watch.log
    assert {(i.site, i.node) for i in log.insertions} == {
        (str(n.target), n.args[0].name) for n in nodes
    }
    assert all(i.call.endswith(f"_insert_obs_or_fq({i.node})") for i in log.insertions)
    assert any("_maybe_insert_input_observers_for_node" in i.call for i in log.insertions)
    by_object: dict[int, set[str]] = {}
    for node in nodes:
        module = prepared.get_submodule(str(node.target))
        by_object.setdefault(id(module), set()).add(str(node.target))
    shared = {name for names in by_object.values() if len(names) > 1 for name in names}
    assert shared
    # An observer may be shared and replaced once more: at least these were seen.
    assert shared <= {site for _, sites in log.shared for site in sites}
    assert "cat" in [node for node, _ in log.shared]


def test_scopes_are_the_modules_in_whose_forward_a_node_is() -> None:
    _, watch = watched(QuantizableResNet().train(), rgb(16))
    assert watch.log.scopes["layer1_0_conv1"] == "layer1.0.conv1"
    assert watch.log.scopes["flatten"] == ""


def test_standalone_modules_prepared_on_the_way_are_not_told() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.alone = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.ReLU())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.alone(self.first(x))

    custom = PrepareCustomConfig().set_standalone_module_name(
        "alone",
        QConfigMapping().set_global(MAPPING.global_qconfig),
        (torch.randn(2, 4),),
        None,
        None,
    )
    seen, watch = watched(Outer().train(), torch.randn(2, 4), prepare_custom_config=custom)
    assert seen == ["trace", "fuse", "propagate", "swap"]
    assert {i.node for i in watch.log.insertions} <= {"x", "first", "alone"}


def test_lowering_passes_are_reported_with_what_they_changed() -> None:
    session = qx.Session(ConvBnRelu().train(), (image(),), flow="fx", qconfig="onednn")
    session.goto("train")
    session.model(image())
    watch = ConvertWatch()
    from torch.ao.quantization.quantize_fx import convert_fx

    with watch.open():
        int8 = convert_fx(copy.deepcopy(session.model).eval())
    assert [p.name for p in watch.passes] == list(fx_watch.LOWERING_PASSES)
    static = watch.passes[0]
    kinds = {n: type(m).__module__ for n, m in int8.named_modules()}
    changed = {"conv1": "conv1", "conv2": "conv2", "fc": "fc"}
    assert set(changed) <= set(static.changed)
    assert all("quantized" in kinds[path] for path in changed.values())
    assert static.removed > 0


@pytest.mark.parametrize("gone", PREPARE_CALLS, ids=lambda w: w.name)
def test_moved_name_is_reported_before_anything_runs(
    gone: fx_watch.Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(gone.module)
    original = getattr(module, gone.name)
    ran: list[str] = []
    tracer = importlib.import_module("torch.ao.quantization.quantize_fx").QuantizationTracer
    monkeypatch.setattr(tracer, "trace", lambda *_: ran.append("trace"))
    monkeypatch.delattr(module, gone.name)
    session = qx.Session(NoStubs().train(), (image(),), flow="fx")
    with pytest.raises(UnsupportedTorchError) as caught:
        session.step()
    assert gone.name in caught.value.message
    assert torch.__version__ in caught.value.message
    assert "eager flow" in caught.value.fix
    assert all(release in caught.value.fix for release in TESTED)
    assert ran == []
    assert session.stage == "float"
    assert qx.Session(ConvBnRelu().train(), (image(),)).goto("insert").sites
    monkeypatch.undo()
    assert getattr(module, gone.name) is original
    assert qx.Session(NoStubs().train(), (image(),), flow="fx").goto("insert").sites


def test_moved_parameter_and_moved_lowering_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = importlib.import_module("torch.ao.quantization.fx.prepare")
    session = qx.Session(NoStubs().train(), (image(),), flow="fx")
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "_qat_swap_modules", lambda model, table: None)
        with pytest.raises(UnsupportedTorchError, match=r"_qat_swap_modules\(root\)"):
            session.step()
    session.goto("convert")
    lower = importlib.import_module("torch.ao.quantization.fx._lower_to_native_backend")
    with monkeypatch.context() as patch:
        patch.delattr(lower, "fold_weight")
        with pytest.raises(UnsupportedTorchError, match="fold_weight"):
            session.step()
    assert session.stage == "convert"
    session.step()


def test_everything_is_put_back_when_torch_or_the_watcher_raises() -> None:
    before = names_now()

    def fall(name: str, _module: Any) -> None:
        assert names_now() != before
        if name == "propagate":
            raise KeyError("watcher")

    watch = PrepareWatch(fall)
    with pytest.raises(KeyError, match="watcher"), watch.open():
        prepare_qat_fx(NoStubs().train(), MAPPING, (image(),))
    assert names_now() == before
    with pytest.raises(AssertionError), PrepareWatch(lambda *_: None).open():
        prepare_qat_fx(NoStubs().train(), "no mapping", (image(),))  # type: ignore[arg-type]


def test_calls_of_another_thread_go_through_untold() -> None:
    """Another thread prepares and trains while this one is in the middle of its own call."""
    model, results, reported = NoStubs().train(), [], []
    expected = prepare_qat_fx(copy.deepcopy(model), MAPPING, (image(),)).code

    def other() -> None:
        theirs = prepare_qat_fx(copy.deepcopy(model), MAPPING, (image(),))
        theirs(image()).sum().backward()
        results.append(theirs.code)

    def at(name: str, _module: Any) -> None:
        reported.append(name)
        if name == "fuse":
            thread = threading.Thread(target=other)
            thread.start()
            thread.join(60)

    watch = PrepareWatch(at)
    with watch.open():
        prepare_qat_fx(copy.deepcopy(model), MAPPING, (image(),))
    assert results == [expected]
    assert reported == ["trace", "fuse", "propagate", "swap"]


def test_forward_in_another_thread_while_this_one_traces() -> None:
    """torch's tracer sees the module calls of the whole process; a run beside must not notice."""
    bystander, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(2, 4)
    outcome: list[Any] = []

    class Meddling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, y: Any) -> Any:
            if isinstance(y, torch.fx.Proxy):
                thread = threading.Thread(target=lambda: outcome.append(bystander(x)))
                thread.start()
                thread.join(60)
            return self.fc(y)

    session = qx.Session(Meddling().train(), (x,), flow="fx")
    outcome.clear()
    session.goto("insert")
    assert torch.equal(outcome[-1], bystander(x))
    assert not any("Sequential" in n.target for n in session.snapshot.graph.nodes)


def test_two_sessions_in_two_threads() -> None:
    codes: dict[int, str] = {}

    def walk(number: int) -> None:
        session = qx.Session(NoStubs().train(), (image(),), flow="fx")
        session.goto("insert")
        codes[number] = session.model.code

    threads = [threading.Thread(target=walk, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(codes) == 3
    assert len(set(codes.values())) == 1
