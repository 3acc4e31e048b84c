"""What to do about each kind of redundancy; every text here is done to the letter by a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.ao.nn.intrinsic.modules.fused import _FusedModule
from torch.ao.quantization import QuantStub, QuantWrapper

from qatexplorer.forward.calls import Call
from qatexplorer.forward.exported import is_exported
from qatexplorer.ledger.nodes import node_table, pattern_of, spelled
from qatexplorer.ledger.reasons import Known
from qatexplorer.quantizers.types import BOUNDING

"""Activations that hand on a value or a constant bound."""

_IN_PIECES = frozenset(["chunk", "split", "unbind", "tensor_split"])

Fix = Callable[[Call, Call, Sequence[Call]], str]
"""(first call, second call, the operations between) -> what to do."""


def fix_of_double(model: nn.Module, known: Known) -> Fix:
    """What to do about two fake quants in a row in ``model``."""

    def fix(first: Call, second: Call, between: Sequence[Call]) -> str:
        if not between and first.mechanism == "forward":
            return (
                f"The module fake-quantizes its own output in forward ({first.name}). Take that "
                "call out of the module's forward: eager prepare and FX both add the output's "
                "fake quant themselves."
            )
        if is_exported(model):
            return (
                "Have the quantizer annotate the second one with a SharedQuantizationSpec of the "
                "node that the first one follows: both are one fake quant then."
            )
        if second.mechanism == "node":
            return _fix_in_graph(model, known, between)
        return _fix_of_hook(model, second, between)

    return fix


def _fix_in_graph(model: nn.Module, known: Known, between: Sequence[Call]) -> str:
    """What to write for each operation that FX does not know to keep its values."""
    table = node_table(model)
    unknown = dict.fromkeys(
        (call.name, _pattern(model, call, table), len(call.inputs) > 1)
        for call in between
        if not known.shares(_pattern(model, call, table))
    )
    return " ".join(dict.fromkeys(_written(known, *what) for what in unknown))


def _pattern(model: nn.Module, call: Call, table: dict[str, str]) -> Any:
    found = pattern_of(model, call, table)
    return call.name if found is None else found


def _written(known: Known, name: str, pattern: Any, with_index: bool) -> str:
    now = f"x.{name}(…)" if isinstance(pattern, str) else spelled(pattern)
    if name in _IN_PIECES and known.shares(torch.narrow):
        return (
            f"Take the pieces with torch.narrow(x, dim, start, length) instead of {now}: torch's "
            "backend config lets that share the fake quant before it."
        )
    if with_index:
        return (
            f"Take the positions one by one, torch.cat([torch.narrow(x, dim, i, 1) for i in …], "
            f"dim), instead of {now}: with a backend config entry FX would quantize the index too."
        )
    if name == "relu":
        return (
            f"Write nn.ReLU or F.relu right after its layer instead of {now}: torch fuses that "
            "with the layer and quantizes once."
        )
    function = getattr(torch, name, None)
    if function is not pattern and known.shares(function):
        return (
            f"Write torch.{name}(x, …) instead of {now}: torch's backend config knows the function "
            "and lets it share the fake quant before it."
        )
    return (
        f"Tell torch that {now} keeps its values: give backend_config= one more entry, config = "
        "get_native_backend_config(); config.set_backend_pattern_config(BackendPatternConfig("
        f"{spelled(pattern)}).set_observation_type("
        "ObservationType.OUTPUT_SHARE_OBSERVER_WITH_INPUT).set_dtype_configs("
        "[DTypeConfig(torch.quint8, torch.quint8)])), all from torch.ao.quantization."
        "backend_config. (A qconfig of None does not help: the next layer then asks for the fake "
        "quant.)"
    )


def _fix_of_hook(model: nn.Module, second: Call, between: Sequence[Call]) -> str:
    path = second.name.rpartition(".")[0]
    owner = model.get_submodule(path)
    if isinstance(owner, QuantStub):
        around = model.get_submodule(path.rpartition(".")[0])
        if isinstance(around, QuantWrapper):
            return (
                "The tensor goes from one QuantWrapper to the next, and each quantizes it: the "
                "price of stubs='layers'. Put one QuantStub before the first and one DeQuantStub "
                "after the last of these layers (stubs='model' does so around the whole model)."
            )
        return (
            f"Leave out {path} and the DeQuantStub before it: what lies between them runs on int8 "
            "tensors too. (A qconfig of None for the stub does not help: the next int8 layer "
            "would get a float tensor.)"
        )
    if between and between[-1].name in BOUNDING:
        return (
            f"Set {path}.qconfig = None before prepare: {type(owner).__name__} passes int8 tensors "
            "on as they are. Or use nn.ReLU right after the layer, which torch fuses with it."
        )
    return f"One of the two is enough: give {path} the qconfig None, or call only one of them."


def twice_in_a_sequence(model: nn.Module, parent: str) -> tuple[str, str]:
    """(why, fix) where prepare has put the fake quant into a container that runs its children."""
    kind = type(module_at(model, parent)).__name__
    why = (
        f"prepare has put it into {parent} ({kind}), a Sequential, whose forward runs all its "
        "children, this one as the last; the hook that prepare registered runs it once more"
    )
    if isinstance(module_at(model, parent), _FusedModule):
        return why, (
            f"The QAT mapping of eager mode has no entry for {kind}, so the fused float container "
            "was left in place. Use flow='fx', which does not run it twice; or leave it out of "
            "the groups to fuse: "
            f"session.configure(fusion=[g for g in session.fusion if g[0] != {parent!r}])."
        )
    return why, f"Set {parent}.qconfig = None before prepare and leave its children theirs."


def module_at(model: nn.Module, path: str) -> nn.Module | None:
    """The module at ``path``, None if there is none."""
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None
