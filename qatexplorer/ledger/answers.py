"""The questions people ask about ``prepare_qat``, answered with the numbers of this very model.

They are those of a thread in PyTorch's forum (discuss.pytorch.org/t/181190). Every number comes
from the ledger, which was made by running the model; an answer that does not apply says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qatexplorer.flows.base import Flow
from qatexplorer.ledger.records import Ledger, LedgerRow
from qatexplorer.ledger.words import percent
from qatexplorer.snapshot.diff import Diff, ModuleChange


@dataclass(frozen=True)
class Answer:
    """``key`` names the question, ``selection`` is a place in the model that shows it."""

    key: str
    question: str
    text: str
    selection: str = ""


@dataclass(frozen=True)
class Subject:
    """What is asked about: a ledger, the flow, and what its stage that makes weight fake quants
    has changed (None if it has no such stage)."""

    ledger: Ledger
    flow: Flow
    making: Diff | None

    @property
    def swapped(self) -> list[ModuleChange]:
        """Modules swapped in that stage for such as hold a weight fake quant."""
        if self.making is None:
            return []
        owners = {site.owner for site in self.making.sites_added if site.kind == "weight"}
        return [pair for pair in self.making.swapped if pair.after.path in owners]


def answers(ledger: Ledger, flow: Flow, making: Diff | None) -> tuple[Answer, ...]:
    """All answers; see :class:`Subject` and :meth:`Session.answers`."""
    subject = Subject(ledger, flow, making)
    return tuple(answer(subject) for answer in QUESTIONS)


def why_three_calls(subject: Subject) -> Answer:
    """Why does ``prepare_qat`` run propagate, convert and prepare?"""
    ledger = subject.ledger
    key = "three_calls"
    question = (
        "Why does prepare_qat run propagate, convert and prepare, when convert already made a "
        "fake-quantized module?"
    )
    making = subject.flow.stage_with("weights")
    if subject.flow.offers_quantizer:
        return _one_call(subject, key, question)
    if making is None or not subject.flow.offers_qconfig:
        return Answer(key, question, "In this flow one call makes all fake quants, so it does not.")
    weights = [row for row in ledger.sites if row.stage == making.name]
    others = [row for row in ledger.sites if row.stage == subject.flow.prepared_stage]
    swapped = len(subject.swapped)
    made, kept = _many(len(weights), "fake quant"), _many(len(others), "tensor")
    text = (
        "Each makes another part. propagate hands the qconfig down and makes no fake quant. "
        f"convert swapped {_many(swapped, 'module')} here and made {made}, for weights only: they "
        f"are called inside the swapped forwards. prepare made the other {len(others)}"
        f"{_kinds(others)}. After convert alone, {kept} would pass without."
    )
    if subject.flow.by_graph:
        text += " In FX the same parts are steps inside the one call prepare_qat_fx."
    return Answer(key, question, text, weights[0].selection if weights else "")


def two_observers(subject: Subject) -> Answer:
    """Has a swapped ``nnqat.Linear`` two observers?"""
    ledger = subject.ledger
    question = "Has a swapped nnqat.Linear two observers?"
    weight = _weight_of_layer(ledger)
    if weight is None:
        return Answer("two_observers", question, "This model has no layer with a fake quant.")
    if subject.flow.offers_quantizer:
        question = "Has a layer two observers?"
    rows = ledger.of(weight.owner)
    if subject.flow.by_graph:
        after = [row for row in ledger.sites if row.tensor.module == weight.owner]
        mine = {row.path for row in after}
        rows += tuple(
            r for r in ledger.rows if (r.path in mine or r.part_of in mine) and r not in rows
        )
    running = [row for row in rows if row.calls_per_forward]
    sites = [row for row in rows if not row.part_of]
    tensors = "; ".join(f"{row.path} quantizes {row.tensor.label}" for row in sites)
    inner = [row for row in rows if row.part_of]
    fused = sum(row.mechanism == "fused kernel" for row in inner)
    different = _many(len({row.tensor.key for row in sites}), "different tensor")
    text = (
        f"{weight.owner} ({weight.owner_type}): {_many(len(rows), 'module')} match a search by "
        f"name, {len(running)} of them run in a forward. There are "
        f"{_many(len(sites), 'fake quant')} for {different} ({tensors}), "
        f"{len(inner)} of them with an observer inside"
    )
    text += (
        f"; {fused} of {_many(len(inner), 'inner observer')} "
        f"{'is' if fused == 1 else 'are'} not called as a module: a fused kernel writes the range."
        if fused
        else "."
    )
    return Answer("two_observers", question, text, weight.selection)


def fx_redundant(subject: Subject) -> Answer:
    """Is the observer that FX adds redundant to one in the QAT module's forward?"""
    ledger = subject.ledger
    inside = [
        row
        for row in ledger.sites
        if row.kind != "weight"
        and "forward" in row.mechanism
        and "FloatFunctional" not in row.owner_type
    ]
    doubles = [found for found in ledger.redundancies if found.kind == "double"]
    twice = [found for found in ledger.redundancies if found.kind == "twice"]
    shared = [found for found in ledger.redundancies if found.kind == "shared"]
    if subject.flow.offers_quantizer:
        text = (
            "The question does not arise in this flow: no module is swapped for one that "
            "fake-quantizes in its forward, and every fake quant is a node of the graph."
        )
    elif inside:
        text = (
            f"Here it is: {_many(len(inside), 'module')} of this model fake-quantize their own "
            f"output in forward, as torch's did up to 1.6 (first: {inside[0].path})."
        )
    else:
        text = (
            "No: no module of this model fake-quantizes its own output in forward (torch's did up "
            "to 1.6), so what is added around it is the only one."
        )
    text += (
        f" Pairs of different fake quants on the same values: {len(doubles)}; run again on their "
        f"own output: {len(twice)}; one for several tensors: {len(shared)}."
    )
    worst = max(
        (f for f in doubles if f.numbers is not None),
        key=lambda f: f.numbers.changed_share if f.numbers else 0.0,
        default=None,
    )
    if worst is not None:
        text += f" The one that changes most: {worst.first} and {worst.second}. {worst.cost}"
    return Answer(
        "fx_redundant",
        "Is the activation observer that is inserted redundant to one in the QAT module's forward?",
        text,
        f"site:{worst.second}" if worst is not None else "",
    )


def scales_twice(subject: Subject) -> Answer:
    """Why do the scales calculated twice differ by a little?"""
    ledger = subject.ledger
    question = 'Why do "the scales calculated twice" differ by a little?'
    known = [row for row in ledger.sites if row.scale_difference is not None]
    if not known:
        return Answer(
            "scales_twice",
            question,
            "No observer of this model has seen data yet: train or calibrate, then look again.",
        )
    fused = [row for row in known if row.cause == "fused_formula"]
    same = [row for row in known if row.cause in ("none", "fixed")]
    text = (
        f"Of {len(known)} scales, calculate_qparams() gives {len(same)} again as they are stored. "
    )
    if fused:
        largest = max(fused, key=lambda row: abs(row.scale_difference or 0.0))
        differences = [row.scale_difference or 0.0 for row in fused]
        least, most = percent(min(differences)), percent(max(differences))
        span = least if least == most else f"{least} to {most}"
        kinds = {row.kind for row in fused}
        text += (
            f"{len(fused)} differ ({' and '.join(sorted(kinds))}), by {span}: two formulas. "
            f"Where it is most, {largest.path}: {largest.cause_text}"
        )
    lagging = [row for row in known if row.fresh_cause == "moving_average"]
    if lagging:
        far = max(lagging, key=lambda row: abs(row.fresh_difference or 0.0))
        text += (
            f" Besides, {_many(len(lagging), 'range')} of observers that hold earlier data too "
            "differ from what the example input alone asks for, by up to "
            f"{percent(far.fresh_difference or 0.0)} ({far.path})."
        )
    return Answer("scales_twice", question, text, fused[0].selection if fused else "")


def inner_convert_custom(subject: Subject) -> Answer:
    """What does the ``convert`` inside ``prepare_qat`` do for custom modules?"""
    ledger = subject.ledger
    if subject.flow.offers_quantizer:
        return _no_inner_convert(subject)
    custom = [row for row in ledger.floats if row.reason == "custom_without_entry"]
    subclasses = [row for row in ledger.floats if row.reason == "subclass_not_in_mapping"]
    text = (
        "Nothing by itself: it looks up each child's exact type in the QAT mapping and calls "
        "from_float of what it finds. Custom modules are swapped by prepare, by "
        "float_to_observed_custom_module_class. "
    )
    if custom or subclasses:
        first = (*custom, *subclasses)[0]
        text += (
            f"Here {len(custom)} custom and {len(subclasses)} subclassed modules are passed by and "
            f"stay float, the first {first.path!r} ({first.name})."
        )
    else:
        text += "None of that kind is passed by in this model."
    return Answer(
        "custom_modules",
        "What does the convert inside prepare_qat do for custom modules?",
        text,
        (*custom, *subclasses)[0].selection if custom or subclasses else "",
    )


def two_converts(subject: Subject) -> Answer:
    """How does the inner ``convert`` differ from the final one?"""
    ledger = subject.ledger
    if subject.flow.offers_quantizer:
        return _one_convert(subject)
    swapped = subject.swapped
    first = swapped[0] if swapped else None
    example = (
        f" Here {first.after.path or 'the root'}: {first.before.type_name} → "
        f"{first.after.qualified_type.replace('.modules', '').rpartition('.')[0]}."
        f"{first.after.type_name}."
        if first
        else ""
    )
    cover = ledger.coverage
    text = (
        f"By its mapping. The inner one swapped {_many(len(swapped), 'module')} for QAT versions, "
        f"which still hold float weights and train; it keeps the qconfig.{example} The final one "
        f"maps to int8 modules and drops the fake quants: {cover.params_share:.1%} of the "
        f"parameters and {cover.macs_share:.1%} of the multiply-accumulates of this model become "
        f"int8 then{_BASIS.get(cover.basis, '')}."
    )
    return Answer(
        "two_converts",
        "How does that convert differ from the final one?",
        text,
        f"module:{first.after.path}" if first else "",
    )


def who_quantizes_input(subject: Subject) -> Answer:
    """Who inserts the input's fake quant?"""
    ledger = subject.ledger
    question = "Who inserts the input's fake quant?"
    inputs = [row for row in ledger.sites if row.kind == "input"]
    if not inputs:
        return Answer(
            "input",
            question,
            "Nobody: this model has none."
            + (
                ""
                if subject.flow.by_graph
                else " In eager mode it would be the output's of a "
                "QuantStub; torch's QAT modules quantize weight and output, never their input."
            ),
        )
    first = inputs[0]
    how = {"hook": f"as the output of {first.owner} ({first.owner_type})", "node": "as a node"}
    text = (
        f"{first.call.partition('(')[0]} does, {how.get(first.mechanism, first.mechanism)}: "
        f"{first.path}. {_many(len(inputs), 'input')} of this model "
        f"{'has' if len(inputs) == 1 else 'have'} one"
    )
    if subject.flow.offers_quantizer:
        text += ", because the quantizer annotated an operation that takes it."
    else:
        text += "; none of torch's QAT modules has an input fake quant of its own."
    return Answer("input", question, text, first.selection)


# -- where a quantizer annotates an exported graph ------------------------------------------------


def _one_call(subject: Subject, key: str, question: str) -> Answer:
    sites = subject.ledger.sites
    text = (
        "In this flow it does not: there is no qconfig to hand down and no module to swap. "
        "prepare_qat_pt2e lets the quantizer annotate the exported graph, rewrites each "
        "convolution with a batch norm behind it, and makes the fake quants: "
        f"{_many(len(sites), 'fake quant')} here{_kinds(list(sites))}."
    )
    return Answer(key, question, text, sites[0].selection if sites else "")


def _no_inner_convert(subject: Subject) -> Answer:
    left = [row for row in subject.ledger.floats if row.reason == "not_annotated"]
    text = (
        "There is none in this flow, and no module type is looked up: torch.export has written "
        "custom modules down as operations like all others, and the quantizer's patterns decide. "
    )
    if left:
        stay = "stays" if len(left) == 1 else "stay"
        text += (
            f"Here {_many(len(left), 'operation')} that no pattern had rounded {stay} float, the "
            f"first {left[0].name!r}{f' of {left[0].path}' if left[0].path else ''}."
        )
    else:
        text += "Here some pattern had something of every operation rounded."
    return Answer(
        "custom_modules",
        "What does the convert inside prepare_qat do for custom modules?",
        text,
        left[0].selection if left else "",
    )


def _one_convert(subject: Subject) -> Answer:
    cover = subject.ledger.coverage
    text = (
        "There is only one in this flow: convert_pt2e makes of each fake quant a quantize and a "
        "dequantize, and multiplies batch norms into the weights. Lowering then puts int8 kernels "
        f"in their place: they compute with {cover.params_share:.1%} of the parameters and do "
        f"{cover.macs_share:.1%} of the multiply-accumulates of this model."
    )
    return Answer("two_converts", "How does that convert differ from the final one?", text)


QUESTIONS: tuple[Callable[[Subject], Answer], ...] = (
    why_three_calls,
    two_observers,
    fx_redundant,
    scales_twice,
    inner_convert_custom,
    two_converts,
    who_quantizes_input,
)


_BASIS = {
    "converted types": " (read off a converted copy, which does not run)",
    "structure": " (judged by the fake quants: a copy could not be converted)",
}


def _kinds(rows: list[LedgerRow]) -> str:
    """``", for 1 input and 4 outputs (5 by a forward hook)"``."""
    counts = {kind: sum(row.kind == kind for row in rows) for kind in ("weight", "input", "output")}
    parts = [_many(n, kind) for kind, n in counts.items() if n]
    return f", for {' and '.join(parts)} ({_ways(rows)})" if parts else ""


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _ways(rows: list[LedgerRow]) -> str:
    names = {
        "hook": "by a forward hook",
        "node": "as a graph node",
        "forward": "in a forward",
        "unused": "never run",
    }
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.mechanism] = counts.get(row.mechanism, 0) + 1
    return ", ".join(f"{n} {names.get(way, way)}" for way, n in counts.items()) or "none"


def _weight_of_layer(ledger: Ledger) -> LedgerRow | None:
    """A linear layer's weight fake quant, else any layer's."""
    weights = [r for r in ledger.sites if r.kind == "weight" and r.owner and not r.ghost]
    linear = [row for row in weights if "Linear" in row.owner_type]
    return next(iter([*linear, *weights]), None)
