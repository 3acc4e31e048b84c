"""What a model loses on the way: zeros of a pruned weight, and what a state dict does not hold."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from qatexplorer.checks.evidence.dry_run import dry_run
from qatexplorer.checks.evidence.qconfigs import qconfigs
from qatexplorer.checks.evidence.zeros import zeros
from qatexplorer.checks.families.observers import prepared_work
from qatexplorer.checks.families.settings import shown
from qatexplorer.checks.rules import EVERY, Found, rule
from qatexplorer.checks.subject import NoEvidence, Subject
from qatexplorer.data import call_model, cloned, device_of, on_device
from qatexplorer.evaluate.int8 import run_int8
from qatexplorer.evaluate.parity import outputs_of
from qatexplorer.forward.preserve import preserved_rng, preserved_state
from qatexplorer.forward.trace import tensors_in
from qatexplorer.quantizers.engine import quantized_engine

_PRUNED = 0.2
_LOST = 0.01


@rule("QX441", "not-in-state-dict", "warning", "int8")
def not_in_state_dict(subject: Subject) -> Iterator[Found]:
    """An int8 module keeps its scale outside of the state dict

    Symptom:
        The int8 model is right, and wrong after load_state_dict into a fresh one, without an error.
    Cause:
        torch's int8 ELU and PReLU hold scale and zero point (PReLU its weight too) as plain
        attributes. state_dict() leaves them out, and load_state_dict() does not miss them.
    Fix:
        Load the prepared model's state dict and convert again, or set the attributes by hand.
    Sources:
        https://github.com/pytorch/pytorch/issues/32691
    """
    known = subject.get(qconfigs)
    for path, module in subject.layers(nn.ELU, nn.PReLU):
        if type(module) not in (nn.ELU, nn.PReLU) or known.of.get(path) is None:
            continue
        kind = type(module).__name__
        held = "scale, zero point and weight" if kind == "PReLU" else "scale and zero point"
        yield Found(
            path,
            f"Where {path} ({kind}) is int8, its {held} are not in the state dict: a fresh int8 "
            "model that loads it computes with its own.",
            "Save the prepared model's state_dict(), load that, and convert again.",
        )


@rule("QX442", "round-trip", "error", "trained", flows=EVERY)
def round_trip(subject: Subject) -> Iterator[Found]:
    """The prepared model's state dict does not come back

    Symptom:
        Error(s) in loading state_dict: size mismatch
        Or no error, and other ranges after loading.
    Cause:
        A fake quant or observer of the user's own whose buffers grow with the data: torch's own
        take the shape of what they load.
    Fix:
        Give it a _load_from_state_dict that resizes its buffers, as torch's observers have.
    Sources:
        https://github.com/facebookresearch/fvcore/issues/52
        https://github.com/pytorch/pytorch/issues/41684
    """
    work = prepared_work(subject)
    if not subject.thorough or work is None:
        return
    buffer = io.BytesIO()
    torch.save(work.state_dict(), buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True, map_location="cpu")
    fresh = subject.maker.rebuild(subject.work_stage, own=True)
    try:
        fresh.load_state_dict(saved)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        key = next((k for k in saved if any(k in line for line in lines[1:])), "")
        text = next((line for line in lines[1:] if key and key in line), lines[0])
        yield Found(
            key.rpartition(".")[0],
            f"The state dict of the prepared model does not load into a fresh one: {text[:200]}",
            "Give that module a _load_from_state_dict that resizes its buffers.",
        )
        return
    back = fresh.state_dict()
    other = [k for k, value in saved.items() if not _same(value, back.get(k))]
    if other:
        yield Found(
            other[0].rpartition(".")[0],
            f"After the state dict is saved and loaded, {shown(other)} differ.",
            "Give that module a _load_from_state_dict that takes over what it is given.",
        )


@rule("QX443", "int8-round-trip", "warning", "int8")
def int8_round_trip(subject: Subject) -> Iterator[Found]:
    """The int8 model computes something else after it is saved and loaded

    Symptom:
        The int8 model is right, and wrong in the process that loads its state dict.
    Cause:
        An int8 module keeps something outside of its state dict, as torch's ELU and PReLU do, or a
        module of the user's own does. This is measured: the state dict is saved and loaded into a
        freshly converted model, and both run on the example input.
    Fix:
        Load the prepared model's state dict and convert again.
    Sources:
        https://github.com/pytorch/pytorch/issues/32691
    """
    run = subject.get(dry_run) if subject.thorough else None
    if run is None or run.built is None or run.prepared is None:
        return
    maker = subject.maker
    int8 = run.built.result.model
    buffer = io.BytesIO()
    torch.save(int8.state_dict(), buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its observers have seen nothing, on purpose
        fresh = maker.convert_copy(maker.rebuild(subject.flow.prepared_stage)).result.model
    message = ""
    try:
        fresh.load_state_dict(saved)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        message = f"The int8 model's state dict does not load into a fresh one: {lines[-1][:200]}"
    else:
        pairs = zip(*(_run(subject, model) for model in (int8, fresh)), strict=True)
        gaps = [float((a.nan_to_num() - b.nan_to_num()).abs().max()) for a, b in pairs]
        far = max(gaps, default=0.0)
        if far:
            message = (
                "After its state dict is saved and loaded into a fresh one, the int8 model's "
                f"output on the example input differs by up to {far:.3g}."
            )
    if message:
        yield Found("", message, "Save the prepared model's state_dict(), load that, and convert.")


@rule("QX444", "one-batch-size", "error", "inserted")
def one_batch_size(subject: Subject) -> Iterator[Found]:
    """The prepared model takes batches of one size only

    Symptom:
        dimensions of scale and zero-point are not consistent with input tensor
        The size of tensor a must match the size of tensor b
    Cause:
        Something has grown to the size of the batch: an observer of activations that is per channel
        along dimension 0, for one. The last batch of an epoch is often smaller.
    Fix:
        Observe activations per tensor.
    Sources:
        https://github.com/pytorch/ao/issues/2980
    """
    run = subject.get(dry_run) if subject.thorough else None
    if run is None or run.prepared is None:
        return
    less = _smaller(subject.options.example_inputs)
    if less is None:
        return
    models = [("prepared", run.prepared)]
    models += [("int8", run.built.result.model)] if run.built is not None else []
    try:
        _call(subject, subject.base, less)
    except Exception as error:
        raise NoEvidence("the float model does not take a batch of another size") from error
    for name, model in models:
        try:
            _call(subject, model, less)
        except Exception as error:
            said = subject.maker.translated(error, model)
            yield Found(
                said.where or "",
                f"The {name} model does not take a batch that is smaller by one, and the float "
                f"model does: {said.message[:200]}",
                "Observe activations per tensor: their fake quant has a scale for each sample.",
            )
            return


def _smaller(inputs: Any) -> Any:
    """The inputs without the last sample of the batch; None where there is no batch to cut."""
    tensors = [value for value in tensors_in(inputs) if value.dim() > 0]
    sizes = {value.shape[0] for value in tensors}
    if len(sizes) != 1 or sizes.pop() < 3:
        return None
    cut = tree_map(lambda v: v[:-1] if isinstance(v, Tensor) and v.dim() > 0 else v, inputs)
    return cut


def _call(subject: Subject, model: nn.Module, inputs: Any) -> None:
    engine = subject.options.qconfig.backend
    given = cloned(on_device(inputs, device_of(model)))
    with preserved_state(model), preserved_rng(), torch.no_grad(), quantized_engine(engine):
        call_model(model.eval(), given)


def _run(subject: Subject, int8: nn.Module) -> list[Tensor]:
    options = subject.options
    return outputs_of(run_int8(int8, options.example_inputs, options.qconfig.backend))


def _same(one: object, two: object) -> bool:
    if not isinstance(one, Tensor) or not isinstance(two, Tensor):
        return type(one) is type(two)
    alike = one.shape == two.shape and one.dtype == two.dtype
    return alike and torch.equal(one.nan_to_num(), two.cpu().nan_to_num())


@rule("QX451", "zeros-lost", "warning", "trained", flows=EVERY)
def zeros_lost(subject: Subject) -> Iterator[Found]:
    """A pruned weight loses its zeros

    Symptom:
        A sparse model is dense after quantization-aware training.
    Cause:
        The mask is not laid on the weights while they train: each step moves the zeros, too.
    Fix:
        Lay the mask on again after each step of the optimizer:
        weight.mul_(mask) under torch.no_grad().
    Sources:
        https://github.com/neuralmagic/sparseml/issues/785
    """
    if subject.work is None:
        raise NoEvidence("there is no model to look at")
    for one in subject.get(zeros):
        now = one.after if one.after is not None else one.during
        if one.before < _PRUNED or one.during is None or now is None:
            continue
        if one.before - one.during > _LOST:
            more = "" if one.after is None else f", and {100 * one.after:.3g} % in int8"
            yield Found(
                one.path,
                f"{100 * one.before:.3g} % of the weight of {one.path or 'the model'} was zero "
                f"before training; {100 * one.during:.3g} % is now{more}.",
                f"model.get_submodule({one.path!r}).weight.data.mul_(mask)  # after each step",
            )
