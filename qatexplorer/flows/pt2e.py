"""PT2E: ``torch.export``, ``prepare_qat_pt2e`` and ``convert_pt2e`` of torchao, watched.

One call of ``prepare_qat_pt2e`` makes the stages transform, annotate, fuse and insert. It runs
unchanged; :mod:`~qatexplorer.flows.pt2e_watch` tells when it passes from one to the next. torchao
is imported when the flow is used, not before.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import metadata
from typing import ClassVar

import torch
from torch import fx, nn

from qatexplorer.data import device_of, on_device
from qatexplorer.errors import UnsupportedTorchError
from qatexplorer.flows.base import Flow, FlowOptions, Seen, Stage, StageResult
from qatexplorer.flows.imported import imported
from qatexplorer.flows.pt2e_export import export, lower
from qatexplorer.flows.pt2e_patterns import patterns_kept
from qatexplorer.flows.pt2e_quantizers import (
    cannot_leave_float,
    leaving_float,
    lowered_elsewhere,
    make_quantizer,
)
from qatexplorer.flows.pt2e_watch import Pt2eConvertWatch, Pt2eLog, Pt2ePrepareWatch
from qatexplorer.forward.either_mode import EitherMode, in_either_mode
from qatexplorer.forward.exported import (
    Stages,
    name_owners,
    names_kept,
    owners_of_weights,
    types_of,
)

_STAGES = (
    Stage(
        "float",
        "Float",
        "",
        "The session's own copy of your model; yours stays as it is.",
        role="float",
    ),
    Stage(
        "export",
        "Export",
        "torch.export.export(model, inputs, dynamic_shapes=…).module()",
        "forward is run once with stand-ins for the tensors, down to the operations of torch "
        "itself (aten), and what it calls becomes a graph. From here on the graph is the program.",
        role="traced",
    ),
    Stage(
        "transform",
        "Transform",
        "quantizer.transform_for_annotation(model)",
        "The quantizer may rewrite the graph before it looks at it, for example turn numbers into "
        "tensors so that they can be rounded.",
        role="traced",
    ),
    Stage(
        "annotate",
        "Annotate",
        "quantizer.annotate(model); quantizer.validate(model)",
        "The quantizer writes on nodes how their inputs and their output shall be rounded. Nothing "
        "computes differently yet, and what it did not write on stays float.",
        role="qconfig",
    ),
    Stage(
        "fuse",
        "Fuse conv-bn",
        "_fuse_conv_bn_qat(model)",
        "Each convolution with a batch norm behind it is rewritten so that the weight that is "
        "rounded is the one that int8 will have: scaled by the batch norm's running variance.",
        role="weights",
    ),
    Stage(
        "insert",
        "Insert fake quants",
        "prepare(model, …, is_qat=True)",
        "For each annotated edge and output a fake quant becomes a node of the graph, one for each "
        "group that shares one.",
        role="inserted",
    ),
    Stage(
        "train",
        "Train",
        "your training loop on the prepared model",
        "Fake quants that are on round in forward, so the loss feels it and the weights learn to "
        "live with it; observers that are on follow the ranges.",
        role="trained",
    ),
    Stage(
        "convert",
        "Convert (reference)",
        "_convert_to_reference_decomposed_fx(model)",
        "Each fake quant becomes a quantize and a dequantize with the scale that its observer "
        "found; the operations between stay float.",
        role="reference",
    ),
    Stage(
        "fold",
        "Fold batch norms",
        "convert_pt2e(model)",
        "What fusing built is undone: batch norms are multiplied into the weights and biases, and "
        "weights are stored as int8.",
        role="reference",
    ),
    Stage(
        "lower",
        "Lower to int8",
        "lower_pt2e_quantized_to_x86(model, inputs)",
        "Where a dequantize, an operation and a quantize match a kernel of the backend, they "
        "become one int8 operation. What matches none stays float.",
        role="int8",
    ),
)
_PREPARED = ("transform", "annotate", "fuse", "insert")
NEEDS_TORCH = (2, 11)
NEEDS_TORCHAO = ((0, 18), (0, 19))


class _Reached(BaseException):
    """Ends torchao's call at the boundary asked for; no ``except Exception`` may hold it."""

    def __init__(self, result: StageResult) -> None:
        super().__init__()
        self.result = result


def require_available(flow: Flow) -> None:
    """Raises UnsupportedTorchError with what to install where ``flow`` cannot run."""
    why, _, fix = flow.unavailable().partition(": ")
    if why:
        raise UnsupportedTorchError(
            f"flow {flow.name!r} cannot run here.",
            why=why[0].upper() + why[1:] + ".",
            fix=f"Run {fix}" if fix else "Use flow='eager' or flow='fx'.",
        )


def unavailable() -> str:
    """Why this flow cannot run here, ``""`` where it can: torchao 0.18 and torch 2.11 or newer."""
    running = _release(torch.__version__)
    if importlib.util.find_spec("torchao") is None:
        return "torchao is not installed: pip install 'torchao>=0.18,<0.19'"
    low, high = NEEDS_TORCHAO
    version = _installed(sys.modules.get("torchao"), metadata.version)
    if not low <= _release(version) < high:
        return (
            f"torchao {version} is installed, and the flow watches functions "
            "of 0.18: pip install 'torchao>=0.18,<0.19'"
        )
    if running < NEEDS_TORCH:
        return f"torchao 0.18 needs torch 2.11 or newer, and {torch.__version__} is running"
    return ""


@functools.lru_cache(maxsize=4)
def _installed(_imported: object, version_of: Callable[[str], str]) -> str:
    """Release of torchao, read from its files once before and once after it was imported: what is
    installed while it runs does not run."""
    return version_of("torchao")


def _release(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()) or 0)


class Pt2eFlow(Flow):
    """``torchao.quantization.pt2e``, with any quantizer."""

    name: ClassVar[str] = "pt2e"
    title: ClassVar[str] = "PT2E (prepare_qat_pt2e of torchao)"
    stages: ClassVar[tuple[Stage, ...]] = _STAGES
    calls: ClassVar[tuple[tuple[str, ...], ...]] = (_PREPARED,)
    offers_stubs: ClassVar[bool] = False
    offers_fusion: ClassVar[bool] = False
    by_graph: ClassVar[bool] = True
    offers_qconfig: ClassVar[bool] = False
    offers_quantizer: ClassVar[bool] = True
    quick_to_convert: ClassVar[bool] = False  # a hundred patterns are traced the first time
    lowers_to_packed: ClassVar[bool] = True
    runs_on_engine: ClassVar[bool] = False  # oneDNN's kernels are called by name

    def apply(
        self, stage: str, model: nn.Module, options: FlowOptions, seen: Seen | None = None
    ) -> StageResult:
        require_available(self)
        if stage == "export":
            return self._export(model, options)
        if stage in _PREPARED:
            return self._prepare(stage, model, options, seen)
        if stage in ("convert", "fold"):
            return self._convert(stage, model)
        if stage == "lower":
            return self._lower(model, options)
        return StageResult(model)

    def described(self, model: nn.Module) -> StageResult:
        return _described(model)

    def unavailable(self) -> str:
        return unavailable()

    def cannot_leave_float(self, options: FlowOptions) -> str:
        return cannot_leave_float(make_quantizer(options.quantizer))

    def _export(self, model: nn.Module, options: FlowOptions) -> StageResult:
        exported, notes = export(model, options.example_inputs)
        return _described(in_either_mode(exported, model.training), notes=notes)

    def _prepare(
        self, until: str, model: nn.Module, options: FlowOptions, seen: Seen | None
    ) -> StageResult:
        """Run ``prepare_qat_pt2e`` once, to its end or up to an earlier boundary."""
        api = imported("torchao.quantization.pt2e.quantize_pt2e")

        def at(stage: str, module: fx.GraphModule) -> None:
            if stage == until:
                raise _Reached(StageResult(module))
            if seen is not None:
                seen(stage, _described(module, watch.log, read=read))

        watch, read = Pt2ePrepareWatch(at), Stages()
        quantizer = leaving_float(make_quantizer(options.quantizer), left_in_float(options))
        try:
            with watch.open(quantizer) as watched, patterns_kept():
                prepared = api.prepare_qat_pt2e(model, watched)
        except _Reached as reached:
            return reached.result
        in_either_mode(prepared, model.training, compiled=True)
        return StageResult(prepared) if seen is None else _described(prepared, watch.log)

    def _convert(self, until: str, model: nn.Module) -> StageResult:
        api = imported("torchao.quantization.pt2e.quantize_pt2e")
        in_eval_mode(model)

        def at(stage: str, module: fx.GraphModule) -> None:
            if stage == until:
                raise _Reached(StageResult(module))

        try:
            with Pt2eConvertWatch(at).open(), patterns_kept():
                converted = api.convert_pt2e(model)
        except _Reached as reached:
            converted = reached.result.model
        return _described(in_either_mode(converted, False))

    def _lower(self, model: nn.Module, options: FlowOptions) -> StageResult:
        reference = self._convert("fold", model).model
        assert isinstance(reference, fx.GraphModule)
        owners = owners_of_weights(reference)
        elsewhere = lowered_elsewhere(options.quantizer)
        inputs = on_device(options.example_inputs, device_of(model))
        lowered, notes = lower(reference, inputs, elsewhere)
        name_owners(lowered, owners)
        types = {**types_of(reference), **types_of(lowered)}
        return replace(_described(in_either_mode(lowered, False), notes=notes), types=types)


def left_in_float(options: FlowOptions) -> tuple[str, ...]:
    """Paths that a qconfig of None leaves in float: no more of a qconfig means anything here. What
    the user's model came with is of the eager flow."""
    paths = options.qconfig.by_path
    return tuple(p for p, qconfig in paths if qconfig is None and p not in options.own_qconfigs)


def in_eval_mode(model: nn.Module) -> None:
    """By torchao's own switch, as its recipe has it before ``convert_pt2e``. It puts torch's own p,
    eps and momentum into the dropouts and batch norms that it replaces."""
    pt2e = imported("torchao.quantization.pt2e")
    for module in model.modules():
        if isinstance(module, EitherMode):
            module.freeze_bn = False  # it looks for batch norms that train
    model.train()
    with names_kept(model), patterns_kept():
        pt2e.move_exported_model_to_eval(model)
    for module in model.modules():
        module.__dict__["_mode" if isinstance(module, EitherMode) else "training"] = False


def _described(
    model: nn.Module,
    log: Pt2eLog | None = None,
    notes: tuple[str, ...] = (),
    read: Stages | None = None,
) -> StageResult:
    assert isinstance(model, fx.GraphModule)
    log = log or Pt2eLog()
    calls: Mapping[str, str] = {one.site: one.call for one in log.insertions}
    graph, placed, types = (read or Stages()).read(model, calls)
    return StageResult(
        model,
        graph=graph,
        placed=placed,
        notes=notes,
        types=types,
        annotations=log.annotations,
        groups=log.groups,
    )
