"""All numbers of one int8 layer, from one forward of the int8 model on the example input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from qatexplorer.accuracy import int8_arithmetic as arithmetic
from qatexplorer.accuracy.int8_code import numpy_code
from qatexplorer.accuracy.int8_operands import codes_of, index_of, operands_of, places_of
from qatexplorer.accuracy.int8_record import (
    BiasNumbers,
    InputNumbers,
    Int8Numbers,
    Multiplier,
    OutputNumbers,
    WeightNumbers,
    Worked,
)
from qatexplorer.accuracy.int8_run import Seen, Source, layer_seen
from qatexplorer.accuracy.int8_steps import worked
from qatexplorer.accuracy.int8_text import layer_text
from qatexplorer.errors import InputError, StageError
from qatexplorer.quantizers.engine import quantized_engine
from qatexplorer.quantizers.engine_probe import probe_engine
from qatexplorer.quantizers.facts import quant_range
from qatexplorer.quantizers.integers import tensor_grid
from qatexplorer.quantizers.types import is_container
from qatexplorer.shown import Shown, at_most


@dataclass(frozen=True)
class Int8Layer(Int8Numbers, Shown):
    """All numbers of an int8 layer, as text and as a script too."""

    def numpy_code(self) -> str:
        """A script that needs NumPy only, repeats ``worked`` and leaves it in ``code``; ``""``
        where there is no arithmetic."""
        return numpy_code(self)

    def text(self) -> str:
        """All of it as plain text."""
        return layer_text(self)

    def __repr__(self) -> str:
        return at_most(self.text().splitlines())


class LayerRun:
    """A layer's call as it was, to work out one output after the other without a new forward.

    Args:
        model: the int8 model. path: of the module, or name of a node of its graph. inputs: for the
            forward. engine: to run it on, None is the present one. prepared: model that ``model``
            was made of, None leaves the names of fake quants empty. call: number of the call.

    ``model`` is put back as it was. Raises StageError where there is no such layer, where it holds
    layers or computes in float, does not run, or has no such call.
    """

    def __init__(
        self,
        model: nn.Module,
        path: str,
        inputs: Any,
        *,
        engine: str | None = None,
        prepared: nn.Module | None = None,
        call: int = 0,
    ) -> None:
        _check(model, path)
        with quantized_engine(engine) as used:
            seen = layer_seen(model, path, inputs, engine, prepared, call)
        self.path, self.call = path, call
        self._engine = used
        with torch.no_grad():
            self._operands = operands_of(seen.call)
            self._channels = None
            if self._operands.arithmetic == "products":
                self._channels = arithmetic.channels_of(self._operands)
            self._layer = self._described(seen)

    def layer(self, output: Sequence[int] | None = None, sample: int = 0) -> Int8Layer:
        """The record with the output at ``output`` (channel, then position) of ``sample`` by hand.

        Raises InputError where the output has no such place.
        """
        if self._layer.arithmetic == "none":
            return self._layer
        chosen = self._place(output, sample)
        with torch.no_grad():
            done: Worked = worked(self._operands, self._channels, sample, chosen)
        return replace(self._layer, worked=done)

    @property
    def samples(self) -> int:
        """Of the batch."""
        result = self._operands.result
        return int(result.shape[0]) if result.dim() > 1 else 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of an output of one sample: channels, then the other dimensions."""
        return places_of(self._operands)

    # -- which output ---------------------------------------------------------------------------

    def _place(self, output: Sequence[int] | None, sample: int) -> tuple[int, ...]:
        sizes, batch = self.sizes, self.samples
        if not 0 <= sample < batch:
            raise InputError(
                f"there is no sample {sample} in this layer's output.",
                where=self.path,
                fix=f"Ask for a sample from 0 to {batch - 1}.",
            )
        if output is None:
            return self._telling(sizes, sample)
        chosen = tuple(int(one) for one in output)
        if len(chosen) != len(sizes) or any(
            not 0 <= one < size for one, size in zip(chosen, sizes, strict=True)
        ):
            raise InputError(
                f"this layer has no output {chosen}.",
                where=self.path,
                why=f"Its output of one sample has sizes {sizes}, the channel first.",
                fix=f"Give {len(sizes)} numbers, each from 0 to below its size.",
            )
        return chosen

    def _telling(self, sizes: tuple[int, ...], sample: int) -> tuple[int, ...]:
        """The first channel, in the middle, whose code was not cut off: it shows the most."""
        middle = tuple(size // 2 for size in sizes[1:])
        low, high = self._operands.clamp
        codes = self._operands.result.int_repr()
        for channel in range(sizes[0] if sizes else 0):
            code = int(codes[index_of(self._operands, sample, (channel, *middle))])
            if low < code < high:
                return (channel, *middle)
        return (0, *middle) if sizes else ()

    # -- the numbers ----------------------------------------------------------------------------

    def _described(self, seen: Seen) -> Int8Layer:
        parts = self._operands
        kind, sentence, how = parts.kind, parts.sentence, parts.arithmetic
        if how == "products" and self._channels is None:
            how, sentence = "none", "Its weight's scales do not fit its output channels."
        module = seen.module
        total = int(parts.result.numel())
        return Int8Layer(
            self.path,
            self.call,
            seen.calls,
            kind,
            type(module).__name__ if module is not None else "",
            seen.call.operation,
            self._engine,
            how,
            tuple(map(_input, parts.inputs, seen.sources)),
            self._output(seen),
            sentence,
            self._weight(),
            self._bias(),
            self._multipliers(),
            self._offsets(),
            parts.geometry.rows() if parts.geometry is not None else (),
            None,
            arithmetic.compare(parts, self._channels) if how != "none" else (),
            total,
            probe_engine(self._engine).verdict == "saturates",
        )

    def _output(self, seen: Seen) -> OutputNumbers:
        result, grid = self._operands.result, tensor_grid(self._operands.result)
        low, high = self._operands.clamp
        trained: tuple[int | None, int | None] = (None, None)
        if seen.call.quantizer is not None:
            trained = quant_range(seen.call.quantizer)
        return OutputNumbers(
            grid[0] if grid else None,
            grid[1] if grid else None,
            low,
            high,
            self._operands.relu,
            str(result.dtype).removeprefix("torch."),
            tuple(result.shape),
            *trained,
        )

    def _weight(self) -> WeightNumbers | None:
        weight = self._operands.weight
        if weight is None or not weight.is_quantized:
            return None
        codes = weight.int_repr().numpy().copy()
        codes.flags.writeable = False
        scales, zeros, own = _own_scales(weight)
        if self._channels is not None:  # one an output channel
            scales = _floats(self._channels.weight_scales)
            zeros = tuple(int(z) for z in self._channels.zeros.tolist())
        return WeightNumbers(codes, scales, zeros, own)

    def _bias(self) -> BiasNumbers | None:
        channels = self._channels
        if channels is None or channels.bias is None or channels.bias_codes is None:
            return None
        off = (channels.bias - channels.bias_codes * channels.scales).abs()
        largest = float(off.max())
        return BiasNumbers(
            _floats(channels.bias),
            tuple(int(code) for code in channels.bias_codes.tolist()),
            _floats(channels.scales),
            largest,
            largest / arithmetic.grid(self._operands.result)[0],
        )

    def _multipliers(self) -> tuple[Multiplier, ...]:
        parts = self._operands
        if self._channels is not None:
            values = self._channels.multipliers.tolist()
        elif parts.arithmetic == "batch norm":
            values = arithmetic.norm_of(parts)[0].tolist()
        elif parts.arithmetic in ("add", "cat", "mul"):
            step = arithmetic.grid(parts.result)[0]
            values = [arithmetic.grid(one)[0] / step for one in parts.inputs]
            if parts.arithmetic == "mul":
                values = [values[0] * arithmetic.grid(parts.inputs[1])[0]]
        else:
            values = []
        return tuple(Multiplier(value, *arithmetic.fixed_point(value)) for value in values)

    def _offsets(self) -> tuple[float, ...]:
        if self._operands.arithmetic != "batch norm":
            return ()
        return _floats(arithmetic.norm_of(self._operands)[1])


def int8_layer(
    model: nn.Module,
    path: str,
    inputs: Any,
    output: Sequence[int] | None = None,
    *,
    sample: int = 0,
    call: int = 0,
    engine: str | None = None,
    prepared: nn.Module | None = None,
) -> Int8Layer:
    """All numbers of the layer at ``path`` of an int8 ``model``: see :class:`LayerRun`."""
    run = LayerRun(model, path, inputs, engine=engine, prepared=prepared, call=call)
    return run.layer(output, sample)


def _check(model: nn.Module, path: str) -> None:
    modules = dict(model.named_modules(remove_duplicate=False))
    module = modules.get(path)
    nodes = {str(node.name) for node in getattr(getattr(model, "graph", None), "nodes", ())}
    if module is None and path not in nodes:
        raise StageError(
            f"the int8 model has no layer {path!r}.",
            where=path,
            fix="Take the path of a module of session.int8.named_modules().",
        )
    if module is not None and (is_container(module) or not path):
        raise StageError(
            "this module holds other modules and computes nothing of its own.",
            where=path,
            fix="Choose an int8 layer inside of it.",
        )


def _input(tensor: Tensor, source: Source) -> InputNumbers:
    grid = tensor_grid(tensor)
    low, high = codes_of(tensor)
    return InputNumbers(
        grid[0] if grid else None,
        grid[1] if grid else None,
        low,
        high,
        str(tensor.dtype).removeprefix("torch."),
        tuple(tensor.shape),
        source.owner,
        source.owner_type,
        source.fake_quant,
        source.owner_is,
        source.through,
    )


def _floats(values: Tensor) -> tuple[float, ...]:
    return tuple(float(value) for value in values.tolist())


def _own_scales(weight: Tensor) -> tuple[tuple[float, ...], tuple[int, ...], bool]:
    if weight.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return (float(weight.q_scale()),), (int(weight.q_zero_point()),), False
    zeros = weight.q_per_channel_zero_points()
    whole = () if zeros.is_floating_point() else tuple(int(z) for z in zeros.tolist())
    return _floats(weight.q_per_channel_scales()), whole, True
