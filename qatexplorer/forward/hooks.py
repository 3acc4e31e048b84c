"""The one place that hangs hooks on modules for the time of a forward, and takes them off again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

Before = Callable[[str, nn.Module, Any, Any], Any]
"""Sees (path, module, positional arguments, keyword arguments) of a call."""

After = Callable[[str, nn.Module, Any, Any, Any], Any]
"""Sees (path, module, positional arguments, keyword arguments, result) of a call."""


@contextmanager
def hooked(
    modules: Iterable[tuple[str, nn.Module]],
    *,
    begun: Before | None = None,
    running: Before | None = None,
    returned: After | None = None,
    left: After | None = None,
) -> Iterator[None]:
    """Inside, every call of ``modules`` (by path) is seen, whoever makes it.

    Args:
        begun: before the hooks that a module has. running: after its pre-hooks, before its forward.
        returned: after its forward, before its other hooks; what this gives takes the place of the
            result, unless it is None. left: after all of its hooks.
    """
    handles: list[Any] = []

    def before(path: str, see: Before) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            see(path, module, args, kwargs)

        return hook

    def after(path: str, see: After) -> Callable[[nn.Module, Any, Any, Any], Any]:
        def hook(module: nn.Module, args: Any, kwargs: Any, result: Any) -> Any:
            return see(path, module, args, kwargs, result)

        return hook

    try:
        for path, module in modules:
            if begun is not None:
                hook = before(path, begun)
                handles.append(
                    module.register_forward_pre_hook(hook, prepend=True, with_kwargs=True)
                )
            if running is not None:
                hook = before(path, running)
                handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            if returned is not None:
                done = after(path, returned)
                handles.append(module.register_forward_hook(done, prepend=True, with_kwargs=True))
            if left is not None:
                done = after(path, left)
                handles.append(module.register_forward_hook(done, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
