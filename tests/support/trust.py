"""Models that torch alone takes to int8 rightly, and what the checks say of them.

Whether a model goes to int8 rightly is decided by torch's own calls: prepare, calibrate on random
batches, convert, run. Nothing of the explorer takes part in that.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import (
    FakeQuantizeBase,
    QConfig,
    QuantStub,
    QuantWrapper,
    convert,
    disable_fake_quant,
    disable_observer,
    get_default_qat_qconfig,
    get_default_qat_qconfig_mapping,
    prepare_qat,
)
from torch.ao.quantization.quantization_mappings import get_default_qat_module_mappings
from torch.ao.quantization.quantize_fx import convert_fx, prepare_qat_fx

import qatexplorer as qx
from qatexplorer.checks.records import Finding
from qatexplorer.data import call_model
from qatexplorer.errors import QatExplorerError
from qatexplorer.quantizers.engine_choice import default_backend
from tests.against_torch.reference import engine
from tests.against_torch.torchs_models import SIMPLE, TorchsModel
from tests.support.models import SMALL, declare_torchvision_operators, load_timm
from tests.support.models_fx import TRANSFORMERS, WRITTEN

Made = tuple[Any, Any]
Stubs = Literal["none", "model", "layers"]

FLOAT_APART = 1e-4
"""How far the prepared model with its fake quants off may be from the float one."""
INT8_APART = 0.01
"""How far int8 may be from the fake quants, in the mean: a share of the output's spread."""
DEEP, DEEP_APART, DEEP_RATIO = 20, 0.03, 1.5
"""Kernels and fake quants round a tie apart, and each layer adds to it. Of a model with so many
int8 weights int8 may be as far as this from the fake quants, if that is at most so many times what
the fake quants are from float."""
BATCHES = 4


@dataclass(frozen=True)
class Trusted:
    """A model, and one way of quantizing it.

    ``make`` gives a model in train mode and its inputs; ``qconfig`` is the name of torch's default,
    "" for the one that suits this CPU; ``layers`` says to wrap each layer in eager mode.
    """

    name: str
    flow: Literal["eager", "fx"]
    make: Callable[[], Made] = field(compare=False)
    layers: bool = False
    qconfig: str = ""

    @property
    def id(self) -> str:
        return "-".join(part for part in (self.name, self.flow, self.qconfig) if part)

    @cached_property
    def stubs(self) -> Stubs:
        """How int8 tensors get into it in eager mode: the whole is wrapped if it has no stubs."""
        if self.flow == "fx" or self.layers:
            return "layers" if self.layers else "none"
        torch.manual_seed(0)
        model, _ = self.make()
        return "none" if any(isinstance(m, QuantStub) for m in model.modules()) else "model"

    @property
    def way(self) -> str:
        stubs = {"none": "", "model": ", wrapped", "layers": ", each layer wrapped"}[self.stubs]
        return f"{self.flow}{stubs}" + (f", {self.qconfig}" if self.qconfig else "")

    def made(self) -> Made:
        """The model with batch norms that have seen a few batches, and its inputs."""
        torch.manual_seed(0)
        model, inputs = self.make()
        model.train()
        with torch.no_grad():
            for batch in batches(inputs, 3):
                call_model(model, batch)
        return model, inputs if isinstance(inputs, (tuple, dict)) else (inputs,)


@dataclass(frozen=True)
class Verdict:
    """What torch alone comes to: ``apart`` is int8 from the fake quants, a share of the spread;
    ``wrong`` says why it is not right, "" if it is."""

    apart: float | None = None
    wrong: str = ""


def batches(inputs: Any, count: int) -> Iterator[Any]:
    """Random batches like ``inputs``; whole numbers stay as they are."""
    generator = torch.Generator().manual_seed(7)

    def like(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        return torch.randn(tensor.shape, generator=generator)

    for _ in range(count):
        if isinstance(inputs, dict):
            yield {name: like(tensor) for name, tensor in inputs.items()}
        elif isinstance(inputs, tuple):
            yield tuple(like(tensor) for tensor in inputs)
        else:
            yield like(inputs)


# -- torch alone -----------------------------------------------------------------------------------


def by_torch(case: Trusted) -> Verdict:
    """Prepare, calibrate, convert and run by torch's own calls, and compare."""
    backend = default_backend()
    model, inputs = case.made()
    qconfig = get_default_qat_qconfig(case.qconfig or backend.qconfig)
    with engine(_engine_of(case)), torch.no_grad():
        try:
            prepared = _prepared(model, inputs, case, qconfig)
            weights = {
                path.rpartition(".")[0]
                for path, module in prepared.named_modules()
                if isinstance(module, FakeQuantizeBase) and path.endswith("weight_fake_quant")
            }
            graph_weights = case.flow == "fx" and any(
                node.op == "get_attr" and not str(node.target).startswith("_")
                for node in prepared.graph.nodes
            )
            prepared.eval()
            for batch in batches(inputs, BATCHES):
                call_model(prepared, batch)
            call_model(prepared, inputs)
            prepared.apply(disable_observer)
            expected = tensors(call_model(copy.deepcopy(prepared), inputs))
            bare = copy.deepcopy(prepared).apply(disable_fake_quant)
            without = tensors(call_model(bare, inputs))
            plain = tensors(call_model(copy.deepcopy(model).eval(), inputs))
        except Exception as error:
            return Verdict(wrong=f"cannot be prepared: {_first(error)}")
        if not weights and not graph_weights:
            return Verdict(wrong="no weight has a fake quant")
        if apart(plain, without) > FLOAT_APART:
            return Verdict(wrong="with fake quants off it is not the float model")
        try:
            int8 = convert_fx(prepared) if case.flow == "fx" else convert(prepared)
            found = tensors(call_model(int8, inputs))
        except Exception as error:
            return Verdict(wrong=f"int8 does not run: {_first(error)}")
        in_int8 = _int8_weights(int8)
        if not in_int8 and not graph_weights:
            return Verdict(wrong="no weight is int8")
        unsimulated = sorted(in_int8 - weights)
        if unsimulated and not graph_weights:
            return Verdict(wrong=f"{unsimulated[0]} is int8 and was never simulated")
    far = apart(expected, found)
    deep = len(in_int8) >= DEEP and far <= DEEP_RATIO * apart(plain, expected)
    if not far <= (DEEP_APART if deep else INT8_APART):
        return Verdict(far, f"int8 is {far:.1%} of the spread off the fake quants")
    return Verdict(far)


def _engine_of(case: Trusted) -> str:
    """As a session has it: that of the qconfig's name, if one is named."""
    return case.qconfig or default_backend().engine


def _prepared(model: nn.Module, inputs: Any, case: Trusted, qconfig: QConfig) -> nn.Module:
    model = copy.deepcopy(model)
    if case.flow == "fx":
        for module in model.modules():
            vars(module).pop("qconfig", None)
        mapping = get_default_qat_qconfig_mapping(case.qconfig or default_backend().qconfig)
        positional = tuple(inputs.values()) if isinstance(inputs, dict) else tuple(inputs)
        return prepare_qat_fx(model, mapping, positional)
    if case.stubs == "layers":
        for path, layer in list(model.named_modules()):
            if type(layer) in get_default_qat_module_mappings():
                layer.qconfig = qconfig
                parent, _, name = path.rpartition(".")
                setattr(model.get_submodule(parent), name, QuantWrapper(layer))
    elif not hasattr(model, "qconfig"):
        model.qconfig = qconfig
    if case.stubs == "model":
        model = QuantWrapper(model)
    prepared: nn.Module = prepare_qat(model.train())
    return prepared


def tensors(output: Any) -> list[Tensor]:
    """All float tensors of an output, whatever holds them."""
    if isinstance(output, Tensor):
        output = output.dequantize() if output.is_quantized else output
        return [output] if output.is_floating_point() else []
    values = output.values() if isinstance(output, dict) else output
    if not isinstance(values, (tuple, list)) and not hasattr(values, "__iter__"):
        return []
    return [tensor for value in values for tensor in tensors(value)]


def apart(expected: list[Tensor], found: list[Tensor]) -> float:
    """The largest mean distance of two outputs, as a share of what the first one spans."""
    shares = []
    for a, b in zip(expected, found, strict=True):
        spread = float(torch.maximum(a.max() - a.min(), a.abs().max()).clamp_min(1e-12))
        shares.append(float((a - b).abs().mean()) / spread)
    return max(shares, default=float("nan"))


def _int8_weights(int8: nn.Module) -> set[str]:
    return {
        path
        for path, module in int8.named_modules()
        if callable(getattr(module, "weight", None)) and hasattr(module, "scale")
    }


def _first(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return text[:100]


# -- the checks ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checked:
    """Findings at the float stage and at the last one reached, each once; ``stopped`` says why the
    session did not come to int8; ``skipped`` are the ids of rules that could not be asked there."""

    findings: tuple[Finding, ...]
    stopped: str = ""
    skipped: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(one for one in self.findings if one.severity == "error")


def check(case: Trusted) -> Checked:
    """Check a session of the model as it is given, and again after calibrating and converting."""
    model, inputs = case.made()
    if case.flow == "fx":
        for module in model.modules():
            vars(module).pop("qconfig", None)
    settings: dict[str, Any] = {"flow": case.flow}
    if case.flow == "eager":
        settings["stubs"] = case.stubs
    if case.qconfig:
        settings["qconfig"] = case.qconfig
    rows = [(_one(batch), torch.zeros(1)) for batch in batches(inputs, BATCHES)]
    session = qx.Session(model, inputs, data={"train": rows, "eval": rows}, **settings)
    session.warns = False
    before = session.check()
    stopped = ""
    try:
        session.goto(session.flow.train_stage)
        session.calibrate(BATCHES)
        session.goto(session.flow.int8_stage)
    except QatExplorerError as error:
        stopped = error.message
    after = session.check()
    found = {(one.id, one.path, one.source, one.message): one for one in (*before, *after)}
    failed = [one for one in (*before.skipped, *after.skipped) if "rule itself failed" in one.why]
    return Checked(
        tuple(found.values()),
        stopped,
        tuple(one.id for one in after.skipped),
        tuple(dict.fromkeys(f"{one.id} {one.why}" for one in failed)),
    )


def _one(batch: Any) -> Any:
    return batch[0] if isinstance(batch, tuple) and len(batch) == 1 else batch


# -- the models ------------------------------------------------------------------------------------

_TIMM: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("resnet10t", 32, {"zero_init_last": False}),
    ("resnet18", 32, {"zero_init_last": False}),
    ("resnet26d", 32, {"zero_init_last": False}),
    ("resnet50", 32, {"zero_init_last": False}),
    ("mobilenetv2_035", 32, {}),
    ("mobilenetv3_small_050", 32, {}),
    ("efficientnet_lite0", 32, {}),
    ("efficientnet_b0", 32, {}),
    ("regnetx_002", 32, {"zero_init_last": False}),
    ("regnety_002", 32, {"zero_init_last": False}),
    ("lcnet_050", 32, {}),
    ("ghostnet_050", 32, {}),
    ("mnasnet_small", 32, {}),
    ("hardcorenas_a", 32, {}),
    ("repvgg_a0", 32, {}),
    ("densenet121", 32, {}),
    ("convnext_atto", 32, {}),
    ("vit_tiny_patch16_224", 32, {"img_size": 32, "depth": 2}),
    ("mobilevitv2_050", 64, {}),
)


def _torchs(case: TorchsModel) -> Callable[[], Made]:
    return case.make


def torchs_cases() -> list[Trusted]:
    """torch's own test models in both flows; eager wraps those without stubs whole."""
    found = []
    for case in SIMPLE:
        name, make = f"torch_{case.id}", _torchs(case)
        found.append(Trusted(name, "eager", make))
        found.append(Trusted(name, "fx", make))
    return found


def written_cases() -> list[Trusted]:
    """Our own small ones: blocks as torchvision has them, and models with one peculiarity each."""
    found = []
    for case in (*SMALL, *WRITTEN):
        found.append(Trusted(case.name, "eager", case))
        found.append(Trusted(case.name, "fx", case))
    for case in WRITTEN[:3]:
        for qconfig in ("x86", "fbgemm", "qnnpack"):
            found.append(Trusted(case.name, "eager", case, qconfig=qconfig))
            found.append(Trusted(case.name, "fx", case, qconfig=qconfig))
    return found


def timm_cases() -> list[Trusted]:
    """Architectures of timm, random weights, each layer wrapped in eager mode."""
    found = []
    for name, size, settings in _TIMM:

        def make(n: str = name, s: int = size, kw: dict[str, Any] = settings) -> Made:
            return load_timm(n, s, **kw)

        found.append(Trusted(f"timm_{name}", "eager", make, layers=True))
        found.append(Trusted(f"timm_{name}", "fx", make))
    return found


_WIDTH = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
_TEXT = {**_WIDTH, "vocab_size": 50, "intermediate_size": 32, "max_position_embeddings": 32}
_TWO_STAGES = {"depths": [1, 1], "hidden_sizes": [8, 16]}
_PATCHES = {**_TWO_STAGES, "num_encoder_blocks": 2, "patch_sizes": [7, 3], "strides": [4, 2]}
_TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "DistilBert": (
        "ForSequenceClassification",
        {"dim": 16, "hidden_dim": 32, "n_layers": 1, "n_heads": 2, "vocab_size": 50},
    ),
    "Roberta": ("ForSequenceClassification", _TEXT),
    "Electra": ("ForSequenceClassification", {**_TEXT, "embedding_size": 16}),
    "Albert": ("ForSequenceClassification", {**_TEXT, "embedding_size": 16}),
    "OPT": (
        "ForCausalLM",
        {**_TEXT, "ffn_dim": 32, "word_embed_proj_dim": 16},
    ),
    "Llama": ("ForCausalLM", _TEXT),
    "ConvNext": ("ForImageClassification", {**_TWO_STAGES, "num_stages": 2}),
    "RegNet": ("ForImageClassification", {**_TWO_STAGES, "embedding_size": 8, "groups_width": 4}),
    "Segformer": (
        "ForImageClassification",
        {**_PATCHES, "sr_ratios": [2, 1], "num_attention_heads": [1, 2], "mlp_ratios": [2, 2]},
    ),
    "PoolFormer": ("ForImageClassification", {**_PATCHES, "padding": [2, 1]}),
}
"""Configurations small enough to check in seconds: what the class does, and its settings."""


def _transformer(name: str) -> Made:
    declare_torchvision_operators()
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    task, settings = _TRANSFORMERS[name]
    config = getattr(transformers, f"{name}Config")(**settings)
    model = getattr(transformers, name + task)(config)
    if task == "ForImageClassification":
        return model, {"pixel_values": torch.randn(4, 3, 32, 32)}
    return model, {"input_ids": torch.randint(0, 50, (2, 7))}


def transformers_cases() -> list[Trusted]:
    """Small configurations of transformers, and parts of its models."""
    found = []
    for name in _TRANSFORMERS:

        def make(n: str = name) -> Made:
            return _transformer(n)

        found.append(Trusted(f"transformers_{name.lower()}", "eager", make, layers=True))
    for case in TRANSFORMERS:
        found.append(Trusted(case.name, "eager", case, layers=True))
        found.append(Trusted(case.name, "fx", case))
    return found


GROUPS: dict[str, Callable[[], list[Trusted]]] = {
    "torch": torchs_cases,
    "written": written_cases,
    "timm": timm_cases,
    "transformers": transformers_cases,
}
