"""Checks of what a user hands in, before anything is done with it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.ao.quantization import QuantWrapper, default_fused_act_fake_quant
from torch.nn.parameter import is_lazy

from qatexplorer.data import Data
from qatexplorer.errors import (
    AlreadyPreparedError,
    DeviceError,
    DtypeError,
    ExampleInputError,
    InputError,
    NotAModuleError,
    NotCopyableError,
)
from qatexplorer.explain.blame import place_of
from qatexplorer.flows.own_copy import OwnCopy, own_copy
from qatexplorer.forward.exported import is_exported
from qatexplorer.forward.preserve import preserved_rng
from qatexplorer.quantizers.facts import is_quantizer
from qatexplorer.shown import error_line
from qatexplorer.snapshot.records import Graph
from qatexplorer.snapshot.take import take_graph

_CONVERTED = (
    "torch.ao.nn.quantized",
    "torch.ao.nn.intrinsic.quantized",
    "torch.ao.nn.qat",
    "torch.ao.nn.intrinsic.qat",
)
# Containers for functional operations: they belong into a float model.
_FLOAT_ANYWAY = ("FloatFunctional", "FXFloatFunctional")


def check_model(model: Any) -> nn.Module:
    """``model`` if a session can start from it.

    Raises NotAModuleError, AlreadyPreparedError, DeviceError, DtypeError, InputError.
    """
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise NotAModuleError(
            f"{model.__name__} is a class, not a model.", fix=f"Pass {model.__name__}(…)."
        )
    if isinstance(model, Mapping) and model and all(isinstance(key, str) for key in model):
        raise _state_dict_error(model)
    if isinstance(model, torch.export.ExportedProgram) or is_exported(model):
        raise NotAModuleError(
            "the model is a graph that torch.export made.",
            why="Its layers are calls of aten operations by now, and a session shows how they come "
            "to be: it exports the model itself, as the first stage of flow 'pt2e'.",
            fix="Pass the Python module that was exported, with flow='pt2e'.",
        )
    if not isinstance(model, nn.Module):
        raise NotAModuleError(
            f"the model is a {type(model).__name__}, not a torch.nn.Module.",
            fix="Pass the module itself; load a state dict into it first.",
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise NotAModuleError(
            "the model is a TorchScript module (torch.jit.script, trace or load made it).",
            why="It is compiled already: torch.fx cannot trace it, and prepare_qat finds no layer "
            "in it that it could swap, and says nothing.",
            fix="Pass the Python module that it was made from. If only the archive is left, "
            "build that class anew and call model.load_state_dict(scripted.state_dict()): the "
            "names are the same.",
        )
    _check_float(model)
    _check_tensors(model)
    return model


def _state_dict_error(state: Mapping[str, Any]) -> NotAModuleError:
    """What helps somebody who has weights and passes them in the model's place."""
    prefix = ""
    while all(key[len(prefix) :].startswith(("module.", "_orig_mod.")) for key in state):
        first = next(iter(state))[len(prefix) :]
        prefix += first.partition(".")[0] + "."
    if not prefix:
        return NotAModuleError(
            f"the model is a {type(state).__name__} of tensors by name, not a torch.nn.Module.",
            fix="Build the module and call model.load_state_dict(state); pass the module.",
        )
    strip = f"{{name.removeprefix({prefix!r}): t for name, t in state.items()}}"
    return NotAModuleError(
        f"the model is a {type(state).__name__} of tensors by name, not a torch.nn.Module.",
        why=f"All its names begin with {prefix!r}: it was saved from a model inside DataParallel, "
        "DistributedDataParallel ('module.') or torch.compile ('_orig_mod.').",
        fix=f"Build the module, and load it without the prefix: `model.load_state_dict({strip})`"
        "; then pass the module.",
    )


def _check_float(model: nn.Module) -> None:
    for path, module in model.named_modules():
        name = type(module).__name__
        converted = type(module).__module__.startswith(_CONVERTED) and name not in _FLOAT_ANYWAY
        if is_quantizer(module) or converted:
            what = "a fake quant or observer" if is_quantizer(module) else f"a {name}"
            raise AlreadyPreparedError(
                f"the model is already prepared or converted: it holds {what}.",
                where=path,
                why="prepare_qat run twice registers each observer hook twice, and nothing warns.",
                fix="Start from the float model; its weights can be loaded from your "
                "checkpoint's float part.",
            )


def _check_tensors(model: nn.Module) -> None:
    devices: dict[torch.device, str] = {}
    named = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in named:
        owner, _, leaf = name.rpartition(".")
        if is_lazy(tensor):
            raise InputError(
                f"parameter {leaf!r} has no shape yet (a Lazy module).",
                where=owner,
                fix="Run the model once on a batch before you hand it over.",
            )
        devices.setdefault(tensor.device, name)
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise DtypeError(
                f"{leaf!r} is {tensor.dtype}.",
                where=owner,
                why="torch's fake quants take float32 only: the first training step would raise "
                "'expected scalar type Float'.",
                fix="Call model.float() before you hand it over.",
            )
    for device, name in devices.items():
        _check_device(device, name.rpartition(".")[0])
    if len(devices) > 1:
        (first, name_1), (second, name_2) = list(devices.items())[:2]
        raise DeviceError(
            f"the model is on two devices: {name_1} on {first}, {name_2} on {second}.",
            where=name_2.rpartition(".")[0],
            why="torch's prepare works on models on one device only.",
            fix=f"Call model.to({str(first)!r}) before you hand it over.",
        )


def _check_device(device: torch.device, path: str) -> None:
    if device.type == "meta":
        raise DeviceError(
            "parameters are on the meta device: they have shapes and no values.",
            where=path,
            fix="Build the model on the CPU, or model.to_empty(device='cpu') and load weights.",
        )
    if device.type not in ("cpu", "cuda"):
        try:  # whether its kernels are there is asked of torch
            _fake_quantize_on(device)
        except Exception as error:
            raise DeviceError(
                f"parameters are on {device}, where torch's fake quants do not run.",
                where=path,
                why=error_line(error),
                fix="Call model.cpu() before you hand it over, and train on the CPU or CUDA.",
            ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            f"parameters are on {device}, and this machine has no usable GPU.",
            where=path,
            fix="Call model.cpu() before you hand it over.",
        )


def _fake_quantize_on(device: torch.device) -> None:
    """One forward and backward of the fake quant of torch's default qconfigs. Raises what it
    raises."""
    fake_quant = default_fused_act_fake_quant().to(device)
    value = torch.linspace(-1, 1, 8, device=device, requires_grad=True)
    fake_quant(value).sum().backward()


def copy_model(model: nn.Module) -> OwnCopy:
    """The session's own copy of the user's model, see :mod:`~qatexplorer.flows.own_copy`.

    Raises NotCopyableError naming what cannot be copied.
    """
    with preserved_rng():
        try:
            return own_copy(model)
        except Exception as error:
            where, what = _not_copyable(model)
            raise NotCopyableError(
                f"the model cannot be deep-copied: {what}.",
                where=where,
                why=f"{type(error).__name__}: {error}",
                fix="The explorer works on a copy so that yours stays as it is, and so does "
                "prepare_qat. Keep locks, generators and open files out of the "
                "module's attributes, or give the module a __deepcopy__.",
            ) from error


def _not_copyable(model: nn.Module) -> tuple[str, str]:
    for path, module in model.named_modules():
        for key, value in vars(module).items():
            if key == "_modules":
                continue
            try:
                copy.deepcopy(value)
            except Exception:
                shown = key if not key.startswith("_") or key == "_lock" else f"its {key}"
                return path, f"attribute {shown!r} ({type(value).__name__}) refuses"
    for path, module in reversed(list(model.named_modules())):  # innermost first
        try:
            copy.deepcopy(module)
        except Exception:
            return path, f"its type {type(module).__name__} refuses"
    return "", "copy.deepcopy refuses"


def example_inputs_from(example_inputs: Any, data: Data | None) -> Any:
    """``example_inputs``, or the first training batch's input where none are given."""
    if example_inputs is not None:
        return example_inputs
    if data is None:
        raise ExampleInputError(
            "no example inputs were given.",
            why="One forward shows which modules run, in which order and with which shapes.",
            fix="Pass a tensor, a tuple of arguments or a dict of keyword arguments.",
        )
    with preserved_rng():
        try:
            inputs, _target = next(iter(data.train))
        except StopIteration:
            raise ExampleInputError(
                "no example inputs were given, and the training data is empty."
            ) from None
        except (TypeError, ValueError) as error:
            raise ExampleInputError(
                "no example inputs were given, and the training data does not yield pairs.",
                why=f"{type(error).__name__}: {error}",
                fix="Every batch must be a pair (input, target).",
            ) from error
    return inputs


def graph_of(model: nn.Module, example_inputs: Any) -> Graph:
    """Run the copy on the example inputs and return its dataflow graph.

    Raises ExampleInputError, with module and line, if the model's own forward raises.
    """
    try:
        return take_graph(model, example_inputs)
    except Exception as error:
        place = place_of(error, model)
        line = f" ({place.source})" if place.source else ""
        kind = place.type_name or type(model).__name__
        if isinstance(model, QuantWrapper) and isinstance(error, TypeError) and not place.path:
            raise ExampleInputError(
                f"torch's QuantWrapper takes one tensor, and gets {describe_inputs(example_inputs)}"
                ".",
                where="",
                why=f"{type(error).__name__}: {error}",
                fix="Hand over the model inside it, model.module, with stubs='model': each of its "
                "float inputs gets a QuantStub of its own.",
            ) from error
        raise ExampleInputError(
            f"the model's forward raises on the example inputs, in {kind}{line}.",
            where=place.path or "",
            why=f"{type(error).__name__}: {error}",
            fix=f"The example inputs are {describe_inputs(example_inputs)}; pass what you "
            "would pass to model(…): a tensor, a tuple of arguments, or a dict of keywords.",
        ) from error


def describe_inputs(inputs: Any) -> str:
    """Shapes and dtypes of example inputs in words, e.g. ``"Tensor float32 (8, 1, 8, 8)"``."""
    if isinstance(inputs, torch.Tensor):
        return f"Tensor {str(inputs.dtype).removeprefix('torch.')} {tuple(inputs.shape)}"
    if isinstance(inputs, dict):
        return "{" + ", ".join(f"{k}: {describe_inputs(v)}" for k, v in inputs.items()) + "}"
    if isinstance(inputs, (tuple, list)):
        return "(" + ", ".join(describe_inputs(v) for v in inputs) + ")"
    return type(inputs).__name__
