"""Edits of the session's copy: the function stays, int8 comes to be, and they are kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.quantization import DeQuantStub, QuantStub
from torch.nn.utils import parametrize, prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm

import qatexplorer as qx
from qatexplorer.errors import EditError, ExampleInputError
from qatexplorer.flows.edits import EDITS, Edit, make_edits, tried
from qatexplorer.flows.edits.plan import code_of
from tests.cases.models import assert_untouched, state_of
from tests.support.frozen_norm import FrozenBatchNorm2d
from tests.support.rooms import ROOT

FLOWS = ("eager", "fx")


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight * 2


def net(*layers: nn.Module) -> nn.Module:
    """With statistics that have seen something."""
    model = nn.Sequential(QuantStub(), *layers, DeQuantStub()).train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return model


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    value: Any = None
    path: str = "1"


PICTURE, SOUND, BLOCK = (2, 3, 8, 8), (2, 3, 12), (2, 3, 5, 5, 5)
CONVS = ((nn.Conv1d, SOUND), (nn.Conv2d, PICTURE), (nn.Conv3d, BLOCK))


class Own(nn.Linear):
    """Computes what nn.Linear does."""


CASES = [
    Case("plain_class", lambda: net(Own(3, 4)), (4, 3)),
    *(
        Case("number_padding", lambda c=c, p=p: net(c(3, 4, 3, padding=p, dilation=2)), shape)
        for c, shape in CONVS
        for p in ("same", "valid")
    ),
    *(
        Case("pad_layer", lambda c=c, k=k: net(c(3, 4, k, padding="same")), s)
        for (c, s), k in zip(CONVS, ((4,), (4, 3), (4, 3, 2)), strict=True)
    ),
    *(
        Case(
            "pad_layer",
            lambda c=c, m=m: net(c(3, 4, 3, padding=1, padding_mode=m)),
            s,
            None if m == "reflect" and len(s) < 5 else "float",
        )
        for c, s in CONVS
        for m in ("reflect", "replicate", "circular")
    ),
    Case(
        "frozen_affine",
        lambda: net(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4, affine=False)),
        SOUND,
        path="2",
    ),
    Case("frozen_affine", lambda: net(nn.BatchNorm2d(3, affine=False)), PICTURE),
    Case(
        "plain_batch_norm",
        lambda: net(nn.Conv2d(3, 4, 3), nn.SyncBatchNorm(4, eps=1e-2, momentum=0.3)),
        PICTURE,
        2,
        "2",
    ),
    Case("plain_batch_norm", lambda: net(nn.Conv3d(3, 4, 3), nn.SyncBatchNorm(4)), BLOCK, 3, "2"),
    Case(
        "plain_batch_norm", lambda: net(nn.Conv2d(3, 4, 3), FrozenBatchNorm2d(4)), PICTURE, 2, "2"
    ),
]


def batch(shape: tuple[int, ...]) -> Tensor:
    torch.manual_seed(3)
    return torch.randn(shape)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_function_stays_and_int8_follows(case: Case, flow: str) -> None:
    torch.manual_seed(0)
    model, x = case.make(), batch(case.shape)
    before = state_of(model)
    session = qx.Session(model, (x,), flow=flow)
    session.warns = False
    session.edit(case.name, case.path, case.value)
    with torch.no_grad():
        wanted = model.eval()(x)
        found = session.copy_model().eval()(x)
    assert torch.allclose(wanted, found, atol=1e-5)
    session.goto(session.flow.train_stage)
    session.model(x)
    with torch.no_grad():
        simulated = session.copy_model().eval()(x)
    session.goto(session.flow.int8_stage)
    with torch.no_grad(), session._models.engine():
        int8 = session.int8(x)
    spread = float(simulated.max() - simulated.min())
    assert float((int8 - simulated).abs().mean()) < 0.02 * spread
    model.train()
    assert_untouched(model, before)


def test_every_edit_of_layers_is_in_the_docs() -> None:
    text = (ROOT / "docs" / "checks.md").read_text()
    names = [n for n, plan in EDITS.items() if plan.__module__.endswith(".layers")]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_every_edit_has_a_case_here_or_in_the_tests_of_computed_weights() -> None:
    computed = {f"remove_{w}" for w in ("weight_norm", "spectral_norm", "pruning")}
    here = {case.name for case in CASES} | {"remove_parametrizations"}
    assert {
        n for n, plan in EDITS.items() if plan.__module__.endswith(".layers")
    } == here | computed


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_what_a_copy_had_to_change_is_listed() -> None:
    def own(layer: nn.Module) -> nn.Module:
        return parametrize.register_parametrization(layer, "weight", Doubled())

    masked = nn.Linear(4, 4)
    prune.l1_unstructured(masked, "weight", 0.5)
    layers = [
        old_weight_norm(nn.Linear(3, 4)),
        old_spectral_norm(nn.Linear(4, 4)),
        masked,
        own(nn.Conv1d(2, 2, 1)),
    ]
    model, x = net(*layers), batch((2, 2, 3))
    session = qx.Session(model, (x,))
    assert [(e.name, e.path) for e in session.edits] == [
        ("remove_weight_norm", "1"),
        ("remove_spectral_norm", "2"),
        ("remove_pruning", "3"),
        ("remove_parametrizations", "4"),
    ]
    assert session.edits[0].code == "torch.nn.utils.remove_weight_norm(model[1], 'weight')"
    assert session.edits[0].diff.startswith(
        "- 1: Linear(in_features=3, out_features=4, bias=True),"
    )
    assert session.edits[3].diff.splitlines() == [
        "- 4: Conv1d(2, 2, kernel_size=(1,), stride=(1,), weight parametrized)",
        "+ 4: Conv1d(2, 2, kernel_size=(1,), stride=(1,))",
    ]
    assert session.in_other_flow().edits == session.edits
    # The code does the same to the user's own model.
    wanted = model.eval()(x)
    for one in session.edits:
        exec(one.code, {"torch": torch, "nn": nn, "model": model})
    assert torch.allclose(model(x), wanted, atol=1e-6)
    assert not qx.Session(model, (x,)).edits


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_code_does_the_same_to_the_users_model(case: Case) -> None:
    model, x = case.make(), batch(case.shape)
    edited = qx.Session(model, (x,))
    edited.edit(case.name, case.path, case.value)
    code = edited.edits[-1].code
    names = {"torch": torch, "nn": nn, "model": model}
    exec(code, {**names, "QuantStub": QuantStub, "DeQuantStub": DeQuantStub})
    mine = edited.copy_model("float")
    assert model.state_dict().keys() == mine.state_dict().keys()
    learns = {name: p.requires_grad for name, p in model.named_parameters()}
    assert learns == {name: p.requires_grad for name, p in mine.named_parameters()}
    assert repr(model) == repr(mine)
    assert torch.equal(model.eval()(x), mine.eval()(x))


def test_a_linear_gives_its_parametrization_up_when_asked() -> None:
    model = net(parametrize.register_parametrization(nn.Linear(3, 4), "weight", Doubled()))
    x = batch((2, 3))
    wanted = model.eval()(x)
    model.train()
    session = qx.Session(model, (x,))
    assert session.edits == ()
    for _ in range(2):  # made anew from the same original
        session.edit("remove_parametrizations", "1")
        assert not parametrize.is_parametrized(session.model[1])
        assert torch.allclose(session.copy_model().eval()(x), wanted)
        session.configure(edits=())
        assert torch.allclose(session.copy_model().eval()(x), wanted)
        assert parametrize.is_parametrized(session.model[1])


def words() -> nn.Module:
    """Padding by words, and a batch norm without affine."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv1d(3, 4, 3, padding="same"), nn.BatchNorm1d(4, affine=False))
    return net(body, nn.ReLU(), nn.Conv1d(4, 4, 4, padding="same"))


def test_edits_start_again_and_keep_the_rest() -> None:
    session = qx.Session(words(), (batch(SOUND),), qconfig="qnnpack")
    session.goto("propagate")
    assert session.fusion == ()
    session.edit("number_padding", "1.0")
    assert session.stage == "float"
    session.edit("frozen_affine", "1.1")
    assert session.fusion == (("1.0", "1.1", "2"),)
    assert session.options.qconfig.name == "qnnpack"
    assert str(session).splitlines()[2:4] == [
        "edited: number_padding('1.0')",
        "edited: frozen_affine('1.1')",
    ]
    notes = session.snapshot.notes
    assert any("model[1][0].padding = (1,)" in note for note in notes)
    session.configure(edits=())
    assert session.edits == ()
    assert session.fusion == ()
    assert session.model[1][0].padding == "same"
    assert "edited" not in str(session)


def test_groups_of_the_users_choice_stay() -> None:
    session = qx.Session(words(), (batch(SOUND),), fusion=[])
    session.edit("frozen_affine", "1.1")
    session.configure(fusion=[["1.0", "1.1"]])
    session.edit("pad_layer", "3")
    assert session.fusion == (("1.0", "1.1"),)


def test_several_places_in_one_edit() -> None:
    layers = [nn.Conv1d(3, 3, 3, padding="same") for _ in range(3)]
    session = qx.Session(net(*layers), (batch(SOUND),))
    session.edit("number_padding", ["1", "2"])
    assert [e.path for e in session.edits] == ["1", "2"]
    with pytest.raises(EditError, match="is not a convolution whose padding is a word"):
        session.edit("number_padding", ["3", "0"])
    assert [e.path for e in session.edits] == ["1", "2"]
    assert session.model[3].padding == "same"


def test_what_cannot_be_edited_says_why() -> None:
    session = qx.Session(words(), (batch(SOUND),))
    with pytest.raises(EditError, match="'pad_layer'"):
        session.edit("number_padding", "3")
    session.edit("pad_layer", "3")  # the way out that it names
    with pytest.raises(EditError, match="has been made already"):
        session.edit("pad_layer", "3")
    with pytest.raises(EditError, match="no module 'nowhere'"):
        session.edit("pad_layer", "nowhere")
    with pytest.raises(EditError, match="frozen_affine"):
        session.edit("nothing", "3")
    with pytest.raises(EditError, match="value"):
        qx.Session(net(nn.SyncBatchNorm(3)), (batch(PICTURE),)).edit("plain_batch_norm", "1")


def test_an_edit_that_breaks_the_model_changes_nothing() -> None:
    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(3, 4, 4, padding="same")

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.conv(x)) * self.conv.weight.mean()

    session = qx.Session(Looks().train(), (batch(SOUND),))
    with pytest.raises(ExampleInputError):
        session.edit("pad_layer", "conv")
    assert session.edits == ()
    assert session.model.conv.padding == "same"


def test_edits_are_plain_data_and_go_to_the_other_flow() -> None:
    edits = [Edit("number_padding", "1.0"), Edit("frozen_affine", "1.1"), Edit("pad_layer", "3")]
    again = [Edit.from_json(json.loads(json.dumps(one.to_json()))) for one in edits]
    assert again == edits
    session = qx.Session(words(), (batch(SOUND),), edits=again)
    assert list(session.edits) == edits
    other = session.in_other_flow()
    assert list(other.edits) == edits
    assert other.stage == "insert"
    made = tried(words(), edits)
    assert [one.code for one in made] == [one.code for one in session.edits]


def test_a_run_is_resumed_with_its_edits(tmp_path: Any) -> None:
    x = batch(SOUND)
    data = {"train": [(x, torch.zeros(2, 4, 10))] * 3, "eval": [(x, torch.zeros(2, 4, 10))]}
    model = net(
        nn.Conv1d(3, 4, 3, padding="valid"), nn.BatchNorm1d(4, affine=False), nn.Conv1d(4, 4, 1)
    )

    def session() -> qx.Session:
        return qx.Session(model, data=data, loss=F.mse_loss, metric=F.mse_loss)

    first = session()
    first.edit("number_padding", "1")
    first.edit("frozen_affine", "2")
    first.train(1, run_dir=tmp_path / "run")
    second = session()
    run = second.resume(tmp_path / "run", epochs=2, background=False)
    assert second.edits == first.edits
    assert second.fusion == first.fusion != session().fusion
    whole = session()
    for one in first.edits:
        whole.edit(one.name, one.path)
    unbroken = whole.train(2)
    assert [s.loss for s in run.history.steps] == [s.loss for s in unbroken.history.steps]


def test_a_frozen_affine_does_not_learn() -> None:
    x = batch(SOUND)
    data = {"train": [(x, torch.ones(2, 4, 10))] * 4, "eval": [(x, torch.ones(2, 4, 10))]}
    model = net(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4, affine=False))
    session = qx.Session(model, data=data, loss=F.mse_loss, metric=F.mse_loss)
    session.edit("frozen_affine", "2")
    before = session.model[1].weight.detach().clone()
    session.train(2, lr=0.1)
    fused = session.model[1]
    assert type(fused).__name__ == "ConvBn1d"
    assert torch.equal(fused.bn.weight, torch.ones(4))
    assert torch.equal(fused.bn.bias, torch.zeros(4))
    assert not torch.equal(fused.weight, before)


def test_hooks_go_on_at_a_batch_norm_that_was_changed() -> None:
    model = net(nn.Conv2d(3, 4, 3), nn.SyncBatchNorm(4))
    model[2].register_forward_hook(lambda module, args, out: out + 10)
    x = batch(PICTURE)
    session = qx.Session(model, (x,))
    session.edit("plain_batch_norm", "2", 2)
    assert type(session.model[2]) is nn.BatchNorm2d
    assert torch.equal(session.copy_model().eval()(x), model.eval()(x))
    assert float(model(x).mean().detach()) > 5


def test_paths_as_code_reads_them() -> None:
    model = nn.Module()
    model.blocks = nn.ModuleList([nn.Sequential(nn.ReLU())])
    model.heads = nn.ModuleDict({"a b": nn.ReLU()})
    model.add_module("3", nn.ReLU())
    for path, _ in model.named_modules():
        assert eval(code_of(model, path), {"model": model}) is model.get_submodule(path)
    assert code_of(model, "blocks.0.0") == "model.blocks[0][0]"
    assert code_of(model, "heads.a b") == "model.heads['a b']"


def test_a_module_with_two_names_is_changed_under_both() -> None:
    shared = nn.Conv1d(3, 3, 4, padding="same")
    model = net(shared, nn.ReLU(), shared)
    make_edits(model, [Edit("pad_layer", "1")])
    assert model[1] is model[3]
    assert isinstance(model[1], nn.Sequential)
