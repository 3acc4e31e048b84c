"""The user's hooks through the stages: which of them still run.

Fusing keeps the pre-hooks of the first and the hooks of the last module of a group, swapping drops
backward hooks, and a traced graph calls no hook of a block. None of that raises by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from qatexplorer.data import call_model, cloned
from qatexplorer.errors import StageError
from qatexplorer.forward.preserve import preserved_state
from qatexplorer.forward.scripted import named_python_modules, python_modules
from qatexplorer.shown import error_line, module_code

HOOK_TABLES = {
    "_forward_pre_hooks": "forward pre-hook",
    "_forward_hooks": "forward hook",
    "_backward_hooks": "backward hook",
    "_backward_pre_hooks": "backward pre-hook",
}
_SHOWN = 4


@dataclass(frozen=True)
class HookPlace:
    """A hook by the module that it was registered on, e.g. the 1st forward hook of ``body.0``."""

    path: str
    kind: str
    index: int
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name} on {self.path or 'the model itself'}"


class UserHook:
    """Calls ``function``, and knows which hook of the user's model it is."""

    def __init__(self, function: Any, place: HookPlace, with_kwargs: bool) -> None:
        self.function, self.place, self.with_kwargs = function, place, with_kwargs
        self.__qualname__ = place.name
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.function(*args, **kwargs)


def mark_hooks(model: nn.Module) -> None:
    """Put a :class:`UserHook` in place of every hook of the user's, in a copy of their model."""
    for path, module in named_python_modules(model):
        for table, kind in HOOK_TABLES.items():
            hooks = getattr(module, table)
            flags = getattr(module, f"{table}_with_kwargs", {})
            for index, (key, hook) in enumerate(list(hooks.items())):
                if not type(hook).__module__.startswith("torch."):
                    name = str(getattr(hook, "__qualname__", type(hook).__name__))
                    place = HookPlace(path, kind, index, name)
                    hooks[key] = UserHook(hook, place, bool(flags.get(key)))


def hooks_in(model: nn.Module) -> Iterator[tuple[nn.Module, str, int, UserHook]]:
    """(module, table, key, hook) of each marked hook that is still on ``model``."""
    for module in python_modules(model):
        for table in HOOK_TABLES:
            for key, hook in list(getattr(module, table).items()):
                if isinstance(hook, UserHook):
                    yield module, table, key, hook


def running_hooks(model: nn.Module, inputs: Any, *, needed: bool = False) -> frozenset[HookPlace]:
    """Marked hooks that one forward of ``model`` runs, and backward hooks that are still there.

    State, RNG and what hooks count are put back. Without any marked hook nothing is run, unless
    the model may have ``needed`` those that it had. Raises StageError if a hook has lost
    ``with_kwargs=True``, and what the forward raises.
    """
    here = list(hooks_in(model))
    if not (here or needed):
        return frozenset()
    for module, table, key, hook in here:
        if hook.with_kwargs and not getattr(module, f"{table}_with_kwargs").get(key):
            raise StageError(
                f"{hook.place} was registered with with_kwargs=True, which torch forgets when it "
                "puts another module in the layer's place.",
                where=hook.place.path,
                why="The hook would be called without the keyword arguments that it takes.",
                fix="Register it without with_kwargs=True, or on the block around the layer.",
            )
        hook.calls = 0
    with preserved_state(model), torch.no_grad():
        call_model(model, cloned(inputs))
    return frozenset(
        hook.place for _, table, _, hook in here if hook.calls or table.startswith("_backward")
    )


class HookFollower:
    """Follows a model through its stages, and says which hooks each of them has silenced."""

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        self._inputs = inputs
        self._running = running_hooks(model, inputs)

    def silenced_by(self, model: nn.Module) -> tuple[HookPlace, ...]:
        """The hooks that have run up to the stage before and do not in ``model``.

        Raises StageError, naming them, if the model does not run without them."""
        if not self._running:
            return ()
        traced = isinstance(model, fx.GraphModule)
        try:
            now = running_hooks(model, self._inputs, needed=True)
        except StageError:
            raise
        except Exception as error:
            called = frozenset(hook.place for *_, hook in hooks_in(model) if hook.calls)
            silent = self._running - called
            raise StageError(
                error_line(error),
                where=min((place.path for place in silent), default=None),
                why=f"Hooks that do not run any more: {listed(silent)}. {WHY[traced]}",
                fix=WAYS_OUT[traced],
            ) from error
        silent, self._running = self._running - now, now
        return in_order(silent)


def silenced_note(stage: str, silent: Iterable[HookPlace], traced: bool) -> str:
    """A note on the hooks that ``stage`` has silenced."""
    return (
        f"Hooks of yours that ran in a forward up to here and do not since {stage!r}: "
        f"{listed(frozenset(silent))}. {WHY[traced]} {WAYS_OUT[traced]}"
    )


def hooks_left(model: nn.Module) -> frozenset[HookPlace]:
    """The marked hooks that are on a module of ``model``."""
    return frozenset(hook.place for *_, hook in hooks_in(model))


def in_order(places: Iterable[HookPlace]) -> tuple[HookPlace, ...]:
    """By path, kind and the order in which they were registered."""
    return tuple(sorted(places, key=lambda p: (p.path, p.kind, p.index)))


def way_out(place: HookPlace, groups: Iterable[Sequence[str]], traced: bool) -> str:
    """Where to register a hook that is silenced, as code. ``groups`` are the paths that are
    fused."""
    if traced:
        return WAYS_OUT[True]
    call = "register_forward_pre_hook" if "pre-hook" in place.kind else "register_forward_hook"
    group = next((g for g in groups if place.path in g), None)
    if group is None or place.kind.startswith("backward"):
        return WAYS_OUT[False]
    kept = group[0] if "pre-hook" in place.kind else group[-1]
    around = module_code(kept.rpartition(".")[0])
    return (
        f"{module_code(kept)}.{call}(…), {around}.{call}(…), or return the value from forward; "
        f"or leave {list(group)} out of fusion=[…]."
    )


def listed(places: frozenset[HookPlace]) -> str:
    ordered = in_order(places)
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return ", ".join(str(place) for place in ordered[:_SHOWN]) + more


WHY = {
    False: "Fusing and swapping keep the pre-hooks of the first and the forward hooks of the last "
    "module of a group.",
    True: "Tracing writes down the calls of layers without their hooks. The graph has no calls of "
    "blocks and of the model itself, and layers that are fused lose theirs.",
}
WAYS_OUT = {
    False: "Register it on the last module of the fused group or on the block around it, leave "
    "that group out of fusion=[…], or return the value from forward.",
    True: "Return the value from forward, or use flow='eager'.",
}
