"""The results of a forward, place by place: modules by path, or nodes of an FX graph by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from qatexplorer.forward.hooks import hooked
from qatexplorer.forward.scripted import named_python_modules
from qatexplorer.forward.trace import tensors_in

MOST = 16_384
"""Values kept of one result."""

Place = tuple[str, int]
"""Path of a module, or name of a node of a graph, and how many calls of it came before."""


@dataclass(frozen=True)
class Visit:
    """One call, just after it.

    Attributes:
        place: where. module: that was called, None for an operation of a graph.
        node: of an FX graph, None elsewhere. args: positional arguments of a module's call.
        result: what came out. values: results of the graph's nodes that are still of use.
    """

    place: Place
    module: nn.Module | None
    result: Any
    node: fx.Node | None = None
    args: tuple[Any, ...] = ()
    values: Mapping[fx.Node, Any] = field(default_factory=dict)


@contextmanager
def visited(
    model: nn.Module, visit: Callable[[Visit], object], *, nodes: bool = True
) -> Iterator[None]:
    """Inside, ``visit`` is called after each call that a forward of ``model`` makes.

    Of an FX graph every node is one (unless ``nodes`` is False), of other models every module. The
    random state is set, so that two models that draw the same numbers can be compared; hooks and
    ``forward`` are put back. The caller preserves the rest.
    """
    torch.manual_seed(0)
    if nodes and isinstance(model, fx.GraphModule):
        with _by_nodes(model, visit):
            yield
        return
    calls: dict[str, int] = {}

    def left(path: str, module: nn.Module, args: Any, _kwargs: Any, result: Any) -> None:
        number = calls[path] = calls.get(path, -1) + 1
        visit(Visit((path, number), module, result, args=args))

    inner = ((path, module) for path, module in named_python_modules(model) if path)
    with hooked(inner, left=left):
        yield


@contextmanager
def _by_nodes(model: fx.GraphModule, visit: Callable[[Visit], object]) -> Iterator[None]:
    usual = model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        state = torch.get_rng_state()
        try:
            if kwargs:
                return usual(*args, **kwargs)
            return _Visitor(model, visit).run(*args)
        except Exception:
            # The graph's own code raises the same, with the line and the module it was at.
            torch.set_rng_state(state)
            return usual(*args, **kwargs)

    own = "forward" in vars(model)
    model.forward = forward
    try:
        yield
    finally:
        if own:
            model.forward = usual
        else:
            del model.forward


class _Visitor(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, visit: Callable[[Visit], object]) -> None:
        super().__init__(module)
        self._visit = visit
        self._modules = dict(module.named_modules(remove_duplicate=False))

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        module = self._modules.get(str(n.target)) if n.op == "call_module" else None
        self._visit(Visit((n.name, 0), module, result, n, values=self.env))
        return result


@dataclass(frozen=True)
class Sample:
    """Some values of a result's first tensor, always at the same places.

    Attributes:
        values: float32 on the CPU, at most :data:`MOST`. size: of the whole tensor.
        scale: of its int8 grid, None for a float tensor or one with a scale per channel.
        zero_point, top: that of the grid, and the largest code of its dtype.
        codes: the same values as codes, None where scale is.
    """

    values: Tensor
    size: int
    scale: float | None = None
    zero_point: int = 0
    top: int = 0
    codes: Tensor | None = None


def sample_of(result: Any) -> Sample | None:
    """The sample of a call's result; None where there is no tensor of numbers in it."""
    tensor = next(tensors_in(result), None)
    if tensor is None or tensor.is_sparse or tensor.is_meta or not tensor.numel():
        return None
    if tensor.is_quantized:
        return _quantized_sample(tensor)
    if not tensor.is_floating_point():
        return None
    return Sample(_picked(tensor.detach()).float().cpu(), tensor.numel())


def _quantized_sample(tensor: Tensor) -> Sample | None:
    if tensor.qscheme() not in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return None
    scale, zero = tensor.q_scale(), tensor.q_zero_point()
    codes = _picked(tensor.int_repr()).to(torch.int64)
    values = (codes - zero).to(torch.float32) * scale
    top = int(torch.iinfo(tensor.int_repr().dtype).max)
    return Sample(values, tensor.numel(), scale, zero, top, codes)


def _picked(tensor: Tensor) -> Tensor:
    flat = tensor.reshape(-1)
    return flat.clone() if flat.numel() <= MOST else flat[_places(flat.numel()).to(flat.device)]


def _places(size: int) -> Tensor:
    generator = torch.Generator().manual_seed(size)
    return torch.randint(0, size, (MOST,), generator=generator)
