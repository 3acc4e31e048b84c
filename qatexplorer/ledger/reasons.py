"""Why something stays float: one code, one sentence and one way out for each reason."""

from __future__ import annotations

from typing import Any

from torch import fx, nn
from torch.ao.quantization.quantization_mappings import (
    get_default_qat_module_mappings,
    get_default_static_quant_module_mappings,
)

from qatexplorer.forward.leaves import is_leaf_call
from qatexplorer.ledger.records import Reason
from qatexplorer.quantizers.facts import is_quantizer

FX_TEXTS: dict[Reason, tuple[str, str]] = {
    "type_not_in_mapping": (
        "No pattern of the backend config has {type}, so FX leaves it as it is.",
        (
            "Replace it by an operation that the backend config knows, or keep it float: FX puts "
            "quantize and dequantize around it."
        ),
    ),
    "subclass_not_in_mapping": (
        "{type} is a subclass of {base}; the backend config matches exact types only.",
        (
            "Use {base} itself. (An entry in the backend config is not enough: from_float of the "
            "QAT class takes exactly {base}.)"
        ),
    ),
}

TEXTS: dict[Reason, tuple[str, str]] = {
    "no_qconfig": (
        "{name} has no qconfig (or None): nothing tells torch how to quantize it.",
        "Give it a qconfig: set one on the root, or take the exception for this place away.",
    ),
    "type_not_in_mapping": (
        "{type} is not in torch's module mapping, so convert passes it by.",
        (
            "Replace it by a type that torch quantizes, or keep it float between DeQuantStub and "
            "QuantStub."
        ),
    ),
    "subclass_not_in_mapping": (
        "{type} is a subclass of {base}, and torch looks up the exact type in its mapping.",
        (
            "Use {base} itself. (An entry in the mapping is not enough: from_float of torch's QAT "
            "and int8 classes takes exactly {base}.)"
        ),
    ),
    "functional_op": (
        "{name} is a function{source}: eager mode quantizes modules only and cannot see it.",
        "{way_out}",
    ),
    "not_fused": (
        "{type} stands alone: it was not fused into the layer before it.",
        (
            "Fuse it with the convolution or linear layer right before it; it must be the only one "
            "that uses that layer's output. Where no such layer stands before it, it stays float."
        ),
    ),
    "not_matched": (
        "{name} has a qconfig and torch knows it, but it matched no pattern here{where}.",
        (
            "See what stands before and after it: fused patterns need the operations in torch's "
            "order, each with a single user."
        ),
    ),
    "dtype_not_in_backend_config": (
        "The backend config knows {type}, but not with the dtypes of this qconfig ({dtypes}).",
        (
            "Choose a qconfig with dtypes that the backend supports, such as quint8 activations "
            "and qint8 weights."
        ),
    ),
    "below_non_traceable": (
        "{name} lies inside {opaque}, which FX does not trace: it is one float node.",
        "Make {opaque} traceable and take it out of non_traceable, or quantize it in eager mode.",
    ),
    "never_executed": (
        "{name} does not run in a forward of the example input, so no fake quant sees data.",
        (
            "Choose example inputs that reach it; if its parent reads its weight directly, call "
            "the module instead."
        ),
    ),
    "custom_without_entry": (
        "{type} is a class of your own with parameters, and no custom module entry names it.",
        (
            "Build it from torch's layers, or add it to prepare_custom_config (float_to_observed "
            "and observed_to_quantized)."
        ),
    ),
    "root_module": (
        "The model itself is a {type}: torch swaps children, never the root.",
        (
            "Wrap it: QuantWrapper(layer), which adds the stubs too, or nn.Sequential(QuantStub(), "
            "layer, DeQuantStub())."
        ),
    ),
    "float_input": (
        "{name} works on whatever it is given, and here it is given a float tensor.",
        "Nothing to do, unless what comes before it should be int8: then quantize that.",
    ),
}

_WAYS_OUT = {
    "add": "Use torch.ao.nn.quantized.FloatFunctional().add(a, b), or FX mode.",
    "mul": "Use torch.ao.nn.quantized.FloatFunctional().mul(a, b), or FX mode.",
    "matmul": "Use torch.ao.nn.quantized.FloatFunctional().matmul(a, b), or FX mode.",
    "linear": "Use an nn.Linear module instead of the function, or FX mode.",
    "conv2d": "Use an nn.Conv2d module instead of the function, or FX mode.",
}
_WAY_OUT = (
    "Use FX mode, which sees functions and dequantizes where int8 has none, or keep it float: "
    "DeQuantStub before it, QuantStub after."
)


def explain(reason: Reason, in_fx: bool, **words: Any) -> tuple[str, str]:
    """(sentence, fix) for the user."""
    sentence, fix = (FX_TEXTS.get(reason) if in_fx else None) or TEXTS[reason]
    given = {"source": "", "where": "", "way_out": _WAYS_OUT.get(words.get("op", ""), _WAY_OUT)}
    given |= {key: value for key, value in words.items() if value is not None}
    return sentence.format(**given), fix.format(**given)


class Known:
    """What torch's tables know, for the flow that made ``model``.

    Args:
        mapping: the QAT mapping in force in eager mode, None for torch's default.
        backend_config: the one in force in FX, None for torch's native one.
    """

    def __init__(self, model: nn.Module, mapping: Any = None, backend_config: Any = None) -> None:
        self.in_fx = isinstance(model, fx.GraphModule)
        self.types: frozenset[Any]
        self._configs: list[Any] = []
        if self.in_fx:
            # Importing the package first: the config module alone lacks an attribute it needs.
            from torch.ao.quantization import quantize_fx  # noqa: F401
            from torch.ao.quantization.backend_config import get_native_backend_config

            config = backend_config or get_native_backend_config()
            self._configs = list(config.configs)
            self.types = frozenset(_flat_patterns(c.pattern for c in self._configs))
        else:
            qat = get_default_qat_module_mappings() if mapping is None else mapping
            self.types = frozenset(qat) | frozenset(get_default_static_quant_module_mappings())
        self._opaque = _untraced(model) if self.in_fx else ()
        self._node_qconfigs = _node_qconfigs(model)

    def has(self, target: Any) -> bool:
        """Whether a table has an entry for this type, function or method name."""
        return target in self.types

    def shares(self, target: Any) -> bool:
        """Whether FX lets the result of ``target`` share the fake quant of its input."""
        return any(
            config.pattern == target
            and config.observation_type.name == "OUTPUT_SHARE_OBSERVER_WITH_INPUT"
            for config in self._configs
        )

    def base_of(self, module: nn.Module) -> type | None:
        """The nearest base class that a table has an entry for, not the type itself."""
        return next((c for c in type(module).__mro__[1:] if c in self.types), None)

    def opaque(self, path: str) -> str | None:
        """Path of the untraced module that ``path`` lies in (itself included), None if none."""
        return next((p for p in self._opaque if path == p or path.startswith(f"{p}.")), None)

    def qconfig(self, name: str, module: nn.Module | None) -> Any:
        """The qconfig of an FX node, or of a module."""
        if name in self._node_qconfigs:
            return self._node_qconfigs[name]
        return getattr(module, "qconfig", None)

    def supports(self, target: Any, qconfig: Any) -> bool:
        """Whether any pattern with ``target`` allows the dtypes of ``qconfig`` (FX)."""
        activation, weight = qconfig_dtypes(qconfig)
        for config in self._configs:
            if target not in _flat_patterns([config.pattern]):
                continue
            for allowed in config.dtype_configs:
                weights = allowed.weight_dtype
                if allowed.input_dtype in (activation, None) and weights in (weight, None):
                    return True
        return False


def qconfig_dtypes(qconfig: Any) -> tuple[Any, Any]:
    """(activation dtype, weight dtype) that the factories of a qconfig make."""
    found = []
    for factory in (qconfig.activation, qconfig.weight):
        try:
            found.append(getattr(factory(), "dtype", None))
        except Exception:
            found.append(None)
    return found[0], found[1]


def _flat_patterns(patterns: Any) -> set[Any]:
    found: set[Any] = set()
    for pattern in patterns:
        if isinstance(pattern, (tuple, list)):
            found |= _flat_patterns(pattern)
        else:
            found.add(pattern)
    return found


def _untraced(model: nn.Module) -> tuple[str, ...]:
    """Modules that the FX graph calls whole although they are no layer of torch's."""
    modules = dict(model.named_modules())
    graph: Any = model.graph
    targets = (str(node.target) for node in graph.nodes if node.op == "call_module")
    return tuple(
        t
        for t in dict.fromkeys(targets)
        if t in modules and not is_quantizer(modules[t]) and not is_leaf_call(modules[t])
    )


def _node_qconfigs(model: nn.Module) -> dict[str, Any]:
    attributes = getattr(model, "meta", {}).get("_observed_graph_module_attrs")
    return dict(getattr(attributes, "node_name_to_qconfig", None) or {})
