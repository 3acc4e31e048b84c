"""The torchao flow: the same as torchao's own two calls, bit for bit, with every base."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qatexplorer as qx
from qatexplorer.errors import ConvertError, InputError, StageError

ao = pytest.importorskip("torchao.quantization")
qat = pytest.importorskip("torchao.quantization.qat")

INT4: Any = torch.int4  # type: ignore[attr-defined]
INT2: Any = torch.int2  # type: ignore[attr-defined]


class Net(nn.Module):
    """(N, 4) token numbers below 12 → (N, 12) scores."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 128)
        self.norm = nn.LayerNorm(128)
        self.up = nn.Linear(128, 64)
        self.drop = nn.Dropout(0.2)
        self.down = nn.Linear(64, 12, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.embed(x)).mean(1)
        out: Tensor = self.down(self.drop(torch.relu(self.up(x))))
        return out


class Wide(Net):
    """The same with layers that groups of 128 fit."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(128, 128), nn.Linear(128, 12)


X = torch.randint(0, 12, (8, 4), generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 12, (8,), generator=torch.Generator().manual_seed(1))

RUNS: dict[str, Callable[[], Any]] = {
    "int8 activations, int4 groups": lambda: ao.Int8DynamicActivationIntxWeightConfig(
        weight_dtype=INT4, weight_granularity=ao.PerGroup(32)
    ),
    "int8 activations, int8 rows": lambda: ao.Int8DynamicActivationIntxWeightConfig(),
    "int4 weights": lambda: ao.IntxWeightOnlyConfig(weight_dtype=INT4, granularity=ao.PerGroup(32)),
    "int2 weights": lambda: ao.IntxWeightOnlyConfig(weight_dtype=INT2, granularity=ao.PerGroup(16)),
    "linear and embedding": lambda: {
        nn.Linear: ao.Int8DynamicActivationIntxWeightConfig(
            weight_dtype=INT4, weight_granularity=ao.PerGroup(16)
        ),
        nn.Embedding: ao.IntxWeightOnlyConfig(weight_dtype=INT4, granularity=ao.PerGroup(64)),
    },
    "own fake quants": lambda: qat.QATConfig(
        activation_config=qat.IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False),
        weight_config=qat.IntxFakeQuantizeConfig(INT4, group_size=8),
    ),
    "a scale that is found once": lambda: qat.QATConfig(
        weight_config=qat.IntxFakeQuantizeConfig(INT4, group_size=8, is_dynamic=False),
    ),
}
TRAINS_ONLY: dict[str, tuple[Callable[[], Any], str]] = {
    "int4 weights for a kernel": (lambda: ao.Int4WeightOnlyConfig(group_size=32), "mslk"),
    "float8": (lambda: ao.Float8DynamicActivationFloat8WeightConfig(), "CUDA"),
    "float8, a tensor": (
        lambda: ao.Float8DynamicActivationFloat8WeightConfig(granularity=ao.PerTensor()),
        "CUDA",
    ),
    "float8 and int4": (lambda: ao.Float8DynamicActivationInt4WeightConfig(), "mslk"),
}


def build(kind: type[Net] = Net) -> Net:
    torch.manual_seed(0)
    return kind().train()


def of_torchao(model: nn.Module, base: Any, step: str) -> None:
    """The calls that a script without us would make."""
    for kind, config in base.items() if isinstance(base, dict) else [(nn.Linear, base)]:
        if isinstance(config, qat.QATConfig):
            config = config if step == "prepare" else qat.QATConfig(step=step)
        else:
            config = qat.QATConfig(config, step=step)
        ao.quantize_(model, config, filter_fn=lambda m, path, kind=kind: isinstance(m, kind))


def train(model: nn.Module) -> list[float]:
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(X), Y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def same_parameters(mine: nn.Module, theirs: nn.Module) -> bool:
    ours, others = dict(mine.named_parameters()), dict(theirs.named_parameters())
    return ours.keys() == others.keys() and all(
        torch.equal(plain(ours[name]), plain(others[name])) for name in ours
    )


def plain(tensor: Tensor) -> Tensor:
    """The numbers of one of torchao's tensors too."""
    return (
        tensor.dequantize()
        if hasattr(tensor, "dequantize") and type(tensor).__module__.startswith("torchao")
        else tensor
    )


def prepared(base: Any, kind: type[Net] = Net) -> tuple[qx.Session, nn.Module]:
    session = qx.Session(build(kind), X, flow="torchao", base_config=base)
    session.goto("prepare")
    session.histograms()  # looks at the model, and leaves it as it is
    theirs = build(kind)
    of_torchao(theirs, base, "prepare")
    return session, theirs


@pytest.mark.parametrize("base", RUNS.values(), ids=RUNS)
def test_the_same_as_without_us(base: Callable[[], Any]) -> None:
    session, theirs = prepared(base())
    mine = session.model
    assert repr(mine) == repr(theirs)
    assert mine.state_dict().keys() == theirs.state_dict().keys()
    assert train(mine) == train(theirs)
    assert same_parameters(mine, theirs)
    session.goto("convert")
    of_torchao(theirs.eval(), base(), "convert")
    int8 = session.int8
    assert repr(int8) == repr(theirs)
    assert same_parameters(int8, theirs)
    with torch.no_grad():
        assert torch.equal(int8(X), theirs(X))
    assert session.snapshot.role == "int8"


@pytest.mark.parametrize(("base", "reason"), TRAINS_ONLY.values(), ids=TRAINS_ONLY)
def test_what_this_cpu_cannot_convert_is_trained_and_refused(
    base: Callable[[], Any], reason: str
) -> None:
    session, theirs = prepared(base(), Wide)
    mine = session.model
    assert train(mine) == train(theirs)
    with torch.no_grad():
        assert torch.equal(mine.eval()(X), theirs.eval()(X))
    with pytest.raises(Exception, match=reason) as raised:
        of_torchao(copy.deepcopy(theirs), base(), "convert")
    words = str(raised.value).splitlines()[0]
    assert any(words[:60] in note for note in session.snapshots["prepare"].notes)
    with pytest.raises(ConvertError, match="torchao cannot convert") as caught:
        session.goto("convert")
    assert words[:60] in str(caught.value)
    assert "\n" not in caught.value.message


def test_a_base_that_torchao_has_no_fake_quants_for_is_refused() -> None:
    session = qx.Session(build(), X, flow="torchao", base_config=ao.Int8WeightOnlyConfig())
    with pytest.raises(InputError, match="Unexpected base config"):
        session.goto("prepare")
    assert session.stage == "float"


def test_a_group_that_does_not_fit_names_the_layer() -> None:
    base = ao.IntxWeightOnlyConfig(weight_dtype=INT4, granularity=ao.PerGroup(48))
    session = qx.Session(build(), X, flow="torchao", base_config=base)
    with pytest.raises((InputError, StageError), match="in_features") as caught:
        session.goto("prepare")
    assert caught.value.where == "up"
    assert session.goto("float")


@pytest.mark.parametrize(
    "given", [3, "int3", {nn.Conv2d: None}, {"up": None}, {nn.Linear: 3}], ids=str
)
def test_what_is_no_configuration_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match="base_config"):
        qx.Session(build(), X, flow="torchao", base_config=given)


def test_the_default_has_groups_that_fit_every_layer() -> None:
    for inputs, size in ((64, 32), (48, 16), (12, 4), (7, None)):
        model = nn.Sequential(nn.Linear(inputs, 64), nn.Linear(64, 4)).train()
        session = qx.Session(model, torch.randn(2, inputs), flow="torchao")
        session.goto("convert")
        site = session.snapshots["prepare"].site_by_path["0.weight_fake_quantizer"]
        assert site.block_size == (inputs if size is None else size)
        assert site.blocks == ("row" if size is None else "group")
        assert "No base_config was given" in session.snapshots["prepare"].notes[0]


def test_the_groups_asked_for_are_held_against_those_used(monkeypatch: pytest.MonkeyPatch) -> None:
    base = ao.Int4WeightOnlyConfig(group_size=32)
    session = qx.Session(build(), X, flow="torchao", base_config=base)
    notes = session.goto("prepare").notes
    assert "Groups of 32 were asked for, and 2 layers use them." in notes
    made = qat.FakeQuantizedLinear.from_linear

    def ignoring(*args: Any, **kwargs: Any) -> Any:  # as torchao 0.17 did
        layer = made(*args, **kwargs)
        layer.weight_fake_quantizer.config.group_size = 64
        return layer

    monkeypatch.setattr(qat.FakeQuantizedLinear, "from_linear", ignoring)
    notes = qx.Session(build(), X, flow="torchao", base_config=base).goto("prepare").notes
    assert any("2 layers of 2 use others: up has groups of 64" in note for note in notes)


def test_what_stays_float_and_what_the_weights_become_is_counted() -> None:
    session = qx.Session(build(), X, flow="torchao")
    assert any("2 layers with 9,024 of" in note for note in session.goto("prepare").notes)
    assert any("2 Linear weights are Intx" in note for note in session.goto("convert").notes)
    kept = qat.QATConfig(weight_config=qat.IntxFakeQuantizeConfig(INT4, group_size=8))
    session.configure(base_config=kept)
    assert any("weights stay float" in note for note in session.goto("prepare").notes)
    assert any("No weight is quantized" in note for note in session.goto("convert").notes)


def test_nothing_of_the_users_is_touched() -> None:
    model = build()
    before = repr(model), {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    session = qx.Session(model, X, flow="torchao")
    session.goto("convert")
    session.back()
    assert torch.equal(state, torch.get_rng_state())
    assert repr(model) == before[0]
    assert all(torch.equal(v, before[1][k]) for k, v in model.state_dict().items())


def test_a_release_that_does_not_fit_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from qatexplorer.flows import pt2e

    monkeypatch.setattr(pt2e.metadata, "version", lambda name: "0.17.0")
    with pytest.raises(qx.errors.UnsupportedTorchError, match=r"orchao 0\.17\.0 is installed"):
        qx.Session(build(), X, flow="torchao")


def test_groups_are_counted_anew_for_another_configuration_and_shape() -> None:
    def said(layer: nn.Module, size: int) -> str:
        base = ao.IntxWeightOnlyConfig(weight_dtype=INT4, granularity=ao.PerGroup(size))
        session = qx.Session(
            nn.Sequential(layer), torch.randn(2, 64), flow="torchao", base_config=base
        )
        return next(note for note in session.goto("prepare").notes if note.startswith("Groups"))

    for size in (32, 16, 32):
        assert f"Groups of {size} were asked for, and 1 layer uses them" in said(
            nn.Linear(64, 3), size
        )
