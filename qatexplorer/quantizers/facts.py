"""What is true of one fake quant: the one place where every room asks.

A fake quant has a *kind* (what it quantizes), an *owner* (the module that holds it), a *grid*, two
flags, an observer that runs or does not, and has seen data or has not. All of it is read off the
object and off what a forward did, nothing off the name of its class.

Fake quants come in families: those of ``torch.ao``, those that torchao's PT2E flow inserts, and
those of torchao's QAT. They differ in how they are recognized, read and switched, and
:class:`Family` is all that knows it: a further one is a further entry of :data:`FAMILIES`.
"""

from __future__ import annotations

import sys
import warnings
import weakref
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.ao.quantization import (
    FakeQuantizeBase,
    FusedMovingAvgObsFakeQuantize,
    ObserverBase,
    QuantStub,
)
from torch.ao.quantization._learnable_fake_quantize import _LearnableFakeQuantize

from qatexplorer.quantizers.torchao_grids import (
    blocks_of,
    is_torchao,
    scheme_of,
    stored_blocks,
)
from qatexplorer.quantizers.types import Seen, SiteKind


@dataclass(frozen=True, slots=True)
class Flags:
    """Whether its observer follows the data, and whether it rounds. A bare observer is always on,
    and rounds nothing."""

    observer: bool
    fake_quant: bool


class Family:
    """How the fake quants of one library are recognized (by their type alone), read and switched;
    this one is ``torch.ao``'s.

    The flags are the module's own ``observer_enabled`` and ``fake_quant_enabled``, tensors of one
    element, since a compiled or traced model reads them too. A family whose flags are no tensors
    gives None for them in :meth:`flag_buffers` and says in :meth:`flags` and :meth:`switch` how
    they are read and set.
    """

    name = "torch.ao"

    def is_fake_quant(self, module: nn.Module) -> bool:
        return isinstance(module, FakeQuantizeBase)

    def is_observer(self, module: nn.Module) -> bool:
        return isinstance(module, ObserverBase)

    def observer(self, quantizer: nn.Module) -> nn.Module | None:
        """The observer inside a fake quant, None for a bare observer."""
        inner = getattr(quantizer, "activation_post_process", None)
        return inner if isinstance(inner, nn.Module) else None

    def range_buffers(self, quantizer: nn.Module) -> tuple[Tensor, Tensor] | None:
        """(min, max) that the observer holds, its own tensors; None if it holds no range."""
        module_with_range: Any = self.observer(quantizer) or quantizer
        low, high = (
            getattr(module_with_range, "min_val", None),
            getattr(module_with_range, "max_val", None),
        )
        return (low, high) if isinstance(low, Tensor) and isinstance(high, Tensor) else None

    def flag_buffers(self, quantizer: nn.Module) -> tuple[Tensor | None, Tensor | None]:
        """(observer_enabled, fake_quant_enabled) as the tensors that they are, None for none."""
        found = (getattr(quantizer, n, None) for n in ("observer_enabled", "fake_quant_enabled"))
        observer, fake_quant = (f if isinstance(f, Tensor) else None for f in found)
        return observer, fake_quant

    def flags(self, quantizer: nn.Module) -> Flags:
        """Whether its observer follows the data, and whether it rounds."""
        observer, fake_quant = self.flag_buffers(quantizer)
        rounds = fake_quant is None or bool(fake_quant.reshape(-1)[0])
        return Flags(
            observer is None or bool(observer.reshape(-1)[0]),
            rounds and self.is_fake_quant(quantizer),
        )

    def switch(self, quantizer: nn.Module, observer: bool | None, fake_quant: bool | None) -> None:
        """Turn observer and rounding on or off, None to leave one as it is."""
        buffers = self.flag_buffers(quantizer)
        for flag, on in zip(buffers, (observer, fake_quant), strict=True):
            if flag is not None and on is not None:
                flag.fill_(int(on))

    def without_range(self, quantizer: nn.Module) -> Seen:
        """What to say of one that holds no range: the operation that it serves has fixed it."""
        return "fixed"

    def kernel_observes(self, quantizer: nn.Module) -> bool:
        """Whether torch's fused kernel, and no more than that, is its forward: whether it observes
        then hangs on its flag alone."""
        forward = FusedMovingAvgObsFakeQuantize.forward
        return type(quantizer).forward is forward and "forward" not in vars(quantizer)


class LearnedFamily(Family):
    """``_LearnableFakeQuantize``, whose scale and zero point are parameters. Its observer has a
    flag of another name; the one that it inherits is never read."""

    name = "torch.ao, learned step size"

    def is_fake_quant(self, module: nn.Module) -> bool:
        return isinstance(module, _LearnableFakeQuantize)

    def is_observer(self, module: nn.Module) -> bool:
        return False

    def flag_buffers(self, quantizer: nn.Module) -> tuple[Tensor | None, Tensor | None]:
        site: Any = quantizer
        return site.static_enabled, site.fake_quant_enabled


class Pt2eFamily(Family):
    """torchao's PT2E flow has classes of its own, made after torch's: the same attributes under
    other types. Where torchao was never imported there are none."""

    name = "torchao, PT2E"

    def is_fake_quant(self, module: nn.Module) -> bool:
        return self._is("fake_quantize", "FakeQuantizeBase", module)

    def is_observer(self, module: nn.Module) -> bool:
        return self._is("observer", "ObserverBase", module) or self._is(
            "observer", "AffineQuantizedObserverBase", module
        )

    def without_range(self, quantizer: nn.Module) -> Seen:
        return "derived" if derived_from(quantizer) else "fixed"

    def kernel_observes(self, quantizer: nn.Module) -> bool:
        fused = self._class("fake_quantize", "FusedMovingAvgObsFakeQuantize")
        return (
            fused is not None
            and type(quantizer).forward is fused.forward
            and "forward" not in vars(quantizer)
        )

    def _is(self, module_name: str, class_name: str, module: nn.Module) -> bool:
        kind = self._class(module_name, class_name)
        return kind is not None and isinstance(module, kind)

    def _class(self, module_name: str, class_name: str) -> Any:
        loaded = sys.modules.get(f"torchao.quantization.pt2e.{module_name}")
        return getattr(loaded, class_name, None)


class TorchaoQatFamily(Family):
    """``torchao.quantization.qat``: no observer, no buffer, one switch that is a plain attribute,
    and a scale that most of them make anew of each tensor, block by block
    (:mod:`~qatexplorer.quantizers.torchao_grids`)."""

    name = "torchao, QAT"

    def is_fake_quant(self, module: nn.Module) -> bool:
        return is_torchao(module)

    def is_observer(self, module: nn.Module) -> bool:
        return False

    def observer(self, quantizer: nn.Module) -> nn.Module | None:
        return None

    def range_buffers(self, quantizer: nn.Module) -> tuple[Tensor, Tensor] | None:
        return None

    def flag_buffers(self, quantizer: nn.Module) -> tuple[Tensor | None, Tensor | None]:
        return None, None

    def flags(self, quantizer: nn.Module) -> Flags:
        site: Any = quantizer
        return Flags(False, bool(site.enabled))

    def switch(self, quantizer: nn.Module, observer: bool | None, fake_quant: bool | None) -> None:
        site: Any = quantizer
        if fake_quant is not None:
            site.enabled = bool(fake_quant)

    def without_range(self, quantizer: nn.Module) -> Seen:
        if scheme_of(quantizer).dynamic:
            return "dynamic"
        return "nothing" if stored_blocks(quantizer) is None else "all"

    def kernel_observes(self, quantizer: nn.Module) -> bool:
        return False


TORCH_AO = Family()
LEARNED = LearnedFamily()
TORCHAO_QAT = TorchaoQatFamily()
PT2E = Pt2eFamily()
FAMILIES: list[Family] = [LEARNED, TORCH_AO, PT2E, TORCHAO_QAT]
"""Asked in order; a flow whose library has fake quants of its own adds the one that knows them."""


class _Known:
    """What the families say of each type, as :data:`FAMILIES` are now: a model has few types and
    many modules, which are asked at every stage and in every comparison."""

    def __init__(self) -> None:
        self._families: list[Family] = []
        self._found: weakref.WeakKeyDictionary[type, tuple[Family | None, bool]] = (
            weakref.WeakKeyDictionary()  # each FX graph has a type of its own
        )

    def of(self, module: nn.Module) -> tuple[Family | None, bool]:
        """Its family, and whether it is a fake quant of any."""
        if self._families != FAMILIES:
            self._families = [*FAMILIES]
            self._found.clear()
        found = self._found.get(type(module))
        if found is None:
            fake = [family for family in FAMILIES if family.is_fake_quant(module)]
            asked = (f for f in FAMILIES if f in fake or f.is_observer(module))
            found = self._found[type(module)] = next(asked, None), len(fake) > 0
        return found


_KNOWN = _Known()


def family_of(module: nn.Module) -> Family | None:
    """The family that ``module`` is a fake quant or observer of, None if it is neither."""
    return _KNOWN.of(module)[0]


# -- which modules they are ------------------------------------------------------------------------


def is_quantizer(module: nn.Module) -> bool:
    """Whether ``module`` is a fake quant or an observer."""
    return family_of(module) is not None


def is_fake_quant(module: nn.Module) -> bool:
    """Whether ``module`` rounds what passes, or would if its flag were on."""
    return _KNOWN.of(module)[1]


def observer_of(quantizer: nn.Module) -> nn.Module | None:
    """The observer inside a fake quant, else None."""
    return (family_of(quantizer) or TORCH_AO).observer(quantizer)


def find_quantizers(model: nn.Module) -> dict[str, nn.Module]:
    """Fake quants and bare observers by path, aliases too; not observers in a fake quant."""
    found: dict[str, nn.Module] = {}
    inner: set[int] = set()
    for path, module in model.named_modules(remove_duplicate=False):
        family = family_of(module)
        if family is None:
            continue
        found[path] = module
        observer = family.observer(module)
        if observer is not None:
            inner.add(id(observer))
    return {path: module for path, module in found.items() if id(module) not in inner}


def fake_quants(model: nn.Module) -> dict[str, nn.Module]:
    """Every fake quant once, by its first path; observers are not listed."""
    return {path: module for path, module in model.named_modules() if is_fake_quant(module)}


# -- what it quantizes -----------------------------------------------------------------------------


def kind_of(path: str, owner: nn.Module | None, fed: str = "") -> SiteKind:
    """What the fake quant at ``path`` quantizes.

    ``fed`` is what a forward gave it, as far as that is known: ``"param"`` (a parameter, or what is
    made of nothing but parameters), ``"input"`` (the model's own input) or ``""``. Where it is not
    known the place tells: ``weight_fake_quant`` is the name by which torch's QAT modules call
    theirs, and a ``QuantStub`` hands on the model's (or an island's) input. What torchao's layers
    call ``activation_fake_quantizer`` rounds their own input.
    """
    name = path.rpartition(".")[2]
    if fed == "param" or "weight" in name:
        return "weight"
    if name == "activation_fake_quantizer":
        return "input"
    return "input" if fed == "input" or isinstance(owner, QuantStub) else "output"


def kind_of_node(source: fx.Node, constant: Collection[fx.Node] = ()) -> SiteKind:
    """The same for one that is a node of an FX graph behind ``source``; ``constant`` are the nodes
    that are made of nothing but parameters (:func:`constant_nodes`)."""
    if source.op == "placeholder":
        return "input"
    return "weight" if source.op == "get_attr" or source in constant else "output"


def constant_nodes(graph: fx.Graph) -> set[fx.Node]:
    """The nodes of ``graph`` that are made of nothing but parameters and buffers."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        given = node.all_input_nodes
        made = node.op not in ("placeholder", "output") and bool(given)
        if node.op == "get_attr" or (made and found.issuperset(given)):
            found.add(node)
    return found


def kinds_of(model: nn.Module) -> dict[str, SiteKind]:
    """Kind of every fake quant and bare observer by path, from the structure of the model alone:
    the graph where it is an FX graph, else the place."""
    named = dict(model.named_modules(remove_duplicate=False))
    found = {
        path: kind_of(path, named.get(path.rpartition(".")[0])) for path in find_quantizers(model)
    }
    if not isinstance(model, fx.GraphModule):
        return found
    constant = constant_nodes(model.graph)
    for node in model.graph.nodes:
        if node.op == "call_module" and str(node.target) in found and node.all_input_nodes:
            source = node.all_input_nodes[0]
            while source.op == "call_module" and str(source.target) in found:
                source = source.all_input_nodes[0]
            found[str(node.target)] = kind_of_node(source, constant)
    return found


# -- what it has seen ------------------------------------------------------------------------------


def untouched(low: Any, high: Any) -> Any:
    """Where a range is as torch makes it before any data (+inf and -inf), element by element.

    A range spoiled by NaN has seen data. Takes tensors, arrays or numbers.
    """
    return low > high


def seen_data(quantizer: nn.Module) -> Seen:
    """What its observer has seen, see :data:`~.types.Seen`. An observer per channel has seen data
    when every one of its channels has."""
    family = family_of(quantizer) or TORCH_AO
    ends = family.range_buffers(quantizer)
    if ends is None:
        return family.without_range(quantizer)
    low, high = ends
    if not low.numel() or not high.numel():
        return "nothing"
    empty = int(untouched(low, high).sum())
    return "all" if not empty else "nothing" if empty == low.numel() else "partly"


def derived_from(quantizer: nn.Module) -> tuple[nn.Module, ...]:
    """The fake quants that its scale and zero point are computed of (``DerivedQuantizationSpec`` of
    PT2E); it rounds nothing before it is converted. Empty for one with a range of its own."""
    others = getattr(quantizer, "obs_or_fqs", ())
    return tuple(others) if isinstance(others, (list, tuple)) else ()


def derived_qparams(quantizer: nn.Module) -> tuple[Tensor, Tensor] | None:
    """(scale, zero point) that are computed of other fake quants as they are now; None for one with
    a range of its own, and while those have seen no data."""
    if not derived_from(quantizer) or not has_range(quantizer):
        return None
    site: Any = quantizer
    try:
        with torch.no_grad():
            scale, zero_point = site.calculate_qparams()
    except Exception:  # of the user's function
        return None
    return scale, zero_point


def has_range(quantizer: nn.Module) -> bool:
    """Whether a scale can be made of what it knows: data in every channel, and all of it finite;
    or the range is fixed, or those that its scale is computed of have one."""
    ends = (family_of(quantizer) or TORCH_AO).range_buffers(quantizer)
    others = derived_from(quantizer)
    if others:
        return all(map(has_range, others))
    if ends is None:
        return seen_data(quantizer) != "nothing"
    finite = all(bool(torch.isfinite(end).all()) for end in ends)
    return finite and seen_data(quantizer) == "all"


def any_seen(model: nn.Module) -> bool:
    """Whether any fake quant or bare observer of ``model`` has seen data: it has been trained or
    calibrated."""
    return any(seen_data(m) in ("partly", "all") for m in find_quantizers(model).values())


def never_observed(model: nn.Module) -> bool:
    """Whether there are fake quants or observers that need data, and none of them has seen any."""
    seen = {seen_data(module) for module in find_quantizers(model).values()}
    return "nothing" in seen and not seen & {"partly", "all"}


def observed_range(quantizer: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(min, max) of the observer, one entry per channel or one; both empty before it has seen
    data. A channel that has seen nothing yet is (+inf, -inf)."""
    ends = (family_of(quantizer) or TORCH_AO).range_buffers(quantizer)
    if ends is None:
        return (), ()
    low, high = (tuple(end.detach().reshape(-1).tolist()) for end in ends)
    return (low, high) if not all(map(untouched, low, high)) else ((), ())


# -- who runs its observer -------------------------------------------------------------------------


def observer_runs(
    quantizer: nn.Module, calls: int, inner_calls: int, wrote: bool | None = None
) -> str:
    """Who runs its observer: ``"module"`` (its own forward is called), ``"fused kernel"`` (a kernel
    writes to its buffers) or ``"never"``.

    Args:
        calls, inner_calls: of the fake quant's and its observer's forward in one forward.
        wrote: whether the range was written to meanwhile; None if that was not looked at, as where
            the kernel is torch's own, which observes if its flag is on.
    """
    family = family_of(quantizer) or TORCH_AO
    if family.observer(quantizer) is None:
        return "module" if calls else "never"
    if inner_calls:
        return "module"
    if wrote is None:
        wrote = bool(calls) and family.kernel_observes(quantizer) and flags_of(quantizer).observer
    return "fused kernel" if wrote else "never"


# -- its grid --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Grid:
    """The codes that a fake quant rounds to. ``scale`` and ``zero_point`` are its own tensors;
    ``ch_axis`` is None for one grid for the whole tensor."""

    quant_min: int
    quant_max: int
    scale: Tensor
    zero_point: Tensor
    ch_axis: int | None


def has_grid(module: nn.Module) -> bool:
    """Whether :func:`grid_of` can tell the grid of ``module`` without a tensor: it keeps one."""
    if is_torchao(module):
        return False
    return isinstance(getattr(module, "scale", None), Tensor) or (
        hasattr(module, "calculate_qparams") and hasattr(module, "quant_min")
    )


def grid_of(quantizer: nn.Module) -> Grid:
    """Its grid as it is now; a bare observer's is that of its own ``calculate_qparams``."""
    site: Any = quantizer
    low, high = quant_range(quantizer)
    if LEARNED.is_fake_quant(quantizer):
        whole = site.zero_point.detach().round().clamp(low, high).long()
        axis = int(site.ch_axis) if site.scale.numel() > 1 else None
        return Grid(low, high, site.scale.detach(), whole, axis)
    if isinstance(getattr(site, "scale", None), Tensor):
        per_channel = bool(getattr(site, "is_per_channel", False))
        return Grid(
            low, high, site.scale, site.zero_point, int(site.ch_axis) if per_channel else None
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns when the observer has seen nothing yet
        scale, zero_point = site.calculate_qparams()
    axis = getattr(site, "ch_axis", None)
    return Grid(low, high, scale, zero_point, axis if scale.numel() > 1 else None)


def has_codes(module: nn.Module) -> bool:
    """Whether it rounds to whole codes, so that :func:`on_its_grid` can put a tensor on them."""
    return scheme_of(module).even if is_torchao(module) else has_grid(module)


def on_its_grid(quantizer: nn.Module, x: Tensor) -> tuple[Tensor, Grid] | None:
    """``x`` and the grid that the fake quant (with :func:`has_codes`) rounds it to; None where it
    cannot be told.

    Where a scale stands for a block of values, ``x`` comes back as (blocks, values in a block),
    and the grid has a channel for each block: axis 0.
    """
    if not is_torchao(quantizer):
        return x, grid_of(quantizer)
    found = blocks_of(quantizer, x)
    if found is None:
        return None
    low, high = quant_range(quantizer)
    return x.reshape(-1, found.size), Grid(low, high, found.scale, found.zero_point, 0)


def quant_range(quantizer: nn.Module) -> tuple[int, int]:
    """``(quant_min, quant_max)`` that the fake quant clamps to: its observer's, if it has one."""
    if is_torchao(quantizer):
        scheme = scheme_of(quantizer)
        return scheme.low, scheme.high
    observer = observer_of(quantizer)
    source: Any = observer if hasattr(observer, "quant_min") else quantizer
    return int(getattr(source, "quant_min", 0) or 0), int(getattr(source, "quant_max", 0) or 0)


def averaging_constant(quantizer: nn.Module) -> float | None:
    """Of a moving-average observer, else None: from it a batch's range can be read back."""
    constant = getattr(observer_of(quantizer), "averaging_constant", None)
    return constant if isinstance(constant, float) and 0.0 < constant <= 1.0 else None


# -- its flags -------------------------------------------------------------------------------------


def flags_of(quantizer: nn.Module) -> Flags:
    """The flags as they are now."""
    return (family_of(quantizer) or TORCH_AO).flags(quantizer)


@torch.no_grad()
def switch(
    quantizer: nn.Module, *, observer: bool | None = None, fake_quant: bool | None = None
) -> None:
    """Turn the observer, the rounding, or both on or off; None leaves it. What has no such switch
    stays as it is."""
    (family_of(quantizer) or TORCH_AO).switch(quantizer, observer, fake_quant)


def freeze_observers(model: nn.Module) -> None:
    """Ranges stay as they are from now on."""
    for module in fake_quants(model).values():
        switch(module, observer=False)


def fake_quants_off(model: nn.Module) -> None:
    """Fake quants pass values on, their observers go on."""
    for module in fake_quants(model).values():
        switch(module, fake_quant=False)


@torch.no_grad()
def fake_quants_on(model: nn.Module) -> None:
    """Fake quants round again, on the ranges that their observers have found meanwhile.

    torch's fused fake quant leaves ``scale`` as it was while it is off, and sets it in its next
    forward only: until then a look at the model, or a conversion, would see a stale scale.
    """
    module: Any
    for module in fake_quants(model).values():
        if not flags_of(module).fake_quant:
            learned = LEARNED.is_fake_quant(module)  # its observer sets the scale while it is off
            if not learned and seen_data(module) == "all" and has_range(module):
                scale, zero_point = module.calculate_qparams()
                for buffer, value in ((module.scale, scale), (module.zero_point, zero_point)):
                    buffer.resize_(value.shape).copy_(value)
            switch(module, fake_quant=True)


def learned_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Scales and zero points that training learns, each once."""
    found = (m for m in model.modules() if LEARNED.is_fake_quant(m))
    return list({id(p): p for m in found for p in m._parameters.values() if p is not None}.values())


def learn_steps(model: nn.Module) -> bool:
    """Learned step sizes that round and have a range leave their observers and learn from now on;
    whether there are others that wait for that."""
    site: Any
    waiting = False
    for site in (m for m in model.modules() if LEARNED.is_fake_quant(m)):
        flags = flags_of(site)
        if flags.observer and flags.fake_quant and has_range(site):
            site.enable_param_learning()
        waiting = waiting or flags_of(site).observer
    return waiting


@contextmanager
def observers_paused(model: nn.Module) -> Iterator[None]:
    """No observer of ``model`` learns from what runs inside; flags and ranges are put back.

    ``eval()`` does not do that: a fake quant's observer goes on averaging in eval mode.
    """
    on: list[nn.Module] = []
    bare: list[tuple[nn.Module, dict[str, Tensor | None]]] = []
    for module in _once(find_quantizers(model).values()):
        if is_fake_quant(module):
            on += [module] * flags_of(module).observer
        else:
            # A bare observer has no switch: what it learns is taken back afterwards.
            buffers = {k: None if b is None else b.clone() for k, b in module._buffers.items()}
            bare.append((module, buffers))
    try:
        for module in on:
            switch(module, observer=False)
        yield
    finally:
        for module in on:
            switch(module, observer=True)
        for observer, buffers in bare:
            observer._buffers.update(buffers)


def _once(modules: Iterable[nn.Module]) -> Iterable[nn.Module]:
    return {id(module): module for module in modules}.values()
