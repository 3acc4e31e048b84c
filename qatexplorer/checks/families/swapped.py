"""What torchao's QAT does otherwise than it was asked, without a word: QX721 to QX723."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from qatexplorer.checks.families.observers import prepared_work
from qatexplorer.checks.families.settings import shown
from qatexplorer.checks.rules import Found, rule
from qatexplorer.checks.subject import NoEvidence, Subject
from qatexplorer.evaluate.parity import percent
from qatexplorer.flows.base import FlowKind
from qatexplorer.flows.torchao import (
    fake_quants_of_weights,
    group_asked,
    parts_of,
    size_of_blocks,
)
from qatexplorer.quantizers.types import is_torchao_tensor, own_weight

LAYERS: tuple[FlowKind, ...] = ("layers",)


@rule("QX721", "other-group-size", "error", "int8", flows=LAYERS)
def other_group_size(subject: Subject) -> Iterator[Found]:
    """Weights are trained in groups of another size than they were asked for

    Symptom:
        The converted model is worse than the one that was trained, and no call says so.
    Cause:
        A fake quant's groups are those of its own configuration, convert takes those of the base
        configuration that it is given, and torchao compares neither. (In torchao 0.17
        Int4WeightOnlyConfig was trained in groups of 128, whatever was asked.) The sizes are
        counted on the scales themselves.
    Fix:
        Prepare and convert with the same base configuration, and leave the fake quants'
        configurations alone in between.
    Sources:
        https://github.com/pytorch/ao/issues/4518
    """
    work = _work(subject)
    stored = subject.int8
    for path, layer, site in fake_quants_of_weights(work):
        asked, used = _asked(subject, layer), size_of_blocks(layer, site)
        kept = _stored(stored, path)
        if asked is not None and used != asked:
            said = f"Groups of {asked} were asked for, and {path} is trained in groups of {used}"
        elif kept is not None and used is not None and kept != used:
            said = f"{path} is trained in groups of {used}"
        else:
            continue
        after = f"; it is stored in groups of {kept}" if kept is not None else ""
        yield Found(
            path,
            f"{said}{after}.",
            "session.configure(base_config=…) with the size that you mean, and train again",
        )


def _work(subject: Subject) -> nn.Module:
    work = prepared_work(subject)
    if work is None:
        raise NoEvidence(f"Known from stage {subject.flow.prepared_stage!r} on.")
    return work


def _asked(subject: Subject, layer: nn.Module) -> int | None:
    """The size that the configuration of a layer asks for, None for no groups."""
    for part in parts_of(subject.options, subject.base):
        if part.kind is None or isinstance(layer, part.kind):
            return group_asked(part.config.base_config if part.is_qat else part.config)
    return None


def _stored(int8: nn.Module | None, path: str) -> int | None:
    """Number of values of the converted layer's weight that share a scale, None if not known."""
    if int8 is None:
        return None
    block = getattr(int8.get_submodule(path).weight, "block_size", None)
    return int(block[-1]) if block is not None else None


@rule("QX722", "converted-to-float", "error", "int8", flows=LAYERS)
def converted_to_float(subject: Subject) -> Iterator[Found]:
    """Convert takes the fake quants out and leaves the weights float

    Symptom:
        The converted model is as large as the float one, and still float32.
    Cause:
        QATConfig(step="convert") without a base configuration swaps the layers back to plain ones
        and stops there. A base configuration that a weight's shape does not fit leaves that layer
        float too, with no more than a log message.
    Fix:
        Give QATConfig the base configuration, QATConfig(base_config, step="convert").
    Sources:
        https://github.com/pytorch/ao/issues/1290
    """
    work, int8 = _work(subject), subject.int8
    if int8 is None:
        raise NoEvidence(f"Known from stage {subject.flow.int8_stage!r} on.")
    layers = [path for path, _, _ in fake_quants_of_weights(work)]
    left = [path for path in layers if not is_torchao_tensor(_weight(int8, path))]
    if left:
        verb = "is" if len(left) == 1 else "are"
        yield Found(
            left[0],
            f"{len(left):,} of {len(layers):,} layers that were trained with fake quants {verb} "
            f"float after convert ({shown(left)}).",
            "session.configure(base_config=…) with a configuration of torchao's that stores "
            "integers, such as IntxWeightOnlyConfig()",
        )


def _weight(model: nn.Module, path: str) -> Any:
    return model.get_submodule(path).weight


@rule("QX723", "not-swapped", "info", "inserted", flows=LAYERS)
def not_swapped(subject: Subject) -> Iterator[Found]:
    """Layers that quantize_ does not take stay float

    Symptom:
        quantize_ "does not work": most of the model is still float32.
    Cause:
        quantize_ swaps the layers that its filter names, linear ones by default, and QATConfig has
        fake quants for linear and embedding layers only. Convolutions and all else stay as they
        are, and no call says so.
    Fix:
        Give a configuration for nn.Embedding too, base_config={nn.Linear: …, nn.Embedding: …}; for
        convolutions take flow="pt2e".
    Sources:
        https://github.com/pytorch/ao/issues/1290
    """
    work = _work(subject)
    swapped = {path for path, _, _ in fake_quants_of_weights(work)}
    sizes = {
        path: weight.numel()
        for path, module in work.named_modules()
        if isinstance(weight := own_weight(module), nn.Parameter) and weight.dim() > 1
    }
    left = {path: size for path, size in sizes.items() if path not in swapped}
    if not left:
        return
    largest = max(left, key=lambda path: left[path])
    kinds = sorted({type(work.get_submodule(path)).__name__ for path in left})
    layer = work.get_submodule(largest)
    share = sum(left.values()) / sum(sizes.values())
    verb, they = ("is", "it stays") if len(left) == 1 else ("are", "they stay")
    yield Found(
        largest,
        f"{len(left):,} of {len(sizes):,} layers with a weight {verb} not taken ({shown([*left])}: "
        f"{', '.join(kinds)}), {percent(share)} of all weights: {they} float, after convert too.",
        "session.configure(base_config={nn.Linear: …, nn.Embedding: …})"
        if isinstance(layer, nn.Embedding)
        else "session.configure(flow='pt2e', quantizer='xnnpack')"  # x86's knows conv2d only
        if isinstance(layer, nn.Conv1d)
        else "session.configure(flow='pt2e')",
        severity=None if swapped else "error",
    )
