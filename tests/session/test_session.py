"""The contract of the session: stages, snapshots, models, and the user's model left alone."""

from __future__ import annotations

import copy
import gc
import random
import threading
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import FakeQuantizeBase

import qatexplorer as qx
from qatexplorer import errors
from tests.support.models import ConvBnRelu, NoStubs, Residual, TwoNames, image, loader
from tests.support.waiting import PATIENCE_S, until

STAGES = ("float", "fuse", "propagate", "swap", "insert", "train", "convert")


def make(model: nn.Module | None = None, **settings: Any) -> qx.Session:
    torch.manual_seed(0)
    net = (ConvBnRelu() if model is None else model).train()
    x = image()
    return qx.Session(net, (x,), **{"data": [loader(x), loader(x)], **settings})


def state(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a)


# -- walking -------------------------------------------------------------------------------------


def test_step_through_all_stages_and_what_each_changes() -> None:
    session = make()
    assert session.stages == STAGES
    assert session.stage == "float"
    assert session.diff is None
    seen = []
    while session.stage != "convert":
        snapshot = session.step()
        assert snapshot is session.snapshot is session.snapshots[session.stage]
        assert session.diff is not None
        seen.append((session.stage, session.diff.summary()))
    assert dict(seen) == session.summaries
    assert session.summaries["insert"].endswith("4 fake quants inserted")
    diffs = {b: qx.diff(session.snapshots[a], session.snapshots[b]) for a, b in pairwise(STAGES)}
    fused = {c.after.path: c.after.type_name for c in diffs["fuse"].swapped}
    assert fused["conv1"] == "ConvBnReLU2d"
    assert fused["conv2"] == "ConvReLU2d"
    assert fused["bn1"] == fused["relu1"] == fused["relu2"] == "Identity"
    assert diffs["propagate"].qconfigs_set == len(session.snapshots["propagate"].modules)
    assert {c.after.path for c in diffs["swap"].swapped} >= {"conv1", "conv2", "fc"}
    assert len(diffs["swap"].sites_added) == 3
    assert len(diffs["insert"].sites_added) == 4
    assert diffs["train"].summary() == "nothing changed"
    assert len(diffs["convert"].sites_removed) == 7
    assert session.snapshot.by_path["conv1"].qualified_type.startswith("torch.ao.nn.intrinsic.q")


def test_back_goto_and_reset() -> None:
    session = make()
    session.goto("insert")
    kept = dict(session.snapshots)
    assert session.back() is kept["swap"]
    assert session.back() is kept["propagate"]
    assert session.reached == "insert"
    assert session.step() is kept["swap"]
    assert session.goto("float") is kept["float"]
    assert session.back() is kept["float"]
    assert session.goto("insert") is kept["insert"]
    session.reset()
    assert session.stage == session.reached == "float"
    assert list(session.snapshots) == ["float"]
    again = session.goto("insert")
    assert again == kept["insert"]


def test_snapshots_cannot_be_changed() -> None:
    session = make()
    with pytest.raises(TypeError):
        session.snapshots["float"] = None  # type: ignore[index]
    with pytest.raises(AttributeError):
        session.snapshot.stage = "other"  # type: ignore[misc]


def test_events_say_what_changed() -> None:
    session = make()
    events: list[tuple[str, Any]] = []
    quiet = ("progress", "stepping")  # how often these come depends on the clock
    stop = session.signal.subscribe(
        lambda e: events.append((e.kind, e.detail)) if e.kind not in quiet else None
    )
    session.step()
    session.configure(stubs="model")
    session.train(epochs=1)
    kinds = [k for k, _ in events]
    assert kinds == ["stage", "config", "stage", "stage", "run", "trained"]
    assert events[0] == ("stage", "fuse")
    assert events[3] == ("stage", "train")
    assert events[4] == ("run", session.run)
    assert events[5][1].state == "finished"
    stop()
    session.reset()
    assert len(events) == len(kinds)


# -- models --------------------------------------------------------------------------------------


def test_model_is_of_the_stage_in_view() -> None:
    session = make()
    session.goto("train")
    types = {}
    for stage in ("float", "fuse", "swap", "insert"):
        session.goto(stage)
        types[stage] = type(session.model.conv1).__module__
        recorded = {m.path: m.type_name for m in session.snapshot.modules}
        shown = {
            p: type(m).__name__
            for p, m in session.model.named_modules(remove_duplicate=False)
            if p in recorded
        }
        assert shown == recorded
    assert types["float"] == "torch.nn.modules.conv"
    assert types["fuse"].startswith("torch.ao.nn.intrinsic.modules")
    assert types["swap"] == types["insert"]
    assert types["swap"].startswith("torch.ao.nn.intrinsic.qat")


def test_model_handed_out_stays_what_it_was() -> None:
    session = make()
    taken = session.model
    session.goto("insert")
    assert type(taken.conv1) is nn.Conv2d
    prepared = session.model
    session.goto("train")
    assert session.model is prepared
    session.goto("convert")
    assert isinstance(prepared.fc.weight_fake_quant, FakeQuantizeBase)


def test_training_the_handed_out_model_is_training_the_sessions() -> None:
    session = make()
    session.goto("insert")
    session.goto("train")
    before = session.evaluate(latency=False)["float"]
    model = session.model
    untrained = model.fc.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in loader(image()):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    trained = model.fc.weight.detach().clone()
    session.goto("convert")
    converted = session.int8.fc.weight().dequantize()
    assert (trained - untrained).norm() > 5 * (converted - trained).norm()
    assert session.evaluate(latency=False)["float"] == before
    session.goto("float")
    assert torch.equal(session.model.fc.weight, untrained)


def test_weights_changed_by_the_user_go_on_to_the_next_stages() -> None:
    session = make()
    with torch.no_grad():
        session.model.fc.weight.fill_(0.5)
    session.goto("insert")
    assert session.model.fc.weight.mean().item() == pytest.approx(0.5)


def everything(model: nn.Module) -> list[Any]:
    """Identity of all that hangs on the model, and copies of all values."""
    return [
        (
            path,
            id(module),
            type(module),
            module.training,
            {k: id(v) for k, v in vars(module).items() if not isinstance(v, (bool, int))},
            {k: id(v) for k, v in module._parameters.items()},
            {k: id(v) for k, v in module._buffers.items()},
            list(module._forward_hooks.values()),
            list(module._forward_pre_hooks.values()),
        )
        for path, module in model.named_modules(remove_duplicate=False)
    ]


def world() -> list[Any]:
    return [
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),  # type: ignore[index, union-attr]
        torch.backends.quantized.engine,
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        gc.isenabled(),
        torch.get_default_dtype(),
    ]


def test_the_users_model_and_world_stay_as_they_were() -> None:
    torch.manual_seed(0)
    model = Residual().train()
    model.note = {"mine": 1}
    model.stem[1].eval()  # a mode of its own
    model.fc.register_forward_hook(lambda *_: None)
    model.body.register_full_backward_hook(lambda *_: None)
    x = image()
    engine = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        before, values, around = everything(model), state(model), world()
        session = qx.Session(model, (x,), data=[loader(x), loader(x)], qconfig="onednn")
        session.goto("train")
        session.stub_options()
        session.preflight()
        session.histogram("fc.weight_fake_quant")
        session.train(epochs=1, lr=0.1)
        session.goto("convert")
        assert session.evaluate(latency=False)["int8"].metric is not None
        session.goto("swap")
        session.model(x)
        after_forward = torch.get_rng_state().tolist()
        session.reset()
        assert everything(model) == before
        assert same(state(model), values)
        assert [after_forward, *world()[1:]] == around
    finally:
        torch.backends.quantized.engine = engine


def test_a_dropout_in_the_model_does_not_use_up_random_numbers() -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    model, x = ConvBnRelu().train(), None
    torch.manual_seed(3)
    session = qx.Session(model, (torch.ones(4, 1, 8, 8),), data=[loader(image())] * 2)
    del x
    torch.manual_seed(3)
    session.goto("train")
    session.train(epochs=1)
    session.goto("convert")
    session.evaluate(latency=False)
    assert torch.equal(torch.rand(3), expected)


def parameter_bytes() -> int:
    """Bytes of all storages that a Parameter alive in this process points to."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if type(thing) is nn.Parameter:
            storages[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    return sum(storages.values())


@pytest.mark.usefixtures("few_objects")
def test_one_extra_copy_of_the_parameters_until_training() -> None:
    torch.manual_seed(0)
    model = NoStubs().train()
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    x = image()
    start = parameter_bytes()
    session = qx.Session(model, (x,), data=[loader(x)] * 2, stubs="layers")
    for stage in ("insert", "train"):
        session.goto(stage)
        assert parameter_bytes() == start + size, stage
    session.goto("convert")
    held = parameter_bytes()
    assert held <= start + 1.01 * size  # the int8 layers keep a bias as a Parameter
    for stage in STAGES:
        session.goto(stage)
        if session.snapshot.sites:
            session.histogram(session.snapshot.sites[0].path)
        assert parameter_bytes() == held, stage
    session.stub_options()
    session.preflight()
    assert parameter_bytes() == held
    session.goto("fuse")
    looked_at = session.model
    assert parameter_bytes() == held + size
    assert session.model is looked_at
    del looked_at
    assert parameter_bytes() == held  # going back holds no weights
    session.train(epochs=1)
    assert parameter_bytes() <= start + 2 * size


def test_int8_is_what_runs() -> None:
    session = make()
    session.goto("train")
    session.calibrate()
    session.goto("convert")
    assert session.model is session.int8
    x = image()
    with torch.no_grad():
        result = session.int8(x)
    assert result.shape == (4, 4)
    assert not session.int8.training
    assert any(v.dtype == torch.qint8 for v in _weights(session.int8))


def _weights(model: nn.Module) -> list[Tensor]:
    return [m.weight() for m in model.modules() if callable(getattr(m, "weight", None))]


# -- training and evaluation ---------------------------------------------------------------------


def test_train_refreshes_the_snapshot_and_drops_the_old_int8() -> None:
    session = make()
    session.goto("convert")
    assert any("No observer" in n for n in session.snapshot.notes)
    run = session.train(epochs=2, lr=0.01)
    assert session.run is run
    assert run.state == "finished"
    assert len(run.history.epochs) == 2
    assert session.stage == "train"
    assert session.reached == "train"
    assert session.observed
    with pytest.raises(qx.errors.StageError):
        _ = session.int8
    assert session.diff is not None
    assert len(session.diff.sites_changed) == 7
    session.step()
    assert not any("No observer" in n for n in session.snapshot.notes)


def test_background_run_pauses_resumes_and_stops() -> None:
    session = make(data=[loader(image(), batches=200)] * 2)
    run = session.start_training(epochs=50)
    assert session.running
    site = session.snapshots["insert"].sites[0].path
    until(lambda: run.history.samples(site))
    run.pause(timeout=PATIENCE_S)
    assert run.state == "paused"
    assert session.running
    assert session.histogram(site).total > 0  # the run's newest sample
    with pytest.raises(errors.BusyError):
        session.histograms()
    with pytest.raises(qx.errors.BusyError):
        session.goto("convert")
    assert session.goto("swap").stage == "swap"  # looking back is free while it trains
    run.resume(timeout=PATIENCE_S)
    assert run.state == "running"
    run.stop(timeout=PATIENCE_S)
    assert run.state == "stopped"
    assert not session.running
    assert session.goto("convert").stage == "convert"


def test_background_and_foreground_give_the_same_weights() -> None:
    front, behind = make(), make()
    front.train(epochs=2, seed=4)
    run = behind.start_training(epochs=2, seed=4).wait()
    assert run.state == "finished"
    assert same(state(front.model), state(behind.model))


def test_float_metric_is_of_the_untrained_model() -> None:
    session = make()
    first = session.evaluate(latency=False)["float"].metric
    run = session.train(epochs=3, lr=0.05)
    after = session.evaluate(latency=False)
    assert first is not None
    assert after["float"].metric is not None
    assert after["float"].metric.value == first.value == run.history.baseline
    assert [n for n, r in after.items() if r.metric] == ["float", "ptq", "fake_quant", "int8"]
    assert "no int8 model yet" in after["int8"].note
    assert session.stage == "train"


def test_evaluate_says_what_is_missing() -> None:
    session = make()
    rows = session.evaluate(latency=False)
    assert rows["float"].metric is not None
    assert "insert" in rows["int8"].note
    session.goto("train")
    rows = session.evaluate(latency=False)
    assert rows["ptq"].metric is not None
    assert "no data yet" in rows["fake_quant"].note


def test_evaluate_with_latency_and_own_metric() -> None:
    def mean_square(output: Tensor, target: Tensor) -> Tensor:
        return output.square().mean()

    session = make(metric=mean_square)
    session.goto("train")
    session.calibrate()
    rows = session.evaluate()
    assert rows.metric_name == "mean_square"
    assert rows["int8"].latency is not None
    assert rows["int8"].latency.engine == session.options.qconfig.backend
    assert (rows["int8"].size_bytes or 0) < (rows["float"].size_bytes or 0) * 2


def test_calibrate_changes_ranges_only() -> None:
    session = make()
    session.goto("train")
    weights = {n: p.detach().clone() for n, p in session.model.named_parameters()}
    norms = {n: b.clone() for n, b in session.model.named_buffers() if "running" in n}
    session.calibrate(batches=1)
    assert all(torch.equal(p, weights[n]) for n, p in session.model.named_parameters())
    now = dict(session.model.named_buffers())
    assert all(torch.equal(now[n], b) for n, b in norms.items())
    assert session.model.training
    assert session.observed
    site = session.snapshot.site_by_path["fc.activation_post_process"]
    assert site.max_val
    assert session.snapshots["insert"].site_by_path[site.path].max_val == ()


# -- settings and looking ahead ------------------------------------------------------------------


def test_configure_starts_again_with_the_new_settings() -> None:
    session = make()
    session.goto("insert")
    session.configure(qconfig="qnnpack", fusion=[["conv2", "relu2"]])
    assert session.stage == "float"
    session.goto("insert")
    assert session.snapshot.by_path["conv1"].type_name == "Conv2d"
    assert session.snapshot.site_by_path["fc.weight_fake_quant"].ch_axis is None
    session.configure(fusion="auto")
    assert session.fusion == (("conv1", "bn1", "relu1"), ("conv2", "relu2"))
    session.configure(engine="fbgemm")
    assert session.options.qconfig.backend == "fbgemm"
    assert session.options.qconfig.name == "qnnpack"
    session.goto("insert")
    assert session.snapshot.site_by_path["fc.weight_fake_quant"].ch_axis is None


def test_stub_options_compare_the_ways_out() -> None:
    session = make(NoStubs())
    assert any("no QuantStub" in n for n in session.goto("propagate").notes)
    options = {o.mode: o for o in session.stub_options()}
    assert not options["none"].preflight.ok
    assert options["layers"].preflight.ok
    assert options["layers"].fake_quants > options["none"].fake_quants
    assert options["layers"].preflight.int8_modules == 3
    assert options["layers"].preflight.float_islands == 2  # the flatten and the ReLU between
    assert session.stage == "propagate"
    session.configure(stubs="layers")
    prepared = session.goto("insert")
    assert len(prepared.sites) == options["layers"].fake_quants


def test_preflight_before_and_after() -> None:
    session = make()
    ready = session.preflight()
    assert ready.ok
    assert ready.error is None
    assert ready.int8_modules == 3
    assert ready.float_islands == 0
    assert session.stage == session.reached == "float"
    missing = make(NoStubs()).preflight()
    assert isinstance(missing.error, qx.errors.Int8RunError)
    assert missing.error.where == "conv"


def test_a_histogram_that_is_made_waits_for_no_long_job() -> None:
    session = make()
    session.goto("insert")
    session.histograms()
    asked: list[int] = []
    site = "conv2.activation_post_process"
    looker = threading.Thread(target=lambda: asked.append(session.histogram(site).total))
    with session._lock:  # as a trial in int8 or an evaluation holds it
        looker.start()
        looker.join(timeout=10)
        assert asked == [4 * 6 * 8 * 8]


def test_histogram_of_untrained_and_trained() -> None:
    session = make()
    session.goto("insert")
    before = session.histogram("conv2.activation_post_process")
    assert before.total == 4 * 6 * 8 * 8
    assert before.scale != 1.0
    assert session.snapshot.site_by_path["conv2.activation_post_process"].scale == (1.0,)
    session.train(epochs=1)
    site = session.snapshot.site_by_path["conv2.activation_post_process"]
    assert session.histogram(site.path).scale == pytest.approx(site.scale[0])
    session.goto("swap")
    with pytest.raises(qx.errors.StageError) as caught:
        session.histogram("conv2.activation_post_process")
    assert caught.value.where == "conv2.activation_post_process"


def test_example_inputs_from_the_data_and_forms_of_data() -> None:
    x = image()
    session = qx.Session(ConvBnRelu().train(), data={"train": loader(x), "eval": loader(x)})
    assert session.snapshot.graph is not None
    shapes = [n.shape for n in session.snapshot.graph.nodes if n.op == "placeholder"]
    assert shapes == [(4, 1, 8, 8)]
    session.train(epochs=1)
    assert session.observed


def test_two_sessions_of_one_model_do_not_meet() -> None:
    model = TwoNames().train()
    x = torch.randn(4, 6)
    one, two = (qx.Session(copy.copy(model), (x,), data=[loader(x)] * 2) for _ in range(2))
    one.train(epochs=2, lr=0.1)
    two.goto("insert")
    assert torch.equal(two.model.head.weight, model.head.weight)
    assert not torch.equal(one.model.head.weight, model.head.weight)


def test_eval_mode_is_the_sessions_to_change() -> None:
    model = ConvBnRelu().eval()
    session = qx.Session(model, (image(),))
    assert session.snapshot.notes
    with pytest.raises(qx.errors.EvalModeError):
        session.step()
    assert session.stage == "float"
    session.use_train_mode()
    assert session.goto("insert").training
    assert not model.training


@pytest.mark.slow
def test_looks_and_training_never_run_the_model_at_once() -> None:
    # A forward of another thread between a step's forward and its backward once broke the step.
    example = qx.zoo.load("digits_cnn")
    session = qx.Session(example.model, example.example_inputs, data=example.data)
    session.goto("train")
    stop = threading.Event()
    reported: list[BaseException] = []

    def look() -> None:
        while not stop.is_set():
            for ask in (session.histograms, session.ledger):
                try:
                    ask()
                except errors.QatExplorerError:
                    pass
                except BaseException as error:
                    reported.append(error)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(3):
            run = session.start_training(epochs=1).wait()
            assert run.error is None
            assert run.state == "finished"
    finally:
        stop.set()
        for looker in lookers:
            looker.join()
    assert reported == []
