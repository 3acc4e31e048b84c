"""The immutable picture of a model after a stage.

Nothing in here holds a tensor, a module or a hook of the model: every field is text, a number,
or a tuple of those, so a snapshot can outlive the model, be compared, pickled and sent to a
browser.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

from qatexplorer.flows.annotations import Annotation
from qatexplorer.flows.base import ROLES, Role
from qatexplorer.forward.graph import (
    Graph,
    GraphEdge,
    GraphNode,
    NodeOp,
    Placement,
)
from qatexplorer.quantizers.types import Compute, Mechanism, Seen, SiteKind, State
from qatexplorer.shown import Shown, at_most
from qatexplorer.tables import choose

__all__ = [
    "FakeQuantSite",
    "Graph",
    "GraphEdge",
    "GraphNode",
    "HookRecord",
    "Inside",
    "Mechanism",
    "ModuleRecord",
    "NodeOp",
    "Placement",
    "QConfigRecord",
    "SiteKind",
    "SitePlace",
    "Snapshot",
    "TensorInfo",
]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A parameter or buffer, described. ``name`` is relative to the module that holds it;
    ``identity`` is a number shared by all names of the very same tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    device: str
    requires_grad: bool = False
    parameter: bool = False
    identity: int = 0


@dataclass(frozen=True, slots=True)
class QConfigRecord:
    """The two factories of a ``QConfig``, spelled out for a user (``repr`` is unreadable)."""

    activation: str
    weight: str


@dataclass(frozen=True, slots=True)
class HookRecord:
    """One hook registered on a module, in call order within its kind.

    ``kind`` is ``"forward_pre"``, ``"forward"`` or ``"backward"``; ``name`` the qualified name of
    the function; ``observer`` is True for torch's own ``_observer_forward_hook`` and pre-hook.
    """

    kind: str
    name: str
    observer: bool


@dataclass(frozen=True, slots=True)
class Inside:
    """What computes in a module, itself and all below it, and how much of that in int8.

    ``layers`` hold parameters; ``others`` are modules and operations without. The second of each
    pair counts those that compute in int8.
    """

    layers: int = 0
    layers_int8: int = 0
    others: int = 0
    others_int8: int = 0

    @property
    def counted(self) -> tuple[int, int]:
        """(int8, all) of the layers; of the others where no layer is inside."""
        if self.layers:
            return self.layers_int8, self.layers
        return self.others_int8, self.others

    @property
    def state(self) -> State:
        """``"int8"`` if all that holds parameters is int8, whatever else is inside."""
        int8, total = self.counted
        if not total:
            return ""
        return "int8" if int8 == total else "mixed" if int8 else "float"


@dataclass(frozen=True, slots=True)
class ModuleRecord:
    """One module of the model at one stage.

    Attributes:
        path: dotted path, ``""`` for the root.
        type_name: class name, e.g. ``"Conv2d"``.
        qualified_type: module and class, e.g. ``"torch.ao.nn.qat.modules.conv.Conv2d"``.
        origin: path of the same place in the float stage (differs from ``path`` only under a
            ``QuantWrapper``); ``""`` and ``path != ""`` for a module that the float stage lacks.
        parent: path of the parent, None for the root.
        children: paths of the direct children, in order.
        tensors: the module's own parameters and buffers (not those of children).
        param_count: number of parameter elements in this module and below, shared ones once.
        qconfig: what ``module.qconfig`` says, None where there is none or it is None.
        training: the training flag.
        hooks: forward, pre-forward and backward hooks.
        extra_repr: torch's own one-line description of the settings.
        calls: how often it ran in one forward of the example input, None if not measured.
        identity: number shared by all paths that name the very same module object.
        compute: what it does as it is now, see :data:`~qatexplorer.quantizers.types.Compute`.
        state: in what it computes in the int8 model that this stage leads to (at a converted
            stage: in the model itself); of a container, that of what is inside, see
            :class:`Inside`.
        stays_float: it computes something of its own, and does so in float for good.
        fused: it is one of torch's modules that stand for several, such as ``ConvReLU2d``.
        inside: what computes in it; nothing before the fake quants are in.
        own_params: number of parameter elements that it holds itself, those left out that a module
            before it holds too.
        own_state: in what its own parameters take part in computing; ``""`` if it has none, or it
            is not known.
    """

    path: str
    type_name: str
    qualified_type: str
    origin: str
    parent: str | None
    children: tuple[str, ...] = ()
    tensors: tuple[TensorInfo, ...] = ()
    param_count: int = 0
    qconfig: QConfigRecord | None = None
    training: bool = True
    hooks: tuple[HookRecord, ...] = ()
    extra_repr: str = ""
    calls: int | None = None
    identity: int = 0
    compute: Compute = "layer"
    state: State = ""
    stays_float: bool = False
    fused: bool = False
    inside: Inside = Inside()
    own_params: int = 0
    own_state: State = ""

    @property
    def name(self) -> str:
        """Last part of the path (``""`` for the root)."""
        return self.path.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class SitePlace:
    """One place at which a fake quant stands: the name it has there, the module that it belongs to
    (as in :class:`FakeQuantSite`), and the graph nodes whose output it rounds there."""

    path: str
    owner: str
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FakeQuantSite:
    """One fake quant (or bare observer) in the model, with what it quantizes and who made it.

    Attributes:
        path: path of the fake quant module itself, e.g. ``"conv1.weight_fake_quant"``.
        kind: ``"weight"``, ``"input"`` (output of a ``QuantStub``) or ``"output"``.
        owner: path of the module that holds it; ``owner_type`` its class name.
        stage: stage in which it first appeared; ``call`` the torch call that made it.
        mechanism: how it runs, see :data:`Mechanism`.
        fake_quant_class: class name, e.g. ``"FusedMovingAvgObsFakeQuantize"``.
        observer_class: class name of the observer inside (``""`` if none).
        observer_path: path of that inner observer (``""`` if none).
        observer_runs: ``"module"`` if the inner observer's own ``forward`` is called,
            ``"fused kernel"`` if the fused C++ op updates its buffers, ``"never"``; ``""`` if that
            was not measured.
        dtype: quantized dtype, e.g. ``"torch.quint8"``; ``quant_min``/``quant_max`` the codes used.
        qscheme: e.g. ``"torch.per_channel_symmetric"``; ``ch_axis`` None if per tensor.
        scale, zero_point: as stored in the module's buffers, one entry per channel or one.
        min_val, max_val: the observer's range, empty before it has seen data; a channel that has
            seen none yet has (inf, -inf).
        seen: what its observer has seen: nothing, all, of its channels some only (partly), or it
            needs no data (fixed, or derived from other fake quants), or takes the range of each
            tensor that comes (dynamic).
        observer_enabled, fake_quant_enabled: the flags (True where a bare observer has none).
        calls_per_forward: how often it ran in one forward of the example input, None if unknown.
        aliases: other paths that name the very same object.
        state_dict_keys: keys this site contributes to ``model.state_dict()``.
        tensor_shape: shape of the tensor it quantizes, None if it never ran.
        nodes: in an FX graph, ids of the graph nodes whose output it quantizes (it is a node of
            its own in torch's graph, and left out of :class:`Graph`). ``owner`` is then the module
            that the first of them calls, or the one whose forward makes the operation.
        shared_by: ids of the nodes for whose sake torch made several observers one object.
        places: all places at which it stands, one for each of its names; in an FX graph each name
            is a node of torch's own.
        blocks: what has a scale of its own where that is no channel: ``"group"``, ``"row"``,
            ``"token"`` or ``"tensor"`` (torchao); else ``""``. The scales of a weight are then
            those of its values now, row by row; those of other tensors come and go with them.
        block_size: number of values that share a scale, as counted on the weight that it rounds;
            None where that is not known.
        group_asked: size of the groups that its config asks for, None where it asks for none.
        parameter: of kind ``"weight"``, the name of the parameter that it rounds (``"bias"``).
    """

    path: str
    kind: SiteKind
    owner: str
    owner_type: str
    stage: str
    call: str
    mechanism: Mechanism
    fake_quant_class: str
    observer_class: str
    observer_path: str
    observer_runs: str
    dtype: str
    quant_min: int
    quant_max: int
    qscheme: str
    ch_axis: int | None
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    min_val: tuple[float, ...]
    max_val: tuple[float, ...]
    observer_enabled: bool
    fake_quant_enabled: bool
    calls_per_forward: int | None
    aliases: tuple[str, ...] = ()
    state_dict_keys: tuple[str, ...] = ()
    tensor_shape: tuple[int, ...] | None = None
    nodes: tuple[str, ...] = ()
    shared_by: tuple[str, ...] = ()
    seen: Seen = "nothing"
    places: tuple[SitePlace, ...] = ()
    blocks: str = ""
    block_size: int | None = None
    group_asked: int | None = None
    parameter: str = "weight"

    @property
    def per_channel(self) -> bool:
        return self.ch_axis is not None

    def place(self, path: str) -> SitePlace:
        """Where it stands under the name ``path``, one of its own."""
        found = next((place for place in self.places if place.path == path), None)
        return found or SitePlace(path, self.owner, self.nodes)


@dataclass(frozen=True, repr=False)
class Snapshot(Shown):
    """What the model is after ``stage`` of ``flow``.

    ``role`` is the stage's (:data:`~qatexplorer.flows.base.Role`), ``call`` the torch call that
    led to it, ``""`` for none. ``warnings`` are torch's own words during the stage, deduplicated;
    ``notes`` ours. ``int8_nodes`` are the ids of the graph's operations whose result is an int8
    tensor in the int8 model that the stage leads to (at a converted stage: in the model itself).
    ``annotations`` are what a quantizer of PT2E has written on the graph's nodes, and ``groups``
    the edges and nodes that share one fake quant, at the stages from "annotate" to "insert".
    """

    flow: str
    stage: str
    modules: tuple[ModuleRecord, ...]
    sites: tuple[FakeQuantSite, ...]
    graph: Graph | None
    training: bool = True
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    role: Role = "float"
    call: str = ""
    int8_nodes: frozenset[str] = frozenset()
    annotations: tuple[Annotation, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()

    def __getstate__(self) -> dict[str, object]:
        # The tables below are made again when asked for, and a mapping proxy cannot be pickled.
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __repr__(self) -> str:
        root = self.modules[0] if self.modules else None
        name, params = (root.type_name, root.param_count) if root is not None else ("nothing", 0)
        kinds = Counter((site.kind, site.fake_quant_class) for site in self.sites)
        graph = "no graph"
        if self.graph is not None:
            graph = f"graph of {len(self.graph.nodes):,} operations ({self.graph.origin})"
        lines = [
            f"Snapshot of {name} at stage {self.stage!r} of flow {self.flow}",
            f"{len(self.modules):,} modules, {params:,} parameters, {graph}",
            *(f"{n:,} × {kind} fake quant ({made})" for (kind, made), n in kinds.most_common(8)),
            *(f"note: {note}" for note in self.notes[:4]),
        ]
        return at_most(lines)

    def to_pandas(self, records: Literal["fake_quants", "modules"] = "fake_quants") -> Any:
        """A ``pandas.DataFrame`` of the fake quants and bare observers (or modules), a row each.

        Columns are the fields of :class:`FakeQuantSite` (or :class:`ModuleRecord`, its qconfig as
        ``qconfig.activation`` and ``qconfig.weight``). Raises InputError for another choice, and
        if pandas is not installed.
        """
        return choose(
            records,
            {
                "fake_quants": (FakeQuantSite, self.sites),
                "modules": (ModuleRecord, self.modules),
            },
        )

    def is_from(self, role: Role) -> bool:
        """Whether the stage has that role, or one that comes after it in a flow."""
        return ROLES.index(self.role) >= ROLES.index(role)

    @property
    def exported(self) -> bool:
        """Whether the model of this stage is a graph that ``torch.export`` made."""
        return self.graph is not None and self.graph.exported

    @cached_property
    def by_path(self) -> Mapping[str, ModuleRecord]:
        """Module records by path."""
        return MappingProxyType({m.path: m for m in self.modules})

    @cached_property
    def site_by_path(self) -> Mapping[str, FakeQuantSite]:
        """Fake quant sites by the path of the fake quant, aliases included."""
        table = {s.path: s for s in self.sites}
        for site in self.sites:
            for alias in site.aliases:
                table.setdefault(alias, site)
        return MappingProxyType(table)

    def module(self, path: str) -> ModuleRecord:
        """The record at ``path``. Raises KeyError with the nearest paths if there is none."""
        try:
            return self.by_path[path]
        except KeyError:
            import difflib

            near = difflib.get_close_matches(path, list(self.by_path), n=3, cutoff=0.4)
            hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
            raise KeyError(f"no module {path!r} at stage {self.stage!r}{hint}") from None

    def sites_of(self, owner: str) -> tuple[FakeQuantSite, ...]:
        """The fake quants that module ``owner`` holds."""
        return tuple(s for s in self.sites if s.owner == owner)
