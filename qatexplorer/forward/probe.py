"""One forward of the example input, watched: what ran, how often, and who called it.

Whether a fake quant runs by forward or by hook is measured here, not inferred from names.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.ao.quantization import FusedMovingAvgObsFakeQuantize

from qatexplorer.data import call_model, cloned
from qatexplorer.forward.leaves import is_quantizer
from qatexplorer.forward.preserve import preserved_state
from qatexplorer.forward.scripted import python_modules
from qatexplorer.forward.trace import first_tensor_info
from qatexplorer.snapshot.records import Graph, Mechanism


@dataclass
class Probe:
    """What one forward did, keyed by ``id`` of the module; meaningless once the model is gone.

    ``calls`` counts every module; ``mechanisms`` has an entry for each fake quant or observer
    that ran; ``shapes`` the shape of the tensor each of them saw. ``only_quantizers`` says that
    nothing is known of other modules.
    """

    calls: dict[int, int] = field(default_factory=dict)
    mechanisms: dict[int, Mechanism] = field(default_factory=dict)
    shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    only_quantizers: bool = False


def calls_in_graph(model: nn.Module, graph: Graph) -> Probe:
    """The same for weight fake quants, from the calls of their owners in the forward that made
    ``graph``: a QAT module's forward calls its ``weight_fake_quant`` once. It saves a forward
    before the stage that inserts the others; that one is measured and covers these too.
    """
    calls: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_module" and node.path:
            calls[node.path] = calls.get(node.path, 0) + 1
    found = Probe(only_quantizers=True)
    for path, module in model.named_modules():
        quantizer = getattr(module, "weight_fake_quant", None)
        if isinstance(quantizer, nn.Module) and calls.get(path):
            found.calls[id(quantizer)] = calls[path]
            found.mechanisms[id(quantizer)] = "forward"
            weight = getattr(module, "weight", None)
            if isinstance(weight, torch.Tensor):
                found.shapes[id(quantizer)] = tuple(weight.shape)
    return found


class _Watcher:
    """Follows which module is running, and whether it is in its forward or in its hooks."""

    def __init__(self) -> None:
        self.result = Probe()
        self._stack: list[tuple[nn.Module, str]] = []

    def first_pre_hook(self, module: nn.Module, args: Any) -> None:
        calls = self.result.calls
        calls[id(module)] = calls.get(id(module), 0) + 1
        if is_quantizer(module):
            phase = self._stack[-1][1] if self._stack else "forward"
            self.result.mechanisms[id(module)] = "forward" if phase == "forward" else "hook"
            info = first_tensor_info(args)
            if info is not None:
                self.result.shapes[id(module)] = info[0]
        self._stack.append((module, "pre-hooks"))

    def last_pre_hook(self, module: nn.Module, _args: Any) -> None:
        self._stack[-1] = (module, "forward")

    def first_hook(self, module: nn.Module, _args: Any, _out: Any) -> None:
        self._stack[-1] = (module, "hooks")

    def last_hook(self, _module: nn.Module, _args: Any, _out: Any) -> None:
        self._stack.pop()


@contextmanager
def _watching(model: nn.Module, watcher: _Watcher) -> Iterator[None]:
    handles: list[Any] = []
    try:
        for module in python_modules(model):
            handles += [
                module.register_forward_pre_hook(watcher.first_pre_hook, prepend=True),
                module.register_forward_pre_hook(watcher.last_pre_hook),
                module.register_forward_hook(watcher.first_hook, prepend=True),
                module.register_forward_hook(watcher.last_hook),
            ]
        yield
    finally:
        for handle in handles:
            handle.remove()


def _skip_fused_kernels(model: nn.Module) -> None:
    """Who is called does not depend on them, and on weights they cost more than the layers do.

    Other fake quants stay on: whether they call their observer is what is looked at.
    """
    for module in model.modules():
        if type(module) is FusedMovingAvgObsFakeQuantize:
            module.observer_enabled.zero_()
            module.fake_quant_enabled.zero_()


def probe(model: nn.Module, inputs: Any) -> Probe:
    """Run ``model(inputs)`` once under ``no_grad``, and put every state back as it was.

    Only the fused kernels are switched off, since who is called does not depend on them; buffers,
    batch-norm statistics, the RNG and all flags are restored. Raises whatever the forward raises.
    """
    watcher = _Watcher()
    with preserved_state(model), torch.no_grad(), _watching(model, watcher):
        _skip_fused_kernels(model)
        call_model(model, cloned(inputs))
    return watcher.result
