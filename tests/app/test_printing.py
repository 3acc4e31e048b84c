"""Every object that a user gets prints as a few lines, shows the same as HTML, and gives tables."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import DeQuantStub, QuantStub

import qatexplorer as qx
from qatexplorer.data import Data
from qatexplorer.errors import InputError
from qatexplorer.evaluate.benchmark_records import Benchmark, BenchmarkRow, ModuleTime
from qatexplorer.evaluate.evaluation import Evaluation, ModelResult
from qatexplorer.evaluate.profiled import OperatorTime
from qatexplorer.forward.histograms import grid_histogram
from qatexplorer.ledger.records import Coverage, Ledger
from qatexplorer.runs.opened import OpenedRun, RunLine, RunList
from qatexplorer.runs.records import EpochRecord, History, Marker
from qatexplorer.runs.store import Telemetry
from qatexplorer.snapshot.records import Snapshot
from qatexplorer.training.run import TrainingRun
from qatexplorer.zoo.base import Example
from tests.support.models import NARROW, load_timm
from tests.support.training_models import data, prepared

LAYERS, EPOCHS = 30, 20
FAKE_QUANTS = 2 * LAYERS + 2
TAG = "<b>layer"


class Lots(nn.Module):
    """Many layers with a long name that is HTML, a class name that is, and a stub too many."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.again, self.dequant = QuantStub(), QuantStub(), DeQuantStub()
        layers = (nn.Linear(4, 4) for _ in range(LAYERS))
        self.layers = nn.ModuleDict({f"{TAG}{'_' * 150}{i}": m for i, m in enumerate(layers)})

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(x)
        for layer in self.layers.values():
            x = layer(x)
        out: Tensor = self.dequant(self.again(x))
        return out.softmax(-1)


Lots.__name__ = "<script>Lots"


def failing(output: Tensor, _target: Tensor) -> Tensor:
    raise ValueError(f"<b>{'long ' * 100}\n" * 50)


def big(folder: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    x = torch.randn(8, 4)
    batches = [[(x, torch.randint(0, 4, (8,)))]] * 2
    session = qx.Session(Lots().train(), (x,), data=batches)
    session.goto("insert")
    inserted, ledger = session.snapshot, session.ledger()
    run = session.train(epochs=EPOCHS, run_dir=folder / "<b>run", checkpoint_every=0)
    assert run.telemetry is not None
    failed = TrainingRun(prepared(), data(), qx.TrainingConfig(epochs=1), loss=failing).run()
    assert failed.error is not None
    model = Lots()
    note = f"{'<b>why ' * 60}\nand more\n" * 30
    line = qx.list_runs(folder)[0]
    return {
        "Session": session,
        "Snapshot": replace(inserted, notes=(note,) * 30),
        "Diff": session.diff_at("swap"),
        "Diff of fake quants": session.diff_at("insert"),
        "Ledger": replace(ledger, warnings=("<b>two\nlines", note) * 30),
        "Telemetry": run.telemetry,
        "TrainingRun": run,
        "TrainingRun that failed": failed,
        "History": run.history,
        "OpenedRun": qx.open_run(folder / "<b>run"),
        "RunList": RunList([replace(line, path=folder / f"<b>{i}") for i in range(300)]),
        "Evaluation": Evaluation({str(i): ModelResult(f"<b>{i}", note=note) for i in range(30)}),
        "Evaluation of a session": session.evaluate(latency=False),
        "Benchmark": Benchmark(
            tuple(BenchmarkRow(f"<b>{i}", i, note=note) for i in range(30)),
            (ModuleTime("float", "<b>a", "Linear", 0.2, 0.1, 0.5),),
            (OperatorTime("float", "<b>a", "aten::addmm", 1.0, 0.1, 0.5),),
            cpu="<b>cpu",
            notes=(note,) * 30,
        ),
        "GridHistogram": grid_histogram(torch.randn(5000), 0.01, 0, -128, 127),
        "Example": Example(
            "big", "<b>title", note, model, (x,) * 40, Data([], [], "<b>data"), "", {"qconfig": 1}
        ),
    }


def empty(folder: Path) -> dict[str, Any]:
    nothing = Snapshot("eager", "float", (), (), None)
    history = History()
    return {
        "Session": qx.Session(nn.Identity().train(), (torch.zeros(1),)),
        "Snapshot": nothing,
        "Diff": qx.diff(nothing, nothing),
        "Ledger": Ledger("eager", "insert", (), (), (), Coverage(0, 0, 0, 0, "structure")),
        "Telemetry": Telemetry((), 8),
        "TrainingRun": TrainingRun(prepared(), data(), qx.TrainingConfig(epochs=1)),
        "History": history,
        "OpenedRun": OpenedRun(folder, "interrupted", {"kind": "session"}, history, (), {}),
        "RunList": qx.list_runs(folder / "none"),
        "Evaluation": Evaluation({}),
        "Benchmark": Benchmark(),
        "GridHistogram": grid_histogram(torch.zeros(0), 0.01, 0, -128, 127),
        "Example": Example("none", "", "", nn.Identity(), (), Data([], []), ""),
    }


def resnet(folder: Path) -> dict[str, Any]:
    model, x = load_timm("resnet18", **NARROW)
    session = qx.Session(model, (x,), flow="fx")
    session.goto("insert")
    return {"Session": session, "Snapshot": session.snapshot, "Diff": session.diff}


MAKERS = {"big": big, "empty": empty, "resnet": resnet}

# What the text of each must hold, so that few lines are not bought with nothing in them.
ESSENTIAL = {
    ("big", "Session"): ("<script>Lots", "'train'", "qconfig", str(LAYERS)),
    ("big", "Snapshot"): ("<script>Lots", "'insert'", f"{LAYERS} × weight", "note: <b>why"),
    ("big", "Diff"): ("propagate → swap", "torch.ao.nn.qat", f"× {LAYERS}"),
    ("big", "Diff of fake quants"): ("swap → insert", f"for output × {LAYERS}", "for input × 2"),
    ("big", "Ledger"): (
        f"{FAKE_QUANTS} × fake quant",
        "of MACs",
        "float: 1",
        "warning: ",
        "double: ",
    ),
    ("big", "Telemetry"): (f"{FAKE_QUANTS} fake quants", "SQNR", "more"),
    ("big", "TrainingRun"): ("finished, step 20 of 20", "epoch 20: mean loss", "kept in"),
    ("big", "TrainingRun that failed"): ("failed", "error: "),
    ("big", "History"): ("20 epochs, 20 steps", "epoch 20", "4 earlier epochs", "accuracy"),
    ("big", "OpenedRun"): ("<b>run", "finished", "epoch 20", "checkpoints", "SQNR"),
    ("big", "RunList"): ("<b>0", "session", "282 more"),
    ("big", "Evaluation"): ("model", "latency", "12 more"),
    ("big", "Evaluation of a session"): ("accuracy", "fake-quant", "int8", "%", "kB"),
    ("big", "Benchmark"): ("latency on <b>cpu", "<b>16", "more"),
    ("big", "GridHistogram"): ("5,000 of 5,000", "scale 0.01", "█"),
    ("big", "Example"): ("'big': <b>title", "<b>why", "600 parameters", "(8, 4) torch.float32"),
    ("empty", "Session"): ("Identity", "not reached yet", "data none"),
    ("empty", "Snapshot"): ("nothing", "0 modules", "no graph"),
    ("empty", "Diff"): ("nothing changed",),
    ("empty", "Ledger"): ("no fake quant", "0.0%"),
    ("empty", "TrainingRun"): ("SmallNet", "ready", "step 0"),
    ("empty", "History"): ("0 epochs, 0 steps",),
    ("empty", "OpenedRun"): ("interrupted", "a model"),
    ("empty", "Evaluation"): ("model", "note"),
    ("empty", "Benchmark"): ("latency", "samples/s"),
    ("empty", "GridHistogram"): ("0 of 0 values", "The tensor is empty."),
    ("empty", "Example"): ("Identity, 0 parameters",),
    ("empty", "RunList"): ("no runs",),
    ("empty", "Telemetry"): ("no sample",),
    ("resnet", "Session"): ("ResNet", "fx"),
    ("resnet", "Snapshot"): ("GraphModule", "171 modules", "21 × weight fake quant"),
    ("resnet", "Diff"): ("→", "×"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    kept: dict[str, dict[str, Any]] = {}

    def of(size: str) -> dict[str, Any]:
        if size not in kept:
            kept[size] = MAKERS[size](tmp_path_factory.mktemp(size))
        return kept[size]

    return of


@pytest.mark.parametrize("size", MAKERS)
def test_every_object_prints_the_essential_in_twenty_lines(
    size: str, made: Callable[[str], dict[str, Any]]
) -> None:
    shown = made(size)
    assert {key for kind, key in ESSENTIAL if kind == size} == shown.keys()
    for name, value in shown.items():
        text = repr(value)
        lines = text.splitlines()
        assert 1 <= len(lines) <= 20, text
        assert max(map(len, lines)) <= 160, text
        dumped = [sign for sign in ("in_features", "(layers)", "tensor(", " at 0x") if sign in text]
        assert not dumped, text
        missing = [part for part in ESSENTIAL[size, name] if part not in text]
        assert not missing, text


@pytest.mark.parametrize("size", ["big", "empty"])
def test_html_is_the_same_text_escaped(size: str, made: Callable[[str], dict[str, Any]]) -> None:
    from html import unescape

    for value in made(size).values():
        html = value._repr_html_()
        assert html.startswith("<pre")
        assert "color:inherit" in html
        assert "<script" not in html
        assert html.count("<b>") == html.count("</b>") == 1, "only its own head is bold"
        body = html.partition(">")[2].removesuffix("</pre>")
        assert unescape(body.replace("<b>", "", 1).replace("</b>", "", 1)) == repr(value)


def test_there_is_one_way_to_show_an_object(made: Callable[[str], dict[str, Any]]) -> None:
    assert len({type(value)._repr_html_ for value in made("big").values()}) == 1


@pytest.mark.parametrize("name", ["digits_cnn", "digits_depthwise", "digits_mlp"])
def test_an_example_says_what_to_look_for(name: str) -> None:
    example = qx.zoo.load(name)
    text = repr(example)
    assert len(text.splitlines()) <= 20
    assert f"Example {name!r}: {example.title}" in text
    assert example.description in " ".join(text.splitlines())
    assert "(8, 1, 8, 8) torch.float32" in text
    assert type(example.model).__name__ in text
    assert "Linear(" not in text
    assert f"epochs={example.training['epochs']}" in text


def test_a_ledger_is_a_row_after_another(made: Callable[[str], dict[str, Any]]) -> None:
    ledger = made("big")["Ledger"]
    assert list(ledger) == list(ledger.rows)
    assert len(ledger) == len(ledger.rows) == 2 * FAKE_QUANTS
    assert ledger.by_path[next(iter(ledger)).path] is ledger.rows[0]


# Table, and some of its columns with the dtype that they have with rows and without any.
TABLES: dict[tuple[str, str], dict[str, str]] = {
    ("Ledger", "rows"): {
        "calls_per_forward": "int64",
        "ghost": "bool",
        "scale": "object",
        "scale_difference": "float64",
        "tensor.port": "int64",
    },
    ("Ledger", "floats"): {"params": "int64", "macs": "int64"},
    ("Ledger", "redundancies"): {
        "fault": "bool",
        "numbers.changed": "Int64",
        "numbers.sqnr_db": "float64",
        "numbers.observed_for_this": "boolean",
        "step.taken_s": "float64",
    },
    ("Snapshot", "fake_quants"): {
        "quant_min": "int64",
        "ch_axis": "Int64",
        "calls_per_forward": "Int64",
        "scale": "object",
        "observer_enabled": "bool",
    },
    ("Snapshot", "modules"): {"param_count": "int64", "training": "bool", "calls": "Int64"},
    ("History", "steps"): {"step": "int64", "loss": "float64", "lr": "float64"},
    ("History", "epochs"): {"epoch": "int64", "metric": "float64", "bn_frozen": "bool"},
    ("History", "markers"): {"step": "int64", "epoch": "int64"},
    ("Telemetry", ""): {
        "step": "int64",
        "observer_enabled": "bool",
        "bn_frozen": "boolean",
        "sqnr_db": "float64",
    },
    ("Evaluation", ""): {
        "metric.value": "float64",
        "metric.samples": "Int64",
        "size_bytes": "Int64",
        "latency.median_s": "float64",
    },
    ("Benchmark", "rows"): {
        "batch_size": "int64",
        "latency.median_s": "float64",
        "latency.repeats": "Int64",
        "per_second": "float64",
        "peak_bytes": "Int64",
    },
    ("Benchmark", "modules"): {"seconds": "float64", "share": "float64"},
    ("Benchmark", "operators"): {"calls": "float64", "seconds": "float64"},
    ("RunList", ""): {"step": "int64", "loss": "float64", "checkpoints": "int64"},
}
TEXT = {
    ("Ledger", "rows"): ("path", "mechanism", "tensor.label"),
    ("Ledger", "floats"): ("path", "reason", "fix"),
    ("Ledger", "redundancies"): ("kind", "first", "second"),
    ("Snapshot", "fake_quants"): ("path", "owner", "dtype"),
    ("Snapshot", "modules"): ("path", "type_name", "qconfig.weight"),
    ("History", "markers"): ("kind", "note"),
    ("Telemetry", ""): ("path", "kind"),
    ("Evaluation", ""): ("name", "metric.name", "latency.engine", "note"),
    ("Benchmark", "rows"): ("form", "note"),
    ("Benchmark", "operators"): ("form", "path", "name"),
    ("RunList", ""): ("path", "state", "model"),
}


@pytest.mark.parametrize(("name", "records"), TABLES)
def test_tables_have_columns_with_a_dtype_also_without_rows(
    name: str, records: str, made: Callable[[str], dict[str, Any]]
) -> None:
    pytest.importorskip("pandas")
    full, none = (made(size)[name].to_pandas(*filter(None, [records])) for size in ("big", "empty"))
    assert list(full.columns) == list(none.columns)
    assert not len(none)
    for table in (full, none):
        assert (
            table.dtypes[list(TABLES[name, records])].astype(str).to_dict() == TABLES[name, records]
        )
    for column in TEXT.get((name, records), ()):
        assert all(isinstance(cell, str) for cell in full[column].dropna())


def test_tables_hold_what_the_records_say(made: Callable[[str], dict[str, Any]]) -> None:
    pytest.importorskip("pandas")
    shown = made("big")
    ledger, snapshot, history = shown["Ledger"], shown["Snapshot"], shown["History"]
    rows = ledger.to_pandas()
    assert rows.path.tolist() == [row.path for row in ledger]
    assert rows["tensor.label"].tolist() == [row.tensor.label for row in ledger]
    assert rows.scale.tolist() == [row.scale for row in ledger]
    assert ledger.to_pandas("floats").name.tolist() == [row.name for row in ledger.floats] != []
    sites = snapshot.to_pandas()
    assert sites.path.tolist() == [site.path for site in snapshot.sites]
    assert sites.ch_axis.isna().tolist() == [not site.per_channel for site in snapshot.sites]
    assert snapshot.to_pandas("modules").path.tolist() == [m.path for m in snapshot.modules]
    assert history.to_pandas().loss.tolist() == [step.loss for step in history.steps]
    telemetry = shown["Telemetry"]
    assert telemetry.to_pandas().scale_max.tolist() == [r["scale_max"] for r in telemetry.rows()]
    assert shown["RunList"].to_pandas().path[0] == str(shown["RunList"][0].path)
    doubles = ledger.to_pandas("redundancies")
    assert doubles.second.tolist() == [found.second for found in ledger.redundancies] != []
    changed = [found.numbers.changed for found in ledger.redundancies]
    assert doubles["numbers.changed"].tolist() == changed
    evaluation = shown["Evaluation of a session"]
    accuracy = evaluation.to_pandas().set_index("name")["metric.value"]
    assert accuracy["float"] == evaluation["float"].metric.value
    assert evaluation["int8"].metric is None, "two stubs in a row cannot run in int8"
    assert accuracy.isna()["int8"]
    measured = Evaluation({"float": ModelResult("float", size_bytes=7), "x": ModelResult("x")})
    sizes = measured.to_pandas().size_bytes
    assert (sizes[0], sizes.isna().tolist()) == (7, [False, True])


@pytest.mark.parametrize("name", ["Ledger", "Snapshot", "History"])
def test_a_table_that_there_is_not_is_named(
    name: str, made: Callable[[str], dict[str, Any]]
) -> None:
    pytest.importorskip("pandas")
    with pytest.raises(InputError, match="There is no table 'sites'") as caught:
        made("empty")[name].to_pandas("sites")
    assert next(records for kind, records in TABLES if kind == name) in caught.value.fix


@pytest.mark.parametrize("name", sorted({name for name, _ in TABLES}))
@pytest.mark.parametrize("size", ["big", "empty"])
def test_without_pandas_there_is_a_message(
    name: str,
    size: str,
    made: Callable[[str], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = made(size)[name]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pandas is not installed") as caught:
        shown.to_pandas()
    assert "pip install pandas" in caught.value.fix


def test_records_of_runs_that_lack_a_number_keep_their_dtype() -> None:
    pytest.importorskip("pandas")
    history = History()
    history.add_epoch(EpochRecord(0, 1.0, None, 1.0, False, False, 0.1))
    history.add_marker(Marker(0, 0, "paused"))
    assert str(history.to_pandas("epochs").metric.dtype) == "float64"
    assert history.to_pandas("markers").kind.tolist() == ["paused"]
    line = RunLine(Path("x"), None, "unreadable", "", "", 0, 0, 0, None, 0)
    assert str(RunList([line]).to_pandas().loss.dtype) == "float64"
