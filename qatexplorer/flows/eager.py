"""Eager mode: ``fuse_modules_qat`` and ``prepare_qat``, whose three inner calls are run one by one.

``prepare_qat`` is ``propagate_qconfig_``, ``convert`` with the QAT mapping, and ``prepare``. Run
after one another they leave the model in the same state, bit for bit (the tests hold this).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from torch import nn
from torch.ao.quantization import convert, fuse_modules_qat, prepare, propagate_qconfig_
from torch.ao.quantization.quantization_mappings import get_default_qat_module_mappings
from torch.ao.quantization.quantize import get_default_custom_config_dict

from qatexplorer.flows.base import Flow, FlowOptions, Seen, Stage, StageResult
from qatexplorer.flows.custom import OBSERVED, QUANTIZED, custom_swaps
from qatexplorer.flows.stubs import add_stubs

_STAGES = (
    Stage(
        "float",
        "Float",
        "",
        "The session's own copy of your model; yours stays as it is.",
        role="float",
    ),
    Stage(
        "fuse",
        "Fuse",
        "fuse_modules_qat(model, modules_to_fuse)",
        "Int8 kernels compute conv, batch norm and ReLU as one operation, so they must be trained "
        "as one: the first module of a group becomes the fused one, the others become Identity.",
        role="fused",
    ),
    Stage(
        "propagate",
        "Propagate qconfig",
        "propagate_qconfig_(model)",
        "Each module hands its qconfig down to those inside it that have none of their own: it "
        "says what will be made for the weight and for the output. Nothing computes differently "
        "yet.",
        role="qconfig",
    ),
    Stage(
        "swap",
        "Swap modules",
        "convert(model, mapping=get_default_qat_module_mappings(), remove_qconfig=False)",
        "Modules with a qconfig whose exact type is in the mapping become what it names; torch's "
        "own QAT versions pass their weight through a fake quant in forward. This convert only "
        "makes the weight side; the final one makes int8.",
        role="weights",
    ),
    Stage(
        "insert",
        "Insert observers",
        "prepare(model, observer_non_leaf_module_list=set(mapping.values()))",
        "Modules with a qconfig whose output torch watches get a fake quant for it, run by a "
        "forward hook, or by the methods of a FloatFunctional. A QuantStub is such a module: its "
        "output is the input, rounded.",
        role="inserted",
    ),
    Stage(
        "train",
        "Train",
        "your training loop on the prepared model",
        "Fake quants that are on round in forward, so the loss feels it and the weights learn to "
        "live with it; observers that are on follow the ranges.",
        role="trained",
    ),
    Stage(
        "convert",
        "Convert",
        "convert(model.eval())",
        "The final convert: modules with a qconfig whose type is in torch's int8 mapping become "
        "int8 ones, with scales computed from what their observers hold. The rest stays as it is.",
        role="int8",
    ),
)


class EagerFlow(Flow):
    """``torch.ao.quantization`` in eager mode."""

    name: ClassVar[str] = "eager"
    title: ClassVar[str] = "Eager mode (prepare_qat)"
    stages: ClassVar[tuple[Stage, ...]] = _STAGES

    def apply(
        self, stage: str, model: nn.Module, options: FlowOptions, seen: Seen | None = None
    ) -> StageResult:
        step: Any = getattr(self, f"_{stage}")
        result: StageResult = step(model, options)
        return result

    def _fuse(self, model: nn.Module, options: FlowOptions) -> StageResult:
        if options.fusion:
            model = fuse_modules_qat(model, [list(run) for run in options.fusion], inplace=True)
            return StageResult(model)
        return StageResult(model, notes=("Nothing to fuse was found or chosen.",))

    def _propagate(self, model: nn.Module, options: FlowOptions) -> StageResult:
        # As attributes, not as torch's qconfig_dict: that is how a user calls prepare_qat.
        options.qconfig.assign(model)
        propagate_qconfig_(model, prepare_custom_config_dict=options.custom.for_eager())
        mapping, inputs = self._mapping(options), options.example_inputs
        result = add_stubs(model, options.stubs, mapping, inputs, options.graph)
        return replace(result, notes=(*options.qconfig.notes, *result.notes))

    def _swap(self, model: nn.Module, options: FlowOptions) -> StageResult:
        convert(
            model,
            mapping=self._mapping(options),
            inplace=True,
            remove_qconfig=False,
            convert_custom_config_dict=options.custom.for_eager_convert(),
        )
        return StageResult(model)

    def _insert(self, model: nn.Module, options: FlowOptions) -> StageResult:
        mapping, custom = self._mapping(options), options.custom.for_eager()
        before = dict(model.named_modules(remove_duplicate=False))
        prepare(
            model,
            observer_non_leaf_module_list=set(mapping.values()),
            inplace=True,
            prepare_custom_config_dict=custom,
        )
        return StageResult(model, notes=_swaps(before, model, custom, OBSERVED))

    def _train(self, model: nn.Module, options: FlowOptions) -> StageResult:
        return StageResult(model)

    def _convert(self, model: nn.Module, options: FlowOptions) -> StageResult:
        custom = options.custom.for_eager_convert()
        before = dict(model.named_modules(remove_duplicate=False))
        int8 = convert(model.eval(), inplace=True, convert_custom_config_dict=custom)
        return StageResult(int8, notes=_swaps(before, int8, custom, QUANTIZED))

    def _mapping(self, options: FlowOptions) -> dict[Any, Any]:
        mapping = options.qat_mapping
        return dict(get_default_qat_module_mappings() if mapping is None else mapping)


def _swaps(
    before: dict[str, nn.Module], model: nn.Module, custom: dict[str, Any] | None, key: str
) -> tuple[str, ...]:
    """Custom modules swapped by the config given, or by torch's own where none was."""
    config = get_default_custom_config_dict() if custom is None else custom
    return custom_swaps(before, model, config.get(key, {}), key)
