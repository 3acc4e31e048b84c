"""What a notebook's user sees and completes: real keywords, warnings."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
from IPython.core.completer import IPCompleter, provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from torch import nn

import qatexplorer as qx
from qatexplorer.runs.config import TrainingConfig
from tests.support.models import ConvBnRelu, NoStubs, image


@pytest.mark.parametrize("call", ["start_training", "train", "resume"])
def test_training_has_real_keywords(call: str) -> None:
    parameters = inspect.signature(getattr(qx.Session, call)).parameters
    assert {field.name for field in fields(TrainingConfig)} <= set(parameters)
    assert not any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def test_explore_takes_what_a_session_takes() -> None:
    mine = inspect.signature(qx.explore).parameters
    assert set(inspect.signature(qx.Session).parameters) <= set(mine)
    assert not any(p.kind is p.VAR_KEYWORD for p in mine.values())


@pytest.mark.parametrize("jedi", [True, False])
@pytest.mark.parametrize(
    ("text", "keyword"),
    [
        ("qx.explore(model, qcon", "qconfig="),
        ("session.train(freeze_ob", "freeze_observer_epoch="),
        ("session.start_training(run_d", "run_dir="),
        ("session.resume(path, epo", "epochs="),
    ],
)
def test_keywords_complete(text: str, keyword: str, jedi: bool) -> None:
    session = qx.Session(ConvBnRelu().train(), (image(),))
    shell = InteractiveShell()
    completer = IPCompleter(shell, namespace={"qx": qx, "session": session}, use_jedi=jedi)
    with provisionalcompleter():
        found = {c.text for c in completer.completions(text, len(text))}
    assert keyword in found


def test_a_config_is_taken_beside_keywords() -> None:
    x = image()
    batch = (x, torch.zeros(len(x), dtype=torch.long))
    session = qx.Session(ConvBnRelu().train(), (x,), data=[[batch]] * 2, loss=_loss, metric=_metric)
    config = TrainingConfig(epochs=2, lr=1e-4, seed=3)
    assert session.train(config=config).config == config
    run = session.start_training(1, config=config, lr=1e-5).wait()
    assert run.config == TrainingConfig(epochs=1, lr=1e-5, seed=3)


def _loss(output: torch.Tensor, _target: torch.Tensor) -> torch.Tensor:
    return output.square().mean()


def _metric(output: torch.Tensor, _target: torch.Tensor) -> float:
    return float(output.mean())


def heard(work: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    ours = [w for w in caught if issubclass(w.category, qx.QatExplorerWarning)]
    assert all(w.filename == __file__ for w in ours), "it names the user's line"
    return [str(w.message) for w in ours]


def test_a_script_hears_what_a_page_shows_once_at_its_stage() -> None:
    missing = qx.Session(NoStubs().train(), (image(),))
    assert heard(lambda: missing.goto("fuse")) == []
    (stub,) = heard(lambda: missing.goto("propagate"))
    assert "no QuantStub" in stub
    assert any("no QuantStub" in note for note in missing.snapshot.notes)
    assert heard(lambda: (missing.back(), missing.goto("insert"))) == []
    assert heard(lambda: missing.configure(stubs="model")) == []
    unseen = heard(lambda: missing.goto("convert"))
    assert sum("No observer has seen data" in text for text in unseen) == 1
    assert not any("no QuantStub" in text for text in unseen)

    nothing = qx.Session(nn.Sequential(nn.LayerNorm(4)).train(), (torch.randn(2, 4),))
    float_all = heard(lambda: nothing.goto("insert"))
    assert sum("No weight of this model has a fake quant" in text for text in float_all) == 1


def test_a_page_shows_it_and_says_nothing_beside() -> None:
    explorer = qx.explore(NoStubs().train(), (image(),))
    assert explorer.session is not None
    assert heard(lambda: explorer.session.goto("propagate")) == []  # type: ignore[union-attr]
    assert "no QuantStub" in explorer.news.story


def test_a_copy_of_the_model_is_yours_alone() -> None:
    session = qx.Session(ConvBnRelu().train(), (image(),))
    session.goto("insert")
    mine = session.copy_model()
    with torch.no_grad():
        for parameter in mine.parameters():
            parameter.zero_()
    assert all(bool(p.any()) for n, p in session.model.named_parameters() if n.endswith("weight"))
    assert type(session.copy_model("float")) is ConvBnRelu
    with pytest.raises(qx.errors.StageError, match="not been reached"):
        session.copy_model("convert")


def test_two_snapshots_are_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from qatexplorer.session import stages

    made: list[str] = []
    real = stages.diff
    monkeypatch.setattr(stages, "diff", lambda a, b: made.append(b.stage) or real(a, b))
    explorer = qx.explore(ConvBnRelu().train(), (image(),))
    session = explorer.session
    assert session is not None
    for _ in range(4):
        session.step()
    explorer.select("module:conv")
    explorer.panes.mark_redundant()
    assert "fake quants inserted" in repr(session)
    assert session.summaries["insert"] == session.diff.summary()  # type: ignore[union-attr]
    assert made == ["fuse", "propagate", "swap", "insert"]
