"""What stays float: the record's word, the ledger's rows and the converted model say the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import qatexplorer as qx
from qatexplorer.errors import QatExplorerError
from qatexplorer.quantizers.types import compute_of, is_int8_module, operation_of
from qatexplorer.views.tree import build_tree
from tests.support.models import SMALL, ZOO, Case
from tests.support.models_fx import WRITTEN

FX_ONLY_EAGER = {"branching", "masked"}  # torch.fx cannot trace them
WALKS = [
    *((case, {"flow": "eager"}) for case in (*SMALL, *ZOO)),
    *((case, {"flow": "fx"}) for case in (*SMALL, *WRITTEN) if case.name not in FX_ONLY_EAGER),
    *((case, {"stubs": "layers"}) for case in (*SMALL, *WRITTEN) if case.name != "attending"),
]


@pytest.mark.parametrize(
    ("case", "settings"), WALKS, ids=[f"{c.name}-{'-'.join(s.values())}" for c, s in WALKS]
)
def test_tree_and_ledger_agree_on_what_stays_float(case: Case, settings: dict[str, str]) -> None:
    model, x = case()
    session = qx.Session(model, x, **settings)  # type: ignore[arg-type]
    session.goto("insert")
    badges = {row["path"] for row in build_tree(session.snapshot) if row["float"]}
    rows = {row.path for row in session.ledger().floats if row.what == "module"}
    assert badges == rows
    assert badges == {m.path for m in session.snapshot.modules if m.stays_float}


@pytest.mark.parametrize("case", [*SMALL, *ZOO], ids=lambda c: c.name)
def test_what_was_foretold_comes_true_in_eager(case: Case) -> None:
    session = qx.Session(*case(), stubs="layers")
    session.goto("insert")
    foretold = {m.path for m in session.snapshot.modules if m.stays_float}
    try:
        session.goto("convert")
    except QatExplorerError:
        pytest.skip("its int8 model does not run")
    modules = {m.path: m for m in session.snapshot.modules}
    assert {path for path, m in modules.items() if m.stays_float} == foretold
    assert not any(modules[path].compute == "int8" for path in foretold)


def test_a_container_whose_inside_is_int8_neither_stays_float_nor_is_idle() -> None:
    """FX leaves ``layer1`` as a module that is never called: what is inside counts."""
    case = next(c for c in WRITTEN if c.name == "quantizable_resnet")
    session = qx.Session(*case(), flow="fx")
    for stage in ("insert", "lower"):
        session.goto(stage)
        rows = {row["path"]: row for row in build_tree(session.snapshot) if row["kind"] == "module"}
        for path in ("layer1", "layer1.0", "layer2", "layer2.0.downsample"):
            assert (rows[path]["float"], rows[path]["not_run"]) == (False, False), (stage, path)
        for path in ("layer1", "layer1.0", "layer2"):
            assert rows[path]["state"] == "int8"


class Halves(nn.Module):
    """One half that becomes int8, one that stays float, one that no forward reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
        self.outside = nn.Sequential(nn.LayerNorm(6), nn.SiLU())
        self.never = nn.Sequential(nn.Linear(6, 6), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.outside(self.inside(x))


def test_a_container_has_the_state_of_what_is_inside() -> None:
    session = qx.Session(Halves().train(), torch.randn(3, 6), stubs="layers", fusion=[])
    session.goto("insert")
    state = {m.path: m.state for m in session.snapshot.modules}
    assert (state["outside"], state["outside.1"], state["outside.1"]) == ("float",) * 3
    assert state[""] == "mixed"
    rows = {row["path"]: row for row in build_tree(session.snapshot)}
    assert rows["never"]["not_run"]
    assert not rows["inside"]["not_run"]
    assert not rows["outside"]["float"]  # its inside is marked, one by one
    swap = session.snapshots["swap"]
    assert not any(m.stays_float or m.state for m in swap.modules)


class Mine(torch.ao.nn.quantized.Linear):
    """An int8 layer in a class of the user's own."""


def test_int8_is_one_fact() -> None:
    linear = torch.ao.nn.quantized.Linear(2, 2)
    assert is_int8_module(linear)
    assert is_int8_module(Mine(2, 2))
    assert compute_of(torch.ao.nn.quantized.Quantize(1.0, 0, torch.quint8)) == "boundary"
    assert compute_of(torch.ao.nn.quantized.FloatFunctional()) == "functional"
    assert compute_of(nn.Sequential()) == compute_of(nn.Module()) == "container"
    assert compute_of(nn.Linear(2, 2)) == compute_of(Halves()) == "layer"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (nn.MaxPool2d(2), "max_pool2d"),
        (nn.AdaptiveAvgPool1d(1), "adaptive_avg_pool1d"),
        (nn.ReLU6(), "relu6"),
        (nn.LeakyReLU(), "leaky_relu"),
        (nn.GELU(), "gelu"),
        (nn.Upsample(scale_factor=2), "interpolate"),
        (nn.ZeroPad2d(1), "pad"),
        (nn.PixelShuffle(2), "pixel_shuffle"),
        (nn.Dropout2d(), "dropout2d"),
        (Halves(), ""),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_layers_without_parameters_are_known_by_their_operation(
    module: nn.Module, name: str
) -> None:
    assert operation_of(module) == name


class WithoutKernel(nn.Module):
    """GELU and nn.Flatten between quantized layers: FX watches both and lowers neither."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.flat = nn.Conv2d(1, 2, 3), nn.GELU(), nn.Flatten()
        self.fc, self.relu, self.head = nn.Linear(2 * 36, 6), nn.ReLU6(), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.fc(self.flat(self.act(self.conv(x))))))


def test_what_fx_does_not_lower_stays_float_although_it_is_watched() -> None:
    session = qx.Session(WithoutKernel().train(), torch.randn(4, 1, 8, 8), flow="fx")
    session.goto("insert")
    assert {m.path for m in session.snapshot.modules if m.stays_float} == {"act", "flat"}
    rows = {row.path: row for row in session.ledger().floats if row.what == "module"}
    assert {path: row.reason for path, row in rows.items()} == {
        "act": "type_not_in_mapping",
        "flat": "float_input",
    }
    session.goto("lower")
    assert {m.path for m in session.snapshot.modules if m.stays_float} == {"act", "flat"}
    dtypes = {node.path: node.dtype for node in session.snapshot.graph.nodes if node.path}  # type: ignore[union-attr]
    assert dtypes["act"] == dtypes["flat"] == "torch.float32"
    assert dtypes["relu"] == "torch.quint8"
