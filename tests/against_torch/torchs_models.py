"""The models that torch tests its own quantization with, and an input for each.

They live in ``torch.testing._internal.common_quantization`` and need the package ``expecttest``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch.ao.quantization import get_default_qat_qconfig

from tests.support.models import declare_torchvision_operators

ENGINE = "fbgemm"
VECTOR, IMAGE, SEQUENCE = (4, 5), (2, 3, 10, 10), (5, 2, 2)


@dataclass(frozen=True)
class TorchsModel:
    """A model by its name in torch, the shape of each of its inputs (all alike), and the arguments
    to make it."""

    name: str
    shape: tuple[int, ...]
    inputs: int = 1
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return "-".join((self.name, *(v for v in self.arguments.values() if isinstance(v, str))))

    def make(self) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
        """The model in train mode and its input; skips the test where torch has no such model."""
        made = getattr(torchs_module(), self.name, None)
        if made is None:
            pytest.skip(f"torch {torch.__version__} has no {self.name}")
        torch.manual_seed(0)
        inputs = tuple(torch.randn(self.shape) for _ in range(self.inputs))
        return made(**self.arguments).train(), inputs


def _of(shape: tuple[int, ...], names: str, **arguments: Any) -> tuple[TorchsModel, ...]:
    return tuple(TorchsModel(name, shape, arguments=arguments) for name in names.split())


SIMPLE = (
    *_of(
        VECTOR,
        "SingleLayerLinearModel SingleLayerLinearDynamicModel LinearAddModel TwoLayerLinearModel "
        "LinearModelWithSubmodule LinearReluModel LinearReluLinearModel LinearReluAddModel "
        "LinearBnLeakyReluModel LinearTanhModel FunctionalLinear SingleLayerFunctionalLinearModel "
        "TwoLayerFunctionalLinearModel FunctionalLinearAddModel FunctionalLinearReluModel "
        "FunctionalLinearReluLinearModel NestedModel AnnotatedSubNestedModel InnerModule "
        "AnnotatedCustomConfigNestedModel QuantSubModel SkipQuantModel QuantStubModel "
        "AnnotatedSingleLayerLinearModel AnnotatedTwoLayerLinearModel ActivationsTestModel "
        "NormalizationTestModel ManualLinearDynamicQATModel ModelWithFunctionals",
    ),
    *_of(
        VECTOR,
        "AnnotatedNestedModel AnnotatedSkipQuantModel ManualLinearQATModel ManualDropoutQATModel",
        qengine=ENGINE,
    ),
    *_of((4, 20), "ModelForLinearBNFusion"),
    *_of(
        IMAGE,
        "ConvModel ConvTransposeModel ConvBnModel AnnotatedConvBnModel ConvBnReLUModel "
        "AnnotatedConvBnReLUModel TwoLayerConvModel ConvReluModel ConvReluConvModel "
        "ConvReluAddModel FunctionalConv2d SingleLayerFunctionalConvModel ConvBNReLU "
        "TwoLayerFunctionalConvModel FunctionalConvReluModel FunctionalConvReluConvModel "
        "ModelWithSequentialFusion ModelForFusionWithBias ResNetBase ModelMultipleOps "
        "ModelMultipleOpsNoAvgPool ManualConvLinearQATModel ManualConvLinearSymmQATModel",
    ),
    *_of(IMAGE, "AnnotatedConvModel", qengine=ENGINE),
    # Per channel, as for fbgemm, torch refuses a transposed convolution.
    *_of(IMAGE, "AnnotatedConvTransposeModel", qengine="qnnpack"),
    TorchsModel("ConvBnAddReluModel", (1, 5, 3, 3), inputs=2),
    *_of((2, 3, 10), "ModelForFusion", qconfig=get_default_qat_qconfig(ENGINE)),
    *_of((2, 2, 4, 4), "SubModelForFusion SubModelWithoutFusion"),
    *_of((2, 3, 4), "ModelForConvTransposeBNFusion"),
    *_of(SEQUENCE, "RNNDynamicModel", mod_type="LSTM"),
    *_of(SEQUENCE, "RNNDynamicModel", mod_type="GRU"),
    *_of((4, 2), "RNNCellDynamicModel", mod_type="LSTMCell"),
    *_of((4, 2), "RNNCellDynamicModel", mod_type="GRUCell"),
)

OTHER_INPUTS = {
    "LSTMwithHiddenDynamicModel": "takes a hidden state beside its input",
    "ManualEmbeddingBagLinear": "takes indices",
    "DeFusedEmbeddingBagLinear": "takes indices",
    "EmbeddingBagModule": "takes indices, offsets and weights",
    "EmbeddingModule": "takes indices",
    "EmbeddingWithStaticLinear": "takes indices, offsets and a tensor",
    "DenseTopMLP": "takes a sparse and a dense feature",
    "EmbBagWrapper": "takes indices and offsets",
    "SparseNNModel": "takes indices, offsets and a tensor",
    "DummyObserver": "an observer, not a model",
}
"""The modules there that are not walked, and why."""


def torchs_module() -> ModuleType:
    """Torch's module of test models; skips the test where it cannot be imported.

    Importing it reads the command line and forbids setting ``torch.backends`` flags for the rest of
    the process; both are kept from it, so that other tests run as without it.
    """
    pytest.importorskip("expecttest", reason="torch's own test models need expecttest")
    declare_torchvision_operators()
    allowed = "__allow_nonbracketed_mutation_flag"
    before, arguments = getattr(torch.backends, allowed), sys.argv
    sys.argv = sys.argv[:1]
    try:
        return importlib.import_module("torch.testing._internal.common_quantization")
    finally:
        sys.argv = arguments
        setattr(torch.backends, allowed, before)
