"""Edits: changes of the session's own copy of the float model that leave its function as it is.

Each is a function, registered by a name with :func:`edit`. It is given a place in the copy, plans
the change, and says what a user writes to have the same in a project of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from qatexplorer.errors import EditError, InputError
from qatexplorer.flows.base import copy_sharing_parameters
from qatexplorer.forward.preserve import preserved_rng

_SHOWN_ARGUMENTS = 100


@dataclass(frozen=True)
class Edit:
    """One change, as plain data.

    Attributes:
        name: of the function that makes it. path: of the module that it changes.
        value: what else it needs to know, as JSON takes it; None for nothing.
        code: what a user writes after building the float model. diff: lines that begin with ``-``
            and ``+``. Both are known once the edit has been made.
    """

    name: str
    path: str
    value: Any = None
    code: str = field(default="", compare=False)
    diff: str = field(default="", compare=False)

    def to_json(self) -> dict[str, Any]:
        """Plain data, for :meth:`from_json`."""
        return {"name": self.name, "path": self.path, "value": self.value}

    @staticmethod
    def from_json(kept: Mapping[str, Any]) -> Edit:
        """What :meth:`to_json` kept; code and diff come when it is made."""
        return Edit(kept["name"], kept["path"], kept["value"])

    def __str__(self) -> str:
        value = "" if self.value is None else f", {self.value!r}"
        if len(value) > _SHOWN_ARGUMENTS:
            value = value[:_SHOWN_ARGUMENTS] + "…"
        return f"{self.name}({self.path!r}{value})"


@dataclass(frozen=True)
class Place:
    """Where an edit is to be made: ``module`` at ``path`` of ``model``, and its ``value``."""

    model: nn.Module
    path: str
    module: nn.Module
    value: Any = None

    @property
    def code(self) -> str:
        """The module as a user's code reads it, ``"model.body[0]"``."""
        return code_of(self.model, self.path)

    def misfit(self, wanted: str, fix: str = "") -> EditError:
        """The error of an edit for which the module would have to be ``wanted``."""
        return EditError(
            f"{type(self.module).__name__} {self.path or 'the model itself'!r} is not {wanted}.",
            where=self.path,
            fix=fix,
        )


@dataclass(frozen=True)
class Change:
    """What an edit does: ``make()`` changes the model; ``before`` and ``after`` are short texts of
    the module for a diff, by default what prints at its path; see :class:`Edit` for ``code``."""

    code: str
    make: Callable[[], object]
    before: str | None = None
    after: str | None = None


Plan = Callable[[Place], Change]
EDITS: dict[str, Plan] = {}
"""Every edit by name."""


def edit(name: str) -> Callable[[Plan], Plan]:
    """Register a function that plans an edit. It changes nothing itself, and raises
    :meth:`Place.misfit` where it does not fit."""

    def register(plan: Plan) -> Plan:
        if name in EDITS:
            raise InputError(f"there is an edit {name!r} already.")
        EDITS[name] = plan
        return plan

    return register


def make_edits(model: nn.Module, edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """Make ``edits`` in ``model``, in place and in this order.

    Returns them with code and diff. Raises EditError for one that does not fit; those before it
    have then been made.
    """
    made = []
    for one in edits:
        place, change = _planned(model, one)
        before = change.before or short(place.module)
        change.make()
        after = change.after or short(model.get_submodule(one.path))
        made.append(_with_text(one, change, before, after))
    return tuple(made)


def tried(model: nn.Module, edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """The same in a copy of ``model``, which stays as it is."""
    with preserved_rng():
        return make_edits(copy_sharing_parameters(model), edits)


def _planned(model: nn.Module, one: Edit) -> tuple[Place, Change]:
    if one.name not in EDITS:
        raise EditError(
            f"there is no edit {one.name!r}.", fix=f"The edits are {', '.join(sorted(EDITS))}."
        )
    try:
        module = model.get_submodule(one.path)
    except AttributeError:
        raise EditError(
            f"there is no module {one.path!r} to edit.",
            fix="Paths are those of model.named_modules().",
        ) from None
    place = Place(model, one.path, module, one.value)
    return place, EDITS[one.name](place)


def _with_text(one: Edit, change: Change, before: str, after: str) -> Edit:
    name = one.path or "model"
    diff = f"- {name}: {before}\n+ {name}: {after}"
    return Edit(one.name, one.path, one.value, change.code, diff)


# -- what plans are made with -------------------------------------------------------------------


def short(module: nn.Module) -> str:
    """A module on one line: type and arguments, children for one that has some."""
    if isinstance(module, nn.Sequential):
        return f"Sequential({', '.join(short(child) for child in module)})"
    kind = parametrize.type_before_parametrizations(module).__name__
    text = module.extra_repr().replace("\n", " ")
    if len(text) > _SHOWN_ARGUMENTS:
        text = text[:_SHOWN_ARGUMENTS] + "…"
    extra = ", ".join(f"{name} parametrized" for name in getattr(module, "parametrizations", ()))
    return f"{kind}({', '.join(part for part in (text, extra) if part)})"


def code_of(model: nn.Module, path: str, root: str = "model") -> str:
    """The expression by which code of the user reads, or sets, the module at ``path``."""
    code, module = root, model
    for name in path.split(".") if path else ():
        if isinstance(module, (nn.Sequential, nn.ModuleList)) and name.isdigit():
            code += f"[{name}]"
        elif isinstance(module, nn.ModuleDict):
            code += f"[{name!r}]"
        elif name.isidentifier():
            code += f".{name}"
        else:
            code += f"._modules[{name!r}]"
        module = module.get_submodule(name)
    return code


def put(model: nn.Module, path: str, new: nn.Module) -> None:
    """Put ``new`` at ``path``, and at every other path of the same module."""
    old = model.get_submodule(path)
    new.train(old.training)
    inside = {id(module) for module in new.modules()}
    for parent in list(model.modules()):
        if id(parent) not in inside:
            for name, child in parent._modules.items():
                if child is old:
                    parent._modules[name] = new
