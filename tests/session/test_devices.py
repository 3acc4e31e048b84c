"""Devices and dtypes as far as a machine without a GPU can tell; the rest is in tests/gpu."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import get_default_qat_qconfig
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import qatexplorer as qx
from qatexplorer import errors
from qatexplorer.data import call_model, device_of, on_device
from qatexplorer.flows.base import copy_sharing_parameters, moved_to_cpu
from qatexplorer.session import inputs as session_inputs
from qatexplorer.training.rng import OwnRandomState
from tests.support.training_models import SmallNet, batches

META, CPU = torch.device("meta"), torch.device("cpu")


class Amp(SmallNet):
    """Autocast inside of forward, as many a model has it."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x)


def rows() -> dict[str, Any]:
    made = batches(3)
    return {"train": made, "eval": made}


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_bf16_autocast_trains_and_converts_with_the_unfused_qconfig(flow: str) -> None:
    data = rows()
    unfused = get_default_qat_qconfig("onednn", version=0)
    session = qx.Session(
        Amp().train(), (data["train"][0][0],), data=data, flow=flow, qconfig=unfused
    )
    assert session.train(2).error is None
    session.goto(session.flow.int8_stage)
    assert session.evaluate(latency=False)["int8"].metric is not None


def test_bf16_autocast_with_the_fused_fake_quant_says_what_helps() -> None:
    data = rows()
    session = qx.Session(Amp().train(), (data["train"][0][0],), data=data)
    with pytest.raises(errors.TrainingError) as caught:
        session.train(1)
    assert "autocast" in caught.value.why
    assert "get_default_qat_qconfig(backend, version=0)" in caught.value.fix  # tried above


def test_a_device_without_kernels_for_fake_quants_is_refused_with_torchs_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_kernel(device: torch.device) -> None:
        raise NotImplementedError("fake_quantize is not implemented for 'MPS'\nand more")

    class OnMps(Tensor):
        @property
        def device(self) -> torch.device:  # type: ignore[override]
            return torch.device("mps")

    model = nn.Sequential(nn.Linear(2, 2))
    model[0].register_buffer("scale", torch.zeros(2).as_subclass(OnMps))
    model[0].requires_grad_(False)
    monkeypatch.setattr(session_inputs, "_fake_quantize_on", no_kernel)
    with pytest.raises(errors.DeviceError) as caught:
        qx.Session(model, (torch.rand(2, 2),))
    assert "mps" in caught.value.message
    assert caught.value.where == "0"
    assert caught.value.why == "NotImplementedError: fake_quantize is not implemented for 'MPS'"
    assert "model.cpu()" in caught.value.fix


def test_the_probe_runs_torchs_own_fake_quant() -> None:
    session_inputs._fake_quantize_on(CPU)
    with pytest.raises(Exception):
        session_inputs._fake_quantize_on(torch.device("mps"))


def test_example_inputs_without_values_are_refused() -> None:
    with pytest.raises(errors.ExampleInputError) as caught:
        qx.Session(SmallNet().train(), (torch.zeros(2, 1, 8, 8, device="meta"),))
    assert "meta" in caught.value.why


def test_a_tensor_left_behind_is_named() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2)
            self.shift = torch.zeros(2, device="meta")

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x) + self.shift

    with pytest.raises(errors.ExampleInputError) as caught:
        qx.Session(Shifted().train(), (torch.rand(1, 2),))
    assert "meta" in caught.value.why
    assert "test_devices.py" in caught.value.message


# -- moving -------------------------------------------------------------------------------------


def test_on_device_goes_through_containers_and_copies_nothing_that_is_there() -> None:
    x = torch.ones(2)
    moved = on_device({"a": [x, (x, 3)], "b": "text"}, META)
    assert moved["a"][0].device == moved["a"][1][0].device == META
    assert moved["a"][1][1] == 3
    assert moved["b"] == "text"
    assert on_device((x,), CPU)[0] is x
    assert on_device(x, CPU) is x


def test_on_device_asks_what_it_does_not_know_to_move_itself() -> None:
    class Encoding:
        where: Any = None

        def to(self, device: torch.device) -> Encoding:
            self.where = device
            return self

    assert on_device(Encoding(), META).where == META
    packed = on_device(pack_sequence([torch.ones(3), torch.ones(2)]), CPU)
    assert isinstance(packed, PackedSequence)
    assert packed.batch_sizes.device == CPU


def test_a_model_gets_its_inputs_where_it_is() -> None:
    model = nn.Linear(2, 2, device="meta")
    assert device_of(model) == META
    assert call_model(model, torch.ones(1, 2)).device == META
    assert device_of(nn.ReLU()) == CPU
    assert device_of(nn.BatchNorm1d(2, affine=False).to(META)) == META


def test_what_is_moved_to_the_cpu_leaves_the_model_it_shares_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model.append(model[0])
    pointers = [p.data_ptr() for p in model.parameters()]
    assert moved_to_cpu(model) is model  # it is there: nothing to do
    assert pointers == [p.data_ptr() for p in model.parameters()]
    model[0].bias.requires_grad_(False)
    model.to("meta")
    twin = copy_sharing_parameters(model)
    assert twin[0].weight is model[0].weight
    # From meta there are no values to copy: they are made up, the way of moving is what counts.
    for name in ("to", "cpu"):
        real = getattr(Tensor, name)

        def made_up(self: Tensor, *args: Any, real: Any = real, **settings: Any) -> Tensor:
            if self.device == META:
                return torch.zeros(self.shape, dtype=self.dtype)
            return real(self, *args, **settings)

        monkeypatch.setattr(Tensor, name, made_up)
    moved_to_cpu(twin)
    assert {t.device for t in (*twin.parameters(), *twin.buffers())} == {CPU}
    assert {t.device for t in (*model.parameters(), *model.buffers())} == {META}
    assert twin[0].weight is twin[2].weight
    assert twin[0].bias.requires_grad is False


def test_a_random_state_with_gpus_is_put_back_where_there_are_none() -> None:
    state = OwnRandomState(0)
    with state.inside():
        cpu, _, python, numpy, own = state.now()
        first = torch.rand(3)
        fewer = [torch.zeros(16, dtype=torch.uint8)] * (torch.cuda.device_count() + 1)
        if not torch.cuda.is_available():
            state.become((cpu, fewer, python, numpy, own))
            assert torch.equal(torch.rand(3), first)
