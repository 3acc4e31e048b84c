"""The session's sensitivity: stopped and gone on with, kept in a folder, and nothing changed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

import qatexplorer as qx
from qatexplorer.accuracy.records import Method
from qatexplorer.errors import BusyError, InputError, NoDataError, RunFolderError, StageError
from qatexplorer.session.overlays import NAMES
from tests.accuracy.sensitivity_models import session_of
from tests.support.models import ConvBnRelu, image, loader

METHODS: tuple[Method, ...] = get_args(Method)


class StopAfter:
    """Answers True from the ``count``-th question on."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def numbers(made: qx.Sensitivity) -> Any:
    """All that does not tell how long it took."""
    values = (made.float_metric, made.quantized_metric, made.weights_only, made.activations_only)
    return made.rows, values, made.samples, made.complete


def everything(session: qx.Session) -> tuple[Any, ...]:
    model = session.model
    return (
        {key: value.clone() for key, value in model.state_dict().items()},
        {name: module.training for name, module in model.named_modules()},
        {name: len(module._forward_hooks) for name, module in model.named_modules()},
        {name: "forward" in vars(module) for name, module in model.named_modules()},
        {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()},
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state()[1].tolist(),  # type: ignore[index, union-attr]
        torch.is_grad_enabled(),
    )


def unchanged(before: tuple[Any, ...], after: tuple[Any, ...]) -> bool:
    tensors = all(torch.equal(before[0][key], value) for key, value in after[0].items())
    grads = all(
        (a is None) == (b is None) and (a is None or torch.equal(a, b))
        for a, b in zip(before[4].values(), after[4].values(), strict=True)
    )
    plain = all(before[i] == after[i] for i in (1, 2, 3, 6, 7, 8))
    return tensors and grads and plain and torch.equal(before[5], after[5])


@pytest.mark.parametrize("flow", ["eager", "fx"])
@pytest.mark.parametrize("method", METHODS)
def test_nothing_changes(method: Method, flow: str) -> None:
    session = session_of("residual", flow)
    session.model(session.options.example_inputs).sum().backward()
    before = everything(session)
    session.sensitivity(method)
    assert unchanged(before, everything(session))
    session.sensitivity(method, batches=1, should_stop=StopAfter(1))
    assert unchanged(before, everything(session))

    def broken(output: Any, target: Any) -> float:
        raise ZeroDivisionError

    session.metric = broken
    with pytest.raises(ZeroDivisionError):
        session.sensitivity(method)
    assert unchanged(before, everything(session))
    session.metric = None
    assert session.sensitivity(method).complete  # and it is not busy for ever


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [1, 2, 5, 17])
def test_it_goes_on_where_it_was_stopped(method: Method, count: int) -> None:
    whole = session_of("conv_bn_relu").sensitivity(method)
    session = session_of("conv_bn_relu")
    partial = session.sensitivity(method, should_stop=StopAfter(count))
    asked = 0

    def ask() -> bool:
        nonlocal asked
        asked += 1
        return False

    assert session.last_sensitivity[method] is partial
    made = session.sensitivity(method, should_stop=ask)
    assert numbers(made) == numbers(whole)
    if not partial.complete:
        assert partial.samples < whole.samples or len(partial) < len(whole)
        fresh = 0

        def ask_anew() -> bool:
            nonlocal fresh
            fresh += 1
            return False

        session_of("conv_bn_relu").sensitivity(method, should_stop=ask_anew)
        assert asked <= fresh


def test_what_was_measured_is_not_measured_again() -> None:
    session = session_of("residual")
    first = session.sensitivity()
    ran: list[int] = []
    again = session.sensitivity(progress=lambda what, share: ran.append(1))
    assert again.rows == first.rows
    assert ran == []
    assert again.forwards == first.forwards
    more = session_of("residual", batches=3)
    two, three = more.sensitivity(batches=2), more.sensitivity(batches=3)
    assert (two.samples, three.samples) == (8, 12)
    assert three.rows == session_of("residual", batches=3).sensitivity(batches=3).rows


@pytest.mark.parametrize("method", METHODS)
def test_a_folder_is_gone_on_with_by_another_session(method: Method, tmp_path: Path) -> None:
    whole = session_of("conv_bn_relu", "fx").sensitivity(method)
    partial = session_of("conv_bn_relu", "fx").sensitivity(
        method, folder=tmp_path / "new", should_stop=StopAfter(9)
    )
    file = tmp_path / "new" / f"sensitivity-{method}.json"
    kept = json.loads(file.read_text())
    assert kept["format"] == 1
    known = {name for batch in kept["batches"] for name in batch["values"]}
    made = session_of("conv_bn_relu", "fx").sensitivity(method, folder=tmp_path / "new")
    assert numbers(made) == numbers(whole)
    assert len(known) >= len(partial)
    # What stands there is taken as it stands.
    kept = json.loads(file.read_text())
    path = whole.rows[0].path
    for batch in kept["batches"]:
        batch["values"][f"only {path}"] = [0.5, 1.0]
    file.write_text(json.dumps(kept))
    taken = session_of("conv_bn_relu", "fx").sensitivity(method, folder=tmp_path / "new")
    row = next(row for row in taken if row.path == path)
    assert row.score != whole.rows[0].score


def test_an_error_keeps_what_was_measured(tmp_path: Path) -> None:
    session = session_of("conv_bn_relu")
    calls = 0

    def accuracy(output: Any, target: Any) -> float:
        nonlocal calls
        calls += 1
        if calls == 10:
            raise ZeroDivisionError
        return float((output.argmax(1) == target).float().mean())

    session.metric = accuracy
    with pytest.raises(ZeroDivisionError):
        session.sensitivity(folder=tmp_path)
    kept = json.loads((tmp_path / "sensitivity-exact.json").read_text())
    assert len(kept["batches"][0]["values"]) == 9
    made = session.sensitivity(folder=tmp_path)
    usual = session_of("conv_bn_relu").sensitivity()
    assert made.rows == usual.rows


def test_a_batch_that_has_changed_is_measured_anew() -> None:
    session = session_of("conv_bn_relu")
    session.sensitivity()
    assert session.data is not None
    new = [(x + 1, y) for x, y in session.data.eval]
    session.data = qx.Data(session.data.train, new)
    made = session.sensitivity()
    other = session_of("conv_bn_relu")
    other.data = qx.Data(session.data.train, new)
    assert made.rows == other.sensitivity().rows


def test_progress_grows_and_estimates() -> None:
    session = session_of("digits_cnn")
    said: list[tuple[str, float]] = []
    session.sensitivity(progress=lambda what, share: said.append((what, share)))
    shares = [share for _, share in said]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert 0.8 < shares[-1] <= 1
    assert any("only conv1" in what for what, _ in said)
    assert said[0][0].startswith("batch 1 of ")


def test_a_change_of_the_model_forgets_it() -> None:
    session = session_of("conv_bn_relu")
    first = session.sensitivity("shadow")
    assert session.last_sensitivity == {"shadow": first}
    session.train(1, progress=False)
    assert not session.last_sensitivity
    assert session.sensitivity("shadow").rows != first.rows
    session.reset()
    assert not session.last_sensitivity


def test_it_is_of_the_trained_model() -> None:
    session = session_of("conv_bn_relu")
    session.train(1, progress=False)
    session.goto(session.flow.int8_stage)
    made = session.sensitivity()
    metric = session.evaluate(latency=False)["fake_quant"].metric
    assert metric is not None
    assert made.quantized_metric == pytest.approx(metric.value)


def test_while_it_is_measured_the_session_does_not_change() -> None:
    session = session_of("conv_bn_relu")
    refused: list[BusyError] = []

    def look(what: str, share: float) -> None:
        jobs: list[Callable[[], Any]] = [
            lambda: session.train(1, progress=False),
            lambda: session.calibrate(1),
            session.reset,
            lambda: session.sensitivity("shadow"),
        ]
        for job in jobs:
            with pytest.raises(BusyError) as caught:
                job()
            refused.append(caught.value)
        assert session.histograms()  # looking on is free

    session.sensitivity("gradient", batches=1, progress=look)
    assert "while the sensitivity is measured" in refused[0].message
    assert session.sensitivity("shadow").rows


def test_the_overlay_has_the_scores() -> None:
    session = session_of("conv_bn_relu")
    assert "sensitivity" in NAMES
    assert "Nothing has been measured yet" in session.overlay("sensitivity").note
    shadow = session.sensitivity("shadow")
    overlay = session.overlay("sensitivity")
    assert dict(overlay.values) == {row.path: row.score for row in shadow.rows}
    exact = session.sensitivity("exact")
    overlay = session.overlay("sensitivity")
    assert dict(overlay.values) == {row.path: row.score for row in exact.rows}
    assert overlay.unit == "share"
    assert overlay.high_is == "bad"
    assert "no fake quants" in session.overlay("sensitivity", "float").note


def test_it_shows_itself_in_twenty_lines_and_as_a_table() -> None:
    made = session_of("digits_depthwise").sensitivity(batches=1)
    text = repr(made)
    assert len(text.splitlines()) <= 20
    assert "more" in text.splitlines()[-1]
    assert made.rows[0].path in text
    frame = made.to_pandas()
    assert list(frame["path"]) == [row.path for row in made.rows]
    assert frame["score"].dtype == "float64"
    assert isinstance(made, qx.Sensitivity)


# -- refused ----------------------------------------------------------------------------------


def untouched(**settings: Any) -> qx.Session:
    torch.manual_seed(0)
    settings.setdefault("data", {"train": loader(image()), "eval": loader(image())})
    session = qx.Session(ConvBnRelu().train(), image(), **settings)
    session.warns = False
    return session


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoDataError):
        untouched(data=None).sensitivity()
    session = untouched()
    with pytest.raises(StageError, match="no fake quants yet"):
        session.sensitivity()
    session.goto(session.flow.prepared_stage)
    with pytest.raises(StageError, match="have seen no data"):
        session.sensitivity()
    session.calibrate(1)
    for wrong in ({"method": "hessian"}, {"batches": 0}, {"metric_mode": "up"}, {"memory_mb": -1}):
        with pytest.raises(InputError):
            session.sensitivity(**wrong)  # type: ignore[arg-type]
    empty = session_of("conv_bn_relu")
    assert empty.data is not None
    empty.data = qx.Data(empty.data.train, [])
    with pytest.raises(NoDataError):
        empty.sensitivity()
    run = session.start_training(10**6)
    with pytest.raises(BusyError):
        session.sensitivity()
    run.stop()
    run.wait()


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    session_of("conv_bn_relu").sensitivity("shadow", folder=tmp_path)
    other = session_of("residual")
    with pytest.raises(RunFolderError, match="of something else"):
        other.sensitivity("shadow", folder=tmp_path)
    other.sensitivity("gradient", folder=tmp_path)  # a file for each method
    (tmp_path / "sensitivity-shadow.json").write_text("{]")
    with pytest.raises(RunFolderError, match="no sensitivity"):
        other.sensitivity("shadow", folder=tmp_path)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(RunFolderError, match="cannot be kept"):
        other.sensitivity("shadow", folder=file / "below")
