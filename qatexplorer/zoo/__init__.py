"""Embedded examples: trained models with real data, to begin with, without a model of one's own.

Adding one is a file with ``TITLE`` and a function ``example() -> Example``, and a line in
``_EXAMPLES``.
"""

from __future__ import annotations

import difflib
import importlib
from typing import Any, cast

from qatexplorer.errors import UnknownExampleError
from qatexplorer.zoo.base import Example

__all__ = ["Example", "load", "names", "title"]

_EXAMPLES = {
    "digits_cnn": "qatexplorer.zoo.digits_cnn",
    "digits_depthwise": "qatexplorer.zoo.digits_depthwise",
    "digits_mlp": "qatexplorer.zoo.digits_mlp",
    "tiny_llm": "qatexplorer.zoo.tiny_llm",
}


def names() -> tuple[str, ...]:
    """Names that :func:`load` takes, the one to start with first."""
    return tuple(_EXAMPLES)


def load(name: str) -> Example:
    """Example ``name``, with a new model and new data loaders every time.

    Raises UnknownExampleError if there is none of that name, InputError if it needs a package that
    is not installed.
    """
    return cast(Example, _module(name).example())


def title(name: str) -> str:
    """The title of example ``name``, without building it. Raises UnknownExampleError."""
    return str(_module(name).TITLE)


def _module(name: str) -> Any:
    module_name = _EXAMPLES.get(name) if isinstance(name, str) else None
    if module_name is None:
        near = difflib.get_close_matches(str(name), _EXAMPLES, n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise UnknownExampleError(
            f"there is no embedded example {name!r}.",
            fix=f"{hint}The examples are: {', '.join(_EXAMPLES)}.",
        )
    return importlib.import_module(module_name)
