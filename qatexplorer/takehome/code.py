"""Objects as Python code that makes them, with the imports that it needs."""

from __future__ import annotations

import builtins
import importlib
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch.ao.quantization import (
    QConfig,
    QConfigMapping,
    get_default_qat_qconfig,
)
from torch.ao.quantization.observer import _PartialWrapper
from torch.ao.quantization.qconfig import qconfig_equals

from qatexplorer.flows.percentile import PercentileObserver
from qatexplorer.quantizers.engine_choice import BACKENDS

_OFFERS = ("torch", "torch.nn", "torch.nn.functional", "torch.ao.quantization", "operator")
"""Where users look for what torch defines in modules of its own."""


class NotCode(Exception):
    """There is no expression that makes an object; the message says of what kind it is."""


class Code:
    """Writes expressions and collects the import lines that they need.

    Two objects of the same name from two modules are told apart by the module's name. Classes of
    ours that torch has not are not imported: ``copied`` is called with them, and returns the name.
    """

    def __init__(self, copied: Callable[[type], str] | None = None) -> None:
        self._copied = copied
        self._imports: dict[str, set[str]] = {}
        self._modules: set[str] = set()
        self._owner: dict[str, str] = {}

    def imports(self) -> list[str]:
        """The import lines, sorted: modules first."""
        lines = [f"import {name}" for name in sorted(self._modules)]
        for module in sorted(self._imports):
            lines.append(f"from {module} import {', '.join(sorted(self._imports[module]))}")
        return lines

    def need(self, module: str, name: str = "") -> str:
        """Import ``name`` of ``module`` (or the module itself); returns what to write for it."""
        if not name:
            self._modules.add(module)
            return module
        if self._owner.setdefault(name, module) != module:
            self._modules.add(module)
            return f"{module}.{name}"
        self._imports.setdefault(module, set()).add(name)
        return name

    def named(self, thing: Any) -> str:
        """A class or function by its name. Raises NotCode where no import gives that object."""
        if thing is PercentileObserver and self._copied is not None:
            return self._copied(thing)
        short = getattr(thing, "__name__", "")
        for offered in _OFFERS:  # functions of C say nothing, or another module
            if short and getattr(importlib.import_module(offered), short, None) is thing:
                return self.need(offered, short) if offered != "torch" else self._torch(short)
        module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "")
        if module == "builtins" and getattr(builtins, name, None) is thing:
            return str(name)
        head, *rest = name.split(".") if name else ("",)
        if not module or module == "__main__" or "<" in name or not head:
            raise NotCode(f"{name or type(thing).__name__!r}, which no module holds")
        try:
            found: Any = importlib.import_module(module)
            for part in (head, *rest):
                found = getattr(found, part)
        except (ImportError, AttributeError):
            found = None
        if found is not thing:
            raise NotCode(f"{name!r}, which {module!r} does not hold by that name")
        return ".".join([self.need(module, head), *rest])

    def _torch(self, name: str) -> str:
        return f"{self.need('torch')}.{name}"

    def value(self, thing: Any) -> str:
        """An expression that makes an object equal to ``thing``. Raises NotCode."""
        if isinstance(thing, float) and not math.isfinite(thing):
            return f"float({str(thing)!r})"
        if thing is None or isinstance(thing, (bool, int, float, str, bytes)):
            return repr(thing)
        if isinstance(thing, (torch.dtype, torch.qscheme, torch.memory_format)):
            self.need("torch")
            return str(thing)
        if isinstance(thing, QConfig):
            return self.qconfig(thing)
        if isinstance(thing, _PartialWrapper):
            return self._wrapper(thing)
        if isinstance(thing, partial):
            arguments = [self.value(thing.func), *map(self.value, thing.args)]
            arguments += self._keywords(thing.keywords)
            return f"{self.need('functools', 'partial')}({', '.join(arguments)})"
        if type(thing) in (list, tuple, set, frozenset, dict):
            return self._container(thing)
        if isinstance(thing, type) or callable(thing):
            return self.named(thing)
        raise NotCode(f"an object of {type(thing).__name__}")

    def qconfig(self, qconfig: QConfig | None) -> str:
        """Torch's default by its backend where it is one, else both factories."""
        if qconfig is None:
            return "None"
        for backend in BACKENDS:
            if qconfig_equals(qconfig, get_default_qat_qconfig(backend)):
                make = self.need("torch.ao.quantization", "get_default_qat_qconfig")
                return f"{make}({backend!r})"
        kind = self.need("torch.ao.quantization", "QConfig")
        activation, weight = self.value(qconfig.activation), self.value(qconfig.weight)
        return f"{kind}(activation={activation}, weight={weight})"

    def mapping(self, mapping: QConfigMapping, variable: str) -> list[str]:
        """Lines that make ``mapping`` under the name ``variable``. Raises NotCode."""
        kind = self.need("torch.ao.quantization", "QConfigMapping")
        lines = [f"{variable} = {kind}()"]

        def say(method: str, *arguments: str) -> None:
            lines.append(f"{variable}.{method}({', '.join(arguments)})")

        if mapping.global_qconfig is not None:
            say("set_global", self.qconfig(mapping.global_qconfig))
        for kind_of, qconfig in mapping.object_type_qconfigs.items():
            say("set_object_type", self.value(kind_of), self.qconfig(qconfig))
        for pattern, qconfig in mapping.module_name_regex_qconfigs.items():
            say("set_module_name_regex", repr(pattern), self.qconfig(qconfig))
        for path, qconfig in mapping.module_name_qconfigs.items():
            say("set_module_name", repr(path), self.qconfig(qconfig))
        for key, qconfig in mapping.module_name_object_type_order_qconfigs.items():
            path, kind_of, order = key
            place = (repr(path), self.value(kind_of), repr(order))
            say("set_module_name_object_type_order", *place, self.qconfig(qconfig))
        return lines

    def _wrapper(self, wrapper: Any) -> str:
        made, keywords = wrapper.p.func, wrapper.p.keywords
        if wrapper.p.args:
            raise NotCode("an observer with positional arguments")
        code = f"{self.value(made)}.with_args({', '.join(self._keywords(keywords))})"
        if wrapper.callable_args:
            code += f".with_callable_args({', '.join(self._keywords(wrapper.callable_args))})"
        return code

    def _keywords(self, keywords: Mapping[str, Any]) -> list[str]:
        return [f"{name}={self.value(value)}" for name, value in keywords.items()]

    def _container(self, thing: Any) -> str:
        if isinstance(thing, dict):
            return (
                "{" + ", ".join(f"{self.value(k)}: {self.value(v)}" for k, v in thing.items()) + "}"
            )
        parts = [self.value(one) for one in thing]
        if isinstance(thing, tuple):
            return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
        if isinstance(thing, list):
            return f"[{', '.join(parts)}]"
        return f"{type(thing).__name__}([{', '.join(parts)}])"
