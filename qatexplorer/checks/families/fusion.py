"""Rules about what torch fuses, what it leaves apart, and what it should not have fused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from torch import fx, nn
from torch.ao.nn.quantized import FloatFunctional

from qatexplorer.checks.evidence.dry_run import dry_run
from qatexplorer.checks.evidence.qconfigs import qconfigs
from qatexplorer.checks.evidence.uses import (
    CONVS,
    NORMS,
    TRANSPOSED,
    Uses,
    uses,
)
from qatexplorer.checks.families.parity import batch_norm_over_tokens
from qatexplorer.checks.records import Fix, Severity
from qatexplorer.checks.rules import Found, rule
from qatexplorer.checks.subject import NoEvidence, Subject
from qatexplorer.errors import EditError
from qatexplorer.flows.edits.plan import Edit, code_of, tried
from qatexplorer.flows.fusion import can_fuse, find_fusable
from qatexplorer.flows.own_copy import is_wrapper_note
from qatexplorer.forward.graph import GraphNode
from qatexplorer.forward.graph_module import source_of
from qatexplorer.quantizers.facts import is_quantizer
from qatexplorer.quantizers.types import BOUNDING, KEEPING, operation_of
from qatexplorer.shown import listed

_MULTIPLY = (CONVS, nn.Linear)
_BETWEEN = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_ACTIVATIONS = (
    *(nn.SiLU, nn.LeakyReLU, nn.Hardswish, nn.GELU, nn.Mish, nn.PReLU, nn.RReLU, nn.Hardtanh),
    *(nn.ELU, nn.SELU, nn.CELU, nn.Softplus),
)
_LEFT_OUT = "the fuse list leaves them out"


@dataclass(frozen=True)
class _Pair:
    """A layer and what follows it, which torch could compute as one, and why it does not."""

    first: GraphNode
    second: GraphNode
    path: str
    reason: str
    fix: str = ""
    edit: str = ""
    severity: Severity | None = None


@rule("QX171", "unfused-batch-norm", "warning", "fused")
def unfused_batch_norm(subject: Subject) -> Iterator[Found]:
    """A batch norm is not fused with the layer before it

    Symptom:
        A fake quant between convolution and batch norm; the int8 model is slower and less exact
        than expected.
    Cause:
        Torch fuses modules of exactly its own types, one directly after the other, each used once.
        Anything else stays apart: the result of the convolution is rounded before the batch norm
        has scaled it, and the batch norm computes by itself, in int8 or in float.
    Fix:
        Bring them next to each other, of torch's own types; in eager mode name them in the fuse
        list.
    Sources:
        https://github.com/pytorch/pytorch/issues/41642
    """
    used = subject.get(uses)
    pairs = [pair for node in used.nodes for pair in _norms_after(subject, used, node)]
    yield from _by_reason(subject, pairs, "batch norm")


def _norms_after(subject: Subject, used: Uses, node: GraphNode) -> Iterator[_Pair]:
    layer = used.module(node)
    if not isinstance(layer, _MULTIPLY) or subject.get(qconfigs).of[node.path] is None:
        return
    users = used.users.get(node.id, ())
    between: list[str] = []
    if len(users) == 1 and isinstance(used.module(users[0]), _BETWEEN):
        between = [users[0].path]
        users = used.users.get(users[0].id, ())
    for after in users:
        norm = used.norm_of(after)
        if norm is None or _are_fused(subject, used, node, norm[0]):
            continue
        path, module = norm
        what = (node, after, path)
        kinds = f"{type(layer).__name__} + {type(module).__name__}"
        plain = nn.modules.batchnorm
        own = type(module) in (plain.BatchNorm1d, plain.BatchNorm2d, plain.BatchNorm3d)
        if not own and not isinstance(module, nn.SyncBatchNorm):
            kind = type(module).__name__
            yield _Pair(*what, f"{kind} is not torch's own BatchNorm", edit="split_norm")
        elif between:
            kind = type(used.modules[between[0]]).__name__
            yield _Pair(*what, f"{kind} stands between them", f"Take {between[0]} out of forward.")
        elif len(users) > 1:
            yield _Pair(*what, "the layer's result is used by others, too")
        elif own:
            yield from _unlisted(subject, used, what, [layer, module], kinds)


def _unlisted(
    subject: Subject,
    used: Uses,
    what: tuple[GraphNode, GraphNode, str],
    modules: list[nn.Module],
    kinds: str,
) -> Iterator[_Pair]:
    """Two of torch's own modules in a row that are not fused all the same."""
    first, second, _ = what
    if modules[0].training != modules[1].training:  # another rule says so
        return
    if not can_fuse(modules):
        transposed = isinstance(modules[0], TRANSPOSED)
        if not (transposed and subject.flow.by_graph):  # where torch refuses the model
            reason = f"torch cannot fuse {kinds} for training"
            yield _Pair(*what, reason, severity="info" if transposed else None)
    elif not subject.flow.by_graph:
        often = [n.path for n in (first, second) if len(used.calls[n.path]) > 1]
        times = f"{often[0]} runs {len(used.calls[often[0]])} times in a forward" if often else ""
        yield _Pair(*what, times or _LEFT_OUT)


def _are_fused(subject: Subject, used: Uses, first: GraphNode, second: str) -> bool:
    if subject.flow.by_graph:
        return any(node.path == second for node in used.fx_group(first))
    return any({first.path, second} <= set(group) for group in subject.options.fusion)


@rule("QX172", "activation-outside", "info", "fused")
def activation_outside(subject: Subject) -> Iterator[Found]:
    """An activation that is never fused

    Symptom:
        AssertionError: did not find fuser method for: (<class '…Conv2d'>, <class '…SiLU'>)
    Cause:
        Torch has fused modules for ReLU only. SiLU, LeakyReLU, Hardswish and others stay modules
        of their own, with a quantization before and after them, or in float.
    Fix:
        Name conv and batch norm alone in the fuse list. ReLU in their place is fused.
    Sources:
        https://github.com/ultralytics/yolov3/issues/2266
        https://github.com/ultralytics/ultralytics/issues/19960
    """
    used = subject.get(uses)
    found: dict[str, list[tuple[GraphNode, str]]] = {}
    for node in used.nodes:
        module = used.module(node)
        if (
            not isinstance(module, (*_MULTIPLY, NORMS))
            or subject.get(qconfigs).of[node.path] is None
        ):
            continue
        after = used.follower(node)
        kind = _activation(used, after) if after is not None else ""
        if after is not None and kind:
            found.setdefault(kind, []).append((after, node.path))
    for kind, places in found.items():
        first = places[0][0]
        layers = listed([path for _, path in places])
        yield Found(
            first.path,
            f"{kind} follows {layers}, and is not fused with "
            f"{'it' if len(places) == 1 else 'them'}: torch fuses ReLU only.",
            source="" if first.path else first.source,
        )


def _activation(used: Uses, node: GraphNode) -> str:
    """The class of an activation module that torch has no fused module for, ``""`` for others."""
    module = used.module(node)
    one = isinstance(module, _ACTIVATIONS) and not isinstance(module, nn.ReLU6)
    return type(module).__name__ if one else ""


@rule("QX173", "quant-before-relu", "warning", "inserted")
def quant_before_relu(subject: Subject) -> Iterator[Found]:
    """A fake quant stands before a ReLU

    Symptom:
        Half of the codes of a fake quant stand for negative values, which the ReLU behind it makes
        zero.
    Cause:
        The layer before it and the ReLU are not fused. The range of the layer's own result is
        observed, and the step is about twice as wide as it could be.
    Fix:
        In eager mode: nn.ReLU, one for each place, fused with the layer before it; after an
        addition, FloatFunctional.add_relu. In FX: nn.ReLU or F.relu, not torch.relu, Tensor.relu
        or ReLU6. A model that was trained with ReLU6 has to be trained on with ReLU in float: it
        is another function above 6.
    Sources:
        https://github.com/neuralmagic/sparseml/pull/785
        https://github.com/pytorch/pytorch/issues/47415
    """
    used = subject.get(uses)
    pairs = []
    for node in used.nodes:
        before = used.inputs.get(node.id, ())
        if not used.is_relu(node) or len(before) != 1 or used.follower(before[0]) is not node:
            continue
        if subject.get(qconfigs).of.get(before[0].path, True) is None:
            continue
        reason = (_why_in_fx if subject.flow.by_graph else _why_in_eager)(
            subject, used, before[0], node
        )
        if reason:
            pairs.append(_Pair(before[0], node, node.path, *reason))
    yield from _by_reason(subject, pairs, "ReLU")


def _why_in_fx(
    subject: Subject, used: Uses, before: GraphNode, relu: GraphNode
) -> tuple[str, str] | None:
    layer, module = used.module(before), used.module(relu)
    adds = before.op == "call_function" and before.label in ("add", "mul", "iadd", "imul")
    if not adds and not isinstance(layer, (*_MULTIPLY, NORMS, FloatFunctional)):
        return None
    if isinstance(module, nn.ReLU6) or relu.label == "relu6":
        return "FX fuses ReLU, not ReLU6", _relu_for(subject, used, relu)
    if module is not None or relu.target == "torch.nn.functional.relu":
        return None  # fused, or the layer before it is none that torch fuses: other rules say so
    if relu.op == "call_function" and (adds or isinstance(layer, FloatFunctional)):
        return None  # torch.relu is fused with an addition
    shown = "torch.relu" if relu.op == "call_function" else f"Tensor.{relu.label}"
    where = f" at {relu.source}" if relu.source else ""
    return f"FX fuses nn.ReLU and F.relu, not {shown}", f"Write F.relu(…){where}."


def _why_in_eager(
    subject: Subject, used: Uses, before: GraphNode, relu: GraphNode
) -> tuple[str, str] | None:
    layer, module = used.module(before), used.module(relu)
    if isinstance(layer, FloatFunctional):
        if before.label != "add":
            return None
        where = f" at {before.source}" if before.source else ""
        return (
            "an addition and its ReLU are one operation in int8",
            f"Call {code_of(subject.base, before.path)}.add_relu(…){where} and leave the ReLU out.",
        )
    if not isinstance(layer, (*_MULTIPLY, NORMS)):
        return None
    if module is None:
        where = f" at {relu.source}" if relu.source else ""
        return "eager mode fuses modules only, not functions", f"Call an nn.ReLU(){where}."
    if isinstance(module, nn.ReLU6):
        return "torch fuses ReLU, not ReLU6", _relu_for(subject, used, relu)
    if any({before.path, relu.path} <= set(group) for group in subject.options.fusion):
        return None
    if any(before.path in group[1:] for group in subject.options.fusion) and not can_fuse(
        [layer, module]
    ):
        return None
    if len(used.calls[relu.path]) > 1:
        return f"{relu.path} runs {len(used.calls[relu.path])} times in a forward", ""
    if can_fuse([layer, module]):
        return _LEFT_OUT, ""
    return None


def _relu_for(subject: Subject, used: Uses, relu: GraphNode) -> str:
    if not relu.path:
        return f"Write F.relu(…) at {relu.source}, another function above 6." if relu.source else ""
    return f"{code_of(subject.base, relu.path)} = nn.ReLU()  # another function above 6"


def _by_reason(subject: Subject, pairs: Iterable[_Pair], what: str) -> Iterator[Found]:
    """One finding for each reason, as a model may have dozens of such places."""
    by_reason: dict[str, list[_Pair]] = {}
    for pair in pairs:
        by_reason.setdefault(pair.reason, []).append(pair)
    for reason, same in by_reason.items():
        first = same[0]
        names = list(dict.fromkeys(pair.first.path or pair.first.label for pair in same))
        fixes = _fused_anew(subject) if reason == _LEFT_OUT else ()
        if first.edit:
            fixes = _edited(subject, first.edit, list(dict.fromkeys(pair.path for pair in same)))
        second = f"the {what} after it" if len(names) == 1 else f"the {what} after each of them"
        verb = "is" if len(names) == 1 else "are"
        yield Found(
            first.path or first.first.path,
            f"{listed(names)} {verb} not fused with {second}: {reason}.",
            fixes[0].code if fixes else _first_of({pair.fix: None for pair in same}),
            fixes,
            "" if first.path or first.first.path else first.second.source,
            first.severity,
        )


def _first_of(texts: dict[str, None]) -> str:
    """The first of some fixes of one kind, and how many more there are."""
    text, more = next(iter(texts)), len(texts) - 1
    if not text or not more:
        return text
    rest = f"so at {more} other place{'s' * (more > 1)}"
    return f"{text} And {rest}." if text.endswith(".") else f"{text}  # and {rest}"


def _edited(subject: Subject, name: str, paths: list[str]) -> tuple[Fix, ...]:
    """The edit, at all modules of the class if it fits them, else at ``paths``."""
    kind = type(subject.base.get_submodule(paths[0]))
    every = [path for path, module in subject.layers() if type(module) is kind]
    shown = f"[p for p, m in model.named_modules() if type(m).__name__ == {kind.__name__!r}]"
    for chosen in (every, paths):
        with suppress(EditError):
            made = tried(subject.base, [Edit(name, path) for path in chosen])
            break
    else:
        return ()
    if chosen is not every or len(every) < 4:
        shown = repr(chosen)
    return (
        Fix(
            f"Put torch's BatchNorm in place of {kind.__name__}",
            "edit",
            (("name", name), ("path", tuple(chosen))),
            f"session.edit({name!r}, {shown})",
            "\n".join(one.diff for one in made),
        ),
    )


def _fused_anew(subject: Subject) -> tuple[Fix, ...]:
    found = find_fusable(subject.base, subject.options.graph)
    if found == subject.options.fusion:
        return ()
    new = [group for group in found if group not in subject.options.fusion]
    code = 'session.configure(fusion="auto")'
    diff = "\n".join(f"+ fused: {', '.join(group)}" for group in new)
    return (Fix("Fuse what can be fused", "configure", (("fusion", "auto"),), code, diff),)


@rule("QX174", "mixed-modes", "warning", "fused")
def mixed_modes(subject: Subject) -> Iterator[Found]:
    """Parts of the model are in eval mode, the rest in train mode

    Symptom:
        Conv and BN both must be in the same mode (train or eval).
    Cause:
        Fusing takes a convolution and its batch norm in one mode only. What is not fused stays in
        the mode it has: its dropout does nothing, its statistics stand still.
    Fix:
        Call model.train() on the whole model before preparing. To keep the statistics of batch
        norms while training, freeze them afterwards:
        model.apply(torch.ao.nn.intrinsic.qat.freeze_bn_stats).
    Sources:
        https://github.com/pytorch/pytorch/issues/87679
        https://github.com/pytorch/vision/issues/5299
    """
    if not subject.base.training:  # the session says so itself
        return
    used = subject.get(uses)
    odd = [path for path, module in subject.base.named_modules() if not module.training]
    tops = [path for path in odd if path.rpartition(".")[0] not in odd]
    if not tops:
        return
    stuck = _stuck(subject, used)
    fix = Fix(
        "Put all of the copy into train mode", "use_train_mode", code="session.use_train_mode()"
    )
    verb = "is" if len(tops) == 1 else "are"
    message = f"{listed(tops)} {verb} in eval mode, in a model in train mode"
    if stuck is None:
        yield Found(tops[0], f"{message}.", fix.code, (fix,))
    else:
        first, second = stuck
        bites = "torch refuses to fuse" if subject.flow.by_graph else "torch would not fuse"
        yield Found(
            second,
            f"{message}: {bites} {first} and {second}, which differ.",
            fix.code,
            (fix,),
            severity="error" if subject.flow.by_graph else None,
        )


def _stuck(subject: Subject, used: Uses) -> tuple[str, str] | None:
    """The first layer and batch norm that could be fused if their modes were the same."""
    for node in used.nodes:
        layer, after = used.module(node), used.follower(node)
        if after is None or not isinstance(layer, _MULTIPLY):
            continue
        norm = used.module(after)
        if isinstance(norm, NORMS) and layer.training != norm.training:
            return node.path, after.path
    return None


@rule("QX175", "norm-over-tokens", "warning", "fused")
def norm_over_tokens(subject: Subject) -> Iterator[Found]:
    """A Linear will be fused with a batch norm that works on another dimension

    Symptom:
        int8 is far off, by 13 to 55 % of the output's range in one model; the fake-quant model is
        right. More training does not help.
    Cause:
        A Linear works on the last dimension, a BatchNorm1d on dimension 1. On a tensor of more than
        two dimensions these are two. Torch fuses them by type. In training the batch norm is
        computed as it is; converting folds it into the rows of the weight. While the statistics
        of all tokens are equal, as in a new model, nothing shows.
    Fix:
        Use a BatchNorm2d on x.unsqueeze(-1), which is the same function and stays apart. A qconfig
        of None for the batch norm does not stop FX. Where int8 is off by it already,
        batch-norm-over-tokens says by how much.
    Sources:
        https://github.com/pytorch/ao/issues/4116
        https://github.com/pytorch/pytorch/pull/119264
    """
    used = subject.get(uses)
    for node in used.nodes:
        after = used.follower(node)
        if after is None or not isinstance(used.module(node), nn.Linear):
            continue
        shape = node.shape or ()
        if len(shape) < 3 or not isinstance(used.module(after), nn.BatchNorm1d):
            continue
        if not _are_fused(subject, used, node, after.path):
            continue
        with suppress(NoEvidence):
            if any(found.path == node.path for found in batch_norm_over_tokens(subject)):
                continue
        yield Found(
            node.path,
            f"{after.path} normalizes dimension 1 of a tensor of shape {tuple(shape)}, and torch "
            f"fuses it with {node.path}, which works on the last one: once the tokens have "
            "statistics of their own, int8 computes something else.",
            f"{code_of(subject.base, after.path)} = nn.BatchNorm2d({shape[1]})"
            "  # and call it on x.unsqueeze(-1), then .squeeze(-1)",
        )


@rule("QX176", "wrapper-off", "info", "float")
def wrapper_off(subject: Subject) -> Iterator[Found]:
    """The model came inside a wrapper

    Symptom:
        Module [OptimizedModule] is missing the required "forward" function
    Cause:
        torch.compile and DataParallel return a module around the model. torch.fx cannot trace the
        first, and the names of all modules begin with "_orig_mod." or "module.".
    Fix:
        Prepare the model inside, and wrap it again afterwards.
    Sources:
        https://github.com/pytorch/ao/issues/1427
        https://github.com/pytorch/pytorch/issues/101107
    """
    snapshot = subject.snapshots.get(subject.flow.stage_names[0])
    for note in snapshot.notes if snapshot is not None else ():
        if is_wrapper_note(note):
            yield Found("", note.partition(":")[0] + ".", "Wrap the prepared model again.")


@rule("QX177", "rounded-twice", "info", "inserted")
def rounded_twice(subject: Subject) -> Iterator[Found]:
    """The same values are rounded twice

    Symptom:
        Two fake quants in a row in the graph, with nothing but a reshape or a dropout between
        them, and two scales that differ.
    Cause:
        FX knows torch.flatten, view and others to keep their values, and gives their result the
        fake quant of their input. Tensor.flatten, nn.Flatten, nn.Dropout and indexing it does not
        know: their result gets a fake quant of its own, and int8 a dequantize and a quantize.
    Fix:
        Write the function that torch knows, such as torch.flatten(x, 1) for x.flatten(1). The
        ledger says it for each place: session.ledger().redundancies.
    Sources:
        https://github.com/neuralmagic/sparseml/pull/785
        https://github.com/pytorch/ao/issues/3609
    """
    if not subject.flow.by_graph:
        return
    prepared = subject.get(dry_run).prepared
    if not isinstance(prepared, fx.GraphModule):
        raise NoEvidence("the model could not be prepared")
    modules = dict(prepared.named_modules(remove_duplicate=False))
    found: dict[tuple[str, ...], list[tuple[str, str, str]]] = {}
    for node in prepared.graph.nodes:
        if node.op != "call_module" or not is_quantizer(modules[str(node.target)]):
            continue
        between, first = _back_to_quantizer(node, modules)
        if first is None or not between:
            continue
        if modules[str(first.target)] is modules[str(node.target)]:
            continue
        layer = _made_by(first, modules)
        path = str(layer.target) if layer.op == "call_module" else ""
        found.setdefault(between, []).append((path or layer.name, path, source_of(node.args[0])))
    for between, places in found.items():
        _, path, source = places[0]
        one = len(places) == 1
        yield Found(
            path,
            f"The result{'' if one else 's'} of {listed([place[0] for place in places])} "
            f"{'is' if one else 'are'} rounded before {' and '.join(between)} and once more after "
            "it, which keeps the values, each time with a scale of its own.",
            "session.ledger().redundancies says what to write.",
            source="" if path else source,
        )


def _back_to_quantizer(
    node: fx.Node, modules: dict[str, nn.Module]
) -> tuple[tuple[str, ...], fx.Node | None]:
    """The value-keeping operations before the fake quant ``node`` and the fake quant that they
    start from; None if there is anything else between."""
    between: list[str] = []
    now = node.all_input_nodes[0]
    while now.all_input_nodes:
        module = modules[str(now.target)] if now.op == "call_module" else None
        if module is not None and is_quantizer(module):
            return tuple(reversed(between)), now
        name = operation_of(module) if module is not None else _name_of(now)
        if name not in KEEPING or name in BOUNDING:
            break
        between.append(name)
        now = now.all_input_nodes[0]
    return (), None


def _made_by(quantizer: fx.Node, modules: dict[str, nn.Module]) -> fx.Node:
    """What made the values that a fake quant, or another node of the same one, was given."""
    while True:
        made = quantizer.all_input_nodes[0]
        before = made.all_input_nodes[0] if made.all_input_nodes else None
        same = (
            before is not None and modules.get(str(before.target)) is modules[str(quantizer.target)]
        )
        if before is None or not same:
            return made
        quantizer = before


def _name_of(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target)).strip("_")
