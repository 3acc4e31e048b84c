"""What a flow is: stages, each one torch call on the session's own copy of the model.

A flow names its stages as it likes. What the rest of the package has to know of a stage is its
*role*: what is true of the model from it on.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import nn
from torch.ao.quantization import QConfig
from torch.ao.quantization.backend_config import BackendConfig

from qatexplorer.data import device_of
from qatexplorer.errors import InputError
from qatexplorer.flows.annotations import Annotation
from qatexplorer.flows.copying import copied
from qatexplorer.flows.custom import CustomConfig
from qatexplorer.flows.qconfig import QConfigPlan
from qatexplorer.forward.graph import Graph, Placement
from qatexplorer.quantizers.facts import learned_parameters

StubMode = Literal["none", "model", "layers"]
"""Who quantizes the float input: the model's own stubs; one ``QuantWrapper`` around the whole model
(or, where it takes more than one tensor, :class:`flows.stubs.InputStubs` with a stub per argument);
or ``add_quant_dequant`` around every layer that will be int8."""

Role = Literal[
    "float", "traced", "fused", "qconfig", "weights", "inserted", "trained", "reference", "int8"
]
"""What is true of the model from a stage on, in the order in which a flow comes to it.

``float``: as the user gave it. ``traced``: the program is a graph. ``fused``: modules are fused.
``qconfig``: every module knows how it will be quantized. ``weights``: weights have fake quants.
``inserted``: all fake quants are there. ``trained``: the user's loop runs on it. ``reference``: it
says what int8 must compute. ``int8``: it computes in int8.
"""
ROLES: tuple[Role, ...] = get_args(Role)


FlowKind = Literal["modules", "annotation", "layers"]
"""How a flow is asked for what it shall round.

``modules``: each module has a ``QConfig``, as in eager mode and FX. ``annotation``: a quantizer
writes on the operations of an exported graph. ``layers``: layers that a filter names are swapped.
"""


@dataclass(frozen=True)
class Stage:
    """One stop of a flow.

    Attributes:
        name: what scripts call it. title: what the page calls it.
        call: the torch call that leads to it; nowhere else is it written down.
        why: one sentence for the page.
        role: see :data:`Role`; several stages in a row may have the same one, but there is one
            ``float`` (the first), one ``trained`` and one ``int8`` stage (the last).
    """

    name: str
    title: str
    call: str
    why: str
    role: Role


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
        quantizer: name (``pt2e_quantizers.QUANTIZERS``) or object of torchao's ``Quantizer`` that
            annotates the graph; None is the flow's default.
        base_config: torchao's configuration (or one by type of layer) that the layers are trained
            for, see :func:`flows.torchao.check_base_config`; None is that flow's default.
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
    quantizer: Any = None
    base_config: Any = None


def same_path(path: str) -> str:
    """The default origin: every module stands where it stood in the float model."""
    return path


@dataclass(frozen=True)
class StageResult:
    """``model`` after the stage; ``origin`` maps its paths to the float stage's.

    ``moved`` says that calls have changed their path: the graph is ``graph``, or, where that is
    None, must be found anew. A flow that makes graphs itself gives one at each stage, and
    ``placed``: the fake quants that are nodes of it, by path. Where exporting has left of the
    module tree only what holds parameters, ``types`` has the class of each of the user's modules by
    path. ``annotations`` and ``groups`` are a quantizer's, see :mod:`flows.annotations`.
    """

    model: nn.Module
    origin: Callable[[str], str] = field(default=same_path)
    moved: bool = False
    notes: tuple[str, ...] = ()
    graph: Graph | None = None
    placed: Mapping[str, Placement] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    annotations: tuple[Annotation, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()


Seen = Callable[[str, StageResult], None]
"""Called with a stage that torch's call is passing through, while the call is going on."""


class Flow(ABC):
    """One of torch's quantization systems, as stages that run torch's own calls.

    Most stages are one call. Where one call of torch makes several stages, they stand together in
    ``calls``, and are seen while that call runs once.

    Attributes:
        offers_stubs, offers_fusion: whether FlowOptions.stubs and FlowOptions.fusion mean anything.
        offers_qconfig, offers_quantizer: who says how is rounded: qconfigs, or a PT2E quantizer.
        traces_with_fx: whether the model must be one that torch.fx can trace.
        quick_to_convert: whether a copy can be converted unasked while a user looks at the page.
        by_graph: whether torch quantizes the operations of a graph, not modules only.
        lowers_to_packed: the int8 model is packed for this CPU, and what is kept is the reference.
        runs_on_engine: whether int8 runs on one of torch's quantized engines.
        has_ledger: whether the fake quants' ledger and its questions mean anything.
        exports: whether the converted model can be written as safetensors and ONNX.
        calibrates: whether there are observers that must see data before converting.
        result: what the model of the last stage is called beside float and fake quant.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    stages: ClassVar[tuple[Stage, ...]]
    calls: ClassVar[tuple[tuple[str, ...], ...]] = ()
    offers_stubs: ClassVar[bool] = True
    offers_fusion: ClassVar[bool] = True
    offers_qconfig: ClassVar[bool] = True
    offers_quantizer: ClassVar[bool] = False
    by_graph: ClassVar[bool] = False
    traces_with_fx: ClassVar[bool] = False
    quick_to_convert: ClassVar[bool] = True
    lowers_to_packed: ClassVar[bool] = False
    runs_on_engine: ClassVar[bool] = True
    has_ledger: ClassVar[bool] = True
    exports: ClassVar[bool] = True
    calibrates: ClassVar[bool] = True
    result: ClassVar[str] = "int8"

    @classmethod
    def kind(cls) -> FlowKind:
        """See :data:`FlowKind`."""
        if cls.offers_qconfig:
            return "modules"
        return "annotation" if cls.offers_quantizer else "layers"

    @property
    def decided_by(self) -> str:
        """What says how a tensor is rounded, in words."""
        by: dict[FlowKind, str] = {
            "modules": "its qconfig",
            "annotation": "the quantizer (session.configure(quantizer=…))",
            "layers": "the base config (session.configure(base_config=…))",
        }
        return by[self.kind()]

    @property
    def stage_names(self) -> tuple[str, ...]:
        return tuple(stage.name for stage in self.stages)

    def stage(self, name: str) -> Stage:
        return self.stages[self.stage_names.index(name)]

    def stage_with(self, role: Role) -> Stage | None:
        """The last stage of that role, None if the flow has none."""
        return next((stage for stage in reversed(self.stages) if stage.role == role), None)

    def _name_with(self, role: Role) -> str:
        stage = self.stage_with(role)
        assert stage is not None  # register() has seen to it
        return stage.name

    @property
    def prepared_stage(self) -> str:
        """The stage with all fake quants in."""
        return self._name_with("inserted")

    @property
    def train_stage(self) -> str:
        return self._name_with("trained")

    @property
    def int8_stage(self) -> str:
        return self._name_with("int8")

    @property
    def converted_stages(self) -> tuple[str, ...]:
        """The stages made from a copy of the prepared model, the int8 stage the last of them."""
        return tuple(s.name for s in self.stages if s.role in ("reference", "int8"))

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
        the prepared model. ``seen`` is called with the stages on the way that the same call makes,
        and that what describes the result (graph, placements) is wanted; what it raises ends the
        call. The caller hands over a copy of its own. Raises what torch raises.
        """

    def described(self, model: nn.Module) -> StageResult:
        """``model``, at a stage of this flow, with what describes it apart from its modules."""
        return StageResult(model)

    def form(self, options: FlowOptions) -> str:
        """:attr:`result`, with the numbers that it holds where that word does not say them. May
        import what the flow is made of."""
        return self.result

    def cannot_leave_float(self, options: FlowOptions) -> str:
        """Why single modules cannot be left in float, in a sentence; ``""`` where they can."""
        return ""

    def unavailable(self) -> str:
        """Why this flow cannot run here, with what to install; ``""`` where it can."""
        return ""

    @classmethod
    def check(cls) -> None:
        """Raise InputError if the stages do not have the roles that every flow has."""
        roles = [stage.role for stage in cls.stages]
        once = all(roles.count(role) == 1 for role in ("float", "trained", "int8"))
        if not once or "inserted" not in roles or roles != sorted(roles, key=ROLES.index):
            raise InputError(
                f"the stages of flow {cls.name!r} have the roles {', '.join(roles)}.",
                why="Each flow has one float, one trained and one int8 stage and at least one that "
                f"is inserted, in the order {', '.join(ROLES)}.",
                fix="Give each Stage the role that is true of the model from it on.",
            )
        if len({stage.name for stage in cls.stages}) < len(roles):
            raise InputError(f"two stages of flow {cls.name!r} have the same name.")


def copy_sharing_parameters(model: nn.Module) -> nn.Module:
    """Deep copy of everything but the parameters, which stay the very same objects.

    Torch's stages up to ``convert`` never write to a parameter, so a copy for them needs the
    memory of the buffers only. Give it parameters of its own (:func:`own_parameters`) before
    training it or handing it out.
    """
    # A learned step size is one that an observer writes to.
    own = {id(p) for p in learned_parameters(model)}
    return copied(model, {id(p): p for p in model.parameters() if id(p) not in own})


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
