"""What the parts of a script share: imports, copied functions, arguments for what is no code."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import torch

from qatexplorer.flows.custom import BACKEND_CONFIGS, find_backend_config
from qatexplorer.takehome import parts
from qatexplorer.takehome.code import Code, NotCode
from qatexplorer.takehome.records import Walk

_WIDTH = 90


class Writer:
    """Collects while the parts of the script of ``walk`` are written.

    Attributes:
        code: expressions and imports. arguments: of the script's ``run``, with what each is: the
            objects that cannot be written as code. prepare_needs, convert_needs: those of them that
            ``prepare`` and ``to_int8`` take too.
    """

    def __init__(self, walk: Walk) -> None:
        self.walk, self.code = walk, Code(self.use)
        self.arguments: dict[str, str] = {}
        self.prepare_needs: tuple[str, ...] = ()
        self.convert_needs: tuple[str, ...] = ()
        self._used: dict[str, ModuleType] = {}

    def quantization(self, name: str) -> str:
        """A name of ``torch.ao.quantization``, imported."""
        return self.code.need("torch.ao.quantization", name)

    def use(self, part: Callable[..., Any] | type) -> str:
        """Copy a function or class into the script, with what it uses of its file (:mod:`.parts`,
        or one of the same kind); returns its name."""
        self._used[part.__name__] = sys.modules[part.__module__]
        return part.__name__

    def given(self, name: str, thing: Any, write: Callable[[Any], str] | None = None) -> str:
        """Code for ``thing``, or the name of an argument of ``run`` where there is none."""
        try:
            return (write or self.code.value)(thing)
        except NotCode as error:
            self.arguments[name] = f"what the session was given; it is {error}"
            return name

    def backend_config(self) -> str:
        """Code for the backend config of the walk."""
        given = self.walk.options.backend_config
        assert given is not None
        for name in BACKEND_CONFIGS:
            known = find_backend_config(name)
            if known is not None and known.to_dict() == given.to_dict():
                module = f"torch.ao.quantization.backend_config.{name}"
                return f"{self.code.need(module, f'get_{name}_backend_config')}()"
        self.arguments["backend_config"] = "the BackendConfig that the session was given"
        return "backend_config"

    def need_names(self, code: str) -> None:
        """Import what lines for a user, as an edit's, take for known."""
        for name in _names_in(ast.parse(textwrap.dedent(code))):
            if name == "torch":
                self.code.need("torch")
            elif name == "nn":
                self.code.need("torch", "nn")
            elif hasattr(torch.ao.quantization, name):
                self.quantization(name)

    def functions(self) -> list[str]:
        """The lines of the parts in use and of those that they use, in the order of their file."""
        blocks: dict[ModuleType, list[str]] = {}
        known = -1
        while known < len(self._used):  # what is copied may need more of another file
            known = len(self._used)
            blocks = {module: self._copied(module) for module in (*self._others, parts)}
        return [line for home in (parts, *self._others) for line in blocks[home]]

    @property
    def _others(self) -> list[ModuleType]:
        return [home for home in dict.fromkeys(self._used.values()) if home is not parts]

    def _copied(self, module: ModuleType) -> list[str]:
        text = inspect.getsource(module)
        tree, source = ast.parse(text), text.splitlines()
        defined = {name: node for node in tree.body if (name := _name_of(node))}
        wanted = {name for name, home in self._used.items() if home is module}
        waiting = list(wanted)
        while waiting:
            for name in _names_in(defined[waiting.pop()]) & set(defined) - wanted:
                wanted.add(name)
                waiting.append(name)
        lines: list[str] = []
        for name, node in defined.items():
            if name in wanted:
                decorators = getattr(node, "decorator_list", ())
                begin = min([node.lineno, *(one.lineno for one in decorators)])
                lines += [*source[begin - 1 : node.end_lineno], "", ""]
                self._import_for(tree, _names_in(node))
        return lines

    def _import_for(self, tree: ast.Module, names: set[str]) -> None:
        for node in tree.body:
            if not isinstance(node, (ast.Import, ast.ImportFrom)):
                continue
            module = node.module if isinstance(node, ast.ImportFrom) else None
            for alias in node.names:
                if module == "__future__" or (alias.asname or alias.name) not in names:
                    continue
                if module and module.startswith("qatexplorer."):
                    self._used[alias.name] = sys.modules[module]
                    continue
                bound = f"{alias.name} as {alias.asname}" if alias.asname else alias.name
                self.code.need(module, bound) if module else self.code.need(bound)


def call(head: str, arguments: Iterable[str], end: str = "") -> list[str]:
    """A call on one line, or with an argument a line where that is too long."""
    arguments = list(arguments)
    line = f"{head}({', '.join(arguments)}){end}"
    if len(line) <= _WIDTH:
        return [line]
    return [f"{head}(", *(f"    {one}," for one in arguments), f"){end}"]


def indented(lines: Iterable[str]) -> list[str]:
    """The lines, one level in."""
    return [f"    {line}" if line else "" for line in lines]


def _name_of(node: ast.stmt) -> str:
    """What a statement of a file defines: a function, a class, or a constant; ``""`` for none."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return node.name
    target = node.targets[0] if isinstance(node, ast.Assign) else None
    return target.id if isinstance(target, ast.Name) else ""


def _names_in(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
