"""Getting a model from ``package.module:factory``, the way the command line names one."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType, ModuleType
from typing import Any

from torch import nn

from qatexplorer import zoo
from qatexplorer.data import Data, as_data
from qatexplorer.errors import FactoryError, InputError
from qatexplorer.shown import error_line

_FORMS = (
    "Return (model, example_inputs), (model, example_inputs, data), an object with .model and "
    ".example_inputs, or the model alone with `example_inputs = …` next to the factory."
)
_SPELLING = "Write it as package.module:factory, for example my_project.models:make_model."


@dataclass(frozen=True)
class LoadedModel:
    """What a factory returned, in one form.

    ``suggested`` is what an embedded example suggests: settings of a session and of training.
    ``source`` is ``"file:line"`` of the factory, ``""`` where it has none.
    """

    model: nn.Module
    example_inputs: Any
    data: Data | None = None
    suggested: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    source: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """What is suggested for a session and has no option of its own on the command line."""
        return {n: self.suggested[n] for n in ("base_config", "metric") if n in self.suggested}


def load_model(spec: str) -> LoadedModel:
    """``zoo:NAME`` for an embedded example, anything else as :func:`load_factory` takes it.

    Raises UnknownExampleError or FactoryError.
    """
    source, _, name = spec.partition(":")
    # A user may well have a module of their own that is called zoo.
    if source == "zoo" and (name in zoo.names() or not _can_find("zoo")):
        example = zoo.load(name)
        return LoadedModel(example.model, example.example_inputs, example.data, example.suggested)
    return load_factory(spec)


def load_factory(spec: str) -> LoadedModel:
    """Import ``package.module:factory`` and call it without arguments.

    The current directory is importable meanwhile, as it is under ``python -m``. The factory may
    return ``(model, example_inputs)``, ``(model, example_inputs, data)``, an object with ``model``
    and ``example_inputs`` (and ``data``, ``suggested``), or a model alone; then ``example_inputs``
    is an attribute of the factory or of its module.

    Raises FactoryError with the place and a fix for everything that can go wrong.
    """
    module_name, attribute = _split(spec)
    with _current_directory_importable():
        module = _import(module_name, spec)
        factory = _find(module, attribute, spec)
        try:
            returned = factory()
        except (Exception, SystemExit) as error:
            raise FactoryError(
                f"{spec} raised {_in_words(error)}.",
                where=_last_line(error),
                why="The factory is called without arguments, in the current directory.",
                fix="Call it yourself in a Python prompt and fix what it says.",
            ) from error
    return _understand(returned, spec, factory, module)


def load_function(spec: str) -> Callable[..., Any]:
    """What ``package.module:function`` names, not called. Raises FactoryError."""
    module_name, attribute = _split(spec)
    with _current_directory_importable():
        return _find(_import(module_name, spec), attribute, spec)


def _split(spec: str) -> tuple[str, str]:
    module_name, colon, attribute = str(spec).strip().partition(":")
    if not colon or not module_name or not attribute:
        raise FactoryError(f"{spec!r} does not name a factory.", fix=_SPELLING)
    if module_name.endswith(".py") or "/" in module_name or "\\" in module_name:
        raise FactoryError(
            f"{module_name!r} is a file, not a module name.",
            fix=f"Write {_as_module(module_name, attribute)}.",
        )
    if not all(part.isidentifier() for part in f"{module_name}.{attribute}".split(".")):
        raise FactoryError(f"{spec!r} is not a Python name.", fix=_SPELLING)
    return module_name, attribute


def _as_module(file: str, attribute: str) -> str:
    """How to name ``attribute`` of ``file`` here; where no module name reaches it, from where."""
    parts = [part for part in file.removesuffix(".py").replace("\\", "/").split("/") if part != "."]
    if all(part.isidentifier() for part in parts):
        return f"{'.'.join(parts)}:{attribute}"
    name = re.sub(r"\W", "_", parts[-1])
    rename = "" if name == parts[-1] else f", renamed to {name}.py"
    folder = "/".join(parts[:-1]) or ("/" if parts[0] == "" else ".")
    return f"{name}:{attribute} in the folder {folder}{rename}"


def _import(name: str, spec: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise FactoryError(
                f"there is no module {missing!r} to import.",
                why=f"Looked in the current directory ({os.getcwd()}) and on Python's path.",
                fix="Run the command in the folder that holds it, or install it.",
            ) from error
        raise FactoryError(
            f"importing {name} failed: there is no module {missing!r}.",
            where=_last_line(error),
            why="Your module imports it, and it is not installed in this environment.",
            fix=f"Install it into the environment of this Python ({sys.executable}).",
        ) from error
    except (Exception, SystemExit) as error:
        raise FactoryError(
            f"importing {name} raised {_in_words(error)}.",
            where=_last_line(error),
            why=f"{spec} cannot be reached unless its module imports.",
            fix=f"Fix it until `python -c 'import {name}'` passes. Keep training and command "
            "line code under `if __name__ == '__main__':`.",
        ) from error


def _find(module: ModuleType, attribute: str, spec: str) -> Callable[[], Any]:
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), n=3)
            hint = f"Did you mean {' or '.join(near)}? " if near else ""
            raise FactoryError(
                f"{module.__name__} has no {attribute!r}.",
                where=getattr(module, "__file__", None),
                fix=f"{hint}{_SPELLING}",
            )
        found = getattr(found, part)
    if isinstance(found, nn.Module) or not callable(found):
        raise FactoryError(
            f"{spec} is a {type(found).__name__}, not a function that makes a model.",
            where=getattr(module, "__file__", None),
            fix=f"Name a function without arguments. {_FORMS}",
        )
    return found  # type: ignore[no-any-return]


def _understand(
    returned: Any, spec: str, factory: Callable[[], Any], module: ModuleType
) -> LoadedModel:
    data: Any = None
    suggested: Mapping[str, Any] = MappingProxyType({})
    if isinstance(returned, nn.Module):
        model = returned
        inputs = getattr(factory, "example_inputs", getattr(module, "example_inputs", None))
    elif isinstance(returned, (tuple, list)) and len(returned) in (2, 3):
        model, inputs = returned[:2]
        data = returned[2] if len(returned) == 3 else None
    elif hasattr(returned, "model") and hasattr(returned, "example_inputs"):
        model, inputs = returned.model, returned.example_inputs
        data = getattr(returned, "data", None)
        suggested = getattr(returned, "suggested", suggested)
    else:
        raise FactoryError(f"{spec} returned {_a(returned)}.", fix=_FORMS)
    if not isinstance(model, nn.Module):
        raise FactoryError(
            f"{spec} returned {_a(model)} in the model's place.",
            why="The model must be a torch.nn.Module.",
            fix=_FORMS,
        )
    if inputs is None:
        raise FactoryError(
            f"{spec} returned a model and no example inputs.",
            why="One forward of the model is run to see its shapes and its dataflow.",
            fix=_FORMS,
        )
    try:
        return LoadedModel(model, inputs, as_data(data), suggested, _source_of(factory))
    except InputError as error:
        raise FactoryError(
            f"{spec} returned data that cannot be used: {error.message}",
            why=error.why,
            fix=error.fix,
        ) from error


@contextmanager
def _current_directory_importable() -> Iterator[None]:
    here = os.getcwd()
    if here in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def _source_of(factory: Callable[[], Any]) -> str:
    code = getattr(inspect.unwrap(factory), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else ""


def _can_find(name: str) -> bool:
    with _current_directory_importable():
        return importlib.util.find_spec(name) is not None


def _a(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"


def _in_words(error: BaseException) -> str:
    return error_line(error)


def _last_line(error: BaseException) -> str | None:
    """``file:line`` of the user's own code nearest to where ``error`` was raised."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    libraries = (os.path.dirname(os.__file__), "<", os.path.abspath(__file__))
    own = [
        frame
        for frame in frames
        if not frame.filename.startswith(libraries) and "-packages" not in frame.filename
    ]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else None
