"""One forward of the int8 model, with what a layer's kernel was given and who gave it its scale."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode, resolve_name

from qatexplorer.errors import StageError
from qatexplorer.evaluate.int8 import run_int8
from qatexplorer.evaluate.pairs import Pairs, by_nodes, pairs_of
from qatexplorer.forward.preserve import preserved_state
from qatexplorer.forward.trace import tensors_in
from qatexplorer.forward.visit import Visit, visited
from qatexplorer.quantizers.integers import tensor_grid
from qatexplorer.quantizers.types import FUNCTIONAL_CLASSES

_AROUND = ("torch.Tensor.q_", "torch.Tensor.int_repr", "torch.Tensor.qscheme")


@dataclass
class Call:
    """One call of torch in the forward.

    Attributes:
        operation: torch's name of it. args, kwargs, result: of the call.
        place: path of the innermost module whose result this is, or name of the graph's node;
            ``""`` for a function called between modules. kind: class of that module.
        quantizer: of the prepared model, whose numbers the result has.
    """

    operation: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: Any
    place: str = ""
    kind: str = ""
    quantizer: nn.Module | None = None

    @property
    def inputs(self) -> list[Tensor]:
        """Its tensors of values: those on a grid, or else the first in float."""
        given = list(tensors_in((self.args, dict(self.kwargs))))
        quantized = [one for one in given if one.is_quantized]
        return quantized or [one for one in given if one.is_floating_point()][:1]


@dataclass(frozen=True)
class Source:
    """Who gave a tensor its scale and zero point: see
    :class:`~qatexplorer.accuracy.int8_record.InputNumbers`."""

    owner: str = ""
    owner_type: str = ""
    fake_quant: str = ""
    owner_is: Literal["module", "node", ""] = ""
    through: tuple[str, ...] = ()


@dataclass(frozen=True)
class Seen:
    """A call of a layer, with the sources of its inputs; ``calls`` is how many there were."""

    call: Call
    sources: tuple[Source, ...]
    calls: int
    module: nn.Module | None


class _Watch(TorchFunctionMode):
    """Remembers each call that takes or gives an int8 tensor, by the tensor that it gave. The
    results are held, as what is gone could give its identity to another."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, Call] = {}
        self.at: dict[str, list[Call]] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = resolve_name(func) or getattr(func, "__name__", str(func))
        if name.startswith(_AROUND):
            return result
        for tensor in tensors_in(result):
            if tensor.is_quantized or name.startswith("quantized.") or _on_int8(args, kwargs):
                call = Call(name, args, kwargs or {}, result)
                self.made.setdefault(id(tensor), call)
        return result

    def place(self, path: str, kind: str, result: Any, quantizer: nn.Module | None) -> None:
        """The module or node at ``path`` has given ``result``."""
        tensor = next(tensors_in(result), None)
        call = self.made.get(id(tensor)) if tensor is not None else None
        if call is None:
            return
        if not call.place:
            call.place, call.kind = path, kind
        if quantizer is not None and call.quantizer is None:
            call.quantizer = quantizer
        calls = self.at.setdefault(path, [])
        if not any(one is call for one in calls):
            calls.append(call)


def _on_int8(args: Any, kwargs: Any) -> bool:
    return any(tensor.is_quantized for tensor in tensors_in((args, kwargs)))


class _Places:
    """Tells a watch which module or node has given what."""

    def __init__(self, model: nn.Module, prepared: nn.Module | None, watch: _Watch) -> None:
        self._modules = dict(model.named_modules(remove_duplicate=False))
        self._watch = watch
        self._pairs: Pairs | None = None
        self._nodes = False
        if prepared is not None:
            self._pairs, self._nodes = pairs_of(prepared, model), by_nodes(prepared)

    def module(self, visit: Visit) -> None:
        path, kind = visit.place[0], type(visit.module).__name__
        parent = path.rpartition(".")[0]
        functional = self._modules.get(parent)
        if isinstance(functional, FUNCTIONAL_CLASSES):  # it calls this one with its result
            path, kind = parent, type(functional).__name__
        pair = self._pairs.of(visit) if self._pairs is not None and not self._nodes else None
        self._watch.place(path, kind, visit.result, pair.quantizer if pair is not None else None)

    def node(self, visit: Visit) -> None:
        node = visit.node
        if node is None or node.op not in ("call_function", "call_method", "call_module"):
            return
        pair = self._pairs.of(visit) if self._pairs is not None and self._nodes else None
        name = str(node.target) if node.op == "call_module" else node.name
        kind = type(visit.module).__name__ if visit.module is not None else ""
        self._watch.place(name, kind, visit.result, pair.quantizer if pair is not None else None)


def layer_seen(
    model: nn.Module,
    path: str,
    inputs: Any,
    engine: str | None,
    prepared: nn.Module | None,
    call: int = 0,
) -> Seen:
    """Run the int8 ``model`` once and give the call number ``call`` of the layer at ``path``.

    Args:
        inputs: for the forward. prepared: that ``model`` was made of, for the names of fake quants.

    ``model`` is in eval mode within and put back as it was. Raises StageError where the layer does
    not run or is called less often, and what :func:`~qatexplorer.evaluate.int8.run_int8` raises.
    """
    watch = _Watch()
    places = _Places(model, prepared, watch)
    graph = isinstance(model, fx.GraphModule)
    with preserved_state(model), torch.no_grad():
        model.eval()
        # A graph's nodes name functions; hooks also see what a node's module holds inside.
        nodes = visited(model, places.node) if graph else nullcontext()
        with nodes, visited(model, places.module, nodes=False), watch:
            run_int8(model, inputs, engine)
    calls = watch.at.get(path, [])
    if not calls:
        raise StageError(
            "this layer does not run in a forward of the example input.",
            where=path,
            why="It sits in the int8 model, but no data reaches it.",
            fix="If its layer runs only sometimes, choose example inputs that reach it.",
        )
    if not 0 <= call < len(calls):
        raise StageError(
            f"there is no call number {call} of this layer: it runs {len(calls)} times in a "
            "forward of the example input.",
            where=path,
            fix=f"Ask for a call from 0 to {len(calls) - 1}.",
        )
    names = {}
    if prepared is not None:
        names = {id(m): name for name, m in prepared.named_modules()}
    seen = calls[call]
    sources = tuple(_source(one, watch.made, names) for one in seen.inputs)
    modules = dict(model.named_modules(remove_duplicate=False))
    return Seen(seen, sources, len(calls), modules.get(path))


def _source(tensor: Tensor, made: Mapping[int, Call], names: Mapping[int, str]) -> Source:
    """Go back through what keeps a scale to what has set it."""
    through: list[str] = []
    if tensor_grid(tensor) is None:
        return Source()
    for call in _back(tensor, made):
        kept = _kept_from(call)
        if kept is None:
            return Source(
                call.place or call.operation.rpartition(".")[2],
                call.kind or call.operation,
                names.get(id(call.quantizer), ""),
                "module" if call.kind else "node" if call.place else "",
                tuple(reversed(through)),
            )
        through.append(call.place or call.operation.rpartition(".")[2])
    return Source(through=tuple(reversed(through)))


def _back(tensor: Tensor, made: Mapping[int, Call]) -> Iterator[Call]:
    seen: set[int] = set()
    current: Tensor | None = tensor
    while current is not None and id(current) in made and id(current) not in seen:
        seen.add(id(current))
        call = made[id(current)]
        yield call
        current = _kept_from(call)


def _kept_from(call: Call) -> Tensor | None:
    """The input whose grid the result has because the call keeps it, None where the call has set
    it: its scale is then an argument."""
    result = next(tensors_in(call.result), None)
    grid = tensor_grid(result) if result is not None else None
    if grid is None or _is_given(grid[0], call):
        return None
    inputs = [one for one in call.inputs if one.is_quantized]
    return next((one for one in inputs if tensor_grid(one) == grid), None)


def _is_given(scale: float, call: Call) -> bool:
    for value in (*call.args, *call.kwargs.values()):
        if isinstance(value, float) and value == scale:
            return True
        if (
            isinstance(value, Tensor)
            and value.is_floating_point()
            and value.numel() == 1
            and float(value) == scale
        ):
            return True
    return False
