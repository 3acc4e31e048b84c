"""Every built-in overlay agrees with the same thing computed by hand, or by torch."""

from __future__ import annotations

import copy
import math
import pickle
import time
from typing import Any

import numpy as np
import pytest
import torch
import torch.ao.ns.fx.utils as ns
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import qatexplorer as qx
from qatexplorer.errors import OverlayError, StageError, StoppedError, UnknownStageError
from qatexplorer.session.overlays import NAMES
from tests.support.models import ConvBnRelu, image, loader

FLOWS = ["eager", "fx"]


def session_at(stage_role: str, flow: str = "eager", **more: Any) -> qx.Session:
    torch.manual_seed(0)
    model = ConvBnRelu().train()
    model.drop.p = 0.0  # so that two forwards are the same
    session = qx.Session(model, image(), flow=flow, data=data(), **more)
    found = session.flow.stage_with(stage_role)  # type: ignore[arg-type]
    assert found is not None
    session.goto(found.name)
    return session


def data() -> dict[str, Any]:
    return {"train": loader(image(), batches=4), "eval": loader(image())}


def fed(session: qx.Session) -> dict[str, list[tuple[Tensor, nn.Module]]]:
    """What reaches each fake quant of a copy in one forward, call by call, with observers off."""
    model = session.copy_model()
    found: dict[str, list[tuple[Tensor, nn.Module]]] = {}
    hooks = []
    for path, module in model.named_modules(remove_duplicate=False):
        if hasattr(module, "fake_quant_enabled"):
            module.apply(torch.ao.quantization.disable_observer)

            def keep(module: nn.Module, args: Any, path: str = path) -> None:
                found.setdefault(path, []).append((args[0].clone(), module))

            hooks.append(module.register_forward_pre_hook(keep))
    with torch.no_grad():
        model(session.options.example_inputs)
    for hook in hooks:
        hook.remove()
    return found


def codes(x: Tensor, module: Any) -> Tensor:
    """Rounded codes, not clamped: by hand."""
    shape = [1] * x.dim()
    if module.is_per_channel:
        shape[module.ch_axis] = -1
    scale, zero_point = module.scale.reshape(shape), module.zero_point.reshape(shape)
    return torch.round(x / scale) + zero_point


@pytest.mark.parametrize("flow", FLOWS)
def test_clipped_share_is_the_share_of_codes_outside_the_grid(flow: str) -> None:
    session = session_at("inserted", flow)
    session.calibrate(2)
    overlay = session.overlay("clipped")
    inputs = fed(session)
    assert set(overlay.values) == set(inputs)
    for path, calls in inputs.items():
        observer = calls[0][1].activation_post_process
        low, high = observer.quant_min, observer.quant_max
        found = torch.cat([codes(x, module).flatten() for x, module in calls])
        share = float(((found < low) | (found > high)).double().mean())
        assert overlay.values[path] == pytest.approx(share, abs=2 / found.numel()), path
    assert (overlay.high_is, overlay.groups, overlay.stage) == ("bad", "highest", session.stage)


@pytest.mark.parametrize("flow", FLOWS)
def test_sqnr_is_that_of_torchs_numeric_suite(flow: str) -> None:
    session = session_at("inserted", flow)
    session.calibrate(2)
    overlay = session.overlay("sqnr")
    inputs = fed(session)
    assert set(overlay.values) == set(inputs)
    for path, calls in inputs.items():
        pairs = [(x.flatten(), module(x).flatten()) for x, module in calls]
        expected = float(ns.compute_sqnr(*map(torch.cat, zip(*pairs, strict=True))))
        assert overlay.values[path] == pytest.approx(expected, abs=0.01), path
        assert 5 < overlay.values[path] < 90
    assert (overlay.high_is, overlay.groups, overlay.unit) == ("good", "lowest", "dB")


def test_sqnr_does_not_depend_on_rounding_being_switched_on() -> None:
    session = session_at("trained")
    session.calibrate(2)
    before = session.overlay("sqnr", session.stage).values
    path = "conv1.weight_fake_quant"
    session.model.get_submodule(path).apply(torch.ao.quantization.disable_fake_quant)
    session.calibrate(1)  # describes the model anew
    session.model.get_submodule(path).apply(torch.ao.quantization.disable_fake_quant)
    assert math.isfinite(session.overlay("sqnr").values[path])
    assert session.overlay("sqnr").values[path] == pytest.approx(before[path], abs=3)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("role", ["float", "inserted", "int8"])
def test_macs_are_those_of_the_float_model_at_every_stage(flow: str, role: str) -> None:
    session = session_at(role, flow) if role != "int8" else session_at("inserted", flow)
    if role == "int8":
        session.calibrate(1)
        session.goto(session.flow.int8_stage)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        ConvBnRelu()(image())
    flops = {k: sum(v.values()) for k, v in counter.get_flop_counts().items()}
    values = session.overlay("macs").values
    assert values[""] == flops["Global"] // 2
    for path in ("conv1", "conv2", "fc"):
        assert values[path] == flops[f"ConvBnRelu.{path}"] // 2
    assert not [path for path in values if "fake_quant" in path or "post_process" in path]


@pytest.mark.parametrize("flow", FLOWS)
def test_parameters_are_counted_and_stay_known_when_int8_packs_them_away(flow: str) -> None:
    session = session_at("inserted", flow)
    values = session.overlay("parameters").values
    model = session.copy_model()
    for path in ("", "conv1", "conv2", "fc"):
        assert values[path] == sum(p.numel() for p in model.get_submodule(path).parameters())
    session.calibrate(1)
    session.goto(session.flow.int8_stage)
    packed = session.overlay("parameters")
    assert packed.values["fc"] == values["fc"]
    assert "before convert" in packed.note


def test_precision_is_the_state_of_the_records() -> None:
    session = session_at("float")
    assert not session.overlay("precision").values
    assert "Known from the stage" in session.overlay("precision").note
    session.goto(session.flow.prepared_stage)
    overlay = session.overlay("precision")
    names = {path: overlay.word(value) for path, value in overlay.values.items()}
    assert names == {m.path: m.state for m in session.snapshot.modules if m.state}
    assert names["conv1"] == "int8"


def test_scale_drift_is_that_of_the_recorded_scales() -> None:
    session = session_at("inserted")
    assert "Nothing has been trained" in session.overlay("scale_drift").note
    session.train(2, lr=0.05, progress=False, telemetry_every=1)
    overlay = session.overlay("scale_drift")
    assert session.run is not None
    assert overlay.values
    for path, value in overlay.values.items():
        samples = [s for s in session.run.history.samples(path) if s.scale_median > 0]
        assert value == pytest.approx(
            abs(samples[-1].scale_median / samples[0].scale_median - 1), rel=1e-6
        )
    assert max(overlay.values.values()) > 0


def test_time_is_that_of_a_stopwatch_and_can_be_stopped() -> None:
    class Slow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            time.sleep(0.01)
            return x * 2

    session = qx.Session(nn.Sequential(Slow(), nn.Linear(4, 4)).train(), torch.randn(3, 4))
    told: list[float] = []
    overlay = session.overlay("time", progress=told.append)
    assert overlay.values["0"] == pytest.approx(10, rel=0.5)  # milliseconds
    assert overlay.values[""] >= overlay.values["0"]
    assert told[-1] == 1.0
    assert session.overlay("time") is overlay  # kept
    session.goto(session.flow.prepared_stage)
    with pytest.raises(StoppedError):
        session.overlay("time", should_stop=lambda: True)


def test_overlays_are_kept_until_the_model_changes() -> None:
    session = session_at("inserted")
    first = session.overlay("sqnr", session.flow.prepared_stage)
    assert session.overlay("sqnr", session.flow.prepared_stage) is first
    session.goto(session.flow.train_stage)
    trained = session.overlay("sqnr")
    session.train(1, lr=0.5, progress=False)
    assert session.overlay("sqnr") is not trained


def test_while_a_run_goes_on_the_newest_sample_is_shown_and_nothing_is_run() -> None:
    session = session_at("inserted")
    run = session.start_training(500, telemetry_every=1)
    try:
        while run.telemetry is None or len(run.telemetry.steps) < 3:
            time.sleep(0.01)
        run.pause()
        while run.state != "paused":
            time.sleep(0.01)
        overlay = session.overlay("clipped")
        step = int(overlay.note.split("step ")[1].split()[0].replace(",", ""))
        for path, value in overlay.values.items():
            sample = next(s for s in run.history.samples(path) if s.step == step)
            assert value == pytest.approx(sample.clipped)
        assert set(overlay.values) >= {"conv1.weight_fake_quant"}
    finally:
        run.stop()
        run.wait(30)


def test_without_fake_quants_it_says_so_and_has_no_number() -> None:
    session = session_at("float")
    for name in ("clipped", "sqnr", "scale_drift"):
        overlay = session.overlay(name)
        assert overlay.values == {}
        assert "no fake quants" in overlay.note


def test_unknown_names_and_stages_are_refused() -> None:
    session = session_at("float")
    with pytest.raises(OverlayError, match="'sqnr'"):
        session.overlay("snr")
    with pytest.raises(UnknownStageError):
        session.overlay("sqnr", "nowhere")
    with pytest.raises(StageError, match="has not been reached"):
        session.overlay("sqnr", session.flow.int8_stage)
    assert set(NAMES) == {
        "clipped", "sqnr", "scale_drift", "macs", "parameters", "time", "precision",
        "sensitivity", "sqnr_fake_quant", "sqnr_int8", "agreement",
    }  # fmt: skip


# -- the record -----------------------------------------------------------------------------------


def test_own_numbers_are_checked() -> None:
    overlay = qx.Overlay.of(
        {"a": 1, "b": np.float32(2.5), "c": torch.tensor(3.0), "d": None, "e": math.nan},
        title="mine", unit="ms", high_is="good",
    )  # fmt: skip
    assert dict(overlay.values) == {"a": 1.0, "b": 2.5, "c": 3.0}
    assert overlay.groups == "lowest"
    words = qx.Overlay.of({"a": "ok", "b": "bad", "c": "ok"})
    assert words.categories == ("ok", "bad")
    assert [words.word(v) for v in words.values.values()] == ["ok", "bad", "ok"]
    for wrong in ({"a": True}, {"a": [1, 2]}, {"a": 1, "b": "x"}, {3: 1.0}, [("a", 1)]):
        with pytest.raises(OverlayError):
            qx.Overlay.of(wrong)  # type: ignore[arg-type]
    with pytest.raises(OverlayError, match="high_is"):
        qx.Overlay.of({"a": 1}, high_is="worse")  # type: ignore[arg-type]
    with pytest.raises(OverlayError, match="groups"):
        qx.Overlay.of({"a": 1}, groups="mean")  # type: ignore[arg-type]


def test_unknown_paths_are_listed_with_the_nearest() -> None:
    session = session_at("inserted")
    snapshots = session.snapshots.values()
    known = qx.Overlay.of({"conv1": 1, "conv1.weight_fake_quant": 2, "bn1": 3})
    assert known.checked(snapshots) is known
    with pytest.raises(OverlayError) as caught:
        qx.Overlay.of({"conv1": 1, "cnov2": 2, "lost": 3}).checked(snapshots)
    assert "'cnov2', 'lost'" in caught.value.message
    assert "'conv2'" in caught.value.fix


def test_an_overlay_prints_pickles_and_becomes_a_table() -> None:
    session = session_at("inserted")
    session.calibrate(1)
    overlay = session.overlay("sqnr")
    text = repr(overlay)
    worst = min(overlay.values, key=lambda path: overlay.values[path])
    assert "SQNR" in text.splitlines()[0]
    assert worst in text.splitlines()[2]
    assert "dB" in text
    assert "<pre" in overlay._repr_html_()
    frame = overlay.to_pandas()
    assert list(frame.columns) == ["path", "value"]
    assert len(frame) == len(overlay.values)
    assert pickle.loads(pickle.dumps(overlay)) == overlay
    assert copy.deepcopy(overlay) == overlay
    with pytest.raises(TypeError):
        overlay.values["conv1"] = 3.0  # type: ignore[index]


@pytest.mark.parametrize(("groups", "expected"), [("sum", 6.0), ("highest", 3.0), ("lowest", 1.0)])
def test_what_a_group_shows(groups: Any, expected: float) -> None:
    overlay = qx.Overlay.of({"a": 1}, groups=groups)
    assert overlay.together([1.0, 2.0, 3.0]) == expected
    assert overlay.together([]) is None


def test_a_group_of_unlike_categories_is_mixed_or_not_known() -> None:
    precision = session_at("inserted").overlay("precision")
    assert precision.together([0.0, 1.0]) == 2.0
    assert precision.together([1.0, 1.0]) == 1.0
    assert qx.Overlay.of({"a": "x", "b": "y"}).together([0.0, 1.0]) is None


def test_what_sees_no_finite_value_is_not_known_and_counted() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant = torch.ao.quantization.QuantStub()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
            self.dequant = torch.ao.quantization.DeQuantStub()

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(self.quant(x))
            return self.dequant(self.two(x / (x - x)))

    session = qx.Session(Broken().train(), torch.randn(3, 4))
    session.goto(session.flow.prepared_stage)
    for name in ("clipped", "sqnr"):
        overlay = session.overlay(name)
        assert "one.weight_fake_quant" in overlay.values
        assert "two.activation_post_process" not in overlay.values
        assert "Not known of 1 more that run" in overlay.note
