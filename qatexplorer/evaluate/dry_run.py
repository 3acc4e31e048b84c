"""Whether torch makes an int8 layer of one layer and one qconfig: by making it."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import QConfig, QuantWrapper, convert, prepare_qat
from torch.ao.quantization.backend_config import BackendConfig
from torch.ao.quantization.fx.qconfig_mapping_utils import _is_qconfig_supported_by_dtype_configs
from torch.ao.quantization.fx.utils import _qconfig_satisfies_dtype_config_constraints
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from qatexplorer.flows.copying import copied
from qatexplorer.forward.preserve import preserved_rng
from qatexplorer.quantizers.engine import quantized_engine
from qatexplorer.shown import error_line


def why_not(layer: nn.Module, qconfig: QConfig, engine: str) -> str:
    """Prepare a copy of ``layer`` alone, show it random values, convert and run it on ``engine``.
    Torch's words where that raises, ``""`` where it runs or the layer is none to try."""
    given = _input(layer)
    if given is None:
        return ""
    try:
        with preserved_rng(), quantized_engine(engine), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = QuantWrapper(copied(layer).cpu()).train()
            model.qconfig = qconfig  # type: ignore[assignment]
            prepared = prepare_qat(model)
            prepared(given)
            with torch.no_grad():
                convert(prepared.eval())(given)
    except Exception as error:
        return error_line(error, 200)
    return ""


def constraint_broken(layer: nn.Module, qconfig: QConfig, config: BackendConfig) -> str:
    """Torch's own words where ``config`` has a constraint for the type of ``layer`` that
    ``qconfig`` does not keep, so that FX would leave it out; ``""`` where it keeps them."""
    said = ""
    for one in config.configs:
        if one.pattern is not type(layer):
            continue
        for dtypes in one.dtype_configs:
            if not _is_qconfig_supported_by_dtype_configs(qconfig, [dtypes]):
                continue
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                kept = all(
                    _qconfig_satisfies_dtype_config_constraints(qconfig, constraint, activation)
                    for constraint, activation in (
                        (dtypes.input_dtype_with_constraints, True),
                        (dtypes.weight_dtype_with_constraints, False),
                        (dtypes.output_dtype_with_constraints, True),
                    )
                )
            if kept:
                return ""
            texts = [str(w.message) for w in caught if "ignoring" in str(w.message)]
            said = texts[0].partition(", ignoring")[0] if texts else "a constraint is not kept"
    return " ".join(said.split())


def _input(layer: Any) -> Tensor | None:
    generator = torch.Generator().manual_seed(0)
    if isinstance(layer, nn.Linear):
        return torch.randn(2, layer.in_features, generator=generator)
    if isinstance(layer, _ConvNd):
        reach = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        size = [3] * len(reach) if isinstance(layer, _ConvTransposeNd) else reach
        return torch.randn(1, layer.in_channels, *size, generator=generator)
    return None
