"""One forward, value by value: every operation, every fake quant, and what fed it.

Finer than the dataflow graph: operations inside of torch's own modules show, and a fake quant is
an operation like any other, so that "two fake quants in a row" can be seen in any prepared model,
whichever flow made it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import fx, nn

from qatexplorer.forward.trace import first_tensor_info, tensors_in
from qatexplorer.quantizers.types import FUNCTIONAL_CLASSES


@dataclass(frozen=True, slots=True)
class Call:
    """One thing that happened; ``index`` is its place in the forward.

    Attributes:
        kind: model input, parameter or buffer, operation, fake quant (or observer), model output.
        name: of the operation without underscores, of the parameter, or the fake quant's path.
        scope: path of the module that was running.
        mechanism: how a fake quant was called, ``""`` for the rest.
        inputs: indices of the calls that made its tensors.
        inner: it happened inside of one of torch's own modules.
        ordinal: how many calls of this kind and name came before; of operations, the inner ones
            are counted for each module, the others over the whole model.
        output_of: (path, port) of the module whose raw output the quantized tensor is, else None.
        macs: multiply-accumulates.
    """

    index: int
    kind: Literal["input", "param", "op", "quant", "output"]
    name: str
    scope: str
    mechanism: str = ""
    inputs: tuple[int, ...] = ()
    ordinal: int = 0
    inner: bool = False
    output_of: tuple[str, int] | None = None
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    source: str = ""
    macs: int = 0


class Frame:
    """A module that is running, and where in its call it is."""

    __slots__ = ("leaf", "module", "path", "phase", "quantizer")

    def __init__(self, module: nn.Module, path: str, leaf: bool, quantizer: bool) -> None:
        self.module, self.path, self.leaf, self.quantizer = module, path, leaf, quantizer
        self.phase: Literal["pre-hooks", "forward", "hooks"] = "pre-hooks"

    @property
    def closed(self) -> bool:
        """Whether what happens in its forward is torch's own business."""
        return self.leaf and not isinstance(self.module, FUNCTIONAL_CLASSES)


class CallList:
    """Makes the calls of a forward from what the recorder sees.

    Args:
        stack: the recorder's frames, the outermost a stand-in for whoever calls the model.
        on_quant: called with (path, fake quant, its tensor) when one runs, before it does.
    """

    def __init__(
        self,
        model: nn.Module,
        stack: list[Frame],
        on_quant: Callable[[str, nn.Module, torch.Tensor], Any] | None,
    ) -> None:
        self.calls: list[Call] = []
        self.macs_at: dict[str, int] = {}
        self.dtypes: dict[str, str] = {}
        self.busy = 0  # inside of a fake quant: nothing that is done there belongs to the model
        self._stack, self._on_quant = stack, on_quant
        self._made: dict[int, tuple[weakref.ref[torch.Tensor], int]] = {}
        self._raw: dict[int, tuple[weakref.ref[torch.Tensor], str, int]] = {}
        self._ordinals: dict[tuple[str, str, str], int] = {}
        self._names = {id(p): n for n, p in model.named_parameters()}
        self._names |= {id(b): n for n, b in model.named_buffers()}
        self._running: list[int] = []

    def add(self, kind: Any, name: str, inputs: Any, result: Any, **more: Any) -> Call:
        producers = tuple(p for p in map(self._producer, tensors_in(inputs)) if p is not None)
        shape, dtype = first_tensor_info(result if kind != "quant" else inputs) or (None, "")
        more.setdefault("scope", self._stack[-1].path)
        inner = kind == "op" and any(frame.closed for frame in self._stack[1:])
        key = (kind, name, more["scope"] if inner else "")
        ordinal = self._ordinals.get(key, 0)
        self._ordinals[key] = ordinal + 1
        call = Call(
            len(self.calls),
            kind,
            name,
            inputs=producers,
            ordinal=ordinal,
            inner=inner,
            shape=shape,
            dtype=dtype,
            **more,
        )
        self.calls.append(call)
        self._made_by(call.index, result)
        return call

    def _made_by(self, index: int, result: Any) -> None:
        for tensor in tensors_in(result):
            self._made[id(tensor)] = (weakref.ref(tensor), index)
            self._raw.pop(id(tensor), None)

    def _producer(self, tensor: torch.Tensor) -> int | None:
        entry = self._made.get(id(tensor))
        if entry is not None and entry[0]() is tensor:
            return entry[1]
        if id(tensor) in self._names:
            return self.add("param", self._names[id(tensor)], (), tensor).index
        return None

    def operation(self, name: str, given: Any, result: Any, macs: int, source: str) -> None:
        """A function or method of torch has run."""
        if macs:
            path = self._stack[-1].path
            self.macs_at[path] = self.macs_at.get(path, 0) + macs
        if first_tensor_info(result) is not None:
            # The code of a GraphModule is generated: the user's line is not on the stack.
            generated = isinstance(self._stack[-1].module, fx.GraphModule)
            shown = "" if generated else source
            self.add("op", name.strip("_"), given, result, macs=macs, source=shown)

    def entered(self, frame: Frame, mechanism: str, args: Any) -> None:
        """``frame`` is about to run; it is not on the stack yet."""
        if not frame.quantizer:
            return
        if not self.busy:
            # What it gets is looked up now: a fake quant that is off returns the very same tensor.
            raw = None
            for tensor in tensors_in(args):
                entry = self._raw.get(id(tensor))
                if entry is not None and entry[0]() is tensor:
                    raw = (entry[1], entry[2])
                if self._on_quant is not None:
                    self.busy += 1
                    self._on_quant(frame.path, frame.module, tensor)
                    self.busy -= 1
                break
            call = self.add("quant", frame.path, args, (), mechanism=mechanism, output_of=raw)
            self._running.append(call.index)
        self.busy += 1

    def returned(self, frame: Frame, args: Any, out: Any) -> None:
        """Its forward is over; its hooks come next."""
        info = first_tensor_info(out)
        if info is not None:
            self.dtypes[frame.path] = info[1]
        if frame.quantizer:
            if self.busy == 1 and self._running:
                self._made_by(self._running.pop(), out)
            self.busy -= 1
        elif not self.busy and not any(f.leaf for f in self._stack[2:-1]):
            if isinstance(frame.module, nn.Identity):
                # It hands on the very same tensor, and yet it is a step of its own.
                self.add("op", "identity", args, out, scope=frame.path)
            for port, tensor in enumerate(tensors_in(out)):
                entry = self._raw.get(id(tensor))
                known = entry is not None and entry[0]() is tensor
                if not known:
                    self._raw[id(tensor)] = (weakref.ref(tensor), frame.path, port)
