"""Which modules are drawn as one operation, and which are opened up.

The rule serves both ways of finding the graph (FX tracing and a recorded forward), so that a
model looks alike whichever of them worked.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.ao.nn.intrinsic.modules.fused import _FusedModule

from qatexplorer.forward.scripted import ScriptedPart
from qatexplorer.quantizers.facts import is_quantizer
from qatexplorer.quantizers.types import CONTAINERS

FUNCTIONAL_METHODS = ("add", "add_scalar", "mul", "mul_scalar", "cat", "add_relu", "matmul")

_LEAVES = (_FusedModule, torch.jit.ScriptModule, ScriptedPart)
_OPAQUE = (nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)


def is_leaf_call(module: nn.Module) -> bool:
    """Whether a call of ``module`` is one node of the graph.

    Torch's own modules are leaves unless they only combine others; the user's own modules are
    opened, so that functional operations in them show.
    """
    if is_quantizer(module) or isinstance(module, _LEAVES):
        return True
    if isinstance(module, CONTAINERS):
        return False
    namespace = type(module).__module__
    if namespace.startswith("torch.ao."):
        return True
    if not namespace.startswith("torch.nn."):
        return False
    if isinstance(module, _OPAQUE):
        return True
    return all(is_quantizer(child) for child in module.children())
