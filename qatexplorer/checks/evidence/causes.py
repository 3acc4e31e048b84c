"""Why an int8 result is not what the fake quant gave: each place is computed again on its own.

A difference grows along a model, so that of a late layer says nothing about that layer. Here the
fake-quant module is given the very input that the int8 module was given, within the int8 forward:
what still differs is made at this place. An int8 layer is then computed once more in integers, with
its own int8 weights: if the engine gave something else, it is the engine.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from qatexplorer.checks.evidence.weights import scale_of_kernel
from qatexplorer.evaluate.pairs import Pair
from qatexplorer.evaluate.parity import FAR, ParityRow, row_of
from qatexplorer.forward.preserve import preserved_state
from qatexplorer.forward.trace import tensors_in
from qatexplorer.forward.visit import Sample, Visit, sample_of
from qatexplorer.quantizers.engine import available_engines, quantized_engine
from qatexplorer.quantizers.facts import (
    fake_quants,
    is_fake_quant,
    is_quantizer,
    quant_range,
    switch,
)
from qatexplorer.quantizers.integers import (
    Geometry,
    centred,
    int8_weight,
    sums,
    tensor_grid,
    weight_grid,
)

Why = Literal[
    "kernel", "batch norm", "one scale", "stale scale", "clamp", "weight", "kernel scale", "unknown"
]

PARTED = 0.01
"""Share of outputs more than 1.5 steps apart from which a place is looked at on its own. A right
kernel differs by a step where a sum lies between two codes, and by no more."""
ROUNDED = 2.5
"""Steps that rounding explains: one of the result, and one or so of weights whose scale differs as
that of torch's fused fake quant does."""
_MOST = 24  # places looked at; each costs the forward of one layer
_SAME_STEP = 1e-3
_FLOOR = 6.1e-5
"""The smallest scale of torch's fused fake quant (0.1 for a range of nothing but zero)."""
_KERNEL_SCALE = 0.005  # 1 / 255 is what torch's two formulas differ by at most


@dataclass(frozen=True)
class Cause:
    """A place where fake quant and int8 differ on the same input.

    Attributes:
        row: what was measured in the forward. own: the same on the int8 model's own input.
        why: see :data:`Why`; ``"unknown"`` where nothing could be shown.
        kind: class of the fake-quant module, or name of the operation.
        detail: numbers for the sentence, by name.
        node: of the prepared graph, None in eager mode.
        engines: for a wrong kernel, those of this machine that were tried and are right.
    """

    row: ParityRow
    own: ParityRow
    why: Why
    kind: str
    detail: dict[str, float]
    node: fx.Node | None = None
    engines: tuple[str, ...] = ()


def below_floor(row: ParityRow) -> bool:
    """Whether int8 is finer than the fake quant only because its kernel takes no scale that is so
    small, as calculate_qparams() does: that is no fault of int8."""
    return row.step < _FLOOR and row.step_trained >= row.step


class Examiner:
    """Looks at each place that parts; :attr:`causes` are those that part on their own."""

    def __init__(self, prepared: nn.Module, engine: str) -> None:
        self.causes: list[Cause] = []
        self._modules = dict(prepared.named_modules(remove_duplicate=False))
        self._engine = engine
        self._looked = 0
        self._calls = _calls_of(prepared)

    def look(self, row: ParityRow, pair: Pair, visit: Visit) -> None:
        """For :class:`~qatexplorer.evaluate.parity.ParityRun`; never raises."""
        if row.far <= PARTED or self._looked >= _MOST or pair.quantizer is None:
            return
        if below_floor(row):
            return
        self._looked += 1
        try:
            cause = self._examine(row, pair, visit)
        except Exception:  # an odd module: nothing is claimed about it
            return
        if cause is not None:
            self.causes.append(cause)

    def _examine(self, row: ParityRow, pair: Pair, visit: Visit) -> Cause | None:
        here = sample_of(visit.result)
        wanted = self._fake(pair, visit)
        if here is None or wanted is None:
            return None
        fake = sample_of(wanted)
        if fake is None or fake.values.shape != here.values.shape:
            return None
        own = row_of(pair, fake.values, here)
        if own.far <= PARTED or own.largest <= ROUNDED:
            return None
        module = self._modules.get(pair.name[0]) if not pair.nodes else self._layer(pair)
        why, detail = self._why(row, pair, visit, here, fake, module)
        kind = type(module).__name__ if module is not None else _operation(pair)
        node = pair.nodes[-1] if pair.nodes else None
        engines = self._right_engines(pair, visit) if why == "kernel" else ()
        return Cause(row, own, why, kind, detail, node, engines)

    def _layer(self, pair: Pair) -> nn.Module | None:
        first = pair.nodes[0]
        return self._modules.get(str(first.target)) if first.op == "call_module" else None

    # -- the fake-quant side --------------------------------------------------------------------

    def _fake(self, pair: Pair, visit: Visit) -> Any:
        """What the fake-quant place gives for the int8 place's input; None if that is unknown."""
        if pair.nodes:
            return self._fake_of_nodes(pair, visit)
        module = self._modules.get(visit.place[0])
        if module is None or module is pair.quantizer:
            return self._alone(pair.quantizer, visit.args) if module is not None else None
        return self._alone(module, visit.args)

    def _alone(self, module: nn.Module | None, args: Any) -> Any:
        assert module is not None
        with _frozen(module):
            return module(*_plain(args))

    def _fake_of_nodes(self, pair: Pair, visit: Visit) -> Any:
        values: dict[fx.Node, Any] = {
            stands: _plain(visit.values[given])
            for stands, given in pair.sources
            if given in visit.values
        }
        quantizer = pair.quantizer
        assert quantizer is not None
        if pair.nodes and pair.nodes[0] in values:  # quantizing alone
            with _frozen(quantizer):
                return quantizer(values[pair.nodes[0]])
        result = self._run_nodes(pair, values)
        with _frozen(quantizer):
            return quantizer(result)

    def _raw_of_nodes(self, pair: Pair, visit: Visit) -> Any:
        values = {
            stands: _plain(visit.values[given])
            for stands, given in pair.sources
            if given in visit.values
        }
        return self._run_nodes(pair, values)

    def _run_nodes(self, pair: Pair, values: dict[fx.Node, Any]) -> Any:
        result: Any = None
        for node in pair.nodes:
            args = fx.node.map_arg(node.args, lambda n: values[self._behind(n)])
            kwargs = fx.node.map_arg(node.kwargs, lambda n: values[self._behind(n)])
            if node.op == "call_module":
                module = self._modules[str(node.target)]
                with _frozen(module):
                    result = module(*args, **kwargs)
            elif node.op == "call_function":
                result = node.target(*args, **kwargs)  # type: ignore[operator]
            else:
                result = getattr(args[0], str(node.target))(*args[1:], **kwargs)
            values[node] = result
        return result

    def _behind(self, node: fx.Node) -> fx.Node:
        while node.op == "call_module" and self._modules[str(node.target)] in self._quantizers:
            node = node.all_input_nodes[0]
        return node

    @property
    def _quantizers(self) -> set[nn.Module]:
        if not hasattr(self, "_found"):
            self._found = {m for m in self._modules.values() if is_quantizer(m)}
        return self._found

    def _right_engines(self, pair: Pair, visit: Visit) -> tuple[str, ...]:
        """Engines that give what integers give for this layer and input, each tried."""
        given = next(tensors_in(_given(pair, visit)), None)
        layer: Any = visit.module
        if given is None or layer is None:
            return ()
        exact = in_integers(layer, given)
        if exact is None:
            here = sample_of(visit.result)
            exact = self._on_its_grid(pair, visit, here) if here is not None else None
        if exact is None:
            return ()
        right = []
        for name in available_engines():
            if name == self._engine:
                continue
            try:
                with quantized_engine(name), torch.no_grad():
                    twin = copy.deepcopy(layer)
                    if int8_weight(layer) is not None:
                        twin.set_weight_bias(layer.weight(), layer.bias())
                    found = sample_of(twin(given))
            except Exception:  # it has no such kernel
                continue
            if found is not None and row_of(pair, exact, found).far <= PARTED:
                right.append(name)
        return tuple(right)

    # -- why ------------------------------------------------------------------------------------

    def _why(
        self,
        row: ParityRow,
        pair: Pair,
        visit: Visit,
        here: Sample,
        fake: Sample,
        module: nn.Module | None,
    ) -> tuple[Why, dict[str, float]]:
        given = next(tensors_in(_given(pair, visit)), None)
        if given is not None and given.is_quantized:
            exact = in_integers(visit.module, given) if visit.module is not None else None
            if exact is None:
                exact = self._on_its_grid(pair, visit, here)
            if exact is not None:
                engine = row_of(pair, exact, here)
                if engine.far > PARTED and engine.largest > ROUNDED:
                    high = max(map(_highest, self._quantizers), default=255)
                    return "kernel", {
                        "largest": engine.largest,
                        "far": engine.far,
                        "high": high,
                    }
            if type(module).__name__ == "LinearBn1d" and given.dim() > 2:
                return "batch norm", {"dims": given.dim()}
        trained = row.step_trained
        if trained and abs(trained - row.step) > _SAME_STEP * row.step:
            steps = {"step": row.step, "trained": trained}
            calls = self._calls.get(pair.name[0], 1)
            if module is not None and calls > 1:
                return "one scale", {**steps, "calls": calls}
            return "stale scale", {**steps, "shared": float(self._shares_its_inputs(pair))}
        assert pair.quantizer is not None
        high = quant_range(pair.quantizer)[1]
        if here.codes is not None and high < here.top:
            apart = ((fake.values - here.values).abs() / row.step) > FAR
            past = here.codes > high
            if bool((apart & past).any()) and float((apart & ~past).float().mean()) <= PARTED:
                return "clamp", {"share": float(past.float().mean()), "high": high}
        ratio = _weight_ratio(module, visit.module)
        if ratio is not None and abs(ratio - 1) > _KERNEL_SCALE:
            return "weight", {"ratio": ratio}
        if ratio is not None and abs(ratio - 1) > _SAME_STEP:
            return "kernel scale", {"ratio": ratio}
        # The fused kernel rounds with a scale of its own, and writes it down only then.
        kernel = scale_of_kernel(module) if module is not None else None
        if kernel is not None and kernel.moved:
            return "kernel scale", {"ratio": 1 + kernel.off_by}
        return "unknown", {}

    def _on_its_grid(self, pair: Pair, visit: Visit, here: Sample) -> Tensor | None:
        """What the operation gives in float for the int8 input, rounded to the int8 grid."""
        assert here.scale is not None
        inside = [self._modules.get(str(n.target)) for n in pair.nodes if n.op == "call_module"]
        own = self._modules.get(visit.place[0]) if not pair.nodes else None
        for part in (*inside, own):  # its weights would have been rounded too
            if part is not None and next(part.parameters(), None) is not None:
                return None
        if pair.nodes:
            if pair.nodes[0] in dict(pair.sources):
                return None  # it only quantizes
            raw = self._raw_of_nodes(pair, visit)
        else:
            module = self._modules.get(visit.place[0])
            if module is None or module is pair.quantizer:
                return None
            with _frozen(module):  # forward itself, as a hook would round the result
                raw = module.forward(*_plain(visit.args))
        found = sample_of(raw)
        if found is None or found.values.shape != here.values.shape:
            return None
        codes = (found.values.double() / here.scale).round() + here.zero_point
        codes = codes.clamp(0, here.top) if here.top == 255 else codes
        return (codes - here.zero_point) * here.scale

    def _shares_its_inputs(self, pair: Pair) -> bool:
        """Whether the fake quant of the result is the very one of the input."""
        given = pair.nodes[0].all_input_nodes if pair.nodes else []
        return any(self._modules.get(str(one.target)) is pair.quantizer for one in given)


def _highest(quantizer: nn.Module) -> int:
    """Largest code of an activation; 0 for what is no fake quant."""
    return quant_range(quantizer)[1] if is_fake_quant(quantizer) else 0


def _operation(pair: Pair) -> str:
    target = pair.nodes[0].target if pair.nodes else pair.name[0]
    return str(getattr(target, "__name__", target))


def _given(pair: Pair, visit: Visit) -> Any:
    if not pair.nodes:
        return visit.args
    node = visit.node
    if node is None or not node.args or not isinstance(node.args[0], fx.Node):
        return ()
    return (visit.values.get(node.args[0]),)


def _plain(value: Any) -> Any:
    """The same with int8 tensors as float ones."""
    if isinstance(value, Tensor):
        return value.dequantize() if value.is_quantized else value
    if isinstance(value, (tuple, list)):
        return type(value)(_plain(item) for item in value)
    return value


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """In eval mode, rounding, learning nothing; put back after."""
    with ExitStack() as stack:
        stack.enter_context(preserved_state(module))
        stack.enter_context(torch.no_grad())
        module.eval()
        every = [*fake_quants(module).values()]
        for one in every:
            switch(one, observer=False, fake_quant=True)
        yield


def _calls_of(prepared: nn.Module) -> dict[str, int]:
    calls: dict[str, int] = {}
    for node in prepared.graph.nodes if isinstance(prepared, fx.GraphModule) else ():
        if node.op == "call_module":
            calls[str(node.target)] = calls.get(str(node.target), 0) + 1
    return calls


def _weight_ratio(module: nn.Module | None, int8: nn.Module | None) -> float | None:
    """Of the int8 weight's scale to the fake quant's, the one furthest from 1."""
    scale = getattr(getattr(module, "weight_fake_quant", None), "scale", None)
    weight = int8_weight(int8)
    if not isinstance(scale, Tensor) or weight is None:
        return None
    per_tensor = weight.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric)
    mine = torch.tensor([weight.q_scale()]) if per_tensor else weight.q_per_channel_scales()
    if mine.numel() != scale.numel():
        return None
    ratios = mine.double() / scale.detach().cpu().double()
    return float(ratios[(ratios - 1).abs().argmax()])


_PLAIN = re.compile(r"Linear(ReLU)?|Conv(ReLU|Transpose)?[123]d")
"""Layers of products and nothing else but a ReLU."""


def in_integers(layer: nn.Module, x: Tensor) -> Tensor | None:
    """Sample of what an int8 conv or linear layer gives for the int8 ``x`` by exact arithmetic with
    its own weights and on its own grid; None for other modules."""
    made: Any = layer
    weight, grid, name = int8_weight(layer), tensor_grid(x), type(layer).__name__
    walks = name.startswith("Conv")
    if weight is None or grid is None or not hasattr(layer, "scale") or not _PLAIN.fullmatch(name):
        return None
    if walks and getattr(made, "padding_mode", "zeros") != "zeros":
        return None
    geometry, channels, axis = None, int(weight.shape[0]), x.dim() - 1
    if walks:
        up = name.startswith("ConvTranspose")
        geometry = Geometry(
            made.stride, made.padding, made.dilation, made.groups, up, made.output_padding
        )
        channels, axis = int(weight.shape[1]) * made.groups if up else channels, 1
    found = weight_grid(weight, channels)
    if found is None:
        return None
    across = [-1 if i == axis else 1 for i in range(x.dim())]
    done = sums(centred(x), weight, found[1], geometry) * (found[0] * grid[0]).view(across)
    bias = made.bias()
    if bias is not None:
        done = done + bias.detach().double().view(across)
    if "ReLU" in name:
        done = done.clamp(min=0)
    scale, zero = float(made.scale), int(made.zero_point)
    codes = (torch.round(done / scale) + zero).clamp(0, 255)
    sample = sample_of((codes - zero) * scale)
    return sample.values if sample is not None else None
