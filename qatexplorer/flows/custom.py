"""What torch is to treat in a way of its own: custom modules, modules not to trace, attributes."""

from __future__ import annotations

import copy
import difflib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.ao.quantization import get_default_qat_module_mappings
from torch.ao.quantization.backend_config import BackendConfig
from torch.ao.quantization.fx.custom_config import ConvertCustomConfig, PrepareCustomConfig
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from qatexplorer.errors import CustomConfigError
from qatexplorer.forward.scripted import ScriptedPart

BACKEND_CONFIGS = ("native", "fbgemm", "qnnpack", "onednn", "x86", "tensorrt", "executorch")
"""Names of torch's backend configs; ``None`` leaves the choice (native) to torch."""

OBSERVED = "float_to_observed_custom_module_class"
QUANTIZED = "observed_to_quantized_custom_module_class"
_STATIC = "static"


@dataclass(frozen=True)
class CustomConfig:
    """The user's custom configs, for either flow.

    Attributes:
        prepare: ``PrepareCustomConfig`` or a dict as torch takes it; None is torch's default.
        convert: the same for ``ConvertCustomConfig``.
        non_traceable: paths or types of modules that FX leaves as one call.
    """

    prepare: PrepareCustomConfig | Mapping[str, Any] | None = None
    convert: ConvertCustomConfig | Mapping[str, Any] | None = None
    non_traceable: tuple[str | type[nn.Module], ...] = ()

    def for_fx(self) -> PrepareCustomConfig:
        """For ``prepare_qat_fx``: a copy, with ``non_traceable`` added."""
        if isinstance(self.prepare, PrepareCustomConfig):
            config = copy.copy(self.prepare)
        else:
            config = PrepareCustomConfig.from_dict(_nested(self.prepare, OBSERVED))
        paths = [entry for entry in self.non_traceable if isinstance(entry, str)]
        types = [entry for entry in self.non_traceable if not isinstance(entry, str)]
        config.non_traceable_module_names = [*config.non_traceable_module_names, *paths]
        config.non_traceable_module_classes = [
            *config.non_traceable_module_classes,
            *types,
            ScriptedPart,
        ]
        return config

    def untraced_layers(self, model: nn.Module) -> tuple[str, ...]:
        """Paths that FX leaves as one call and that hold layers which torch would swap."""
        config = self.for_fx()
        observed = {t for types in config.float_to_observed_mapping.values() for t in types}
        swapped = set(get_default_qat_module_mappings())
        return tuple(
            path
            for path, module in model.named_modules()
            if (
                path in config.non_traceable_module_names
                or type(module) in config.non_traceable_module_classes
            )
            and type(module) not in observed
            and any(type(part) in swapped for part in module.modules())
        )

    def for_fx_convert(self) -> ConvertCustomConfig:
        """For ``convert_fx``; attributes preserved so far stay preserved."""
        if isinstance(self.convert, ConvertCustomConfig):
            config = copy.copy(self.convert)
        else:
            config = ConvertCustomConfig.from_dict(_nested(self.convert, QUANTIZED))
        kept = [*config.preserved_attributes, *self.for_fx().preserved_attributes]
        config.preserved_attributes = list(dict.fromkeys(kept))
        return config

    def for_eager(self) -> dict[str, Any] | None:
        """``prepare_custom_config_dict`` of the eager calls, None for torch's default."""
        return _flat(self.prepare, OBSERVED)

    def for_eager_convert(self) -> dict[str, Any] | None:
        """``convert_custom_config_dict`` of the eager calls, None for torch's default."""
        return _flat(self.convert, QUANTIZED)

    def check(self, model: nn.Module) -> None:
        """Raises CustomConfigError for a path that ``model`` does not have: torch would ignore it.

        Types that do not occur are fine.
        """
        paths = [path for path, _ in model.named_modules(remove_duplicate=False)]
        for path in self.for_fx().non_traceable_module_names:
            if path not in paths or path == "":
                near = difflib.get_close_matches(path, paths, n=3, cutoff=0.4)
                raise CustomConfigError(
                    f"non_traceable names {path!r}, which "
                    + ("is the whole model." if path == "" else "the model does not have."),
                    fix=f"Nearest: {', '.join(near)}."
                    if near
                    else "Give the path of a module inside it, as model.named_modules() does.",
                )
        for name in self.for_fx().preserved_attributes:
            if not hasattr(model, name):
                raise CustomConfigError(
                    f"preserved_attributes names {name!r}, which the model does not have.",
                    why="torch would ignore it, and the prepared model would lack it.",
                    fix="Name attributes of the model itself, not of modules in it.",
                )


def custom_config(prepare: Any, convert: Any, non_traceable: Any) -> CustomConfig:
    """Check what the user gave. Raises CustomConfigError."""
    for value, kind in ((prepare, PrepareCustomConfig), (convert, ConvertCustomConfig)):
        if value is not None and not isinstance(value, (kind, Mapping)):
            raise CustomConfigError(
                f"{value!r} is neither a {kind.__name__} nor a dict.",
                fix=f"Pass torch.ao.quantization.fx.custom_config.{kind.__name__}().",
            )
    if non_traceable is None:
        non_traceable = ()
    if isinstance(non_traceable, (str, type)) or not isinstance(non_traceable, Sequence):
        non_traceable = (non_traceable,)
    for entry in non_traceable:
        if not isinstance(entry, str) and not (
            isinstance(entry, type) and issubclass(entry, nn.Module)
        ):
            raise CustomConfigError(
                f"{entry!r} in non_traceable is neither a module path nor a module type.",
                fix="Entries are paths like 'encoder.mask' or classes like MyMask.",
            )
    config = CustomConfig(prepare, convert, tuple(non_traceable))
    try:
        config.for_fx(), config.for_fx_convert()
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise CustomConfigError(
            "torch does not understand the custom config.",
            why=f"{type(error).__name__}: {error}",
            fix="Its keys and what each holds are in help(torch.ao.quantization.fx.custom_config."
            "PrepareCustomConfig.from_dict), for convert in that of ConvertCustomConfig.",
        ) from error
    return config


def find_qat_mapping(spec: Any) -> Mapping[Any, Any] | None:
    """The table float module → QAT module for the eager flow: None for torch's default, a mapping,
    or ``"attention"`` for the default without ``NonDynamicallyQuantizableLinear``.

    The default lists that class, which is part of ``nn.MultiheadAttention``, and its QAT version
    then refuses it (a defect of torch). Raises CustomConfigError.
    """
    if spec is None or isinstance(spec, Mapping):
        return spec
    if spec == "attention":
        mapping: dict[Any, Any] = dict(get_default_qat_module_mappings())
        mapping.pop(NonDynamicallyQuantizableLinear, None)
        return mapping
    raise CustomConfigError(
        f"qat_mapping is {spec!r}.",
        fix="Pass a dict of float class to QAT class, 'attention', or None.",
    )


def find_backend_config(spec: Any) -> BackendConfig | None:
    """Torch's ``BackendConfig`` called ``spec``, ``spec`` itself if it is one, None for None.

    Raises CustomConfigError.
    """
    if spec is None or isinstance(spec, BackendConfig):
        return spec
    if spec in BACKEND_CONFIGS:
        # Not all of them stand in the package itself.
        module = importlib.import_module(f"torch.ao.quantization.backend_config.{spec}")
        config: BackendConfig = getattr(module, f"get_{spec}_backend_config")()
        return config
    raise CustomConfigError(
        f"there is no backend config {spec!r}.",
        fix=f"Use one of {', '.join(map(repr, BACKEND_CONFIGS))} or a BackendConfig.",
    )


def custom_swaps(
    before: Mapping[str, nn.Module], model: nn.Module, mapping: Mapping[Any, Any], entry: str
) -> tuple[str, ...]:
    """One sentence for each module of ``before`` (by path) that ``mapping`` has swapped."""
    now = dict(model.named_modules(remove_duplicate=False))
    notes = []
    for path, module in before.items():
        wanted = mapping.get(type(module))
        if wanted is not None and type(now.get(path)) is wanted:
            source = f"{type(module).__name__}: {wanted.__module__}.{wanted.__qualname__}"
            notes.append(f"Custom module {path}: swapped by {entry}[{source}].")
    return tuple(notes)


def _nested(config: Any, key: str) -> dict[str, Any]:
    """FX sorts custom modules by quantization type; the eager form, without it, is static."""
    result = dict(config or {})
    mapping = result.get(key)
    if mapping and not all(isinstance(name, str) for name in mapping):
        result[key] = {_STATIC: dict(mapping)}
    return result


def _flat(config: Any, key: str) -> dict[str, Any] | None:
    if config is None:
        return None
    result = dict(config if isinstance(config, Mapping) else config.to_dict())
    mapping = result.get(key, {})
    if mapping and all(isinstance(name, str) for name in mapping):
        result[key] = dict(mapping.get(_STATIC, {}))
    return result
