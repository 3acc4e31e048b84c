"""A flow that is one file: torch's eager calls, in stages that no other flow has."""

from __future__ import annotations

from typing import ClassVar

from torch import nn
from torch.ao.quantization import convert, fuse_modules_qat, prepare, propagate_qconfig_
from torch.ao.quantization.quantization_mappings import get_default_qat_module_mappings

from qatexplorer.flows import Flow, Stage, StageResult, register
from qatexplorer.flows.base import FlowOptions, Seen


@register
class ToyFlow(Flow):
    """Fuse, propagate and swap in one stage; the rest as in eager mode."""

    name: ClassVar[str] = "toy"
    title: ClassVar[str] = "Toy flow (five stages)"
    stages: ClassVar[tuple[Stage, ...]] = (
        Stage("begin", "Begin", "", "Your model.", "float"),
        Stage("make", "Make", "toy.make(model)", "Weights get their fake quants.", "weights"),
        Stage("place", "Place", "toy.place(model)", "Outputs get theirs.", "inserted"),
        Stage("learn", "Learn", "your loop", "The weights learn.", "trained"),
        Stage("finish", "Finish", "toy.finish(model)", "Int8 modules take over.", "int8"),
    )

    def apply(
        self, stage: str, model: nn.Module, options: FlowOptions, seen: Seen | None = None
    ) -> StageResult:
        mapping = get_default_qat_module_mappings()
        if stage == "make":
            if options.fusion:
                groups = [list(group) for group in options.fusion]
                model = fuse_modules_qat(model, groups, inplace=True)
            options.qconfig.assign(model)
            propagate_qconfig_(model)
            convert(model, mapping=mapping, inplace=True, remove_qconfig=False)
        elif stage == "place":
            prepare(model, observer_non_leaf_module_list=set(mapping.values()), inplace=True)
        elif stage == "finish":
            convert(model.eval(), inplace=True)
        return StageResult(model)
