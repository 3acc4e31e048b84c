"""The reference model as a program for ExecuTorch's runtime, lowered to XNNPACK, and what it
computes there."""

from __future__ import annotations

import importlib.util
import inspect
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from qatexplorer.cures.base import counted
from qatexplorer.data import as_args, call_model, cloned
from qatexplorer.errors import ExportError
from qatexplorer.evaluate.parity import apart, outputs_of, percent
from qatexplorer.flows.base import Flow
from qatexplorer.flows.imported import imported
from qatexplorer.flows.pt2e_export import batched_tensors
from qatexplorer.flows.pt2e_quantizers import is_for_xnnpack, title_of
from qatexplorer.forward.exported import stack_of
from qatexplorer.forward.trace import tensors_in
from qatexplorer.shown import error_line

INSTALL = "pip install 'qatexplorer[executorch]'"
LISTED = 8


@dataclass(frozen=True)
class PteRun:
    """A program for ExecuTorch, run in its runtime beside the reference model on the same inputs.

    Attributes:
        samples: rows compared. rows: of each batch that the program takes; None without a batch.
        largest: difference of outputs, as a share of their range. steps: the same in steps of the
            output's grid, as a whole number; None where no output is rounded.
        delegated: nodes that XNNPACK computes, those that quantize and dequantize among them.
        parts: pieces of the graph that they are in.
        left: (operation, path of the user's module) of each node that the runtime's own kernels
            compute instead. runtime: version of ExecuTorch.
    """

    samples: int
    rows: int | None
    largest: float
    steps: int | None
    delegated: int
    parts: int
    left: tuple[tuple[str, str], ...]
    runtime: str


def require_pte(flow: Flow, quantizer: Any) -> None:
    """Raises ExportError where no program for ExecuTorch can be written, before anything long."""
    if not (flow.offers_quantizer and is_for_xnnpack(quantizer)):
        used = f"flow {flow.name!r}"
        if flow.offers_quantizer:
            used = f"the quantizer {title_of(quantizer)}"
        raise ExportError(
            f"no .pte can be written: {used} does not round as ExecuTorch's XNNPACK computes.",
            why="XNNPACK takes activations and weights of int8, and the model must have been "
            "trained with those.",
            fix="Start with Session(…, flow='pt2e', quantizer='xnnpack').",
        )
    if importlib.util.find_spec("executorch") is None:
        raise ExportError(
            "no .pte can be written: executorch is not installed.", fix=f"Run {INSTALL}"
        )


def make_pte(
    reference: fx.GraphModule, example: Any, batches: Iterable[Any]
) -> tuple[bytes, PteRun]:
    """The program of ``reference`` with the weights in it, and what the runtime computes with it
    on ``example`` and the inputs of ``batches``.

    It takes batches of as many rows as ``example`` has; of larger ones the first rows are compared.
    Raises ExportError if ExecuTorch does not take the model or cannot run it.
    """
    args, kwargs = as_args(cloned(example))
    try:
        # ExecuTorch warns of torch's own deprecations.
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            edge = _lowered(torch.export.export(reference, args, kwargs))
            who = _computed_by(edge.exported_program().graph_module)
            config = imported("executorch.backends.xnnpack.utils.configs")
            made = edge.to_executorch(config=config.get_xnnpack_executorch_backend_config())
    except Exception as error:
        raise ExportError(
            f"ExecuTorch cannot lower this model: {error_line(error, 200)}",
            why="An operation of it has no form in ExecuTorch, or a size in it is not fixed.",
        ) from error
    program = bytes(made.buffer)
    return program, _run(program, reference, list(_of_same_rows(example, batches)), **who)


def _lowered(program: torch.export.ExportedProgram) -> Any:
    exir = imported("executorch.exir")
    home = "executorch.backends.xnnpack"
    partitioner = imported(f"{home}.partition.xnnpack_partitioner").XnnpackPartitioner()
    config = imported(f"{home}.utils.configs").get_xnnpack_edge_compile_config()
    return exir.to_edge_transform_and_lower(
        program, partitioner=[partitioner], compile_config=config
    )


def _computed_by(graph: fx.GraphModule) -> dict[str, Any]:
    """``delegated``, ``parts`` and ``left`` of :class:`PteRun`. (``to_executorch`` changes it.)"""
    taken = imported("executorch.devtools.backend_debug").get_delegation_info(graph)
    left = []
    for node in graph.graph.nodes:
        name = getattr(node.target, "__name__", str(node.target))
        if node.op == "call_function" and name not in ("executorch_call_delegate", "getitem"):
            left.append((name, next((path for path, _ in reversed(stack_of(node))), "")))
    return {
        "delegated": taken.num_delegated_nodes,
        "parts": taken.num_delegated_subgraphs,
        "left": tuple(left),
    }


def _of_same_rows(example: Any, batches: Iterable[Any]) -> Iterator[Any]:
    """``example``, and of each batch that has enough of them as many rows; all are copies."""
    yield cloned(example)
    of_example = batched_tensors(tuple(_flat(example)))
    rows = len(of_example[0]) if of_example else 0
    for given in batches:
        own = batched_tensors(tuple(_flat(given)))
        if rows and own and len(own[0]) >= rows:
            cut = {id(tensor) for tensor in own}
            yield pytree.tree_map(lambda v, cut=cut: v[:rows].clone() if id(v) in cut else v, given)


def _flat(inputs: Any) -> list[Any]:
    args, kwargs = as_args(inputs)
    return [*args, *kwargs.values()]


def _run(program: bytes, reference: fx.GraphModule, inputs: list[Any], **who: Any) -> PteRun:
    version = metadata.version("executorch")
    scales = _output_scales(reference)
    largest, steps, samples = 0.0, [], 0
    try:
        method = imported("executorch.runtime").Runtime.get().load_program(program)
        method = method.load_method("forward")
        for given in inputs:
            with torch.no_grad():
                wanted = outputs_of(call_model(reference, cloned(given)))
            found = outputs_of(method.execute(_positional(reference, given)))
            largest = max(largest, apart(wanted, found))
            steps += _steps(wanted, found, scales)
            batch = batched_tensors(tuple(_flat(given)))
            samples += len(batch[0]) if batch else 1
    except Exception as error:
        raise ExportError(
            f"ExecuTorch {version} cannot run what it wrote: {error_line(error, 200)}",
            why="Nothing was written. The reference model of stage 'fold' runs.",
        ) from error
    batch = batched_tensors(tuple(_flat(inputs[0])))
    rows = len(batch[0]) if batch else None
    most = max(steps) if steps else None
    return PteRun(samples, rows, largest, most, runtime=version, **who)


def _positional(reference: fx.GraphModule, inputs: Any) -> list[Tensor]:
    args, kwargs = as_args(inputs)
    bound = inspect.signature(reference.forward).bind(*args, **kwargs)
    return list(tensors_in(bound.args))


def _output_scales(reference: fx.GraphModule) -> list[float | None]:
    """For each tensor of numbers that is returned the scale of its grid, None where it is not
    rounded."""
    returned = pytree.tree_leaves(reference.graph.output_node().args[0])
    scales: list[float | None] = []
    for node in returned:
        value = node.meta.get("val") if isinstance(node, fx.Node) else None
        if isinstance(value, Tensor) and not value.is_floating_point():
            continue
        rounded = isinstance(node, fx.Node) and "dequantize_per_tensor" in str(node.target)
        scale = node.args[1] if rounded else None
        scales.append(scale if isinstance(scale, float) else None)
    return scales


def _steps(wanted: list[Tensor], found: list[Tensor], scales: list[float | None]) -> list[int]:
    if not len(wanted) == len(found) == len(scales):
        return []
    return [
        int(((a - b).abs().max() / scale).round())
        for a, b, scale in zip(wanted, found, scales, strict=True)
        if scale and a.numel()
    ]


def pte_words(run: PteRun) -> list[str]:
    """What the runtime computes, who computes it and for which batches, in sentences."""
    far = f"outputs at most {percent(run.largest)} of their range"
    if run.steps is not None:
        far = f"output codes at most {counted(run.steps, 'step')}"
    samples = counted(run.samples, "sample")
    words = [
        f"Run in ExecuTorch {run.runtime}, {samples}: {far} from the reference model's.",
        f"XNNPACK computes {counted(run.delegated, 'node')} in {counted(run.parts, 'part')}.",
    ]
    if run.left:
        named = [f"{name} at {path}" if path else name for name, path in run.left[:LISTED]]
        more = len(run.left) - LISTED
        named += [f"{more:,} more"] if more > 0 else []
        head = f"{counted(len(run.left), 'node')} left to ExecuTorch's own kernels"
        words.append(f"{head}: {', '.join(named)}.")
    if run.rows is not None:
        words.append(f"It takes batches of {run.rows:,}, as the example inputs have.")
    return words
