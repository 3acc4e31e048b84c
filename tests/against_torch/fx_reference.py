"""A model through the FX flow and through torch's own calls, side by side."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.ao.quantization import QConfigMapping, get_default_qat_qconfig_mapping
from torch.ao.quantization.quantize_fx import convert_fx, convert_to_reference_fx, prepare_qat_fx

import qatexplorer as qx
from qatexplorer.data import call_model
from qatexplorer.errors import QatExplorerError, StageError
from tests.against_torch.reference import engine, main_tensor, train

BACKEND = "onednn"


@dataclass(frozen=True)
class Outcome:
    """What became of one model: ``refused`` before training, ``int8_error`` after it; ``stopped``
    is what both models raise in training."""

    session: qx.Session
    sites: int = 0
    nodes: int = 0
    refused: QatExplorerError | None = None
    int8_error: QatExplorerError | None = None
    stopped: str = ""


def compare_fx(
    model: nn.Module,
    inputs: Any,
    *,
    mapping: QConfigMapping | None = None,
    custom: Any = None,
    convert_custom: Any = None,
    torch_config: Any = None,
    trainable: bool = True,
    classifies: bool = True,
    **settings: Any,
) -> Outcome:
    """Walk ``model`` in the FX flow and prepare, train and convert it by torch alone.

    Where torch's one call raises, so must the session, with a typed error, and the other way
    round. Everything that can be compared must be the same, bit for bit. A model that does not
    classify is trained towards outputs of zero.
    """
    settings.setdefault("qconfig", BACKEND)
    session = qx.Session(model, inputs, flow="fx", **settings)
    mapping = mapping or get_default_qat_qconfig_mapping(BACKEND)
    positional = tuple(inputs.values()) if isinstance(inputs, dict) else tuple(inputs)
    try:
        theirs = prepare_qat_fx(
            copy.deepcopy(model), mapping, positional, custom, backend_config=torch_config
        )
        with torch.no_grad():
            call_model(copy.deepcopy(theirs), inputs)
    except Exception:
        with pytest.raises(StageError) as refusal:
            session.goto("insert")
        assert refusal.value.fix
        return Outcome(session, refused=refusal.value)
    for _ in range(5):
        session.step()
    assert session.stage == "insert"
    ours = session.model
    same_program(ours, theirs)
    sites, nodes = len(session.snapshot.sites), len(session.snapshot.graph.nodes)
    session.step()
    if trainable:
        stopped = train_alike(ours, theirs, positional[0], inputs, classifies)
        if stopped:
            return Outcome(session, sites, nodes, stopped=stopped)
    same_program(ours, theirs)
    int8_error = compare_converted(session, theirs, inputs, convert_custom, torch_config)
    return Outcome(session, sites, nodes, int8_error=int8_error)


def same_program(ours: nn.Module, theirs: nn.Module) -> None:
    """Generated code, graph, module types, state keys and values."""
    assert ours.code == theirs.code
    assert str(ours.graph) == str(theirs.graph)
    assert kinds(ours) == kinds(theirs)
    same_state(ours, theirs)


def same_state(ours: nn.Module, theirs: nn.Module) -> None:
    """Reference modules keep a qscheme and dtypes beside the tensors."""
    mine, reference = ours.state_dict(), theirs.state_dict()
    assert list(mine) == list(reference)
    for key, value in reference.items():
        if isinstance(value, torch.Tensor):
            assert mine[key].dtype == value.dtype, key
            assert same(mine[key], value), key
        else:
            assert mine[key] == value, key


def kinds(model: nn.Module) -> list[tuple[str, str]]:
    # Every GraphModule has a class of its own.
    return [(n, type(m).__qualname__) for n, m in model.named_modules(remove_duplicate=False)]


def train_alike(
    ours: nn.Module, theirs: nn.Module, x: torch.Tensor, inputs: Any, classifies: bool
) -> str:
    """Five training steps; if torch's model raises, the error that both raise."""
    plain = classifies and x.dim() in (2, 4) and isinstance(inputs, tuple)

    def steps(model: nn.Module) -> tuple[list[torch.Tensor], list[float]]:
        return train(model, x) if plain else steps_on(model, inputs)

    stopped: RuntimeError | None = None
    try:
        their_outputs, their_losses = steps(theirs)
    except RuntimeError as error:
        stopped = error
    if stopped is not None:
        with pytest.raises(RuntimeError) as raised:
            steps(ours)
        assert str(raised.value) == str(stopped)
        return str(stopped)
    outputs, losses = steps(ours)
    assert [str(loss) for loss in losses] == [str(loss) for loss in their_losses]
    assert all(same(a, b) for a, b in zip(outputs, their_outputs, strict=True))
    return ""


def steps_on(model: nn.Module, inputs: Any) -> tuple[list[torch.Tensor], list[float]]:
    """Five steps on the very same inputs (token ids cannot be drawn like images); forwards alone
    where nothing can be trained."""
    torch.manual_seed(11)
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=1e-3) if parameters else None
    outputs, losses = [], []
    for _ in range(5):
        output = main_tensor_of(call_model(model, inputs))
        loss = output.float().pow(2).mean()
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        outputs.append(output.detach().clone())
        losses.append(loss.item())
    return outputs, losses


def main_tensor_of(output: Any) -> torch.Tensor:
    if isinstance(output, dict):
        return next(iter(output.values()))
    return main_tensor(output)


def compare_converted(
    session: qx.Session, theirs: nn.Module, inputs: Any, custom: Any, backend_config: Any
) -> QatExplorerError | None:
    """Reference and int8 model; the session's error if torch's own int8 model does not run."""
    given = {"convert_custom_config": custom, "backend_config": backend_config}
    with engine(session.options.qconfig.backend), torch.no_grad():
        try:
            reference = convert_to_reference_fx(copy.deepcopy(theirs).eval(), **given)
            expected = seeded(copy.deepcopy(reference), inputs)
            int8 = convert_fx(copy.deepcopy(theirs).eval(), **given)
            lowered = seeded(int8, inputs)
        except Exception:
            with pytest.raises(StageError) as refusal:
                session.goto("lower")
            assert refusal.value.fix
            assert session.stage in ("train", "convert")
            return refusal.value
        session.step()
        assert session.stage == "convert"
        assert session.model.code == reference.code
        assert kinds(session.model) == kinds(reference)
        same_state(session.model, reference)
        assert same(seeded(session.model, inputs), expected)
        session.step()
        assert session.int8.code == int8.code
        assert kinds(session.int8) == kinds(int8)
        assert same(seeded(session.int8, inputs), lowered)
    return None


def seeded(model: nn.Module, inputs: Any) -> torch.Tensor:
    """Tracing freezes training=True of functional dropout: it draws in eval mode too."""
    torch.manual_seed(5)
    return main_tensor_of(call_model(model, inputs))


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.is_quantized:
        a, b = a.dequantize(), b.dequantize()
    return torch.allclose(a, b, rtol=0.0, atol=0.0, equal_nan=True)
