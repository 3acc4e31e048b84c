"""Whether the prepared model computes what the float one does, and int8 what fake quants say."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch

from qatexplorer.checks.evidence.causes import Cause, below_floor
from qatexplorer.checks.evidence.dry_run import DryRun, dry_run
from qatexplorer.checks.evidence.float_gap import Chains, FloatGap, Frozen, frozen_words
from qatexplorer.checks.evidence.weights import scale_of_kernel
from qatexplorer.checks.records import Fix, Severity
from qatexplorer.checks.rules import Found, rule
from qatexplorer.checks.subject import NoEvidence, Subject
from qatexplorer.evaluate.parity import percent
from qatexplorer.flows.layer_types import BATCH_NORMS
from qatexplorer.forward.graph_module import source_of
from qatexplorer.quantizers.engine_choice import BACKENDS, DEFAULT_QCONFIG
from qatexplorer.quantizers.engine_probe import probe_engine

LARGE = 4.0
"""Steps from which a difference on the same input is an error: 1.6 % of the 255 of an output's
grid, and four times what rounding the other way makes."""


@rule("QX501", "float-parity", "error", "inserted")
def float_parity(subject: Subject) -> Iterator[Found]:
    """The prepared model is not the float model, even without rounding

    Symptom:
        Accuracy is lost the moment the model is prepared, and fake quants switched off do not bring
        it back: prepared.apply(torch.ao.quantization.disable_fake_quant)
    Cause:
        Fusion changes what is called more than once. A ReLU that stands in a group of
        fuse_modules_qat becomes Identity at each of its calls; a conv that is fused with the batch
        norm of one of its calls has that batch norm at all of them; of two batch norms behind one
        conv FX keeps one. A branch on self.training is frozen by tracing, and a batch norm whose
        weight is 0 makes the fused conv divide by 0.
    Fix:
        Give each call a module of its own, or leave the group out of fuse_modules_qat.
    Sources:
        https://github.com/pytorch/pytorch/issues/197539
        https://github.com/IntelLabs/distiller/issues/297
    """
    run = subject.get(dry_run)
    gap = run.float_gap
    if gap is None:
        raise NoEvidence(_why_not(run) or "The float model does not run on the example input.")
    if not gap.parted:
        return
    if math.isfinite(gap.output):
        off = f"what it returns is {percent(gap.output)} of its range off"
    else:
        off = "it returns values that are not finite"
    message = f"With all fake quants off the prepared model is not the float model: {off}"
    if gap.frozen:
        yield _traced_in_training(gap.frozen, message)
        return
    if gap.path is None:
        yield Found("", f"{message}.", "Compare the modules' outputs of both in eval mode.")
        return
    message += f", first at {gap.path}{_nth(gap.call)}."
    if not math.isfinite(gap.output) and _zero_gamma(subject):
        return  # said by a rule of its own, which names the batch norm
    yield _reused(subject, gap, message)


def _traced_in_training(frozen: tuple[Frozen, ...], message: str) -> Found:
    first = frozen[0]
    message += f". {frozen_words(frozen)}"
    instead = "nn.BatchNorm2d" if "norm" in first.operation else "nn.Dropout"
    fix = f"Call {instead} as a module there, or session.configure(flow='eager', stubs='layers')"
    return Found(first.path, message, fix, source="" if first.path else first.source)


def _reused(subject: Subject, gap: FloatGap, message: str) -> Found:
    """The finding, with what is called more than once where it parts."""
    assert gap.path is not None
    chains = Chains(subject.base, subject.options.graph)
    runs = subject.options.fusion if subject.flow.offers_fusion else ()
    group = next((run for run in runs if gap.path in run), ())
    often = [path for path in (gap.path, *group) if chains.calls(path) > 1]
    if not often:
        return Found(gap.path, message, "Leave this module out of fusion, or give it qconfig None.")
    path = often[0]
    parent, _, name = path.rpartition(".")
    prefix = f"model.{parent}." if parent else "model."
    message += (
        f" {path} is called {chains.calls(path)} times, and fusion changes it for all of them."
    )
    code = f"{prefix}{name}_2 = copy.deepcopy(model.{path})  # and call it at the second place"
    fixes: tuple[Fix, ...] = ()
    if group:
        left = tuple(run for run in runs if run != group)
        call = f"session.configure(fusion={[list(run) for run in left]!r})"
        fixes = (Fix("Leave the group apart", "configure", (("fusion", left),), call),)
    return Found(gap.path, message, code, fixes)


def _zero_gamma(subject: Subject) -> str:
    for path, norm in subject.layers(*BATCH_NORMS):
        weight = norm.weight
        if isinstance(weight, torch.Tensor) and bool((weight == 0).any()):
            return path
    return ""


@rule("QX502", "wrong-kernel", "error", "int8")
def wrong_kernel(subject: Subject) -> Iterator[Found]:
    """An int8 kernel does not compute what its own integers give

    Symptom:
        int8 is far off on one machine or engine and right on another, with no error.
    Cause:
        Either the engine saturates: a CPU without VNNI adds pairs of products in 16 bits and cuts
        off what does not fit. Or the engine's kernel of this layer is wrong, as that of transposed
        convolutions is in onednn and x86. The layer was computed again in integers, with the int8
        model's own weights and input.
    Fix:
        Take an engine that computes this layer right; the finding names those that were tried.
    Sources:
        https://github.com/pytorch/pytorch/issues/103646
        https://github.com/pytorch/pytorch/issues/126521
    """
    for cause in _causes(subject, "kernel"):
        if not math.isfinite(cause.detail["largest"]):
            continue  # its weights are not finite, which is no fault of the kernel
        engine = subject.options.qconfig.backend
        high = int(cause.detail["high"])
        saturates = not probe_engine(engine).holds(high)
        why = (
            f"{engine} saturates on this CPU"
            if saturates
            else f"{engine} has no right kernel for it"
        )
        right = cause.engines
        fix = (
            f"session.configure(engine={right[0]!r})  # whose kernel of this layer is right"
            if right
            else _left_float(cause)
        )
        fixes = tuple(
            Fix(f"Use engine {name}", "configure", (("engine", name),),
                f"session.configure(engine={name!r})")
            for name in right[:1]
        )  # fmt: skip
        message = (
            f"int8 {cause.row.path} ({cause.kind}) is up to {cause.detail['largest']:.0f} steps "
            f"from what its own int8 numbers give, {percent(cause.detail['far'])} of its outputs "
            f"by more than 1.5: {why}."
        )
        path, source = _place(cause)
        yield Found(path, message, fix, fixes, source)


@rule("QX503", "batch-norm-over-tokens", "error", "int8")
def batch_norm_over_tokens(subject: Subject) -> Iterator[Found]:
    """A Linear and a BatchNorm1d on more than two dimensions are folded wrongly

    Symptom:
        The fake-quant model is right and int8 is far off (13 to 55 % of the output's range), in
        eager mode and in FX, on every engine, with no error.
    Cause:
        A Linear works on the last dimension and BatchNorm1d on dimension 1. They are the same for
        (batch, features) only. Fusion looks at types and sizes, never at the number of dimensions.
        In training the batch norm runs as it is; converting folds it into the rows of the weight.
        More training does not help, and set_module_name("norm", None) does not stop FX.
    Fix:
        BatchNorm2d on x.unsqueeze(-1) is the same function, has an int8 kernel and is not fused.
    Sources:
        https://github.com/pytorch/ao/issues/4116
        https://github.com/pytorch/pytorch/pull/119264
    """
    chains = Chains(subject.base, subject.options.graph)
    for cause in _causes(subject, "batch norm"):
        path = cause.row.path
        end = chains.end(path, cause.row.call, "LinearBn1d") if path in chains.paths else None
        norm = end.place[0] if end is not None and end.place[0] != path else ""
        size = getattr(chains.paths.get(norm), "num_features", "…")
        where = norm or "its batch norm"
        left = f"model.{norm} = nn.BatchNorm2d({size})" if norm else f"nn.BatchNorm2d({size})"
        yield Found(
            path,
            f"{where} is folded into {path}, a Linear on a tensor of "
            f"{cause.detail['dims']:.0f} dimensions, on which they work on different ones: int8 is "
            f"up to {cause.own.largest:.0f} steps from fake quant there, "
            f"{percent(cause.own.far)} of the outputs by more than 1.5, whatever the training.",
            f"{left}, called on x.unsqueeze(-1) and then .squeeze(-1)",
        )


@rule("QX504", "one-scale", "warning", "int8")
def one_scale(subject: Subject) -> Iterator[Found]:
    """A module that is called several times has one int8 scale for its output

    Symptom:
        FX: int8 is off behind a module that is used twice, and the fake-quant model is right.
    Cause:
        Each call of the module in the graph has a fake quant of its own. The int8 module has one
        scale and one zero point, those of the call that was converted last.
    Fix:
        Give each place a module of its own; they may share the weight.
    Sources:
        https://github.com/pytorch/pytorch/issues/109612
    """
    for cause in _causes(subject, "one scale"):
        path = cause.row.path
        parent, _, name = path.rpartition(".")
        prefix = f"model.{parent}." if parent else "model."
        yield Found(
            path,
            f"{path} is called {cause.detail['calls']:.0f} times and its int8 output has one scale "
            f"({cause.detail['step']:.3g}), which is not that of its fake quant"
            f"{_at_call(cause.row.call)} ({cause.detail['trained']:.3g}): up to "
            f"{cause.own.largest:.3g} steps apart.",
            f"{prefix}{name}_2 = copy.deepcopy(model.{path})  # and call it at the second place",
            severity=_severity(subject, cause),
        )


@rule("QX505", "kernel-scale", "info", "int8")
def kernel_scale(subject: Subject) -> Iterator[Found]:
    """The weights' scale in training is not the one that converting computes

    Symptom:
        int8 weights do not match those of the QAT model, although everything is frozen.
    Cause:
        torch's fused fake quant divides the range of a symmetric weight by 127 or 128, and
        calculate_qparams(), which converting asks, by 127.5: up to 0.4 % apart, so some weights
        round to another code. At 4 bits it is 7 %. A channel whose weights all have one sign is
        rounded twice as finely in training, on a grid with a zero point that int8 does not have.
    Fix:
        Use torch.ao.quantization.get_default_qat_qconfig(backend, version=0), whose fake quants
        are not fused and ask calculate_qparams() in training too.
    Sources:
        https://github.com/pytorch/ao/issues/4824
        https://discuss.pytorch.org/t/202854
    """
    run = subject.get(dry_run)
    if run.prepared is None:
        raise NoEvidence(_why_not(run))
    found = {path: scale_of_kernel(module) for path, module in run.prepared.named_modules()}
    apart = {path: one for path, one in found.items() if one is not None and one.moved}
    if not apart:
        return
    where = max(apart, key=lambda path: apart[path].off_by)
    worst, every = apart[where], apart.values()
    moved = sum(one.moved for one in every) / sum(one.values for one in every)
    one_sign = sum(one.one_sign for one in every)
    channels = "1 channel has" if one_sign == 1 else f"{one_sign:,} channels have"
    more = f" ({channels} weights of one sign only)" if one_sign else ""
    far = _furthest_for_it(run)
    where = where if far is None else far.row.path
    plan = subject.options.qconfig
    backend = next((n for n in (plan.name, plan.backend) if n in BACKENDS), DEFAULT_QCONFIG)
    low_bit = worst.codes < _EIGHT_BITS and not one_sign
    large = far is not None and far.own.largest > LARGE
    yield Found(
        where,
        f"Fake quants of weights round in steps that are up to {percent(worst.off_by)} from those "
        f"of int8{more}: {percent(moved)} of the weights get a value more than half a step away."
        + _felt(far),
        f"qconfig=torch.ao.quantization.get_default_qat_qconfig({backend!r}, version=0)",
        severity="warning" if low_bit or large else "info",
    )


def _furthest_for_it(run: DryRun) -> Cause | None:
    """The place that parts furthest for the kernel's scale, None where none does."""
    causes = run.causes if run.parity is not None else ()
    of_scale = [one for one in causes if one.why == "kernel scale"]
    return max(of_scale, key=lambda one: one.own.largest, default=None)


def _felt(far: Cause | None) -> str:
    if far is None:
        return ""
    return (
        f" The outputs of {far.row.path} are up to {far.own.largest:.0f} steps apart for it, "
        f"{percent(far.own.far)} of them more than 1.5."
    )


_EIGHT_BITS = 255


@rule("QX506", "past-the-range", "info", "int8")
def past_the_range(subject: Subject) -> Iterator[Found]:
    """Values past the observed range are cut off in training and not in int8

    Symptom:
        int8 differs from the fake-quant model by tens of steps at a few outputs.
    Cause:
        reduce_range (x86 and fbgemm qconfigs) lets fake quants clamp at code 127 while int8 layers
        go on to 255. Only values beyond what the observers have seen differ.
    Fix:
        Calibrate or train on data whose range is that of use; or take a qconfig that uses all codes
        on a CPU that is exact with them.
    Sources:
        https://github.com/pytorch/pytorch/issues/44939
    """
    causes = _every(subject)
    clamped = [cause for cause in causes if cause.why == "clamp"]
    if not clamped or causes[0].why != "clamp":  # behind another fault it is a consequence
        return
    worst = max(clamped, key=lambda cause: cause.detail["share"])
    path, source = _place(worst)
    yield Found(
        path,
        f"{percent(worst.detail['share'])} of the int8 codes of {worst.row.path} are above "
        f"{worst.detail['high']:.0f}, where its fake quant clamps: there the two are up to "
        f"{worst.own.largest:.0f} steps apart.",
        "session.calibrate()  # or qconfig='onednn', which uses all codes",
        source=source,
    )


@rule("QX507", "stale-scale", "warning", "int8")
def stale_scale(subject: Subject) -> Iterator[Found]:
    """int8 has another scale than the one that was trained against

    Symptom:
        The fake-quant model is good and the converted one is very bad.
    Cause:
        Converting asks the observer, training used the scale that the fake quant holds. They part
        where the observer is on and the fake quant is off (its scale then stands still while the
        range goes on), or where weights have moved fast and their range follows late.
    Fix:
        Switch fake quants on and run a batch in train mode, or freeze observers, before converting.
    Sources:
        https://github.com/pytorch/ao/issues/2138
    """
    causes = _every(subject)
    for cause in (one for one in causes if one.why == "weight"):
        yield Found(
            cause.row.path,
            f"The int8 weight of {cause.row.path} has {cause.detail['ratio']:.3g} times the scale "
            f"that its fake quant rounds with: {percent(cause.own.far)} of its outputs are more "
            f"than 1.5 steps apart, the furthest {cause.own.largest:.3g}.",
            "model.train()  # and train on with observers on",
            severity=_severity(subject, cause),
        )
    moved = _moved_scales(subject)
    if moved:
        path, ratio = max(moved.items(), key=lambda item: abs(math.log(item[1])))
        more = f", and {len(moved) - 1} more are moved" if len(moved) > 1 else ""
        yield Found(
            path,
            f"The int8 output of {path} has {ratio:.3g} times the scale that its fake quant rounds "
            f"with{more}: int8 is not what was trained.",
            "session.model.apply(torch.ao.quantization.enable_fake_quant)  # and train on",
            severity="error" if abs(math.log(ratio)) > math.log(_FACTOR) else "warning",
        )


_MOVED, _FACTOR = 0.05, 2.0


def _moved_scales(subject: Subject) -> dict[str, float]:
    """int8 scale over trained scale of modules' outputs where they are not the same."""
    run = subject.get(dry_run)
    assert run.parity is not None
    if run.prepared is None or not run.own:
        return {}
    calls = Counter(row.path for row in run.parity.rows)
    int8 = run.built.result.model if run.built is not None else None
    # A pool or dropout has no scale of its own in int8: it hands on its input's, a right one.
    modules = {
        path
        for path, module in (int8.named_modules(remove_duplicate=False) if int8 is not None else ())
        if hasattr(module, "scale")
    }
    return {
        row.path: row.step / row.step_trained
        for row in run.parity.rows
        if row.path in modules
        and not below_floor(row)
        and calls[row.path] == 1
        and row.step_trained > 0
        and abs(row.step / row.step_trained - 1) > _MOVED
    }


@rule("QX508", "int8-parts", "error", "int8")
def int8_parts(subject: Subject) -> Iterator[Found]:
    """int8 computes something else than the fake quant at this place

    Symptom:
        int8 is wrong from one layer on, with no error: PReLU or x * 2 in FX, for example.
    Cause:
        The operation was given the very same input in both models and gave results far apart. Some
        have no fake quant of the right grid (FX lets x * 2 share that of x; PReLU gets an observer
        that rounds nothing).
    Fix:
        Leave the operation in float, or write it with one that is quantized right.
    Sources:
        https://github.com/pytorch/pytorch/issues/96412
    """
    run = subject.get(dry_run)
    for cause in _every(subject):
        operation = cause.node is not None and cause.node.op != "call_module"
        elsewhere = cause.why == "stale scale" and (operation or not run.own)
        if cause.why != "unknown" and not elsewhere:
            continue
        path, source = _place(cause)
        own_grid = elsewhere and not cause.detail["shared"]
        grids = ""
        if cause.why == "stale scale":
            grids = (
                f" int8 puts the result on a grid of step {cause.detail['step']:.3g}, its fake "
                f"quant on one of {cause.detail['trained']:.3g}."
            )
        elif not cause.row.step_trained:
            grids = " Its output is not fake-quantized."
        name = cause.row.path if path else cause.kind
        fix = _left_float(cause)
        yield Found(
            path,
            f"On the same input int8 {name} is up to {cause.own.largest:.0f} steps from fake "
            f"quant, {percent(cause.own.far)} of its outputs by more than 1.5.{grids}",
            fix,
            source=source,
            severity="warning" if own_grid else _severity(subject, cause),
        )


def _left_float(cause: Cause) -> str:
    """The code that leaves a layer, or all operations of that kind, in float."""
    path, _ = _place(cause)
    if path:
        return f"session.configure(qconfig={{{path!r}: None}})  # leaves this layer float"
    target: Any = cause.node.target if cause.node is not None else cause.kind
    name = repr(target)
    if callable(target):
        name = f"{target.__module__.lstrip('_')}.{target.__name__}"
    return f"qconfig_mapping.set_object_type({name}, None)  # leaves such operations float"


_SEEN = 0.05


def _reaches_the_output(run: DryRun) -> bool:
    """Whether the model's own output is more than a twentieth of its range off, or not known. What
    is cut off again right behind the place (a join with one scale) computes nothing else."""
    output = run.parity.output if run.parity is not None else None
    return output is None or not output <= _SEEN


# -- what they share -------------------------------------------------------------------------------


def _every(subject: Subject) -> tuple[Cause, ...]:
    run = subject.get(dry_run)
    if run.parity is None:
        raise NoEvidence(_why_not(run) or "Fake quant and int8 could not be compared.")
    return run.causes


def _causes(subject: Subject, *why: str) -> Iterator[Cause]:
    """Each place once, at its furthest call."""
    found: dict[str, Cause] = {}
    for cause in _every(subject):
        known = found.get(cause.row.path)
        if cause.why in why and (known is None or known.own.largest < cause.own.largest):
            found[cause.row.path] = cause
    yield from found.values()


def _why_not(run: DryRun) -> str:
    if run.error is None:
        return ""
    what = "The model cannot be prepared" if run.prepared is None else "There is no int8 model"
    return f"{what}: {run.error.message}"


def _severity(subject: Subject, cause: Cause) -> Severity:
    far = cause.own.largest > LARGE and _reaches_the_output(subject.get(dry_run))
    return "error" if far else "warning"


def _place(cause: Cause) -> tuple[str, str]:
    """(path of the module, line of the user's); an operation has a line only."""
    if cause.node is None or cause.node.op == "call_module":
        return cause.row.path, ""
    return "", source_of(cause.node) or cause.row.path


def _nth(call: int) -> str:
    return f" (call {call + 1} of it)" if call else ""


def _at_call(call: int) -> str:
    return f" at call {call + 1}"
