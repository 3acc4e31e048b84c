"""What a flow is: named stages, each one torch call on the session's own copy of the model."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.ao.quantization import QConfig
from torch.ao.quantization.backend_config import BackendConfig

from qatexplorer.data import device_of
from qatexplorer.flows.copying import copied
from qatexplorer.flows.custom import CustomConfig
from qatexplorer.flows.qconfig import QConfigPlan
from qatexplorer.snapshot.records import Graph, Placement
from qatexplorer.snapshot.take import same_path

StubMode = Literal["none", "model", "layers"]
"""Who quantizes the float input: the model's own stubs; one ``QuantWrapper`` around the whole model
(or, where it takes more than one tensor, :class:`flows.stubs.InputStubs` with a stub per argument);
or ``add_quant_dequant`` around every layer that will be int8."""


@dataclass(frozen=True)
class Stage:
    """One stop of a flow: ``call`` is the torch call that leads to it, ``why`` one sentence."""

    name: str
    title: str
    call: str
    why: str


@dataclass(frozen=True)
class FlowOptions:
    """What the stages of a flow need to know, besides the model.

    Attributes:
        qconfig: resolved qconfigs. fusion: runs of module paths to fuse. stubs: see StubMode.
        qat_mapping: replaces torch's default table float module → QAT module, None keeps it.
        example_inputs: in any form that ``data.as_args`` takes.
        graph: dataflow graph of the float model.
        custom: non-traceable modules, preserved attributes, custom modules.
        backend_config: what the FX flow knows of the backend's operators; None is torch's default.
        own_qconfigs: the ``qconfig`` attributes that the user's model came with, by path.
    """

    qconfig: QConfigPlan
    example_inputs: Any
    fusion: tuple[tuple[str, ...], ...] = ()
    stubs: StubMode = "none"
    qat_mapping: Mapping[Any, Any] | None = None
    graph: Graph | None = None
    custom: CustomConfig = field(default_factory=CustomConfig)
    backend_config: BackendConfig | None = None
    own_qconfigs: Mapping[str, QConfig | None] = field(default_factory=dict)


@dataclass(frozen=True)
class StageResult:
    """``model`` after the stage; ``origin`` maps its paths to the float stage's.

    ``moved`` says that calls have changed their path: the graph is ``graph``, or, where that is
    None, must be found anew. A flow that makes graphs itself gives one at each stage, and
    ``placed``: the fake quants that are nodes of it, by path.
    """

    model: nn.Module
    origin: Callable[[str], str] = field(default=same_path)
    moved: bool = False
    notes: tuple[str, ...] = ()
    graph: Graph | None = None
    placed: Mapping[str, Placement] = field(default_factory=dict)


Seen = Callable[[str, StageResult], None]
"""Told of a stage that torch's call is passing through, while the call is going on."""


class Flow(ABC):
    """One of torch's quantization systems, as stages that run torch's own calls.

    Most stages are one call. Where one call of torch makes several stages, they stand together in
    ``calls``, and are seen while that call runs once.

    Attributes:
        converted_stages: those made from a copy of the prepared model, int8_stage the last of them.
        offers_stubs, offers_fusion: whether FlowOptions.stubs and FlowOptions.fusion mean anything.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    stages: ClassVar[tuple[Stage, ...]]
    train_stage: ClassVar[str] = "train"
    int8_stage: ClassVar[str] = "convert"
    prepared_stage: ClassVar[str] = "insert"
    converted_stages: ClassVar[tuple[str, ...]] = ("convert",)
    calls: ClassVar[tuple[tuple[str, ...], ...]] = ()
    offers_stubs: ClassVar[bool] = True
    offers_fusion: ClassVar[bool] = True

    @property
    def stage_names(self) -> tuple[str, ...]:
        return tuple(stage.name for stage in self.stages)

    def stage(self, name: str) -> Stage:
        return self.stages[self.stage_names.index(name)]

    def call_of(self, stage: str) -> tuple[str, ...]:
        """The stages that torch makes in the same call as ``stage``, in order."""
        return next((call for call in self.calls if stage in call), (stage,))

    def calls_to(self, stage: str) -> tuple[str, ...]:
        """What to :meth:`apply`, one after another, to get from the float model to ``stage``."""
        names = self.stage_names[1 : self.stage_names.index(stage) + 1]
        last = {self.call_of(name): name for name in names}
        return tuple(last.values())

    @abstractmethod
    def apply(
        self, stage: str, model: nn.Module, options: FlowOptions, seen: Seen | None = None
    ) -> StageResult:
        """Take ``model`` to ``stage``, in place where torch can.

        ``model`` is at the stage before the call that makes ``stage``; for the int8 stage it is
        the prepared model. ``seen`` is told of the stages on the way that the same call makes, and
        that what describes the result (graph, placements) is wanted; what it raises ends the call.
        The caller hands over a copy of its own. Raises what torch raises.
        """

    @abstractmethod
    def snapshot_needs_probe(self, stage: str) -> bool:
        """Whether fake quants exist from this stage on that a forward has to be counted for."""


def copy_sharing_parameters(model: nn.Module) -> nn.Module:
    """Deep copy of everything but the parameters, which stay the very same objects.

    Torch's stages up to ``convert`` never write to a parameter, so a copy for them needs the
    memory of the buffers only. Give it parameters of its own (:func:`own_parameters`) before
    training it or handing it out.
    """
    return copied(model, {id(p): p for p in model.parameters()})


def moved_to_cpu(model: nn.Module) -> nn.Module:
    """``model``, which the caller has copied, on the CPU; a model that it shares parameters with
    stays where it is (``model.cpu()`` alone would move those too)."""
    if device_of(model).type != "cpu":
        own_parameters(model, torch.device("cpu"))
        model.cpu()
    return model


def own_parameters(model: nn.Module, device: torch.device | None = None) -> None:
    """Replace every parameter by a copy (on ``device``), keeping shared ones shared."""
    copies: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is None:
                continue
            if id(parameter) not in copies:
                copies[id(parameter)] = _copied_parameter(parameter, device)
            module._parameters[name] = copies[id(parameter)]


def _copied_parameter(parameter: nn.Parameter, device: torch.device | None) -> nn.Parameter:
    if device is None or device == parameter.device:
        return copy.deepcopy(parameter)
    return nn.Parameter(parameter.detach().to(device), parameter.requires_grad)
