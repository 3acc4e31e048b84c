"""A state dict of an int8 model as tensors for safetensors, with a tree of plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from qatexplorer.errors import ExportError


def packed(value: Any, name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The entry of ``value`` in the tree; its tensors go into ``tensors`` under names that begin
    with ``name``. ``unpacked`` of :mod:`.parts` is the way back.

    Quantized tensors become their codes (int8 or uint8), scales (float64) and zero points (int64).
    Raises ExportError for what is no data: an object of C++, a tensor of half bytes.
    """
    if isinstance(value, Tensor):
        return _tensor(value.detach().cpu(), name, tensors)
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, Mapping):
        return {"dict": {str(k): packed(v, f"{name}.{k}", tensors) for k, v in value.items()}}
    if type(value) in (tuple, list):
        many = [packed(one, f"{name}.{n}", tensors) for n, one in enumerate(value)]
        return {type(value).__name__: many}
    raise ExportError(
        f"{name!r} is an object of {type(value).__name__}, which cannot be kept as plain data.",
        where=name.rpartition(".")[0],
        why="torch packs the weight of a functional layer into an object of C++.",
        fix="Call the layer as a module (nn.Linear) instead of torch.nn.functional.linear.",
    )


def _tensor(value: Tensor, name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    if not value.is_quantized:
        tensors[name] = value.contiguous().clone()
        return {"tensor": name}
    if value.dtype not in (torch.qint8, torch.quint8, torch.qint32):
        raise ExportError(
            f"{name!r} has {value.dtype}, which cannot be kept as plain data.",
            where=name.rpartition(".")[0],
        )
    tensors[f"{name}.codes"] = value.int_repr().contiguous()
    if value.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        tensors[f"{name}.scales"] = torch.tensor(value.q_scale(), dtype=torch.float64)
        tensors[f"{name}.zeros"] = torch.tensor(value.q_zero_point(), dtype=torch.int64)
        return {"quantized": name, "axis": None}
    tensors[f"{name}.scales"] = value.q_per_channel_scales().contiguous()
    tensors[f"{name}.zeros"] = value.q_per_channel_zero_points().contiguous()
    return {"quantized": name, "axis": value.q_per_channel_axis()}
