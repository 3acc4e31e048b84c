"""Settings and edits changed together: what the base model of a session is, and what is true of it.

Edits are never undone one by one: whatever is asked for is made anew in a copy of the original.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from qatexplorer.errors import EditError
from qatexplorer.flows.base import copy_sharing_parameters
from qatexplorer.flows.edits import Edit, make_edits
from qatexplorer.flows.fusion import check_fusion, find_fusable
from qatexplorer.forward.preserve import preserved_rng
from qatexplorer.session.inputs import graph_of
from qatexplorer.session.models import Models
from qatexplorer.session.settings import Settings


def changed(models: Models, given: Mapping[str, Any]) -> tuple[nn.Module, Settings]:
    """Base model and settings with what is ``given`` changed; nothing of ``models`` changes.

    Keys and values as a session takes them; ``"edits"`` are all that shall be in force. Raises the
    InputError types.
    """
    base, settings = models.base, models.settings
    rest = {name: value for name, value in given.items() if name != "edits"}
    edits = tuple(given.get("edits", settings.edits))
    if edits != settings.edits:
        base, settings = _edited(models, edits)
    return base, settings.change(base, rest)


def with_edit(
    edits: Iterable[Edit], name: str, path: str | Iterable[str], value: Any
) -> tuple[Edit, ...]:
    """``edits`` and one more at each path. Raises EditError for one that there is already."""
    paths = (path,) if isinstance(path, str) else tuple(path)
    new = tuple(Edit(name, one, value) for one in paths)
    before = tuple(edits)
    for one in new:
        if one in before:
            raise EditError(f"the edit {one} has been made already.", where=one.path)
    return (*before, *new)


def _edited(models: Models, edits: tuple[Edit, ...]) -> tuple[nn.Module, Settings]:
    settings, options = models.settings, models.settings.options
    base, made = models.original, edits
    if edits:
        base = copy_sharing_parameters(models.original)
        with preserved_rng():
            made = make_edits(base, edits)
    graph = graph_of(base, options.example_inputs)
    # Groups that were found are found anew, and those of the user's choice stay.
    found = options.fusion == find_fusable(models.base, options.graph)
    fusion = find_fusable(base, graph) if found else check_fusion(base, options.fusion)
    return base, replace(settings, options=replace(options, graph=graph, fusion=fusion), edits=made)
