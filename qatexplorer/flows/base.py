"""What a flow is: named stages, each one torch call on the session's own copy of the model."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import nn

from qatexplorer.flows.qconfig import QConfigPlan
from qatexplorer.snapshot.capture import same_path
from qatexplorer.snapshot.records import Graph

StubMode = Literal["none", "model", "layers"]
"""Who quantizes the float input: the model's own stubs, one ``QuantWrapper`` around the whole
model, or ``add_quant_dequant`` around every layer that will be int8."""


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
    """

    qconfig: QConfigPlan
    example_inputs: Any
    fusion: tuple[tuple[str, ...], ...] = ()
    stubs: StubMode = "none"
    qat_mapping: Mapping[Any, Any] | None = None
    graph: Graph | None = None


@dataclass(frozen=True)
class StageResult:
    """``model`` after the stage; ``origin`` maps its paths to the float stage's.

    ``moved`` says that calls have changed their path: the graph is ``graph``, or, where that is
    None, must be found anew.
    """

    model: nn.Module
    origin: Callable[[str], str] = field(default=same_path)
    moved: bool = False
    notes: tuple[str, ...] = ()
    graph: Graph | None = None


class Flow(ABC):
    """One of torch's quantization systems, as stages that run torch's own calls."""

    name: ClassVar[str]
    title: ClassVar[str]
    stages: ClassVar[tuple[Stage, ...]]
    train_stage: ClassVar[str] = "train"
    int8_stage: ClassVar[str] = "convert"
    prepared_stage: ClassVar[str] = "insert"

    @property
    def stage_names(self) -> tuple[str, ...]:
        return tuple(stage.name for stage in self.stages)

    def stage(self, name: str) -> Stage:
        return self.stages[self.stage_names.index(name)]

    @abstractmethod
    def apply(self, stage: str, model: nn.Module, options: FlowOptions) -> StageResult:
        """Take ``model`` from the stage before to ``stage``, in place where torch can.

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
    memo: dict[int, Any] = {id(p): p for p in model.parameters()}
    return copy.deepcopy(model, memo)


def own_parameters(model: nn.Module) -> None:
    """Replace every parameter by a copy, keeping shared ones shared."""
    copies: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in copies:
                copies[id(parameter)] = copy.deepcopy(parameter)
            module._parameters[name] = copies[id(parameter)]
