"""Each recipe: where its facts are true of a model, where they are not, and with other numbers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.accuracy.records import Proposal as MixedPrecision
from qatexplorer.accuracy.records import ProposalPoint, Sensitivity, SensitivityRow
from qatexplorer.advice import RECIPES, Facts, Proposal, advise
from qatexplorer.advice.oscillation import OSCILLATING
from qatexplorer.cures import Cured
from qatexplorer.flows.quant_spec import QuantSpec
from qatexplorer.runs.config import TrainingConfig
from qatexplorer.runs.records import EpochRecord, History
from tests.cures.nets import Chain, session_of, usual
from tests.support.advice import asked, conv_pair, facts_of, small, values, words_of
from tests.support.engines import fake_machine, faked
from tests.support.narrow import narrow
from tests.support.training_models import batches, one_thread  # noqa: F401

BAD = values(float=0.9, ptq=0.5)
WORSE = values(float=0.9, ptq=0.3)
GOOD = values(float=0.9, ptq=0.895)
TRAINED_BAD = values(float=0.9, fake_quant=0.7, int8=0.7)


@cache
def plain() -> qx.Session:
    """Conv-bn-relu, conv-bn; one scale a weight."""
    return small()


@cache
def pair(stretch: float = 64.0) -> qx.Session:
    return small(conv_pair(stretch))


@cache
def few_bits(bits: int = 3) -> qx.Session:
    return small(qconfig=narrow(bits))


@cache
def trained(**settings: Any) -> qx.Session:
    session = session_of(usual(), "eager")
    session.train(2, lr=1e-3, telemetry_every=0, progress=False, **settings)
    return session


@cache
def checked(padding: Any = 1, fusion: Any = None) -> qx.Session:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 6, 3, padding=padding), nn.BatchNorm2d(6), nn.ReLU()]
    session = session_of(Chain(*layers).train(), "eager", qconfig="onednn", fusion=fusion)
    session.check()
    return session


def looked_at(inputs: Any, train: Any) -> qx.Session:
    """Calibrated on ``train``; histograms are of a forward of ``inputs``."""
    session = qx.Session(
        conv_pair(1.0), (inputs,), flow="eager", qconfig="qnnpack", data=(train, train)
    )
    session.warns = False
    session.calibrate(2)
    session.histograms()
    return session


@cache
def clipped(times: float = 3.0) -> qx.Session:
    """The example input is larger than what the observers have seen."""
    train = batches(2)
    return looked_at(train[0][0] * times, train)


@cache
def with_outlier(size: float) -> qx.Session:
    """One pixel of each batch is ``size``."""
    train = [(x.clone(), y) for x, y in batches(2)]
    for x, _ in train:
        x[0, 0, 0, 0] = size
    return looked_at(train[0][0], train)


def ranking(score: float = 0.5) -> dict[Any, Sensitivity]:
    rows = tuple(
        SensitivityRow(f"body.{at}.weight_fake_quant", f"body.{at}", "weight", score / (1 + at))
        for at in (0, 3)
    )
    return {"shadow": Sensitivity("shadow", rows)}


def mixed(metric: float = 0.89) -> MixedPrecision:
    points = (
        ProposalPoint((), 0.5, 1000, 1.0),
        ProposalPoint(("body.0",), metric, 1300, 0.8),
    )
    return MixedPrecision(points, 0.89, points[1], samples=500)


def curve(*metrics: float) -> History:
    history = History()
    for at, metric in enumerate(metrics):
        history.add_epoch(EpochRecord(at, 0.1, metric, 2.0, False, False, 1e-3))
    return history


def cured(after: float) -> Cured:
    found = values(ptq=0.8)["ptq"]
    return Cured("ranges", {}, "ptq", found, replace(found, value=after), 0.1)


def lossy(session: qx.Session, metrics: Any = None, **known: Any) -> Facts:
    return facts_of(session, metrics=BAD if metrics is None else metrics, **known)


def of_trained(session: qx.Session, metrics: Any = None, **known: Any) -> Facts:
    return lossy(session, TRAINED_BAD if metrics is None else metrics, **known)


@cache
def embedded(share: int) -> qx.Session:
    """A linear layer stays float, with ``share`` times as many outputs as it needs."""
    torch.manual_seed(0)
    model = usual()
    model.fc = nn.Linear(6, 4 * share)
    return small(model, qconfig={"": "qnnpack", "fc": None})


# Recipe: where its facts are true, the same with other numbers, and where they are not.
Make = Callable[[], Facts]
CASES: dict[str, tuple[str, Make, Make | None, Make]] = {
    "errors": ("errors", lambda: facts_of(checked("same")), None, lambda: facts_of(checked())),
    "warnings": (
        "warnings",
        lambda: lossy(checked(1, ())),
        None,
        lambda: facts_of(checked(1, ()), metrics=GOOD),
    ),
    "check": (
        "check",
        lambda: facts_of(plain()),
        None,
        lambda: facts_of(checked()),
    ),
    "evaluate": (
        "evaluate",
        lambda: facts_of(plain(), metrics={}),
        lambda: facts_of(plain(), metrics=values(float=0.9)),
        lambda: facts_of(plain(), metrics=BAD),
    ),
    "no data": (
        "evaluate",
        lambda: facts_of(plain(), metrics={}, data=None),
        None,
        lambda: facts_of(plain(), metrics=BAD),
    ),
    "equalization": (
        "equalization",
        lambda: lossy(pair()),
        lambda: lossy(pair(32.0)),
        lambda: lossy(pair(1.0)),
    ),
    "equalization, nothing lost": (
        "equalization",
        lambda: lossy(pair(), metrics={}),
        None,
        lambda: lossy(pair(), GOOD),
    ),
    "per channel": (
        "per_channel",
        lambda: lossy(pair()),
        lambda: lossy(pair(32.0)),
        lambda: lossy(pair(1.0)),
    ),
    "per channel already": (
        "per_channel",
        lambda: lossy(pair(), WORSE),
        None,
        lambda: lossy(small(conv_pair(64.0), qconfig="onednn")),
    ),
    "ranges too narrow": (
        "ranges",
        lambda: lossy(clipped()),
        lambda: lossy(clipped(5.0)),
        lambda: lossy(clipped(1.0)),
    ),
    "ranges too wide": (
        "ranges",
        lambda: lossy(with_outlier(100.0)),
        lambda: lossy(with_outlier(30.0)),
        lambda: lossy(with_outlier(1.0)),
    ),
    "biases": ("biases", lambda: lossy(plain()), lambda: lossy(plain(), WORSE),
               lambda: of_trained(trained())),
    "batch norms": (
        "batch_norms",
        lambda: of_trained(trained()),
        lambda: of_trained(trained(), values(float=0.9, int8=0.6)),
        lambda: of_trained(trained(freeze_bn_epoch=1)),
    ),
    "sensitivity": ("sites", lambda: lossy(plain()), lambda: lossy(plain(), WORSE),
                    lambda: lossy(plain(), GOOD)),
    "search": (
        "sites",
        lambda: lossy(plain(), sensitivities=ranking()),
        lambda: lossy(plain(), sensitivities=ranking(0.25)),
        lambda: lossy(plain(), GOOD, sensitivities=ranking()),
    ),
    "apply": (
        "sites",
        lambda: lossy(plain(), mixed=mixed()),
        lambda: lossy(plain(), mixed=mixed(0.85)),
        lambda: lossy(plain(), mixed=mixed(0.4)),
    ),
    "train": ("train", lambda: lossy(plain()), lambda: lossy(plain(), WORSE),
              lambda: lossy(plain(), GOOD)),
    "train on": (
        "train",
        lambda: of_trained(trained(), history=curve(0.5, 0.6)),
        lambda: of_trained(trained(), history=curve(0.5, 0.7)),
        lambda: of_trained(trained(), history=curve(0.7, 0.7)),
    ),
    "low bits": ("low_bits", lambda: lossy(few_bits()), lambda: lossy(few_bits(4)),
                 lambda: lossy(plain())),
    "undo": ("undo", lambda: lossy(plain(), cured=(cured(0.7),)),
             lambda: lossy(plain(), cured=(cured(0.6),)),
             lambda: lossy(plain(), cured=(cured(0.9),))),
    "coverage": ("coverage", lambda: facts_of(embedded(100)), lambda: facts_of(embedded(200)),
                 lambda: facts_of(plain())),
    "take home": (
        "take_home",
        lambda: facts_of(plain(), metrics=GOOD),
        lambda: facts_of(plain(), metrics=values(float=0.9, int8=0.92)),
        lambda: lossy(plain()),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_recipe_proposes_where_its_facts_are_true_and_only_there(case: str) -> None:
    recipe, true, _, untrue = CASES[case]
    found = asked(recipe, true())
    assert found
    assert not asked(recipe, untrue())
    for one in found:
        assert one.recipe == recipe or recipe in ("check", "evaluate")
        assert one.reasons
        assert_says_something(one)
        assert_is_a_call(one)


@pytest.mark.parametrize("case", [case for case, made in CASES.items() if made[2] is not None])
def test_with_other_facts_it_says_other_numbers(case: str) -> None:
    recipe, true, other, _ = CASES[case]
    assert other is not None
    first, second = asked(recipe, true())[0], asked(recipe, other())[0]
    assert [r.text for r in first.reasons] != [r.text for r in second.reasons]


def test_every_recipe_has_a_case() -> None:
    tried = {recipe for recipe, *_ in CASES.values()} | {"engine", "oscillation"}
    assert tried == set(RECIPES)


def assert_says_something(one: Proposal) -> None:
    """No sentence is the same whatever the model: each has a number, or names what is its own."""
    for words in words_of(one):
        assert re.search(r"\d|Chain|onednn|x86", words), words


class Recorder:
    """Stands for a session: keeps the arguments of the one call that is made on it."""

    last_proposal = mixed()

    def __init__(self) -> None:
        self.name, self.arguments = "", {}  # type: ignore[var-annotated]

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> None:
            bound = inspect.signature(getattr(qx.Session, name)).bind(None, *args, **kwargs)
            self.name, self.arguments = name, bound.arguments

        return call


def assert_is_a_call(one: Proposal) -> None:
    """What a script would write is the very call that the button makes."""
    for action in (one.action, *one.before):
        if action.call:
            written, made = Recorder(), Recorder()
            code = action.code.removesuffix(".floats")  # of a ledger, to look at
            eval(code, {"session": written, "QuantSpec": QuantSpec})
            action.apply(made)
            assert (written.name, written.arguments) == (made.name, made.arguments)


# -- those that need more than a session ---------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The int8 engine onednn saturates")
def test_an_engine_that_saturates(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_machine(monkeypatch, faked("onednn", full=63), faked("qnnpack"))
    session = session_of(usual(), "eager", qconfig="onednn", engine="onednn")
    (one,) = asked("engine", lossy(session))
    assert one.phase == "fix"
    assert one.action.code == "session.configure(engine='qnnpack')"
    assert "63 of 127 steps" in one.reasons[0].text
    assert_says_something(one)
    assert_is_a_call(one)
    # Where no engine takes all codes, the halved range is the way out.
    fake_machine(monkeypatch, faked("onednn", full=63), faked("x86", full=63))
    halved = session_of(usual(), "eager", qconfig="onednn", engine="onednn")
    (one,) = asked("engine", lossy(halved))
    assert one.action.code == "session.configure(engine='x86', qconfig='x86')"
    fake_machine(monkeypatch, faked("onednn"), faked("qnnpack"))
    fine = session_of(usual(), "eager", qconfig="onednn", engine="onednn")
    assert not asked("engine", lossy(fine))


def test_an_engine_that_clamps_where_int8_lost_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_machine(monkeypatch, faked("x86"), faked("qnnpack"))
    session = session_of(usual(), "eager", qconfig="x86")
    apart = lossy(session, values(float=0.9, fake_quant=0.89, int8=0.6))
    (one,) = asked("engine", apart)
    assert (one.phase, one.gain.amount) == ("win", pytest.approx(0.29))
    assert "29 points are lost between them" in one.reasons[1].text
    assert_says_something(one)
    together = lossy(session, values(float=0.9, fake_quant=0.6, int8=0.6))
    assert not asked("engine", together)
    assert not asked("engine", lossy(session, values(float=0.9, fake_quant=0.9, int8=0.9)))


def test_weights_that_oscillate() -> None:
    session = session_of(usual(), "eager", qconfig=narrow(2))
    session.train(3, lr=0.05, telemetry_every=1, progress=False)
    facts = of_trained(session)
    assert facts.histograms  # those of training
    assert re.fullmatch(r"a batch at step \d+ of training", facts.seen_in)
    (one,) = asked("oscillation", facts)
    path = one.reasons[0].path
    assert facts.history is not None
    assert facts.history.telemetry is not None
    share = facts.history.telemetry.series(path, "oscillating")[1][-1]
    assert share >= OSCILLATING
    assert f"{100 * share:.3g} % of the weights sampled at {path}" in one.reasons[0].text
    assert_says_something(one)
    assert_is_a_call(one)
    assert one.action.code == "session.train(epochs=3, lr=0.05, freeze_weights=0.02)"
    frozen = replace(facts, config=replace(facts.config, freeze_weights=0.02))  # type: ignore[type-var]
    (slower,) = asked("oscillation", frozen)
    assert slower.action.code == "session.train(epochs=1, lr=0.005, scheduler='cosine')"
    assert_is_a_call(slower)
    assert not asked("oscillation", of_trained(session, GOOD))
    assert not asked("oscillation", of_trained(trained()))  # whose weights were not sampled


# -- all of them ---------------------------------------------------------------------------------


def test_what_wins_waits_until_errors_are_put_right() -> None:
    facts = facts_of(checked("same"), metrics=BAD)
    made = advise(facts)
    assert made[0].recipe == "errors"
    assert made[0].now
    train = made.of("train")
    assert train is not None
    assert f"put the {len(facts.errors)} error" in train.first
    one = replace(facts, findings=facts.errors[:1])
    assert advise(one).of("train").first == "put the 1 error right"  # type: ignore[union-attr]


def test_while_a_run_goes_on_nothing_can_be_done() -> None:
    made = advise(lossy(plain(), running=True))
    assert made
    assert not any(one.now for one in made)


def test_by_gain_for_cost_within_a_phase() -> None:
    made = advise(lossy(pair()))
    wins = [one for one in made if one.phase == "win"]
    assert [one.score for one in wins] == sorted((one.score for one in wins), reverse=True)
    order = [one.recipe for one in wins]
    assert order.index("equalization") < order.index("train")
    assert order.index("per_channel") < order.index("train")


@pytest.mark.parametrize("recipe", ["equalization", "per_channel"])
def test_what_begins_again_says_what_is_lost_by_it_and_counts_it(recipe: str) -> None:
    fresh = lossy(pair(), TRAINED_BAD)
    ground = replace(fresh.ground, trained=True)
    after = replace(fresh, ground=ground, history=curve(0.5, 0.6), config=TrainingConfig(epochs=7))
    (one,), (again,) = asked(recipe, fresh), asked(recipe, after)
    assert "without the 2 epochs trained" in again.reasons[-1].text
    assert "epochs trained" not in one.reasons[-1].text
    assert (one.cost.epochs, again.cost.epochs) == (0, 7)
    assert "for each of the 2 epochs trained" in again.cost.basis


def test_a_metric_of_which_less_is_better() -> None:
    high = lossy(plain(), values(name="loss", float=0.1, ptq=0.4), mode="min")
    (one,) = asked("train", high)
    assert "0.3 lost, more than the 0.001" in one.reasons[0].text
    low = lossy(plain(), values(name="loss", float=0.4, ptq=0.1), mode="min")
    assert not asked("train", low)
    assert "0.3 won" in asked("take_home", low)[0].reasons[0].text


def test_a_metric_that_is_no_number_is_a_loss() -> None:
    facts = lossy(plain(), values(float=0.9, ptq=float("nan")))
    assert facts.loses
    made = advise(facts)
    assert made.of("take_home") is None
    assert made.of("train") is not None
    assert not lossy(plain(), values(float=float("nan"), ptq=0.5)).loses
