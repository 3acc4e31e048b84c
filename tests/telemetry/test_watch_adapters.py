"""Watching in other libraries' loops: transformers' real Trainer, and Lightning's protocol."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import QuantStub, get_default_qat_qconfig, prepare_qat
from torch.nn import functional as F

import qatexplorer as qx
from qatexplorer.errors import InputError
from qatexplorer.telemetry.integrations.trainers import make_lightning_callback
from tests.support.models import declare_torchvision_operators
from tests.support.training_models import batches, one_thread, prepared, same, state  # noqa: F401


class ForTrainer(nn.Module):
    """A prepared net with the output that ``transformers.Trainer`` wants."""

    def __init__(self) -> None:
        super().__init__()
        self.net = prepared()

    def forward(self, pixels: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.net(pixels)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def transformers_run(tmp_path: Path, watched: bool) -> tuple[dict[str, Tensor], Any]:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="transformers.Trainer needs accelerate")
    declare_torchvision_operators()  # the Trainer imports torchvision
    rows = [{"pixels": x[i], "labels": y[i]} for x, y in batches(4) for i in range(8)]
    model = ForTrainer()
    watch = qx.watch(model, every=1) if watched else None
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=8, num_train_epochs=2,
        gradient_accumulation_steps=2, report_to=[], use_cpu=True, save_strategy="no", seed=3,
        disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    callbacks = [watch.transformers_callback()] if watch is not None else []
    transformers.Trainer(model, arguments, train_dataset=rows, callbacks=callbacks).train()
    return state(model), watch


@pytest.mark.slow
def test_inside_the_real_trainer_of_transformers(tmp_path: Path) -> None:
    plain, _ = transformers_run(tmp_path, False)
    ended, watch = transformers_run(tmp_path, True)
    assert same(plain, ended)
    assert watch.telemetry.steps == (0, 1, 2, 3)
    assert not any(m._forward_hooks for p, m in watch.model.named_modules() if "fake_quant" in p)


@pytest.mark.slow
def test_the_callback_is_transformers_own_class_and_follows_its_handler() -> None:
    transformers = pytest.importorskip("transformers")
    model = prepared()
    watch = qx.watch(model, every=1)
    callback = watch.transformers_callback()
    assert isinstance(callback, transformers.TrainerCallback)
    control, trainer_state = transformers.TrainerControl(), transformers.TrainerState()
    # The library's own handler calls every callback with everything it knows.
    from transformers.trainer_callback import CallbackHandler

    handler = CallbackHandler([callback], model, None, None, None)
    arguments: Any = None
    handler.on_train_begin(arguments, trainer_state, control)
    for x, y in batches(4):
        handler.on_step_begin(arguments, trainer_state, control)
        F.cross_entropy(model(x), y).backward()
        handler.on_substep_end(arguments, trainer_state, control)
        handler.on_step_end(arguments, trainer_state, control)
    handler.on_train_end(arguments, trainer_state, control)
    assert watch.telemetry.steps == (0, 1, 2, 3)
    assert not any(m._forward_pre_hooks for m in model.modules())


class LightningLike:
    """The order in which Lightning's trainer calls a callback (lightning.pytorch.loops)."""

    def __init__(self, accumulate: int, callbacks: list[Any]) -> None:
        self.accumulate, self.callbacks, self.global_step = accumulate, callbacks, 0

    def fit(self, model: nn.Module, fail_at: int = -1) -> None:
        self._call("on_train_start", model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        try:
            for index, batch in enumerate(batches(6)):
                self._call("on_train_batch_start", model, batch, index)
                if index == fail_at:
                    raise ValueError("a bad batch")
                loss = F.cross_entropy(model(batch[0]), batch[1])
                loss.backward()
                if index % self.accumulate == self.accumulate - 1:
                    optimizer.step()
                    optimizer.zero_grad()
                    self.global_step += 1
                self._call("on_train_batch_end", model, loss, batch, index)
        except ValueError as error:
            self._call("on_exception", model, error)
            raise
        self._call("on_train_end", model)

    def _call(self, name: str, *args: Any) -> None:
        for callback in self.callbacks:
            hook = getattr(callback, name, None)
            if hook is not None:
                hook(self, *args)


def test_lightnings_protocol_steps_with_the_optimizer_and_closes_on_errors() -> None:
    try:
        from lightning.pytorch import Callback  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        Callback = object
    model = prepared()
    watch = qx.watch(model, every=1)
    LightningLike(2, [make_lightning_callback(watch, Callback)]).fit(model)
    assert watch.telemetry.steps == (0, 1, 2)
    watch = qx.watch(model, every=1)
    with pytest.raises(ValueError, match="a bad batch"):
        LightningLike(1, [make_lightning_callback(watch, Callback)]).fit(model, fail_at=3)
    assert watch.telemetry.steps == (0, 1, 2)
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_a_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("transformers", "lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    watch = qx.watch(prepared())
    with pytest.raises(InputError, match="transformers is not installed"):
        watch.transformers_callback()
    with pytest.raises(InputError, match=r"lightning\.pytorch is not installed"):
        watch.lightning_callback()


def test_lightnings_callback_comes_from_whichever_package_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import types

    class Callback:
        pass

    fake = types.ModuleType("pytorch_lightning")
    fake.Callback = Callback  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.setitem(sys.modules, "pytorch_lightning", fake)
    assert isinstance(qx.watch(prepared()).lightning_callback(), Callback)


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    code = (
        "import sys, qatexplorer\n"
        "names = ('transformers', 'lightning', 'pytorch_lightning', 'tensorboard', 'pandas')\n"
        "print([n for n in names if n in sys.modules])"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "[]", done.stderr


def test_sentences_of_different_lengths() -> None:
    net = nn.Sequential(QuantStub(), nn.Linear(32, 64), nn.Linear(64, 2)).train()
    net.qconfig = get_default_qat_qconfig("onednn")  # type: ignore[assignment]
    prepare_qat(net, inplace=True)
    with qx.watch(net, every=1, max_samples=300) as w:
        for length in (5, 9, 5, 2):
            net(torch.randn(2, length, 32)).sum().backward()
            w.step()
    samples = w.telemetry.samples("1.activation_post_process")
    assert [sample.total for sample in samples] == [2 * n * 64 for n in (5, 9, 5, 2)]
    assert [sample.sampled for sample in samples] == [300, 300, 300, 256]
    assert samples[0].channels_seen <= 64
    assert not w.telemetry.unseen
