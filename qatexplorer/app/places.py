"""Where in the user's files a finding is, so that a code host can show it there."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

from torch import nn

from qatexplorer.checks.records import Finding
from qatexplorer.checks.sarif import split_place
from qatexplorer.explain.usercode import is_user_file


class Places:
    """Lines of a model's classes.

    Args:
        model: the user's.
        factory: ``"file:line"`` of the function that made it, ``""`` if unknown.
    """

    def __init__(self, model: nn.Module, factory: str) -> None:
        self._model, self._factory = model, factory
        self._files = {Path(file).name: file for file in self._user_files()}

    def of(self, finding: Finding) -> str:
        """``"file:line"``: the line that the finding names, if it is in a file of the user's; else
        the class of the user's that has the module, the innermost one; else the factory."""
        file, line = split_place(finding.source)
        known = file if Path(file).is_file() else self._files.get(Path(file).name, "")
        if known:
            return f"{known}:{line}" if line else known
        names = finding.path.split(".") if finding.path else []
        for count in range(len(names), -1, -1):
            try:
                module = self._model.get_submodule(".".join(names[:count]))
            except AttributeError:  # a fake quant, or a name in another stage's model
                continue
            place = _class_line(type(module))
            if place:
                return place
        return self._factory

    def _user_files(self) -> Iterator[str]:
        """Files of modules under the current folder, then those that the model comes from."""
        here = str(Path.cwd())
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if isinstance(file, str) and file.startswith(here) and _is_own(file):
                yield file
        for kind in {type(module) for module in self._model.modules()}:
            place = _class_line(kind)
            if place:
                yield split_place(place)[0]
        if self._factory:
            yield split_place(self._factory)[0]


def repository() -> Path:
    """The nearest folder here or above that is a git repository's, else the current one: what a
    code host takes paths to be relative to."""
    here = Path.cwd()
    return next((d for d in (here, *here.parents) if (d / ".git").exists()), here)


def _is_own(file: str) -> bool:
    return is_user_file(file) and "-packages" not in file


def _class_line(kind: type) -> str:
    """``"file:line"`` of a class of the user's, ``""`` for one of a library."""
    try:
        file = inspect.getsourcefile(kind) or ""
        return f"{file}:{inspect.getsourcelines(kind)[1]}" if _is_own(file) else ""
    except (OSError, TypeError):  # made while it runs: there is no source
        return ""
