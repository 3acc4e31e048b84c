"""A session in flow torchao, from float to integers: what it does, and what it says it cannot."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qatexplorer as qx
from qatexplorer.errors import (
    ExportError,
    InputError,
    QatExplorerError,
    RunFolderError,
    StageError,
    TrainingError,
)
from qatexplorer.views.common.names import state_words
from qatexplorer.views.inspector.blocks import blocks_figure, scale_rows
from qatexplorer.views.inspector.figures import scales_of_site
from qatexplorer.views.inspector.page import inspect_html
from qatexplorer.views.tree import build_tree

ao = pytest.importorskip("torchao.quantization")

INT4: Any = torch.int4  # type: ignore[attr-defined]


class Net(nn.Module):
    """(N, 4) token numbers below 12 → (N, 12) scores."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 64)
        self.norm = nn.LayerNorm(64)
        self.up = nn.Linear(64, 32)
        self.down = nn.Linear(32, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.embed(x)).mean(1)
        out: Tensor = self.down(torch.relu(self.up(x)))
        return out


X = torch.randint(0, 12, (64, 4), generator=torch.Generator().manual_seed(0))
DATA: dict[str, Any] = {
    "train": [(X[i : i + 16], X[i : i + 16, 0]) for i in range(0, 64, 16)],
    "eval": [(X, X[:, 0])],
}


def make(base: Any = None, **settings: Any) -> qx.Session:
    torch.manual_seed(0)
    return qx.Session(Net().train(), X[:4], data=DATA, flow="torchao", base_config=base, **settings)


def both() -> dict[Any, Any]:
    """Linear layers in groups of 16, the embedding in groups of 64."""
    return {
        nn.Linear: ao.Int8DynamicActivationIntxWeightConfig(
            weight_dtype=INT4, weight_granularity=ao.PerGroup(16)
        ),
        nn.Embedding: ao.IntxWeightOnlyConfig(weight_dtype=INT4, granularity=ao.PerGroup(64)),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("torchao") / "run"


@pytest.fixture(scope="module")
def trained(folder: Path) -> qx.Session:
    """Trained for two epochs, kept in ``folder``, and converted."""
    session = make(both())
    session.train(epochs=2, lr=0.01, run_dir=folder)
    session.goto("convert")
    return session


def plain(html: Any) -> str:
    return unescape(re.sub(r"<[^>]+>", " ", str(html)))


def test_each_stage_says_what_it_changed(trained: qx.Session) -> None:
    assert trained.stages == ("float", "prepare", "train", "convert")
    assert "3 layers made a QAT module" in trained.summaries["prepare"]
    assert "fake quants inserted" in trained.summaries["prepare"]
    assert [s.kind for s in trained.snapshots["prepare"].sites] == [
        "weight", "input", "weight", "input", "weight",
    ]  # fmt: skip
    assert "base_config Int8Dyn" in repr(trained)
    assert "qconfig" not in repr(trained)
    assert not trained.snapshots["convert"].sites
    known = {m.path: (m.compute, m.state) for m in trained.snapshots["convert"].modules}
    assert known["up"] == known["embed"] == ("stored", "int8")
    assert known["norm"] == ("layer", "float")


def test_training_goes_on_from_its_folder_and_only_with_its_base(
    trained: qx.Session, folder: Path
) -> None:
    again = make(both())
    again.load_run(folder)
    trained.goto("train")
    kept = trained.model.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in again.model.state_dict().items())
    with pytest.raises(RunFolderError, match="another base_config"):
        make().load_run(folder)


def test_the_telemetry_of_a_run_has_a_scale_for_each_group(trained: qx.Session) -> None:
    run = trained.run
    assert run is not None
    telemetry = run.telemetry
    assert telemetry is not None
    last = telemetry.samples("up.weight_fake_quantizer")[-1]
    assert last.channels is not None
    assert len(last.channels.scale) == 32 * 64 // 16
    site = trained.snapshots["train"].site_by_path["up.weight_fake_quantizer"]
    rows = scale_rows(site, last.channels.scale)
    assert (len(rows), len(rows[0])) == (32, 4)


def test_evaluation_and_the_share_won_back(trained: qx.Session) -> None:
    found = trained.evaluate(latency=False)
    assert all(found[name].metric is not None for name in ("float", "ptq", "fake_quant", "int8"))
    assert found["int8"].size_bytes is not None
    assert found["float"].size_bytes is not None
    assert found["int8"].size_bytes < found["float"].size_bytes
    assert "no observer to calibrate" in found["ptq"].note
    assert not found["int8"].warning


def test_float_fake_quant_and_converted_are_compared(trained: qx.Session) -> None:
    trained.goto("convert")
    found = trained.compare()
    assert len(found) >= 5
    ranked = trained.sensitivity()
    assert len(ranked) == 5


def test_what_the_page_says_of_it(trained: qx.Session) -> None:
    for stage in ("prepare", "convert"):
        snapshot = trained.snapshots[stage]
        record = snapshot.module("up")
        text, title = state_words(record, snapshot)
        assert text == "integers"
        assert title.endswith("stored as integers")
        rows = build_tree(snapshot)
        assert not any("int8" in str(row.get("state_text")) for row in rows)
        page = plain(inspect_html(trained.snapshots, stage, "module:up"))
        assert "int8 kernel" not in page
        assert "stays float" not in page
    assert "torchao's tensors" in plain(inspect_html(trained.snapshots, "convert", "module:up"))
    page = plain(inspect_html(trained.snapshots, "train", "site:up.weight_fake_quantizer"))
    assert "group used 16, as asked for" in re.sub(r"\s+", " ", page)
    assert "each tensor that comes gives its own" in page
    page = plain(inspect_html(trained.snapshots, "train", "site:up.activation_fake_quantizer"))
    assert "each token" in page
    assert "none is kept between forwards" in page


def test_the_scales_of_the_groups_are_an_image(trained: qx.Session) -> None:
    sites = trained.snapshots["train"].site_by_path
    figure = blocks_figure(sites["up.weight_fake_quantizer"])
    assert figure is not None
    z = figure.data[0].z
    assert (len(z), len(z[0])) == (32, 4)
    trained.goto("train")
    largest = trained.model.up.weight.detach().reshape(32, 4, 16).abs().amax(2)  # type: ignore[union-attr, operator]
    assert torch.allclose(torch.tensor(z), largest / 7.5, rtol=0.08)
    assert scales_of_site(sites["up.activation_fake_quantizer"]) is None
    wide = blocks_figure(sites["embed.weight_fake_quantizer"])
    assert wide is not None
    assert len(wide.data[0].z[0]) == 1


CANNOT: dict[str, tuple[Callable[[qx.Session], Any], type[QatExplorerError], str]] = {
    "ledger": (lambda s: s.ledger(), StageError, "there is no ledger in flow 'torchao'"),
    "answers": (lambda s: s.answers(), StageError, "there is no ledger in flow 'torchao'"),
    "export": (lambda s: s.export("nowhere"), ExportError, "cannot be exported here"),
    "script": (lambda s: s.script(), InputError, "cannot be written as a script"),
    "int8 layer": (lambda s: s.int8_layer("up"), StageError, "no int8 layers to work out"),
}


@pytest.mark.parametrize("name", CANNOT)
def test_what_cannot_be_done_is_said_in_one_sentence(trained: qx.Session, name: str) -> None:
    call, kind, words = CANNOT[name]
    with pytest.raises(kind, match=words) as caught:
        call(trained)
    assert "\n" not in caught.value.message
    assert caught.value.message.count(". ") == 0
    assert not Path("nowhere").exists()


def test_the_rest_works(trained: qx.Session, tmp_path: Path) -> None:
    trained.goto("train")
    assert trained.histograms()
    assert len(trained.overlay("sqnr").values) >= 3
    assert trained.preflight().ok
    trained.report(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "quantize_(model, QATConfig(base_config" in text
    words = repr(trained.advice())
    assert "session.ledger()" not in words
    assert "session.export(" not in words
    found = {one.name: one for one in trained.findings()}
    assert "stays-float" not in found  # all linear layers and the embedding store integers


def test_layers_that_stay_float_are_named() -> None:
    session = make()  # the default leaves the embedding alone
    session.goto("prepare")
    found = {one.name: one for one in session.findings()}
    assert found["stays-float"].path == "embed"
    assert "up" not in found["stays-float"].message
    assert "ledger" not in found["stays-float"].fix


def test_all_weights_in_every_step_are_torchs_own_only() -> None:
    with pytest.raises(TrainingError, match="so none can be followed"):
        make().train(epochs=1, oscillation="every step")


def test_a_check_asks_what_is_about_this_flow(trained: qx.Session) -> None:
    trained.goto("train")
    found = trained.check()
    assert not [one for one in found if one.severity == "error"]
    assert not [one for one in found if "qconfig" in one.message]
    assert "QX410" in found.checked  # whether the switch has an effect
