"""What the page says for the embedded examples, in both flows, from the first stage to the last.

The words are read off the explorer itself, widget by widget, as a browser would show them.
Numbers are masked (:mod:`tests.support.page_text`): they are tested where they are computed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

import qatexplorer as qx
from qatexplorer import zoo
from qatexplorer.quantizers.engine import available_engines
from tests.support.page_text import distinct, masked, page_text, visible_text

FLOWS = ("eager", "fx")
EXAMPLES = tuple(name for name in zoo.names() if name.startswith("digits"))


def until(holds: Callable[[], Any], timeout_s: float = 120.0) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


class Page:
    """An explorer without a browser. ``go`` takes it to a stage, ``panel`` reads one tab."""

    def __init__(self, example: str, flow: str) -> None:
        self.explorer = qx.explore(example=example, flow=flow)
        session = self.explorer.session
        assert session is not None
        self.session = session

    @property
    def idle(self) -> bool:
        return self.explorer.jobs.current is None

    def go(self, stage: str) -> str:
        """The message of a stage that fails, ``""`` if it was reached."""
        self.explorer._on_action("goto", stage)
        until(lambda: self.idle)
        message = visible_text(self.explorer.message.html)
        assert (self.session.stage == stage) == (not message)
        return message

    def calibrate(self) -> None:
        """Ranges without a step of training: their last bits alone depend on the CPU."""
        self.explorer.training.calibrate.click()
        until(lambda: self.idle)

    def press(self, button: Any) -> None:
        button.click()
        until(lambda: self.idle)

    def tab(self, title: str) -> Any:
        """The panel of that name, brought to the front."""
        drawer = self.explorer.drawer
        panel = drawer.panels[drawer.titles.index(title)]
        drawer.show_panel(panel)
        return panel


@pytest.fixture(autouse=True)
def engines_of_an_x86_build() -> None:
    """The page lists the engines of this build of torch, so another build says other words."""
    if {"x86", "fbgemm", "onednn", "qnnpack"} - set(available_engines()):
        pytest.skip(f"this build of torch has the engines {', '.join(available_engines())} only")


@pytest.fixture(params=FLOWS)
def flow(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _without_torchs_words(text: str) -> str:
    """The text without torch's own warnings: they are another release's business."""
    head, mark, _ = text.partition("torch said")
    return head.rstrip() + ("\ntorch said # things" if mark else "")


@pytest.mark.parametrize("example", EXAMPLES)
def test_story_of_every_stage(example: str, flow: str, wording: SnapshotAssertion) -> None:
    page = Page(example, flow)
    parts = [visible_text(page.explorer.header.html), visible_text(page.explorer.description.html)]
    for stage in page.session.stages:
        failed = page.go(stage)
        if stage == page.session.flow.train_stage:
            page.calibrate()
        parts.append(failed or _without_torchs_words(visible_text(page.explorer.news.story)))
    bar = [f"{s['title']}: {s['call']} | {s['summary']}" for s in page.explorer.bar.stages]
    assert wording == masked("\n\n".join([*parts, "\n".join(bar)])) + "\n"


def _without_settings(text: str) -> str:
    """The text without the settings of modules, which are torch's ``extra_repr`` of the day."""
    return re.sub(r"^settings: .*", "settings: …", text, flags=re.MULTILINE)


def _one_of_each(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The first row of the tree of each type, kind of fake quant and mark."""
    seen = set()
    for row in rows:
        key = (row["kind"], row.get("site"), row["type"], row["float"], row["not_run"])
        if key not in seen and "gone" not in row["what"]:
            seen.add(key)
            yield row


def test_inspector_of_modules_and_fake_quants(flow: str, wording: SnapshotAssertion) -> None:
    page = Page("digits_depthwise", flow)
    # What it says of an int8 layer depends on the CPU's kernels: tests/wording/test_views.py.
    page.explorer.panes.int8.section = lambda *_: None  # type: ignore[method-assign]
    parts, known = [], set()
    for stage in page.session.stages:
        assert page.go(stage) == ""
        if stage == page.session.flow.train_stage:
            page.calibrate()
        for row in list(_one_of_each(page.explorer.panes.tree.rows)):
            page.explorer.select(row["id"])
            text = _without_settings(page_text(page.explorer.panes.inspector))
            # What an earlier stage said word for word stands there already.
            fresh = [line for line in text.splitlines() if line not in known]
            known.update(fresh)
            if fresh:
                parts.append("\n".join([f"## {stage}: {row['id']}", *fresh]))
    assert wording == "\n\n".join(parts) + "\n"


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_model_at_a_glance(example: str, flow: str, wording: SnapshotAssertion) -> None:
    page = Page(example, flow)
    panel = page.explorer.panes.inspector.panel
    parts = []
    for stage in page.session.stages:
        if page.go(stage):
            break  # its int8 model does not run
        if stage == page.session.flow.train_stage:
            page.calibrate()
        until(lambda: "multiply-accumulates" in panel.html)
        text = _without_torchs_words(masked(visible_text(panel.html)))
        parts.append(f"## {stage}\n{text}")
    assert wording == "\n\n".join(parts) + "\n"


def test_inspector_of_the_graph(flow: str, wording: SnapshotAssertion) -> None:
    page = Page("digits_cnn", flow)
    assert not page.go("insert")
    scene = page.explorer.panes.graph.scene
    first_of_op = {node["op"]: node for node in reversed(scene["nodes"])}
    parts = []
    for selection in [
        "",
        *(node["sel"] for _, node in sorted(first_of_op.items())),
        f"edge:{scene['nodes'][0]['sel'].partition(':')[2]}:nothing",
    ]:
        page.explorer.select(selection)
        if not selection:  # what is counted off the loop
            until(lambda: "multiply-accumulates" in page.explorer.panes.inspector.panel.html)
        parts.append(
            f"## {selection}\n" + _without_settings(page_text(page.explorer.panes.inspector))
        )
    tips = distinct(masked(tip) for site in scene["sites"].values() for tip in site["tip"])
    tips += distinct(masked(tip) for node in scene["nodes"] for tip in node["tip"])
    assert wording == "\n\n".join([*parts, "## Tips of the graph\n" + "\n".join(tips)]) + "\n"


@pytest.mark.parametrize("example", EXAMPLES)
def test_ledger(example: str, flow: str, wording: SnapshotAssertion) -> None:
    page = Page(example, flow)
    assert not page.go("train")
    page.calibrate()
    panel = page.tab("Who put it there?")
    until(lambda: panel.sites.rows)
    assert wording == page_text(panel) + "\n"


def test_settings_and_their_outcomes(flow: str, wording: SnapshotAssertion) -> None:
    page = Page("digits_cnn", flow)
    panel = page.tab("Settings")
    parts = [page_text(panel)]
    buttons = [panel.check, panel.compare] if flow == "eager" else [panel.check]
    for button in buttons:
        page.press(button)
        parts.append(f"## {button.description}\n" + masked(visible_text(panel.outcome.html)))
    assert wording == "\n\n".join(parts) + "\n"


def test_results_table(flow: str, wording: SnapshotAssertion) -> None:
    page = Page("digits_cnn", flow)
    panel = page.tab("Float, fake-quant, int8")
    parts = [page_text(panel)]
    assert not page.go("train")
    page.calibrate()
    page.press(panel.measure)
    until(lambda: panel.table.html)
    assert wording == "\n\n".join([*parts, page_text(panel)]) + "\n"


def test_comparison_before_and_without_fake_quants(wording: SnapshotAssertion) -> None:
    page = Page("digits_cnn", "eager")
    panel = page.tab("Compare")
    parts = [page_text(panel)]
    page.press(panel.compare)
    until(lambda: panel.notice.html)
    parts.append("## before there are fake quants\n" + masked(visible_text(panel.notice.html)))
    assert wording == "\n\n".join(parts) + "\n"


def test_cures(flow: str, wording: SnapshotAssertion) -> None:
    page = Page("digits_depthwise", flow)
    panel = page.tab("Cures")
    parts = ["## at first\n" + page_text(panel)]
    page.press(panel.cards["equalization"].attempt)
    parts.append("## equalized\n" + masked(visible_text(panel.before.html)))
    parts += [masked(visible_text(part.html)) for part in (panel.outcome, panel.on)]
    assert not page.go("train")
    page.calibrate()
    cards = [page_text(card) for card in panel.cards.values()]
    parts.append("## calibrated\n" + "\n".join(cards))
    assert wording == "\n\n".join(parts) + "\n"


def _without_cost(text: str) -> str:
    """The text without what depends on how long watching took, as on a busy machine."""
    return re.sub(r"(Sampled: [^,]*),.*", r"\1, …", text)


def test_training_telemetry_and_runs(wording: SnapshotAssertion) -> None:
    page = Page("digits_mlp", "eager")
    names = ("Train", "Inside the training", "Runs")
    parts = [f"## {name}, before\n" + page_text(page.tab(name)) for name in names]
    assert not page.go("train")
    page.explorer.training.epochs.value = 1
    page.explorer.training.train.click()
    until(lambda: page.session.run is not None and page.session.run.state == "finished")
    run = page.session.run
    assert run is not None
    run.wait(60)
    until(lambda: page.explorer.runs.list.options and page.idle)
    words = page.explorer.training.words.value
    live = page.tab("Inside the training")
    until(lambda: live.multiples.rows)
    cards = "\n".join(row["label"] for row in live.multiples.rows)
    parts.append("## Train, after\n" + masked(visible_text(words)))
    parts.append("## Inside the training, after\n" + masked(visible_text(live.words.value)))
    parts.append(_without_cost(masked(visible_text(live.cost.html))))
    # How a number was at first may be the same as it is now, or not.
    cards = re.sub(r", (as|[^,;]*) at step [\d,]+", "", cards)
    parts.append("\n".join(distinct(masked(cards).splitlines())))
    runs = page.tab("Runs")
    page.press(runs.refresh)
    runs.list.value = runs.list.options[0][1]
    parts.append("## Runs, after\n" + masked(runs.list.options[0][0]))
    parts.append(_without_cost(masked(visible_text(runs.details.html))))
    assert wording == "\n\n".join(parts) + "\n"
