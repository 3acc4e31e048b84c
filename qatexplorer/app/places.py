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
        """``"file:line"``: the line that the finding names; else the class of the user's that has
        the module, the innermost one; else the factory."""
        file, line = split_place(finding.source)
        if file:
            full = file if Path(file).exists() else self._files.get(Path(file).name, file)
            return f"{full}:{line}" if line else full
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
            if isinstance(file, str) and file.startswith(here) and is_user_file(file):
                yield file
        for kind in {type(module) for module in self._model.modules()}:
            place = _class_line(kind)
            if place:
                yield split_place(place)[0]
        if self._factory:
            yield split_place(self._factory)[0]


def _class_line(kind: type) -> str:
    """``"file:line"`` of a class of the user's, ``""`` for one of a library."""
    try:
        file = inspect.getsourcefile(kind) or ""
        if not is_user_file(file) or "-packages" in file:
            return ""
        return f"{file}:{inspect.getsourcelines(kind)[1]}"
    except (OSError, TypeError):  # made while it runs: there is no source
        return ""
