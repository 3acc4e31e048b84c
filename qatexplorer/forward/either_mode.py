"""An exported model that can be put into train and eval mode, and loses nothing on the way.

``torch.export`` writes into the graph whether a dropout or a batch norm trains; the exported module
refuses ``train()`` and ``eval()``. torchao's ``move_exported_model_to_eval`` and ``…_to_train`` put
operations of their own in place of those of the model, with torch's default p, eps and momentum.
Here the one argument that says "training" is changed, and all else stays.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import fx

_TRAINING = ("training", "train")
KEPT_P = "qatexplorer_dropout_p"
"""Key of ``node.meta``: the dropout_p of an attention, while it is off."""
_AROUND = "_wrapped_call"
"""What fx keeps on the class of a graph module to call its forward through."""


class EitherMode(fx.GraphModule):
    """A graph module whose graph follows its ``training`` flag, however that is set."""

    @property
    def training(self) -> bool:
        return bool(self.__dict__.get("_mode", True))

    @training.setter
    def training(self, mode: bool) -> None:
        self.__dict__["_mode"] = bool(mode)
        self._follow()

    @property
    def freeze_bn(self) -> bool:
        """Whether batch norms stay in eval mode while it trains, as the attribute of that name of
        torch's fused modules says."""
        return bool(self.__dict__.get("freeze_bn", False))

    @freeze_bn.setter
    def freeze_bn(self, frozen: bool) -> None:
        self.__dict__["freeze_bn"] = bool(frozen)
        self._follow()

    def _follow(self) -> None:
        if "_graph" in self.__dict__ and switch_graph(self.graph, self.training, self.freeze_bn):
            self.recompile()

    def __deepcopy__(self, memo: dict[int, Any]) -> fx.GraphModule:
        # fx makes a copy without asking for the flag.
        copied = super().__deepcopy__(memo)
        copied.__dict__["_mode"] = self.training
        copied.__dict__["freeze_bn"] = self.freeze_bn
        return copied


def in_either_mode(
    model: fx.GraphModule, training: bool, *, compiled: bool = False
) -> fx.GraphModule:
    """``model`` itself, made to follow its ``training`` flag, which is set to ``training`` in all
    of it. Its graph must be in that mode, or be one that can be switched. ``compiled`` says that
    its code is that of its graph, so that it need not be written again."""
    if not isinstance(model, EitherMode):
        for name in ("train", "eval"):  # those of torch.export, which raise
            model.__dict__.pop(name, None)
        # The name by which fx knows the class that it makes for each graph module.
        model.__dict__.pop("training", None)
        before = type(model)
        made = type("GraphModuleImpl", (EitherMode,), {})
        model.__class__ = made
        if not (compiled and _take_code(before, made)):
            model.recompile()
    model.train(training)
    return model


def _take_code(before: type, made: type) -> bool:
    """Give the class of a graph module the compiled forward of another, with what fx puts around
    it; whether that could be done."""
    theirs: Any = vars(before)
    around, forward = theirs.get(_AROUND), theirs.get("forward")
    if None in (around, forward) or getattr(around, "cls_call", around) is not None:
        return False
    new: Any = made
    new.forward, new.__call__ = forward, theirs["__call__"]
    setattr(made, _AROUND, type(around)(made, None))
    return True


def switch_graph(graph: fx.Graph, training: bool, norms_frozen: bool = False) -> bool:
    """Let each operation of ``graph`` that has a mode be in that of ``training``, batch norms in
    eval mode if they are frozen; whether that changed any. The modes are arguments of the
    operations: torch's own schemas name them."""
    calls = [node for node in graph.nodes if node.op == "call_function"]
    return len([node for node in calls if _switch(node, training, norms_frozen)]) > 0


def trains(node: fx.Node) -> bool | None:
    """Whether ``node`` does what it does in training; None of an operation that has no modes."""
    modes = _modes_of(node.target)
    if not modes or _keeps_no_statistics(node):
        return None
    for index, name in modes:
        given = node.args[index] if index < len(node.args) else node.kwargs.get(name)
        if name in _TRAINING or given or KEPT_P in node.meta:
            return bool(given)
    return None


@functools.lru_cache(maxsize=4096)  # each operation is asked at every stage
def _modes_of(target: Any) -> tuple[tuple[int, str], ...]:
    """Index and name of the arguments of an operation by which it trains or drops out, as torch's
    own schema names them."""
    schema = getattr(target, "_schema", None)
    return tuple(
        (index, argument.name)
        for index, argument in enumerate(schema.arguments if schema is not None else ())
        if argument.name == "dropout_p"
        or (argument.name in _TRAINING and isinstance(argument.type, torch.BoolType))
    )


def _keeps_no_statistics(node: fx.Node) -> bool:
    """Whether ``node`` normalizes by what comes in, in either mode, as an instance norm does.

    It has no running statistics, and its kernel would read them in eval mode all the same."""
    if "batch_norm" not in str(node.target):
        return False
    if str(node.target).endswith(".no_stats"):
        return True
    arguments = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    if "running_mean" not in arguments:
        return False
    index = arguments.index("running_mean")
    given = node.args[index] if index < len(node.args) else node.kwargs.get("running_mean")
    return given is None


def _switch(node: fx.Node, training: bool, norms_frozen: bool) -> bool:
    modes = _modes_of(node.target)
    if not modes or _keeps_no_statistics(node):
        return False
    changed = False
    if norms_frozen and "batch_norm" in str(node.target):
        training = False
    for index, name in modes:
        if name in _TRAINING:
            changed |= _set(node, index, name, training)
        else:
            changed |= _switch_attention(node, index, training)
    return changed


def _switch_attention(node: fx.Node, index: int, training: bool) -> bool:
    """An attention drops out by a number and has no mode: in eval mode the number is 0."""
    if training:
        kept = node.meta.pop(KEPT_P, None)
        return kept is not None and _set(node, index, "dropout_p", kept)
    now = node.args[index] if index < len(node.args) else node.kwargs.get("dropout_p", 0.0)
    if not now:
        return False
    node.meta[KEPT_P] = now
    return _set(node, index, "dropout_p", 0.0)


def _set(node: fx.Node, index: int, name: str, value: Any) -> bool:
    """Set an argument that is given; whether it was another one."""
    if index < len(node.args):
        before = node.args[index]
        if before != value:
            node.update_arg(index, value)
    elif name in node.kwargs:
        before = node.kwargs[name]
        if before != value:
            node.update_kwarg(name, value)
    else:  # the default of the schema stands: eval, or no dropout
        return False
    return bool(before != value)
