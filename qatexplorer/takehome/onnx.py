"""The int8 model as ONNX with QuantizeLinear and DequantizeLinear nodes, and what it computes."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qatexplorer.data import as_args, call_model
from qatexplorer.errors import ExportError
from qatexplorer.evaluate.parity import apart, outputs_of
from qatexplorer.forward.trace import tensors_in
from qatexplorer.shown import error_line

OPSET = 17
NEEDED = ("onnx", "onnxruntime")


@dataclass(frozen=True)
class Agreement:
    """ONNX Runtime beside torch's int8 kernels, on the same inputs.

    Attributes:
        samples: compared. largest: difference of outputs, as a share of their range.
        same_answer: share of samples with the same largest output; None where the output is not of
            shape (N, classes).
        quantize, dequantize: nodes of that kind. runtime: version of ONNX Runtime.
    """

    samples: int
    largest: float
    same_answer: float | None
    quantize: int
    dequantize: int
    runtime: str


def missing() -> tuple[str, ...]:
    """Packages that are needed and not installed."""
    return tuple(name for name in NEEDED if importlib.util.find_spec(name) is None)


def write_onnx(int8: nn.Module, example: Any, batches: Iterable[Any], file: Path) -> Agreement:
    """Write ``file`` and run it on ``example`` and the inputs of ``batches``.

    torch's exporter by TorchScript is used: the other one (``dynamo=True``) does not take packed
    int8 weights (torch 2.13). Raises ExportError if it cannot be written or run, OSError for a
    disk without room.
    """
    args, kwargs = as_args(example)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            names = [f"input_{n}" for n, _ in enumerate(tensors_in(example))]
            outputs = tensors_in(call_model(int8, example))
            results = [f"output_{n}" for n, _ in enumerate(outputs)]
            torch.onnx.export(
                int8,
                args,
                str(file),
                kwargs=kwargs or None,
                input_names=names,
                output_names=results,
                dynamic_axes={name: {0: "batch"} for name in (*names, *results)},
                opset_version=OPSET,
                dynamo=False,
                verbose=False,
            )
    except OSError:
        raise  # a full disk says nothing of the model
    except Exception as error:
        raise ExportError(
            f"torch cannot write this int8 model as ONNX: {_first(error)}",
            why="An operation of it has no ONNX form in torch's exporter.",
        ) from error
    return _agreement(int8, [example, *batches], file)


def _agreement(int8: nn.Module, inputs: list[Any], file: Path) -> Agreement:
    import onnx
    import onnxruntime

    nodes = [node.op_type for node in onnx.load(str(file)).graph.node]
    try:
        run = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        names = [one.name for one in run.get_inputs()]
        gaps, same, samples, classes = [], 0, 0, True
        for given in inputs:
            with torch.no_grad():
                wanted = outputs_of(call_model(int8, given))
            feed = dict(zip(names, (t.numpy() for t in tensors_in(given)), strict=True))
            found = [torch.from_numpy(one) for one in run.run(None, feed)]
            gaps.append(apart(wanted, found))
            samples += len(wanted[0]) if wanted and wanted[0].dim() else 1
            classes = classes and bool(wanted) and wanted[0].dim() == 2
            same += _same_answers(wanted[0], found[0]) if classes else 0
    except Exception as error:
        raise ExportError(
            f"ONNX Runtime {onnxruntime.__version__} cannot run what torch wrote: {_first(error)}"
        ) from error
    return Agreement(
        samples,
        max(gaps),
        same / samples if classes else None,
        nodes.count("QuantizeLinear"),
        nodes.count("DequantizeLinear"),
        onnxruntime.__version__,
    )


def _same_answers(wanted: Tensor, found: Tensor) -> int:
    return int((wanted.argmax(1) == found.argmax(1)).sum())


def _first(error: Exception) -> str:
    return error_line(error, 200)
