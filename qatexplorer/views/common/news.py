"""News: what a stage has done to this model, in one line, counted in the records of the stage."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from qatexplorer.flows.base import Role, Stage
from qatexplorer.shown import listed
from qatexplorer.snapshot.records import (
    FakeQuantSite,
    ModuleRecord,
    SiteKind,
    Snapshot,
    TensorInfo,
)
from qatexplorer.views.common.exported_news import exported_news, left_over_words
from qatexplorer.views.common.names import KINDS, count, has_qconfigs, number, stores_integers

_SHOWN = 3
_PARTS = (
    (re.compile(r"ConvTranspose\dd"), "transposed conv"),
    (re.compile(r"Conv\dd"), "conv"),
    (re.compile(r"BatchNorm\dd"), "bn"),
    (re.compile(r"ReLU6?"), "relu"),
    (re.compile(r"Linear"), "linear"),
)


def news_of(stages: Sequence[Stage], snapshots: Mapping[str, Snapshot]) -> dict[str, str]:
    """One sentence a stage reached, by its name.

    Args:
        stages: of the flow, in order; only their names and roles are looked at.
        snapshots: of the stages reached, by name.
    """
    known = [stage for stage in stages if stage.name in snapshots]
    return {
        stage.name: _News(
            snapshots[known[0].name],
            snapshots[known[index - 1].name] if index else None,
            snapshots[stage.name],
        ).sentence()
        for index, stage in enumerate(known)
    }


def layers(snapshot: Snapshot) -> tuple[ModuleRecord, ...]:
    """Modules that hold a weight themselves (a parameter of at least two dimensions), each object
    once. At a converted stage int8 modules hold none: their weights are packed."""
    found: dict[int, ModuleRecord] = {}
    for module in snapshot.modules:
        if any(t.parameter and len(t.shape) > 1 for t in module.tensors):
            found.setdefault(module.identity, module)
    return tuple(found.values())


def is_bare_observer(site: FakeQuantSite) -> bool:
    """Whether it only watches: an observer that stands where a fake quant belongs."""
    return bool(site.observer_class) and not site.observer_path


def shared_tensors(sites: Iterable[FakeQuantSite]) -> int:
    """Tensors that have no fake quant of their own: they use one that another tensor has too."""
    return sum(max(0, len(site.nodes) - 1) for site in sites)


@dataclass(frozen=True)
class _News:
    """``first`` is the float stage, ``before`` the stage before ``now``, None at the first."""

    first: Snapshot
    before: Snapshot | None
    now: Snapshot

    def sentence(self) -> str:
        tell: dict[Role, Callable[[], str]] = {
            "float": self._float,
            "traced": self._traced,
            "fused": self._fused,
            "qconfig": self._qconfig,
            "weights": self._weights,
            "inserted": self._inserted,
            "trained": self._trained,
            "reference": self._reference,
            "int8": self._int8,
        }
        return exported_news(self.before, self.now) or tell[self.now.role]()

    # -- before there are fake quants -----------------------------------------------------------

    def _float(self) -> str:
        found = layers(self.now)
        if not found:
            return f"no layer with a weight, {_parameters(self.now)}, nothing is quantized"
        kinds = _counted(Counter(layer.type_name for layer in found))
        return f"{kinds} with weights, {_parameters(self.now)}, nothing is quantized"

    def _traced(self) -> str:
        graph = self.now.graph
        calls = [n for n in graph.nodes if n.op.startswith("call")] if graph is not None else []
        modules = sum(node.op == "call_module" for node in calls)
        return (
            f"forward became a graph of {count(len(calls), 'operation')}: "
            f"{count(modules, 'call')} of modules, {len(calls) - modules:,} of functions or methods"
        )

    def _fused(self) -> str:
        groups = Counter(self._group(module) for module in self._new_groups())
        if not groups:
            return "nothing was fused"
        several = sum(groups.values()) > 1
        became = "groups became one module each" if several else "group became one module"
        return f"{_counted(groups)} {became}"

    def _new_groups(self) -> list[ModuleRecord]:
        earlier = {m.path: m for m in self.before.modules} if self.before is not None else {}
        found: dict[int, ModuleRecord] = {}
        for module in self.now.modules:
            old = earlier.get(module.path)
            if module.fused and not (old is not None and old.fused):
                found.setdefault(module.identity, module)
        return list(found.values())

    def _group(self, module: ModuleRecord) -> str:
        parts = [self.now.by_path[path].type_name for path in module.children]
        return "-".join(_part(part) for part in parts) or module.type_name

    def _qconfig(self) -> str:
        found = layers(self.now)
        without = [layer for layer in found if layer.qconfig is None]
        stubs = _of_type(self.now, "QuantStub") - _of_type(self.first, "QuantStub")
        put_in = f"; {count(stubs, 'QuantStub')} put in" if stubs > 0 else ""
        if not found:
            return f"no layer with a weight to give a qconfig to{put_in}"
        have = "has" if len(found) - len(without) == 1 else "have"
        text = f"{len(found) - len(without):,} of {count(len(found), 'layer')} {have} a qconfig"
        if without:
            text += f"; {_names(without)} {'has' if len(without) == 1 else 'have'} none"
        return text + put_in

    # -- with fake quants -----------------------------------------------------------------------

    def _weights(self) -> str:
        sites = [site for site in self.now.sites if site.kind == "weight"]
        rounding = [site for site in sites if not is_bare_observer(site)]
        if not sites:
            return "no layer got a fake quant for its weight"
        if not rounding:
            return f"{count(len(sites), 'weight')} only observed, none is rounded"
        share = _share(weight_elements(self.now, rounding), self.now.modules[0].param_count)
        one = len(rounding) == 1
        rounds = "layer rounds its weight" if one else "layers round their weights"
        return f"{len(rounding):,} {rounds} to {_grid(rounding)} in forward: {share}"

    def _inserted(self) -> str:
        running = [site for site in self.now.sites if site.calls_per_forward != 0]
        rounding = [site for site in running if not is_bare_observer(site)]
        kinds = tensors_by_kind(self.now, rounding)
        parts = [count(kinds[kind], kind) for kind in KINDS if kinds[kind]]
        several = sum(kinds.values()) > 1
        text = f"{listed(parts, None)} will be rounded" if parts else "nothing will be rounded"
        shared, bare = shared_tensors(rounding), len(running) - len(rounding)
        if shared:
            verb = "shares" if shared == 1 else "share"
            text += f"; {shared:,} of these {verb} a fake quant with another" * several
        if bare:
            text += f"; {count(bare, 'tensor')} only observed"
        idle = len(self.now.sites) - len(running)
        if idle:
            text += f"; {count(idle, 'fake quant')} {'does' if idle == 1 else 'do'} not run"
        return text + self._stays_float()

    def _stays_float(self) -> str:
        found = [layer for layer in layers(self.now) if layer.stays_float]
        if not found:
            return ""
        stay = "stays" if len(found) == 1 else "stay"
        no_qconfig = has_qconfigs(self.now) and all(one.qconfig is None for one in found)
        return f"; {_names(found)} {stay} float{': no qconfig' * no_qconfig}"

    def _trained(self) -> str:
        sites = self.now.sites
        if not sites:
            return "no fake quant is in the model: it trains in float"
        asking = [site for site in sites if site.seen not in ("fixed", "derived", "dynamic")]
        seen = sum(site.seen == "all" for site in asking)
        noun = "observer" if all(map(is_bare_observer, sites)) else "fake quant"
        if not any(site.seen in ("all", "partly") for site in asking) and asking:
            text = f"no {noun} has seen data yet"
        elif seen == len(asking):
            text = (
                f"all {count(len(asking), noun)} have seen data"
                if asking
                else "each tensor that comes gives its own range"
                if any(site.seen == "dynamic" for site in sites)
                else "all ranges are fixed"
            )
        else:
            text = f"{seen:,} of {count(len(asking), noun)} have seen data"
        fixed = sum(not site.observer_enabled for site in asking)
        off = sum(not site.fake_quant_enabled and not is_bare_observer(site) for site in sites)
        text += f"; the range of {fixed:,} is frozen" if fixed else ""
        return text + (f"; {off:,} do not round" if off else "")

    # -- converted ------------------------------------------------------------------------------

    def _reference(self) -> str:
        found = {m.identity for m in self.now.modules if m.compute == "reference"}
        graph = self.now.graph
        targets = [node.target for node in graph.nodes] if graph is not None else []
        quantize = sum("quantize_per" in target for target in targets)
        one = len(found) == 1
        does = (
            "holds its weight on the int8 grid and computes"
            if one
            else ("hold their weights on the int8 grid and compute")
        )
        return (
            f"{count(len(found), 'layer')} {does} in float; "
            f"{count(quantize, 'tensor')} quantized between them"
        )

    def _int8(self) -> str:
        return self._int8_layers() + left_over_words(self.now)

    def _int8_layers(self) -> str:
        """Layers of the float model, by what stands in their place now."""
        places = {m.origin or m.path: m for m in self.now.modules}
        mine = [(layer, places.get(layer.path)) for layer in layers(self.first)]
        int8 = [layer for layer, now in mine if now is not None and now.state == "int8"]
        left = [layer for layer, now in mine if now is not None and now.stays_float]
        total = len(int8) + len(left)
        if not total:
            kernels = len({m.identity for m in self.now.modules if m.compute == "int8"})
            return f"{count(kernels, 'int8 module')}, no layer with a weight among them"
        if stores_integers(self.now):
            text = f"{len(int8):,} of {count(total, 'layer')} store integers"
            if left:
                text += f"; {_names(left)} {'stays' if len(left) == 1 else 'stay'} float"
            return text
        if not left:
            return (
                "the one layer computes in int8"
                if total == 1
                else f"all {total:,} layers compute in int8"
            )
        stay = "stays" if len(left) == 1 else "stay"
        if not int8:
            return f"no layer computes in int8; {_names(left)} {stay} float"
        return f"int8 for {len(int8):,} of {count(total, 'layer')}; {_names(left)} {stay} float"


def tensors_by_kind(snapshot: Snapshot, sites: Iterable[FakeQuantSite]) -> Counter[SiteKind]:
    """How many tensors of each kind these fake quants round. One that stands at several places of
    an FX graph rounds a tensor at each; in eager mode each is counted once."""
    kinds: Counter[SiteKind] = Counter()
    ops = {node.id: node.op for node in snapshot.graph.nodes} if snapshot.graph is not None else {}
    of_op: dict[str, SiteKind] = {"placeholder": "input", "get_attr": "weight"}
    for site in sites:
        if len(site.nodes) > 1:
            kinds.update(of_op.get(ops.get(node, ""), "output") for node in site.nodes)
        else:
            kinds[site.kind] += 1
    return kinds


def _grid(sites: Iterable[FakeQuantSite]) -> str:
    """``"int8"`` where all codes of 8 bits are used (or all but one), else the number of codes."""
    levels = sorted({site.quant_max - site.quant_min + 1 for site in sites})
    if levels[0] >= 255 and levels[-1] <= 256:
        return "int8"
    span = f"{levels[0]:,}" if len(levels) == 1 else f"{levels[0]:,} to {levels[-1]:,}"
    return f"{span} codes"


def weight_elements(snapshot: Snapshot, sites: Iterable[FakeQuantSite]) -> int:
    """Number of parameter elements that these weight fake quants round, shared ones once."""
    known: dict[int | str, int] = {}
    nodes = {node.id: node for node in snapshot.graph.nodes} if snapshot.graph is not None else {}
    for site in sites:
        owner = snapshot.by_path.get(site.owner)
        weight = next((t for t in owner.tensors if t.name == "weight"), None) if owner else None
        if site.nodes and site.nodes[0] in nodes:  # of a function in an FX graph
            tensor = _tensor_at(snapshot, nodes[site.nodes[0]].target)
            weight = tensor or weight
        if weight is not None:
            known[weight.identity] = math.prod(weight.shape)
        elif site.tensor_shape is not None:
            known[site.path] = math.prod(site.tensor_shape)
    return sum(known.values())


def _tensor_at(snapshot: Snapshot, name: str) -> TensorInfo | None:
    path, _, leaf = name.rpartition(".")
    owner = snapshot.by_path.get(path)
    return next((t for t in owner.tensors if t.name == leaf), None) if owner else None


def _of_type(snapshot: Snapshot, name: str) -> int:
    return len({m.identity for m in snapshot.modules if m.type_name == name})


def _part(type_name: str) -> str:
    return next((word for form, word in _PARTS if form.fullmatch(type_name)), type_name)


def _counted(kinds: Counter[str]) -> str:
    """``"53 Conv2d and 1 Linear"``, the most frequent first."""
    shown = kinds.most_common(_SHOWN)
    parts = [f"{n:,} {kind}" for kind, n in shown]
    rest = sum(kinds.values()) - sum(n for _, n in shown)
    return listed(parts + [f"{rest:,} other{'s' * (rest > 1)}"] * bool(rest), None)


def _names(modules: Sequence[ModuleRecord]) -> str:
    """Two by name, more by number."""
    names = [module.path or "the model itself" for module in modules]
    return listed(names, None) if len(names) <= 2 else f"{len(names):,} layers ({names[0]} first)"


def _parameters(snapshot: Snapshot) -> str:
    total = snapshot.modules[0].param_count if snapshot.modules else 0
    return f"{number(total / 1e6, 3)} M parameters" if total >= 1e6 else count(total, "parameter")


def _share(some: int, total: int) -> str:
    """``"24.1 of 25.6 M parameters"``, ``"1,090 of 1,210 parameters"``."""
    if total < 1e6:
        return f"{some:,} of {count(total, 'parameter')}"
    return f"{some / 1e6:.1f} of {total / 1e6:.1f} M parameters"
