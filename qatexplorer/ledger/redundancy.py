"""Values that are fake-quantized more than once: found in what one forward did.

Two fake quants are in a row if nothing but value-keeping operations lie between them: those whose
every result is one of the values they got, or a constant bound (``relu``, ``clamp``). Averages are
none of them: an average of grid values lies between the steps, and rounding it is no repetition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import fx, nn

from qatexplorer.forward.calls import Call
from qatexplorer.forward.exported import is_exported
from qatexplorer.forward.record import Recording
from qatexplorer.ledger.fixes import Fix, fix_of_double, module_at, twice_in_a_sequence
from qatexplorer.ledger.places import place_of_call
from qatexplorer.ledger.reasons import Known
from qatexplorer.ledger.records import Redundancy, TensorPlace
from qatexplorer.quantizers.types import DROPPING, KEEPING


@dataclass(frozen=True)
class Finding:
    """A redundancy with the calls that prove it, before it is measured.

    ``calls`` are the (second and further) calls that repeat work: (fake quant's path, which of its
    calls in a forward).
    """

    record: Redundancy
    calls: tuple[tuple[str, int], ...] = ()
    first_call: tuple[str, int] | None = None
    end: Call | None = field(default=None, compare=False)
    start: Call | None = field(default=None, compare=False)


def before(call: Call, recording: Recording) -> tuple[Call | None, tuple[Call, ...]]:
    """The fake quant that the values of ``call`` come from unchanged, and the operations between.

    None if anything but value-keeping operations lies between.
    """
    between: list[Call] = []
    current = call
    while current.inputs:
        current = recording.calls[current.inputs[0]]
        if current.kind == "quant":
            return current, tuple(reversed(between))
        if current.kind != "op" or plain_name(current) not in KEEPING:
            break
        between.append(current)
    return None, ()


def plain_name(call: Call) -> str:
    """``"flatten"`` for ``aten.flatten.using_ints``, as an exported graph calls it."""
    return call.name.partition(".")[0].strip("_")


def find_redundancies(
    model: nn.Module, recording: Recording, known: Known | None = None
) -> tuple[Finding, ...]:
    """Every pair of fake quants in a row, and every one that serves several tensors.

    ``known`` are the tables of torch in force, by default those of the flow that made ``model``.
    """
    known = known or Known(model)
    doubles: dict[tuple[str, str], Finding] = {}
    twice: dict[str, list[Call]] = {}
    for call in recording.quants:
        first, between = before(call, recording)
        if first is None:
            continue
        if first.name != call.name:
            found = _double(first, call, between, recording, fix_of_double(model, known))
            earlier = doubles.get((first.name, call.name))
            if earlier is not None:  # the same two modules again: their layer is used twice
                found = replace(earlier, calls=earlier.calls + found.calls)
            doubles[first.name, call.name] = found
        elif not between:
            twice.setdefault(call.name, []).append(call)
    pairs = [_with_followers(found, recording) for found in doubles.values()]
    repeated = [_twice(model, calls, recording) for calls in twice.values()]
    return (*pairs, *repeated, *_shared(model, recording, twice))


def _with_followers(found: Finding, recording: Recording) -> Finding:
    """With the later calls of the second module on the very same values: it is one quantization."""
    calls = dict.fromkeys(found.calls)
    for call in recording.quants:
        earlier, _ = before(call, recording)
        if (
            earlier is not None
            and earlier.name == call.name
            and ((earlier.name, earlier.ordinal) in calls)
        ):
            calls[call.name, call.ordinal] = None
    return replace(found, calls=tuple(calls), first_call=found.calls[0])


def _ops_text(between: Sequence[Call]) -> tuple[str, ...]:
    return tuple(
        call.name
        + (f" ({call.scope})" if call.scope else f" ({call.source})" if call.source else "")
        for call in between
    )


def _double(
    first: Call, second: Call, between: Sequence[Call], recording: Recording, fix: Fix
) -> Finding:
    through = _ops_text(between)
    way = f"through {', '.join(through)}, as they are" if through else "with nothing between"
    evidence = (
        f"The values that {first.name} returns reach {second.name} {way}; the two are different "
        "modules, each with a scale of its own."
    )
    if any(plain_name(call) in DROPPING for call in between):
        evidence += " (Dropout keeps them in eval and in int8; in training it rescales.)"
    record = Redundancy(
        kind="double",
        fault=True,
        first=first.name,
        second=second.name,
        places=(place_of_call(first, recording), place_of_call(second, recording)),
        through=through,
        evidence=evidence,
        fix=fix(first, second, between),
    )
    return Finding(record, ((second.name, second.ordinal),), end=second, start=first)


def _twice(model: nn.Module, calls: Sequence[Call], recording: Recording) -> Finding:
    path = calls[0].name
    parent = path.rpartition(".")[0]
    first, _ = before(calls[0], recording)
    ways = [call.mechanism for call in (*((first,) if first else ()), *calls)]
    hooks = observer_hooks(model, parent)
    if hooks > 1:
        why = f"torch's _observer_forward_hook is registered {hooks} times on {parent}"
        fix = (
            "prepare (or prepare_qat) was called more than once on this model. Call it once, on a "
            "model that is not prepared yet; or remove the extra entries of "
            f"{parent}._forward_hooks."
        )
    elif isinstance(module_at(model, parent), nn.Sequential):
        why, fix = twice_in_a_sequence(model, parent)
    elif "forward" in ways and "hook" in ways:
        why = f"the forward of {parent} calls it, and the hook that prepare registered does too"
        fix = (
            "Take the call of self.activation_post_process out of the module's forward (torch's "
            "own QAT modules did so in 1.7): prepare adds the output's fake quant itself."
        )
    else:
        why = f"it is called {len(ways)} times in a row ({', then '.join(ways)})"
        fix = f"Call {path} once in a forward."
    record = Redundancy(
        kind="twice",
        fault=True,
        first=path,
        second=path,
        places=tuple(place_of_call(c, recording) for c in ((first or calls[0]), calls[-1])),
        through=(),
        evidence=f"{path} runs on its own output: {why}.",
        fix=fix,
    )
    repeated = tuple((c.name, c.ordinal) for c in calls)
    return Finding(record, repeated, repeated[-1], end=calls[-1], start=first)


def observer_hooks(model: nn.Module, path: str) -> int:
    """How many times torch's ``_observer_forward_hook`` is registered on the module at ``path``."""
    module = module_at(model, path)
    if module is None:
        return 0
    names = [getattr(hook, "__name__", "") for hook in module._forward_hooks.values()]
    return names.count("_observer_forward_hook")


def _shared(model: nn.Module, recording: Recording, twice: dict[str, list[Call]]) -> list[Finding]:
    by_path: dict[str, list[Call]] = {}
    for call in recording.quants:
        if call.name not in twice:
            by_path.setdefault(call.name, []).append(call)
    found = []
    for path, calls in by_path.items():
        if len(calls) < 2:
            continue
        places: tuple[TensorPlace, ...] = tuple(
            dict.fromkeys(place_of_call(call, recording) for call in calls)
        )
        if is_exported(model):
            why = (
                "the quantizer gave these tensors one fake quant on purpose, by a "
                "SharedQuantizationSpec: the operation between them needs one scale, or passes "
                "values on."
            )
            cost = (
                "Nothing where values are passed on as they are. Where unlike ranges share it, as "
                "those of the inputs of a cat may be, the widest sets the step."
            )
        elif isinstance(model, fx.GraphModule) and calls[0].mechanism == "node":
            why = (
                "FX gave these tensors one fake quant on purpose: the operations between them "
                "(cat, pooling, view …) run in int8 with one scale for inputs and output."
            )
            cost = (
                "Nothing where values are passed on as they are. Where unlike ranges share it, as "
                "those of the inputs of a cat may be, the widest sets the step."
            )
        else:
            why = (
                f"its module runs {len(calls)} times in one forward, so one range has to serve "
                "every use. If the uses differ much, give each a module of its own."
            )
            cost = "Resolution, where the uses have unlike ranges: the widest sets the step."
        record = Redundancy(
            kind="shared",
            fault=False,
            first=path,
            second=path,
            places=places,
            through=(),
            evidence=f"{path} serves {len(calls)} uses: {why}",
            fix="Nothing to remove: sharing is no double quantization.",
            cost=cost,
        )
        found.append(Finding(record, end=calls[-1], start=calls[0]))
    return found
