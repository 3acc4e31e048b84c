"""Rules on what a model's forward does with tensors: operations, joins, one range for several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from qatexplorer.checks.evidence.float_run import Look, float_run
from qatexplorer.checks.evidence.fx_forms import fx_forms, unmatched
from qatexplorer.checks.evidence.int8_flow import Join, Refused, int8_flow
from qatexplorer.checks.records import Severity
from qatexplorer.checks.replacements import replacement
from qatexplorer.checks.rules import Found, rule
from qatexplorer.checks.subject import Subject
from qatexplorer.flows.stubs import has_stubs
from qatexplorer.shown import module_code

_RATIO = 8.0
"""Ranges that differ by this factor cost the smaller one three of eight bits."""
_BARELY, _MUCH = 0.05, 0.25
"""What is cut off, as a share of the range that is left: what may come of the observer's average,
and what does not."""
_SHOWN = 3
_MOST_NAMES = 6


@rule("QX201", "no-int8-kernel", "error", "int8")
def no_int8_kernel(subject: Subject) -> Iterator[Found]:
    """An operation has no kernel for int8 tensors

    Symptom:
        Could not run 'aten::silu.out' with arguments from the 'QuantizedCPU' backend
    Cause:
        In eager mode torch swaps modules. A function or operator between them (a + b, F.silu,
        softmax, a matrix product) gets int8 tensors as they are, and most have no kernel for
        those. Training does not show it: tensors are float then. Which operations run is found out
        by calling each with int8 tensors.
    Fix:
        Call a FloatFunctional for arithmetic, use the module that has an int8 version, or put a
        DeQuantStub before the operation and a QuantStub after it. FX needs none of this.
    Sources:
        https://github.com/pytorch/pytorch/issues/98596
        https://github.com/pytorch/pytorch/issues/34613
    """
    if _without_stubs(subject) or subject.flow.by_graph:
        return
    # One finding for a line of code, however many modules run it.
    places: dict[str, dict[str, list[Refused]]] = {}
    for refused in subject.get(int8_flow).refused:
        lines = places.setdefault(refused.source or refused.path, {})
        lines.setdefault(f"{refused.in_torch} {refused.name}", []).append(refused)
    for lines in places.values():
        firsts = [several[0] for several in lines.values()]
        message = "; ".join(_refused(several) for several in lines.values())
        fix = " ".join(map(replacement, firsts))
        yield Found(firsts[0].path, message, fix, source=firsts[0].source)


def _without_stubs(subject: Subject) -> bool:
    """Nothing makes int8 tensors at all: that is for no-stub to say."""
    return subject.options.stubs == "none" and not has_stubs(subject.base)


def _refused(several: list[Refused]) -> str:
    """What one operation of one line does, in all modules that run the line."""
    first = several[0]
    what = f"nn.{first.in_torch} ({first.name})" if first.in_torch else first.name
    count = sum(refused.count for refused in several)
    names = sum(len(refused.names) for refused in several)
    paths = [refused.path or "the model itself" for refused in several]
    often = ""
    if count > 1:
        often = f", {count} times in one forward"
        if len(paths) > 1:
            more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
            often += f" (in {', '.join(paths[:_SHOWN])}{more})"
        elif names > 1:
            often += f" under {names} names"
    error = first.error.partition(": ")[2] or first.error
    return f"{what} gets int8 tensors{often}, and does not run on them: {error}"


@rule("QX202", "float-into-int8", "error", "int8")
def float_into_int8(subject: Subject) -> Iterator[Found]:
    """A float tensor comes to a module that will be int8

    Symptom:
        Could not run 'quantized::conv2d.new' with arguments from the 'CPU' backend
    Cause:
        Something on the way is float: a layer whose qconfig is None, an input without a stub, a
        parameter, what a DeQuantStub has given. The module after it has a qconfig and becomes
        int8, and takes int8 tensors only.
    Fix:
        Put a QuantStub before the module, or give it the qconfig None too.
    Sources:
        https://github.com/pytorch/pytorch/issues/34583
        https://discuss.pytorch.org/t/161251
    """
    if _without_stubs(subject) or subject.flow.by_graph:
        return
    for entry in subject.get(int8_flow).entries:
        call = f"{entry.kind}.{entry.method}" if entry.method else entry.kind
        where = "beside an int8 one" if entry.beside_int8 else "that no QuantStub has seen"
        often = f" ({entry.count} times in one forward)" if entry.count > 1 else ""
        yield Found(
            entry.path,
            f"{entry.path} ({call}) becomes int8 and gets a float tensor {where}{often}: the int8 "
            "model raises there.",
            f"Put a QuantStub of its own before {entry.path}, or keep it float: "
            f"{module_code(entry.path)}.qconfig = None",
        )


@rule("QX203", "raw-join", "error", "int8")
def raw_join(subject: Subject) -> Iterator[Found]:
    """A plain torch.cat or stack of int8 tensors cuts values off

    Symptom:
        int8 is wrong after torch.cat, and the fake-quant model is right. No error.
    Cause:
        torch.cat of int8 tensors gives its result the scale of the first one. What of the others
        is outside of the range of that one is cut off; what is far inside of it is coarse.
    Fix:
        Make ff = torch.ao.nn.quantized.FloatFunctional() in __init__ and call ff.cat([...], dim):
        it has a scale of its own. FX does so by itself.
    Sources:
        https://github.com/pytorch/pytorch/issues/46604
    """
    if _without_stubs(subject) or subject.flow.by_graph:
        return
    places: dict[tuple[str, str], Found] = {}
    for join in subject.get(int8_flow).joins:
        found, place = _joined(join), (join.path, join.source)
        if found is not None and (place not in places or found.severity == "error"):
            places[place] = found
    yield from places.values()


def _joined(join: Join) -> Found | None:
    """What one scale does to these tensors, None if it does little."""
    first, others = join.looks[0], join.looks[1:]
    low, high = min(look.low for look in others), max(look.high for look in others)
    cut = max(high - max(first.high, 0.0), min(first.low, 0.0) - low)
    narrow = min(look.span for look in others)
    ratio = first.span / narrow if narrow > 0 else 0.0
    where = f"torch.{join.name}" + (f" in {join.path}" if join.path else "")
    fix = (
        "Make self.join = torch.ao.nn.quantized.FloatFunctional() in __init__, and write "
        f"self.join.cat([...]) in place of torch.{join.name}([...])"
        f"{' with unsqueeze for stack' * (join.name == 'stack')}."
    )
    result = f"{where} gives its int8 result the range of its first tensor, {_range(first)}"
    if cut > _BARELY * first.span:
        reach = f"others reach from {low:.3g} to {high:.3g}"
        message = f"{result}, and {reach}: what is outside is cut off."
        severity: Severity = "error" if cut > _MUCH * first.span else "warning"
        return Found(join.path, message, fix, source=join.source, severity=severity)
    if ratio >= _RATIO:
        message = f"{result}, {ratio:.0f} times that of another, which is rounded as coarsely."
        return Found(join.path, message, fix, source=join.source, severity="warning")
    return None


def _range(look: Look) -> str:
    return f"{min(look.low, 0.0):.3g} to {max(look.high, 0.0):.3g}"


@rule("QX206", "one-range-for-several", "warning", "inserted")
def one_range_for_several(subject: Subject) -> Iterator[Found]:
    """One stub or module is called on tensors of very different range

    Symptom:
        Accuracy is lost in int8, most where values are small.
    Cause:
        A QuantStub, a FloatFunctional or another module has one fake quant for its output, and so
        one scale, however often it is called. Its observer averages over all tensors that it
        sees: small ones are rounded coarsely, and large ones cut off.
    Fix:
        One instance for each place that calls it.
    Sources:
        https://github.com/pytorch/vision/issues/1948
        https://github.com/Lightning-AI/pytorch-lightning/issues/7926
    """
    if subject.flow.by_graph:
        return
    run, flow = subject.get(float_run), subject.get(int8_flow)
    last = {group[0]: group[-1] for group in subject.options.fusion}
    modules = dict(subject.base.named_modules())
    for path, kind in flow.scaled.items():
        calls = run.runs.get(last.get(path, path), [])
        made = [call.got for call in calls if call.got is not None and call.got.is_float]
        spans = [look.span for look in made if look.span > 0]
        if len(spans) < 2 or max(spans) < _RATIO * min(spans):
            continue
        names = list(dict.fromkeys(call.name for call in calls))
        has_parameters = any(True for _ in modules[path].parameters())
        if len(names) > 1 and has_parameters:
            continue  # prepare_qat makes a module of its own of the first name only
        under = f" (as {', '.join(names[:_SHOWN])})" if len(names) > 1 else ""
        fix = f"Make a {kind} for each call of {path}, in __init__ of the module around it."
        if has_parameters:
            code = module_code(path)
            fix = (
                f"Make twin = copy.deepcopy({code}) for the second call, with the same "
                f"parameters: twin.weight, twin.bias = {code}.weight, {code}.bias."
            )
        yield Found(
            path,
            f"{path} ({kind}) is called {len(made)} times in one forward{under}, its results have "
            f"ranges that differ by a factor of {max(spans) / min(spans):.3g}, and there is one "
            "scale for all of them.",
            fix,
        )


@rule("QX207", "one-range-for-other-shapes", "info", "inserted")
def one_range_for_other_shapes(subject: Subject) -> Iterator[Found]:
    """One stub or operation is called on tensors of different kinds

    Symptom:
        Nothing raises; a scale fits one of the tensors only while their ranges happen to agree.
    Cause:
        A QuantStub or a FloatFunctional has one fake quant for its output. Tensors with another
        number of dimensions are hardly the same quantity (a picture and its metadata, say), yet
        their observer averages over both.
    Fix:
        One instance for each place that calls it.
    Sources:
        https://github.com/Lightning-AI/pytorch-lightning/issues/7926
    """
    if subject.flow.by_graph:
        return
    run, flow = subject.get(float_run), subject.get(int8_flow)
    modules = dict(subject.base.named_modules())
    for path, kind in flow.scaled.items():
        if any(True for _ in modules[path].parameters()):
            continue
        looks = [call.got for call in run.runs.get(path, [])]
        made = [look for look in looks if look is not None and look.is_float]
        spans = [look.span for look in made if look.span > 0]
        dims = sorted({len(look.shape) for look in made})
        if len(dims) < 2 or (spans and max(spans) >= _RATIO * min(spans)):
            continue  # very different ranges are said by the rule on ranges
        yield Found(
            path,
            f"{path} ({kind}) is called on tensors of {' and '.join(map(str, dims))} dimensions in "
            "one forward, and there is one scale for all of them.",
            f"Make a {kind} for each call of {path}, in __init__ of the module around it.",
        )


@rule("QX204", "functional-arguments", "error", "int8")
def functional_arguments(subject: Subject) -> Iterator[Found]:
    """FX cannot convert a functional layer as it is called

    Symptom:
        AssertionError: Dequantize index 1 exceeded reference node's arg length 1
        quantized::conv2d_prepack() is missing value for argument 'stride'
    Cause:
        FX looks for weight and bias among the positional arguments, and hands the others to the
        int8 kernel as they were written: the kernel wants all of them, by position, one number for
        each dimension. Preparing and training work; convert_fx, or the first int8 forward, raises.
    Fix:
        Write all arguments by position: F.linear(x, weight, bias),
        F.conv2d(x, weight, bias, (1, 1), (0, 0), (1, 1), 1), where bias may be None. Or use the
        module.
    Sources:
        https://github.com/pytorch/pytorch/issues/87686
        https://github.com/pytorch/pytorch/issues/78117
    """
    if not subject.flow.by_graph:
        return
    for form in subject.get(fx_forms):
        operation = form.operation
        yield Found(
            operation.path,
            f"F.{operation.name} is called here in a form that convert_fx does not take, though "
            f"prepare and training do: {form.error}.",
            f"Write {form.written}, or use nn.{operation.name[0].upper()}{operation.name[1:]}.",
            source=operation.source,
        )


@rule("QX205", "float-operations", "info", "int8")
def float_operations(subject: Subject) -> Iterator[Found]:
    """Operations that FX leaves float

    Symptom:
        The int8 model is full of quantize_per_tensor and dequantize, and no faster.
    Cause:
        FX quantizes what its backend config has a pattern for. Other operations compute in float,
        between a dequantize and a quantize.
    Fix:
        Nothing need be done. Where speed matters, use an operation that has a pattern: Hardswish
        for SiLU, a multiplication for a division by a number.
    Sources:
        https://github.com/pytorch/ao/issues/3609
        https://github.com/pytorch/pytorch/issues/42113
    """
    if not subject.flow.by_graph:
        return
    counts = Counter(subject.get(unmatched))
    if not counts:
        return
    shown = [f"{name} ({count})" for name, count in counts.most_common(_MOST_NAMES)]
    more = len(counts) - len(shown)
    listed = ", ".join(shown) + (f" and {more} other kinds" if more > 0 else "")
    yield Found(
        "",
        f"FX has no int8 pattern for {sum(counts.values())} calls in this forward, which stay "
        f"float: {listed}.",
    )
