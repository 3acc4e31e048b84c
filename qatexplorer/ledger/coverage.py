"""What of the model will be int8: asked of torch by converting a copy, and running it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from qatexplorer.errors import StoppedError
from qatexplorer.explain.blame import place_of
from qatexplorer.explain.translations import translate
from qatexplorer.flows.base import moved_to_cpu
from qatexplorer.forward.calls import Call
from qatexplorer.forward.preserve import preserved_rng
from qatexplorer.forward.record import Recording, record_forward
from qatexplorer.ledger.forwards import Forwards
from qatexplorer.ledger.records import Coverage
from qatexplorer.quantizers.engine import quantized_engine
from qatexplorer.quantizers.types import KEEPING, ON_INT8, is_int8_module
from qatexplorer.shown import first_line

Convert = Callable[[nn.Module], nn.Module]


@dataclass
class Outcome:
    """What became of a converted copy.

    Attributes:
        int8_paths: modules that compute in int8; None if the copy could not be converted.
        recording: its forward on the example inputs, None if it does not run.
        error: what torch said when it did not convert or run, ``""`` else.
        followers: indices, in the prepared model's recording, of calls that compute on int8.
    """

    int8_paths: frozenset[str] | None
    recording: Recording | None
    error: str = ""
    followers: frozenset[int] = field(default_factory=frozenset)

    @property
    def basis(self) -> str:
        if self.int8_paths is None:
            return "structure"
        return "int8 run" if self.recording is not None else "converted types"

    def is_int8(self, path: str) -> bool:
        """Whether the module at ``path``, or one around it, computes in int8."""
        if self.int8_paths is None:
            return False
        parts = path.split(".")
        return any(".".join(parts[:end]) in self.int8_paths for end in range(len(parts), 0, -1))


def torch_convert(model: nn.Module) -> nn.Module:
    """Torch's own conversion of a prepared model, in the flow that made it. May raise."""
    if isinstance(model, fx.GraphModule):
        from torch.ao.quantization.quantize_fx import convert_fx

        from qatexplorer.flows.fx_watch import models_let_go

        with models_let_go():
            return convert_fx(model)
    from torch.ao.quantization import convert

    return convert(model, inplace=True)  # type: ignore[no-any-return]


def outcome_of(
    work: nn.Module,
    inputs: Any,
    recording: Recording,
    convert: Convert,
    engine: str | None,
    forwards: Forwards,
) -> Outcome:
    """Convert ``work`` and run the result on the example inputs.

    ``work`` is a copy of the prepared model, which is given up: its observers have seen the
    example, so that its scales are sane. Nothing is raised but StoppedError.
    """
    backend = engine or torch.backends.quantized.engine
    forwards.say("Converting a copy to int8")
    with warnings.catch_warnings(), preserved_rng(), torch.no_grad(), quantized_engine(backend):
        warnings.simplefilter("ignore")
        passed_on = followers(recording, work)
        try:
            int8 = convert(moved_to_cpu(work).eval())
        except Exception as error:
            return Outcome(None, None, explained(error, work), passed_on)
        paths = frozenset(p for p, m in int8.named_modules() if p and is_int8_module(m))
        try:
            with forwards.one("Running the int8 copy", int8):
                ran = record_forward(int8, inputs)
        except StoppedError:
            raise
        except Exception as error:
            return Outcome(paths, None, explained(error, int8), passed_on)
    return Outcome(paths, ran, "", passed_on)


def explained(error: Exception, model: nn.Module) -> str:
    """What went wrong, where in the model, and what to do."""
    place = place_of(error, model)
    translation = translate(error, place, in_fx=isinstance(model, fx.GraphModule))
    first = first_line(error)
    short = first if len(first) <= 120 else f"{first[:119]}…"
    where = f" in {place.path}" if place.path else ""
    return f"{type(error).__name__}{where}: {short} {translation.why} {translation.fix}".strip()


def followers(recording: Recording, model: nn.Module) -> frozenset[int]:
    """Calls of the prepared model that will work on int8: fake quants, what passes int8 on after
    them, and operations between fake quants whose module, or graph node, torch quantizes."""
    consumers = recording.consumers()
    passing = KEEPING if isinstance(model, fx.GraphModule) else ON_INT8
    found: set[int] = set()
    for call in recording.calls:
        if call.kind == "quant":
            found.add(call.index)
        elif call.kind == "op" and _data_inputs(call, recording):
            inside = all(i in found for i in _data_inputs(call, recording))
            if inside and (
                call.name in passing or _quantized(_fused_with(call, consumers), consumers)
            ):
                found.add(call.index)
    return frozenset(found)


def _fused_with(call: Call, consumers: dict[int, list[Call]]) -> Call:
    """The ReLU that int8 kernels compute together with ``call``, where it is its only taker."""
    takers = consumers.get(call.index, [])
    if len(takers) == 1 and takers[0].kind == "op" and takers[0].name == "relu":
        return takers[0]
    return call


def _quantized(call: Call, consumers: dict[int, list[Call]]) -> bool:
    takers = consumers.get(call.index, [])
    return any(c.kind == "quant" and c.mechanism in ("node", "forward") for c in takers)


def _data_inputs(call: Call, recording: Recording) -> list[int]:
    """Tensor inputs, those that are parameters or constants left out."""
    return [i for i in call.inputs if recording.calls[i].kind != "param"]


def macs_in_int8(recording: Recording, outcome: Outcome, model: nn.Module) -> int:
    """Multiply-accumulates of the operations that int8 kernels will compute."""
    total = 0
    consumers = recording.consumers()
    for call in recording.calls:
        if not call.macs:
            continue
        scope = call.scope
        if scope and outcome.is_int8(scope):
            total += call.macs
        elif not scope or isinstance(model, fx.GraphModule):
            # A functional call in an FX graph: weight and input on a grid, and output watched.
            feeding = [recording.calls[i].kind for i in call.inputs]
            watched = any(c.kind == "quant" for c in consumers.get(call.index, []))
            fused = any(c.name == "relu" for c in consumers.get(call.index, []))
            if (
                feeding.count("quant") >= 2
                and (watched or fused)
                and outcome.int8_paths is not None
            ):
                total += call.macs
    return total


def cover(model: nn.Module, recording: Recording, outcome: Outcome) -> Coverage:
    """Shares of parameters and multiply-accumulates that will be int8."""
    owners: dict[int, tuple[int, bool]] = {}
    functional = _functional_weights(recording) if outcome.int8_paths is not None else set()
    for path, parameter in model.named_parameters(remove_duplicate=False):
        above = path.rpartition(".")[0]
        int8 = (
            path in functional or outcome.is_int8(above) or owners.get(id(parameter), (0, False))[1]
        )
        owners[id(parameter)] = (parameter.numel(), int8)
    return Coverage(
        params_total=sum(n for n, _ in owners.values()),
        params_int8=sum(n for n, int8 in owners.values() if int8),
        macs_total=sum(call.macs for call in recording.calls),
        macs_int8=macs_in_int8(recording, outcome, model),
        basis=outcome.basis,
    )


def _functional_weights(recording: Recording) -> set[str]:
    """Parameters of functional calls whose weight a node of an FX graph fake-quantizes; the bias
    goes into the int8 operation with the weight, as a layer's does."""
    rounded = {
        call.index
        for call in recording.quants
        if call.mechanism == "node"
        and any(recording.calls[index].kind == "param" for index in call.inputs)
    }
    takers = [c for c in recording.calls if rounded.intersection(c.inputs) or c.index in rounded]
    return {
        recording.calls[index].name
        for call in takers
        for index in call.inputs
        if recording.calls[index].kind == "param"
    }
