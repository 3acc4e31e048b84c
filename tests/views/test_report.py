"""Reports: their numbers are those of the records, nothing is loaded, every part can be reached."""

from __future__ import annotations

import errno
import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qatexplorer as qx
from qatexplorer import reports
from qatexplorer.errors import BusyError, ReportError, RunFolderError
from qatexplorer.evaluate.evaluation import format_latency, format_metric
from qatexplorer.views.common.theme import DARK, LIGHT
from qatexplorer.views.report import model as report_model
from qatexplorer.views.report.pieces import MAX_ROWS, table_html
from qatexplorer.views.report.style import style_sheet
from tests.support.report_text import ReportText, loaded
from tests.support.training_models import SmallNet, batches, data, prepared


@dataclass
class Made:
    """A session with all measured, its page, and the page of its run alone."""

    session: qx.Session
    html: str
    text: ReportText
    run_html: str
    run_text: ReportText
    run_dir: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("reports")
    torch.manual_seed(0)
    session = qx.Session(SmallNet().train(), batches(1)[0][0], qconfig="onednn", data=data(4))
    session.train(2, run_dir=folder / "run", freeze_observer_epoch=1, telemetry_every=1,
                  progress=False)  # fmt: skip
    session.goto(session.flow.int8_stage)
    session.check()
    session.compare(2)
    session.sensitivity("shadow", batches=1)
    session.evaluate(latency=False)
    session.benchmark([1], seconds=0.2, compiled=False)
    html = session.report(folder / "deep" / "report.html").read_text(encoding="utf-8")
    run = qx.open_run(folder / "run").report(folder / "run.html").read_text(encoding="utf-8")
    yield Made(session, html, ReportText(html), run, ReportText(run), folder / "run")
    torch.set_num_threads(before)


def plain(text: str) -> float:
    """A number as a page writes it."""
    return float(text.replace("−", "-").replace(",", "").replace("∞", "inf").split()[0])


def test_stages_have_the_counts_of_their_snapshots(made: Made) -> None:
    table = made.text.table("Stages of")
    stages = made.session.flow.stages
    assert [row[0] for row in table.rows] == [stage.title for stage in stages]
    for row, stage in zip(table.rows, stages, strict=True):
        shot = made.session.snapshots[stage.name]
        assert (plain(row[3]), plain(row[4])) == (len(shot.modules), len(shot.sites))
        change = made.session.diff_at(stage.name)
        if change is not None:
            assert change.summary() in made.text.sections["stages"]
    assert made.html.count("Dataflow graph: ") >= len(stages)


def test_the_ledger_has_every_fake_quant_and_what_stays_float(made: Made) -> None:
    ledger = made.session.ledger()
    tables = [one for one in made.text.tables if one.head[:1] == ["Fake quant"]]
    rows = next(one.rows for one in tables if "Put there by" in one.head)
    assert [row[0] for row in rows] == [row.path for row in ledger.rows]
    floats = made.text.table("Stays float")
    assert len(floats.rows) == len(ledger.floats)


def test_histograms_are_those_of_the_session(made: Made) -> None:
    rows = {row[0]: row for row in made.text.table("Fake quants, the most clipped first").rows}
    session = made.session
    session.goto(session.flow.train_stage)
    known = session.histograms()
    session.goto(session.flow.int8_stage)
    assert set(rows) == set(known)
    for path, one in known.items():
        row = rows[path]
        assert plain(row[2]) == one.total
        assert row[4].startswith(f"{one.codes_used:,} of ")
        assert plain(row[5]) == pytest.approx(one.min, rel=1e-3)
        assert plain(row[6]) == pytest.approx(one.max, rel=1e-3)
    assert made.html.count("<figure>") > len(known)


def test_training_has_the_epochs_of_the_run(made: Made) -> None:
    run = made.session.run
    assert run is not None
    for text in (made.text, made.run_text):
        table = text.table("Epochs")
        for row, epoch in zip(table.rows, run.history.epochs, strict=True):
            assert plain(row[1]) == pytest.approx(epoch.train_loss, rel=1e-3)
            assert epoch.metric is not None
            assert plain(row[2]) == pytest.approx(epoch.metric, rel=1e-3)
        assert table.rows[-1][4] == "yes", "observers were frozen"
        assert "observers frozen" in text.sections["training"]
    steps = [one for one in made.run_text.tables if one.caption.startswith("Fake quants at step")]
    telemetry = qx.open_run(made.run_dir).telemetry
    assert telemetry is not None
    by_path = {row[0]: row for row in steps[0].rows}
    assert set(by_path) == set(telemetry.paths)
    for path, row in by_path.items():
        sample = telemetry.sample(path)
        assert sample is not None
        assert plain(row[2]) == pytest.approx(sample.sqnr_db, rel=1e-2)
        assert plain(row[5]) == pytest.approx(sample.scale_median, rel=1e-3)


def test_what_was_measured_is_what_the_records_have(made: Made) -> None:
    session, text = made.session, made.text
    found = session.last_comparison
    assert found is not None
    rows = text.table("Places, the lowest SQNR first").rows
    assert len(rows) == len(found)
    for record in found:
        mine = [r for r in rows if r[0] == (record.path or "the model")]
        values = {cell for row in mine for cell in row[2:4]}
        if record.sqnr_fake_quant_db is not None:
            numbers = [plain(v) for v in values if v not in ("–", "")]
            assert any(n == pytest.approx(record.sqnr_fake_quant_db, rel=1e-3) for n in numbers)
    ranking = session.last_sensitivity["shadow"]
    table = next(t for t in text.tables if t.caption.startswith("Fake quants by noise over"))
    assert [row[0] for row in table.rows] == [one.path for one in ranking]
    evaluation, benchmark = session.last_evaluation, session.last_benchmark
    assert evaluation is not None
    assert benchmark is not None
    for result in evaluation.values():
        assert format_metric(result.metric) in text.sections["accuracy"]
    for line in benchmark.rows:
        assert format_latency(line.latency) in text.sections["benchmark"]
    assert benchmark.cpu in text.sections["environment"]
    assert torch.__version__ in text.sections["environment"]
    check = session.last_check
    assert check is not None
    for finding in session.findings():
        assert finding.id in text.sections["findings"]
    assert f"{len(check.checked)} rules were asked" in text.sections["findings"]


def test_nothing_is_loaded_and_nothing_runs(made: Made) -> None:
    for html, text in ((made.html, made.text), (made.run_html, made.run_text)):
        assert loaded(text.tags, style_sheet()) == []
        assert "default-src 'none'" in html
        assert "<button" not in html
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", html)
    bad = '<link href="http://x"><img src="http://x"><p onclick="x"></p>'
    assert len(loaded(ReportText(bad).tags, "a{background:url(x)}")) == 5, "it sees what it should"


def test_every_part_is_reached_by_keys_and_by_name(made: Made) -> None:
    for text in (made.text, made.run_text):
        ids = [a["id"] for _, a in text.tags if a.get("id")]
        assert len(ids) == len(set(ids))
        anchors = [str(a["href"]) for tag, a in text.tags if tag == "a"]
        assert anchors[0] == "#report"
        assert {anchor[1:] for anchor in anchors} <= set(ids)
        assert {f"#{name}" for name in text.sections} <= set(anchors)
        levels = [int(tag[1]) for tag, _ in text.tags if re.fullmatch(r"h\d", tag)]
        assert levels[0] == 1
        assert all(b - a <= 1 for a, b in pairwise(levels))
        for tag, attributes in text.tags:
            if "scroll" in (attributes.get("class") or "").split():
                assert attributes["tabindex"] == "0"
                assert attributes["aria-label"]
            if tag == "svg":
                assert attributes["aria-label"]
            if tag == "img":
                assert attributes["alt"]


def test_drawings_follow_the_dark_page(made: Made) -> None:
    dark = style_sheet().rpartition("@media (prefers-color-scheme:dark)")[2]
    for one, other in ((LIGHT.fg, DARK.fg), (LIGHT.muted, DARK.muted), (LIGHT.grid, DARK.grid)):
        assert f'svg.follows [fill="{one}"]{{fill:{other}}}' in dark
    known = {*re.findall(r'\[(?:fill|stroke)="([^"]+)"\]', dark), "#8b949e", "none"}
    drawings = re.findall(r"<svg.*?</svg>", made.html, re.DOTALL)
    follow = [svg for svg in drawings if svg.startswith('<svg class="follows"')]
    for svg in follow:
        used = set(re.findall(r' (?:fill|stroke)="([^"(]+)"', svg))
        assert used <= known
    # Ridges and cells are drawn in shades, which have no counterpart: they stay on white.
    others = [svg for svg in drawings if svg not in follow]
    assert len(follow) > len(others) > 0
    assert all("values over the steps" in svg or ">Channels<" in svg for svg in others)


def test_what_was_not_measured_says_so(tmp_path: Path) -> None:
    session = qx.Session(SmallNet().train(), batches(1)[0][0], qconfig="onednn")
    text = ReportText(session.report(tmp_path / "r.html").read_text(encoding="utf-8"))
    for part, words in {
        "findings": "session.check() was not called",
        "ledger": "There is no ledger.",
        "histograms": "There are none.",
        "training": "Neither trained nor calibrated.",
        "accuracy": "session.evaluate()",
        "comparison": "session.compare()",
        "sensitivity": "session.sensitivity()",
        "proposal": "session.propose()",
        "cures": "session.cure()",
        "benchmark": "session.benchmark()",
    }.items():
        assert words in text.sections[part]
    assert "not reached" in text.sections["stages"]


def test_the_proposal_and_the_cures_that_are_on(tmp_path: Path) -> None:
    torch.manual_seed(0)
    session = qx.Session(SmallNet().train(), batches(1)[0][0], qconfig="onednn", data=data(2))
    session.calibrate(1)
    session.sensitivity("shadow", batches=1)
    found = session.propose(max_drop=0.5)
    page = session.report(tmp_path / "r.html").read_text(encoding="utf-8")
    text = ReportText(page)
    rows = text.table("Points that were measured").rows
    assert [int(row[0]) for row in rows] == [len(point.modules) for point in found.points]
    assert [plain(row[1]) for row in rows] == pytest.approx(
        [point.metric for point in found.points], rel=1e-3
    )
    assert "changed since" not in text.sections["proposal"]
    assert "<button" not in page
    cured = session.cure("biases", batches=1)
    session.report(tmp_path / "r.html", overwrite=True)
    text = ReportText((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "changed since" in text.sections["proposal"]
    ((title, settings, judged, before, after, changes),) = text.table("Cures that are on").rows
    assert title == next(one.title for one in session.cures if one.name == "biases")
    assert settings == "batches=1"
    assert judged == "fake quant, accuracy"
    assert (before, after) == (format_metric(cured.before), format_metric(cured.after))
    assert all(line in changes for line in cured.changes)
    session.undo_cure()
    session.report(tmp_path / "r.html", overwrite=True)
    text = ReportText((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "None is on" in text.sections["cures"]


def test_calibrated_only_is_said(tmp_path: Path) -> None:
    session = qx.Session(SmallNet().train(), batches(1)[0][0], qconfig="onednn", data=data(2))
    session.calibrate(2)
    html = session.report(tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Calibrated on 16 samples; not trained." in html


def test_names_are_no_markup(tmp_path: Path) -> None:
    name = "Net<script>alert(1)</script>"
    Odd = type(name, (SmallNet,), {})
    html = qx.Session(Odd().train(), batches(1)[0][0]).report(tmp_path / "r.html").read_text()
    assert "<script" not in html
    assert "Net&lt;script&gt;" in html


def test_a_model_that_raises_is_reported(tmp_path: Path) -> None:
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.left = nn.Linear(4, 2), 10**6

        def forward(self, x: Tensor) -> Tensor:
            self.left -= 1
            if self.left < 0:
                raise ValueError("no more <today>")
            out: Tensor = self.fc(x)
            return out

    session = qx.Session(Moody().train(), torch.zeros(2, 4), stubs="model", qconfig="onednn")
    session.goto(session.flow.prepared_stage)
    for module in session.model.modules():
        if isinstance(module, Moody):
            module.left = 0
    text = ReportText(session.report(tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "no more <today>" in text.sections["histograms"]


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    session = qx.Session(SmallNet().train(), batches(1)[0][0], qconfig="onednn")
    file = tmp_path / "report.html"
    file.write_text("mine")
    with pytest.raises(ReportError, match="is there already"):
        session.report(file)
    with pytest.raises(ReportError, match="is a folder"):
        session.report(tmp_path, overwrite=True)
    assert file.read_text() == "mine"
    assert session.report(file, overwrite=True) == file
    assert file.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "report.html"
    file.write_text("mine")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(reports.os, "replace", full)
    session = qx.Session(SmallNet().train(), batches(1)[0][0], qconfig="onednn")
    with pytest.raises(ReportError, match="No space left"):
        session.report(file, overwrite=True)
    assert file.read_text() == "mine"
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]


def test_no_report_of_a_session_that_trains(tmp_path: Path) -> None:
    go_on = threading.Event()

    class Slow:
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for pair in batches(2):
                go_on.wait(20)
                yield pair

    session = qx.Session(
        SmallNet().train(), batches(1)[0][0], qconfig="onednn", data=(Slow(), batches(1))
    )
    run = session.start_training(1)
    try:
        with pytest.raises(BusyError):
            session.report(tmp_path / "r.html")
    finally:
        go_on.set()
        run.wait(20)
    assert not list(tmp_path.iterdir())


def test_a_kept_run_alone(made: Made) -> None:
    run = qx.open_run(made.run_dir)
    words = made.run_text.sections
    assert "finished" in words["run"]
    assert "observers frozen from epoch" in words["run"]
    assert f"step {run.checkpoints[-1].position.step:,}" in words["run"]
    assert run.about["torch"] in words["versions"]
    assert "--run-dir" in words["missing"]
    telemetry = run.telemetry
    assert telemetry is not None
    rows = made.run_text.table("Fake quants, the most clipped first").rows
    for row in rows:
        histogram = telemetry.histogram(row[0])
        assert histogram is not None
        assert row[4].startswith(f"{histogram.codes_used:,} of ")


def test_the_folder_of_a_watch(tmp_path: Path) -> None:
    model = prepared()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with qx.watch(model, every=1, folder=tmp_path / "watched") as watch:
        for x, y in batches(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            watch.step()
    file = qx.open_run(tmp_path / "watched").report(tmp_path / "r.html")
    text = ReportText(file.read_text(encoding="utf-8"))
    assert "There are no curves." in text.sections["training"]
    assert "in a training loop of your own" in text.sections["run"]
    paths = {row[0] for row in text.table("Fake quants, the most clipped first").rows}
    assert {"conv.weight_fake_quant", "fc.activation_post_process"} <= paths


def test_a_run_shown_beside_a_model(made: Made, tmp_path: Path) -> None:
    session = qx.Session(SmallNet().train(), batches(1)[0][0], qconfig="onednn")
    session.load_run(made.run_dir)
    file = session.report(tmp_path / "r.html", run_dir=made.run_dir)
    text = ReportText(file.read_text(encoding="utf-8"))
    assert text.table("Epochs").rows == made.run_text.table("Epochs").rows
    with pytest.raises(RunFolderError):
        session.report(tmp_path / "other.html", run_dir=tmp_path)
    assert not (tmp_path / "other.html").exists()


def test_a_run_of_another_version(made: Made, tmp_path: Path) -> None:
    about = json.loads((made.run_dir / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**about, "format": 1}))
    with pytest.raises(RunFolderError, match="format 1"):
        qx.open_run(tmp_path).report(tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_a_long_table_says_what_is_left_out() -> None:
    html = table_html("Things", ("n",), [(str(n),) for n in range(MAX_ROWS + 7)])
    table = ReportText(html).tables[0]
    assert len(table.rows) == MAX_ROWS
    assert table.caption == "Things; 7 rows more not shown"


def test_a_long_name_may_go_on_on_the_next_line() -> None:
    html = table_html(
        "Things", ("name", "n"), [("layer1.0.conv1.weight_fake_quant", "0.0123456")], [1]
    )
    assert "layer1.<wbr>0.<wbr>conv1.<wbr>weight_<wbr>fake_<wbr>quant" in html
    assert "0.0123456" in html
    assert ReportText(html).tables[0].rows == [["layer1.0.conv1.weight_fake_quant", "0.0123456"]]


def test_histograms_that_are_not_drawn_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_model, "MAX_HISTOGRAMS", 2)
    session = qx.Session(SmallNet().train(), batches(1)[0][0], qconfig="onednn")
    session.goto(session.flow.prepared_stage)
    html = session.report(tmp_path / "r.html").read_text(encoding="utf-8")
    assert "The 2 that clip the most are drawn; 3 are in the table only." in html
