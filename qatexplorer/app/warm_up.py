"""What a kernel does while it waits for its page: all that is slow only the first time."""

from __future__ import annotations

import ast
import gc
import importlib
import os
from collections.abc import Iterator
from contextlib import suppress
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from qatexplorer.app.dashboard import MODEL_VARIABLE


def warm_up() -> None:
    """Make the page of an embedded example once, and drop it; import what the model named by
    ``$QATEXPLORER_MODEL`` imports, but not the model's own code: it may change until its page is
    opened. Never raises; leaves torch's random numbers where they were."""
    with suppress(Exception):
        _make_a_page()
    for name in _packages_of(os.environ.get(MODEL_VARIABLE, "").partition(":")[0]):
        with suppress(BaseException):
            importlib.import_module(name)
    gc.collect()


def _make_a_page() -> None:
    import torch
    from ipywidgets import Widget

    from qatexplorer.widgets.explorer.explorer import Explorer

    with torch.random.fork_rng():
        try:
            Explorer()
        finally:
            Widget.close_all()


def _packages_of(module: str) -> list[str]:
    """The installed modules that the source of ``module`` imports, itself not run."""
    source = _source_of(module) if module else None
    if source is None:
        return []
    try:
        tree = ast.parse(source.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return []
    return [name for name in dict.fromkeys(_imported(tree)) if _is_installed(name)]


def _source_of(module: str) -> Path | None:
    """Where the module's source lies; its packages are not imported for it, as find_spec would."""
    paths: list[str] | None = None
    spec: ModuleSpec | None = None
    parts = module.split(".")
    for number in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:number]), paths)
        if spec is None:
            return None
        paths = list(spec.submodule_search_locations or ())
    return Path(spec.origin) if spec is not None and spec.origin else None


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def _is_installed(name: str) -> bool:
    spec = PathFinder.find_spec(name.partition(".")[0])
    return spec is not None and "-packages" in (spec.origin or "")
