"""What is wrong with fake quants and observers as they stand: scales, flags, ranges."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from qatexplorer.checks.evidence.qconfigs import qconfigs
from qatexplorer.checks.evidence.weights import WeightRange, weight_ranges
from qatexplorer.checks.families.settings import shown
from qatexplorer.checks.rules import EVERY, Found, rule
from qatexplorer.checks.subject import Subject
from qatexplorer.flows.base import ROLES, FlowKind
from qatexplorer.quantizers.facts import (
    fake_quants,
    family_of,
    flags_of,
    has_range,
    observed_range,
    seen_data,
    switch,
    untouched,
)

_CLIPPED = 0.01
_TOO_FAR = 1.2
_TOO_SHORT = 0.5


@rule("QX402", "stale-weight-scale", "warning", "trained")
def stale_weight_scale(subject: Subject) -> Iterator[Found]:
    """A weight has left the range that its fake quant knows

    Symptom:
        Weights are clipped, or use few codes, though the range was right when it was observed.
    Cause:
        The range of a weight's fake quant is a moving average, or frozen. After fast updates, a
        change of the batch norm that is fused in, or a checkpoint loaded into the prepared model,
        it lags behind. convert observes the weight once more, if observers are on, which moves the
        average by one hundredth of the way.
    Fix:
        Reset that observer and run one batch, or train on until the average has caught up.
    Sources:
        https://github.com/pytorch/ao/issues/2138
    """
    for one in subject.get(weight_ranges):
        half, most = one.reach
        if most > _TOO_FAR and one.clipped > _CLIPPED:
            effect = f"weights reach {most:.2g} times as far as int8 does, and "
            yield _stale(one, f"{effect}{100 * one.clipped:.2g} % of them are clipped")
        elif half < _TOO_SHORT:
            yield _stale(one, f"it is {1 / half:.2g} times as wide as the weight needs")


def _stale(one: WeightRange, effect: str) -> Found:
    return Found(
        one.path,
        f"The range of {one.site} does not fit the weight any more: {effect}.",
        f"model.get_submodule({one.site!r}).activation_post_process.reset_min_max_vals()",
    )


@rule("QX403", "eval-observers", "warning", "trained", flows=EVERY)
def eval_observers(subject: Subject) -> Iterator[Found]:
    """Observers are on in eval mode

    Symptom:
        The same batch gives another output each time it is evaluated.
    Cause:
        model.eval() does not stop observers: each forward of the validation set moves the ranges,
        and the int8 model is made with them.
    Fix:
        model.apply(torch.ao.quantization.disable_observer) before evaluation, enable_observer
        after it.
    Sources:
        https://github.com/Lightning-AI/pytorch-lightning/issues/8540
    """
    work = prepared_work(subject)
    if work is None or work.training or not subject.base.training:
        return
    on = [p for p, site in fake_quants(work).items() if _follows(site)]
    if on:
        verb = "is" if len(on) == 1 else "are"
        yield Found(
            "",
            f"The model is in eval mode, and {len(on):,} of its observers {verb} on ({shown(on)}): "
            "each forward still moves their ranges.",
            switch_line(fake_quants(work)[on[0]], "disable_observer"),
        )


@rule("QX404", "fake-quant-off", "warning", "int8", flows=EVERY)
def fake_quant_off(subject: Subject) -> Iterator[Found]:
    """A fake quant is off when the model is converted

    Symptom:
        The prepared model is as good as the float model, the int8 model is far worse.
    Cause:
        Where a fake quant is off, the weights are trained as if nothing were rounded. If its
        observer is on, the range goes its own way meanwhile; int8 rounds all the same.
    Fix:
        model.apply(torch.ao.quantization.enable_fake_quant) and train on, before you convert.
    Sources:
        https://github.com/pytorch/ao/issues/2138
        https://github.com/pytorch/ao/issues/198
    """
    work = prepared_work(subject)
    trained = subject.observed or subject.flow.kind() == "layers"  # which has no observers
    if work is None or not trained:
        return
    off = {p: flags_of(s) for p, s in fake_quants(work).items() if not flags_of(s).fake_quant}
    moving = [p for p, flags in off.items() if flags.observer]
    if not off:
        return
    paths = list(off)
    verb, they = ("is", "it rounds") if len(off) == 1 else ("are", "they round")
    while_on = f" while {'its' if len(moving) == 1 else 'their'} observers are on" * bool(moving)
    yield Found(
        paths[0],
        f"{len(off):,} of {len(fake_quants(work)):,} fake quants {verb} off{while_on} "
        f"({shown(paths)}): in int8 {they}.",
        switch_line(fake_quants(work)[paths[0]], "enable_fake_quant"),
    )


@rule("QX405", "nonfinite-weight", "error", "float", flows=EVERY)
def nonfinite_weight(subject: Subject) -> Iterator[Found]:
    """The float model has NaN or infinite weights

    Symptom:
        The loss is NaN from the first step; a scale is NaN.
    Cause:
        A training that diverged, or a checkpoint of one. An observer that has seen NaN once never
        forgets it.
    Fix:
        Load a checkpoint from before it diverged.
    Sources:
        https://github.com/alibaba/TinyNeuralNetwork/issues/337
    """
    for path, module in subject.layers():
        tensors: list[tuple[str, Tensor]] = [*module.named_parameters(recurse=False)]
        if isinstance(module, nn.modules.batchnorm._NormBase):
            tensors += module.named_buffers(recurse=False)
        for name, tensor in tensors:
            bad = int((~torch.isfinite(tensor)).sum()) if tensor.is_floating_point() else 0
            if bad:
                full = f"{path}.{name}" if path else name
                yield Found(
                    path,
                    f"{bad:,} of {tensor.numel():,} values of {full} are NaN or infinite.",
                    "Load a checkpoint from before the training diverged.",
                )


@rule("QX406", "prepared-twice", "error", "inserted")
def prepared_twice(subject: Subject) -> Iterator[Found]:
    """Prepare has run twice on one model

    Symptom:
        Training is slower, and ranges move twice as fast as they should.
    Cause:
        prepare and prepare_qat register a forward hook for each fake quant and do not look whether
        there is one: it then runs twice in each forward. torch does not warn.
    Fix:
        Prepare once, from the float model; load weights with load_state_dict.
    Sources:
        https://discuss.pytorch.org/t/181190
    """
    work = prepared_work(subject)
    twice = [p for p, m in work.named_modules() if _observer_hooks(m) > 1] if work else []
    if twice:
        verb = "runs" if len(twice) == 1 else "run"
        yield Found(
            twice[0],
            f"The fake quant of {shown(twice)} {verb} more than once in each forward: prepare has "
            "been called on a model that was prepared.",
            "session.reset()",
        )


def _observer_hooks(module: nn.Module) -> int:
    names = Counter(getattr(hook, "__name__", "") for hook in module._forward_hooks.values())
    return names["_observer_forward_hook"]


@rule("QX407", "zero-channel", "info", "float")
def zero_channel(subject: Subject) -> Iterator[Found]:
    """Output channels of a weight are all zero

    Symptom:
        A weight's scale is 1.19e-07 in int8.
    Cause:
        The channel is dead, pruned, or was never trained. It has no range, so torch takes the
        smallest scale that it allows.
    Fix:
        It does no harm to the numbers. Remove the channel: int8 computes it for nothing.
    Sources:
        https://github.com/facebookresearch/d2go/issues/87
    """
    known = subject.get(qconfigs)
    for path, module in subject.layers(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d):
        qconfig, weight = known.of.get(path), getattr(module, "weight", None)
        if qconfig is None or not isinstance(weight, Tensor) or not weight.numel():
            continue
        if getattr(known.made(qconfig)[1], "is_per_channel", False):
            dead = int((weight.detach().reshape(weight.shape[0], -1) == 0).all(1).sum())
            if dead:
                verb = "is" if dead == 1 else "are"
                yield Found(
                    path,
                    f"{dead:,} of {weight.shape[0]:,} output channels of {path or 'the model'} "
                    f"{verb} all zero: they have no range, and int8 computes them for nothing.",
                )


@rule("QX408", "unseen-channels", "warning", "trained", flows=EVERY)
def unseen_channels(subject: Subject) -> Iterator[Found]:
    """Some channels of an observer have seen no data

    Symptom:
        Some channels are rounded with scale 1, or torch's default, and others are right.
    Cause:
        A range per channel was reset, loaded or set by hand in part. torch takes a scale from the
        ends of each channel and does not look whether there are any.
    Fix:
        Reset the observer and run one batch.
    Sources:
        https://github.com/pytorch/pytorch/issues/28951
    """
    work = prepared_work(subject)
    for path, site in fake_quants(work).items() if work is not None else ():
        if seen_data(site) != "partly":
            continue
        low, high = observed_range(site)
        empty = sum(bool(untouched(one, two)) for one, two in zip(low, high, strict=True))
        yield Found(
            path,
            f"{empty:,} of {len(low):,} channels of {path} have seen no data, the others have.",
            f"model.get_submodule({path!r}).activation_post_process.reset_min_max_vals()",
        )


@rule("QX409", "two-libraries", "warning", "inserted", flows=EVERY)
def two_libraries(subject: Subject) -> Iterator[Found]:
    """Fake quants of two libraries are in one model

    Symptom:
        Ranges go on moving after disable_observer; some activations stay fake-quantized after
        convert_pt2e, and compute in float.
    Cause:
        torch.ao, torchao's PT2E and torchao's QAT each have classes of their own under the same
        names. The functions that switch and convert look for those of their own library and pass
        over the others without a word.
    Fix:
        Import fake quants and observers from the library that prepares and converts the model:
        torch.ao.quantization for eager mode and FX, torchao.quantization.pt2e for PT2E.
    Sources:
        https://github.com/pytorch/ao/issues/2138
    """
    work = prepared_work(subject)
    by_library: dict[str, list[str]] = {}
    for path, site in fake_quants(work).items() if work is not None else ():
        by_library.setdefault(library_of(site), []).append(path)
    if len(by_library) < 2:
        return
    own = _LIBRARY[subject.flow.kind()]
    others = {name: paths for name, paths in by_library.items() if name != own} or by_library
    first = next(iter(others.values()))[0]
    counts = " and ".join(f"{len(paths):,} of {name}" for name, paths in by_library.items())
    stays = ""
    if subject.flow.kind() == "annotation":
        stays = ", and convert_pt2e leaves them in the model as they are"
    yield Found(
        first,
        f"The model has fake quants of {len(by_library)} libraries: {counts} "
        f"({shown(next(iter(others.values())))}). What switches those of one library does not "
        f"reach the others{stays}.",
        f"Import all of them from {own}.",
        severity="error" if stays else None,
    )


@rule("QX410", "switch-without-effect", "warning", "inserted", flows=EVERY)
def switch_without_effect(subject: Subject) -> Iterator[Found]:
    """Switching a fake quant off changes nothing

    Symptom:
        The metric with fake quants off is the metric with fake quants on: rounding seems to cost
        nothing, or a delayed start of fake quantization has no effect.
    Cause:
        A fake quant of another class than torch's whose forward does not ask its flag (in torchao
        0.17 those of int4 and float8). One of each class is switched off on a copy and given a
        tensor.
    Fix:
        Return the input as it is where the flag is off: fake_quant_enabled in torch.ao and PT2E,
        enabled in torchao's QAT.
    Sources:
        https://github.com/pytorch/ao/pull/3573
        https://github.com/pytorch/ao/issues/4336
    """
    work = prepared_work(subject)
    asked: dict[type[nn.Module], str] = {}
    count = Counter(type(site) for site in fake_quants(work).values()) if work else Counter()
    for path, site in fake_quants(work).items() if work is not None else ():
        if type(site) not in asked and has_range(site):
            asked[type(site)] = path
    for kind, path in asked.items():
        if work is None or _passes_when_off(work, path):
            continue
        module, name = kind.__module__, kind.__name__
        yield Found(
            path,
            f"{name} ({module}) rounds when it is switched off as when it is on; the model has "
            f"{count[kind]:,} of them.",
            f"In {name}.forward: return x where its flag is off.",
        )


@torch.no_grad()
def _passes_when_off(work: nn.Module, path: str) -> bool:
    """Whether a copy of the fake quant hands on what it gets, once it is off."""
    twin = copy.deepcopy(work.get_submodule(path))
    switch(twin, observer=False, fake_quant=False)
    owner, _, name = path.rpartition(".")
    held = getattr(work.get_submodule(owner), "weight", None)
    x = held.detach() if "weight" in name and isinstance(held, Tensor) else _ramp(twin)
    return bool(torch.equal(twin(x), x))


def _ramp(site: Any) -> Tensor:
    """Values from -1 to 1, with as many channels as the fake quant has scales."""
    scale, axis = getattr(site, "scale", None), getattr(site, "ch_axis", 0)
    channels = scale.numel() if isinstance(scale, Tensor) else 1
    shape = [1] * max(0, int(axis)) + [channels, 32]
    return torch.linspace(-1, 1, channels * 32).reshape(shape)


_LIBRARY: dict[FlowKind, str] = {
    "modules": "torch.ao.quantization",
    "annotation": "torchao.quantization.pt2e",
    "layers": "torchao.quantization.qat",
}
_OF_FAMILY = {"torchao, PT2E": _LIBRARY["annotation"], "torchao, QAT": _LIBRARY["layers"]}


def library_of(site: nn.Module) -> str:
    """The package whose functions switch and convert a fake quant."""
    family = family_of(site)
    return _OF_FAMILY.get(family.name if family is not None else "", _LIBRARY["modules"])


def switch_line(site: nn.Module, call: str) -> str:
    """The line that switches all fake quants of the library of ``site``."""
    library = library_of(site)
    if library == _LIBRARY["layers"]:
        return f"model.apply({library}.linear.{call.replace('_fake', '_linear_fake')})"
    return f"model.apply({library}.{call})"


def prepared_work(subject: Subject) -> nn.Module | None:
    """The model being worked on, once all fake quants are in it."""
    stage = subject.flow.stage_with("inserted")
    names = subject.flow.stage_names
    if subject.work is None or stage is None or subject.work_stage not in names:
        return None
    role = subject.flow.stage(subject.work_stage).role
    return subject.work if ROLES.index(role) >= ROLES.index("inserted") else None


def _follows(site: nn.Module) -> bool:
    """Whether its observer is on, and has a range that data moves."""
    return flags_of(site).observer and seen_data(site) not in ("fixed", "derived")
