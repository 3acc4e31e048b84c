"""A TorchScript part of a Python model: one box that computes in float."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import DeQuantStub, QuantStub
from torch.utils._pytree import tree_map_only


class ScriptedPart(nn.Module):
    """Calls ``script`` on float tensors, and quantizes what it returns.

    What TorchScript has compiled cannot be swapped module by module, and its operations do not
    take int8 tensors: they are dequantized before and quantized after. The stubs do nothing where
    torch gives them no qconfig (FX, and float models around).
    """

    def __init__(self, script: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.training = script.training
        self.dequant = DeQuantStub()
        self.script = script
        # One for each tensor returned: they have ranges of their own.
        self.quant = nn.ModuleList(QuantStub() for _ in range(_returned_tensors(script)))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = tree_map_only(Tensor, self.dequant, (args, kwargs))
        result = self.script(*args, **kwargs)
        stubs = iter(self.quant)
        if isinstance(result, Tensor):
            return self._quantized(result, stubs)
        if isinstance(result, tuple):
            return tuple(self._quantized(part, stubs) for part in result)
        return result

    @staticmethod
    def _quantized(value: Any, stubs: Iterator[nn.Module]) -> Any:
        if not isinstance(value, Tensor):
            return value
        stub = next(stubs, None)
        return value if stub is None or not value.is_floating_point() else stub(value)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__"):  # deepcopy and pickle ask for theirs
                raise
            # The model's own code may look into the part.
            return getattr(super().__getattr__("script"), name)


def _returned_tensors(script: torch.jit.ScriptModule) -> int:
    forward: Any = script.forward
    kinds = [returned.type for returned in forward.schema.returns]
    if len(kinds) == 1 and kinds[0].kind() == "TupleType":
        kinds = kinds[0].elements()
    return sum(kind.kind() == "TensorType" for kind in kinds)


def named_python_modules(
    model: nn.Module, *, remove_duplicate: bool = True
) -> Iterator[tuple[str, nn.Module]]:
    """``model.named_modules()`` without what TorchScript has compiled: it has no Python code that
    could be hooked, and no attributes of its own."""
    for path, module in model.named_modules(remove_duplicate=remove_duplicate):
        if not isinstance(module, torch.jit.ScriptModule):
            yield path, module


def python_modules(model: nn.Module) -> Iterator[nn.Module]:
    """The modules of :func:`named_python_modules`, each once."""
    return (module for _, module in named_python_modules(model))
