"""torchao's QAT: ``quantize_`` with a ``QATConfig``, which swaps linear and embedding layers.

Two calls: ``step="prepare"`` puts fake quants into the layers, ``step="convert"`` takes them out
and applies the base configuration, such as ``Int8DynamicActivationIntxWeightConfig``, to them.
torchao is imported when the flow is used, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from qatexplorer.errors import ConvertError, InputError, QatExplorerError
from qatexplorer.flows.base import Flow, FlowOptions, Seen, Stage, StageResult
from qatexplorer.flows.imported import imported
from qatexplorer.flows.pt2e import left_in_float, require_available, unavailable
from qatexplorer.forward.preserve import preserved_rng
from qatexplorer.quantizers.torchao_grids import (
    blocks_of,
    is_torchao,
    scheme_of,
    stored_blocks,
)
from qatexplorer.quantizers.types import is_torchao_tensor, own_weight

_STAGES = (
    Stage(
        "float",
        "Float",
        "",
        "The session's own copy of your model; yours stays as it is.",
        role="float",
    ),
    Stage(
        "prepare",
        "Prepare",
        'quantize_(model, QATConfig(base_config, step="prepare"))',
        "Each linear layer (and each embedding, where the configuration names them) becomes one "
        "that passes its weight, and for some configurations its input, through a fake quant. All "
        "other layers stay as they are.",
        role="inserted",
    ),
    Stage(
        "train",
        "Train",
        "your training loop on the prepared model",
        "Fake quants that are on round in forward, so the loss feels it and the weights learn to "
        "live with it. There are no observers: a scale comes from the tensor that is rounded.",
        role="trained",
    ),
    Stage(
        "convert",
        "Convert",
        'quantize_(model, QATConfig(base_config, step="convert"))',
        "The layers become plain ones again, and torchao stores their weights as integers with a "
        "scale for each group or row. The type of the layer does not change, that of its weight "
        "does.",
        role="int8",
    ),
)
_GROUPS = (32, 16, 8, 4, 2)
_GROUPS_SAID = "groups, of a size that the notes of stage 'prepare' say"
_PROBE = 256  # features of the layer that a configuration is tried on
_RAISED = (ValueError, AssertionError, ImportError, NotImplementedError, RuntimeError, TypeError)
Filter = Callable[[nn.Module, str], bool]


@dataclass(frozen=True)
class Part:
    """One call of ``quantize_``: a configuration, and the type of the layers that it is for (None:
    the linear layers that torchao itself chooses)."""

    config: Any
    kind: type[nn.Module] | None = None

    @property
    def name(self) -> str:
        """For people: the class of the configuration."""
        return type(self.config).__name__

    @property
    def is_qat(self) -> bool:
        """Whether it is a ``QATConfig`` of the user's, with fake-quant configurations of its own,
        say."""
        return isinstance(self.config, _qat().QATConfig)

    def step(self, step: str) -> Any:
        """The ``QATConfig`` of ``step``."""
        if not self.is_qat:
            return _qat().QATConfig(self.config, step=step)
        if step == "prepare":
            return self.config
        return _qat().QATConfig(self.config.base_config, step=step)

    def apply(self, model: nn.Module, step: str) -> None:
        """Call ``quantize_``, in place."""
        quantize = imported("torchao.quantization").quantize_
        if self.kind is None:
            quantize(model, self.step(step))
            return
        kind = self.kind
        quantize(model, self.step(step), filter_fn=lambda module, path: isinstance(module, kind))


class TorchaoFlow(Flow):
    """``torchao.quantization.qat``, with any base configuration."""

    name: ClassVar[str] = "torchao"
    title: ClassVar[str] = "torchao (quantize_ with QATConfig)"
    stages: ClassVar[tuple[Stage, ...]] = _STAGES
    offers_stubs: ClassVar[bool] = False
    offers_fusion: ClassVar[bool] = False
    offers_qconfig: ClassVar[bool] = False
    has_ledger: ClassVar[bool] = False
    runs_on_engine: ClassVar[bool] = False
    exports: ClassVar[bool] = False
    calibrates: ClassVar[bool] = False
    result: ClassVar[str] = "converted"

    def apply(
        self, stage: str, model: nn.Module, options: FlowOptions, seen: Seen | None = None
    ) -> StageResult:
        require_available(self)
        if stage == "prepare":
            return _prepared(model, options)
        if stage == "convert":
            return _converted(model, options)
        return StageResult(model)

    def unavailable(self) -> str:
        return unavailable()

    def form(self, options: FlowOptions) -> str:
        if self.unavailable():
            return self.result
        numbers = numbers_of(parts_of(options, nn.Module()))
        return f"{self.result} ({numbers})" if numbers else self.result


def _qat() -> Any:
    return imported("torchao.quantization.qat")


# -- configurations --------------------------------------------------------------------------------


def check_base_config(given: Any) -> Any:
    """``given`` if the flow takes it: a name of :data:`BASE_CONFIGS`, a configuration of torchao's,
    a ``QATConfig``, or a dict of these two by type of layer. Raises InputError."""
    if given is None or (isinstance(given, str) and given in BASE_CONFIGS):
        return given
    if isinstance(given, str):
        raise InputError(
            f"there is no base_config {given!r}.",
            fix=f"Names are {', '.join(map(repr, BASE_CONFIGS))}; or pass a configuration of "
            "torchao's.",
        )
    base = getattr(imported("torchao.core.config"), "AOBaseConfig", ())
    parts = given.items() if isinstance(given, Mapping) else [(None, given)]
    for kind, config in parts:
        layer = isinstance(kind, type) and issubclass(kind, (nn.Linear, nn.Embedding))
        if kind is not None and not layer:
            raise InputError(
                f"base_config has the key {kind!r}.",
                why="torchao's QAT swaps linear and embedding layers, and nothing else.",
                fix="Use nn.Linear and nn.Embedding as the keys.",
            )
        if not isinstance(config, base):
            raise InputError(
                f"base_config is a {type(config).__name__}, not a configuration of torchao's.",
                fix="Pass one of torchao.quantization, such as IntxWeightOnlyConfig().",
            )
    return given


def parts_of(options: FlowOptions, model: nn.Module) -> tuple[Part, ...]:
    """The calls of ``quantize_`` that the options ask for."""
    given = DEFAULT_BASE if options.base_config is None else options.base_config
    if isinstance(given, str):
        return (Part(BASE_CONFIGS[given].make(model)),)
    if isinstance(given, Mapping):
        return tuple(Part(config, kind) for kind, config in given.items())
    return (Part(given),)


def default_base_config(model: nn.Module) -> Any:
    """int8 activations, a scale for each token, and int4 weights in groups: what ExecuTorch's
    recipes for language models use, and of torchao's one that trains, converts and runs on a CPU.

    The groups are of 32, or of the largest smaller power of two that divides the inputs of every
    linear layer; where none does, each row has one scale.
    """
    return imported("torchao.quantization").Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int4,  # type: ignore[attr-defined]
        weight_granularity=_groups_that_fit(model),
    )


def _groups_that_fit(model: nn.Module) -> Any:
    api = imported("torchao.quantization")
    inputs = {m.in_features for m in model.modules() if isinstance(m, nn.Linear)}
    size = next((g for g in _GROUPS if all(n % g == 0 for n in inputs)), None)
    return api.PerAxis(0) if size is None else api.PerGroup(size)


def _weights_only(dtype: str, *, rows: bool = False) -> Callable[[nn.Module], Any]:
    """Makes the configuration that rounds weights to ``torch.<dtype>`` and no input, with a scale
    for each group, or for each of the rows."""

    def make(model: nn.Module) -> Any:
        api = imported("torchao.quantization")
        granularity = api.PerAxis(0) if rows else _groups_that_fit(model)
        return api.IntxWeightOnlyConfig(weight_dtype=getattr(torch, dtype), granularity=granularity)

    return make


@dataclass(frozen=True)
class NamedBase:
    """A base configuration by name: ``title`` for the page, and how it is made for a model."""

    title: str
    make: Callable[[nn.Module], Any]


DEFAULT_BASE = "int8-int4"
BASE_CONFIGS: Mapping[str, NamedBase] = {
    DEFAULT_BASE: NamedBase("int8 inputs, int4 weights in groups", default_base_config),
    "int8": NamedBase("int8 weights by rows, float inputs", _weights_only("int8", rows=True)),
    "int4": NamedBase("int4 weights in groups, float inputs", _weights_only("int4")),
    "int2": NamedBase("int2 weights in groups, float inputs", _weights_only("int2")),
}
"""What a session takes as ``base_config`` by name; a further one is a further line."""


def base_name(given: Any) -> str:
    """For people: the name, or the classes of the configurations."""
    if given is None or isinstance(given, str):
        return given or DEFAULT_BASE
    parts = given.values() if isinstance(given, Mapping) else (given,)
    return ", ".join(type(one).__name__ for one in parts)


def group_asked(config: Any) -> int | None:
    """Size of the groups of a weight that a base configuration asks for; None if for none."""
    if config is None:
        return None
    for name in ("weight_granularity", "granularity"):
        size = getattr(getattr(config, name, None), "group_size", None)
        if isinstance(size, int):
            return size
    size = getattr(config, "group_size", None)
    return size if isinstance(size, int) else None


_tried: dict[tuple[str, bool], str] = {}


def cannot_convert(part: Part) -> str:
    """Why torchao cannot convert, or not run what it has converted, with this configuration on this
    machine, in torchao's words: tried once on a small layer. ``""`` where it can."""
    embedding = part.kind is not None and issubclass(part.kind, nn.Embedding)
    key = (repr(part.config), embedding)
    if key not in _tried:
        with preserved_rng():
            _tried[key] = _tried_on_a_layer(part, embedding)
    return _tried[key]


def _tried_on_a_layer(part: Part, embedding: bool) -> str:
    layer: nn.Module = nn.Linear(_PROBE, _PROBE)
    inputs = torch.zeros(1, _PROBE)
    if embedding:
        layer, inputs = nn.Embedding(_PROBE, _PROBE), torch.zeros(1, dtype=torch.long)
    model = nn.Sequential(layer)
    try:
        part.apply(model, "prepare")
    except _RAISED:
        return ""  # preparing the user's model says so
    try:
        part.apply(model.eval(), "convert")
        with torch.no_grad():
            model(inputs)
    except _RAISED as error:
        return _first_line(error)
    return ""


@dataclass(frozen=True)
class PartWords:
    """A part for people: the class of its configuration, the ``layers`` that it is for, and its
    fields with their values."""

    name: str
    layers: str
    fields: tuple[tuple[str, str], ...]


def parts_in_words(options: FlowOptions) -> tuple[PartWords, ...]:
    """The parts in force, for people."""
    found = []
    for part in parts_of(options, nn.Module()):
        fields = {name: str(value) for name, value in vars(part.config).items()}
        if options.base_config is None or isinstance(options.base_config, str):
            # Which one is made depends on the model.
            fields |= {
                n: _GROUPS_SAID for n in fields if "granularity" in n and "Group" in fields[n]
            }
        layers = "linear layers" if part.kind is None else f"{part.kind.__name__} layers"
        found.append(PartWords(part.name, layers, tuple(fields.items())))
    return tuple(found)


_numbers: dict[tuple[str, bool], tuple[str, str]] = {}


def numbers_of(parts: Sequence[Part]) -> str:
    """What converting with ``parts`` stores weights in and rounds inputs to, such as
    ``"int4 weights, int8 inputs"``; ``""`` where torchao puts in no fake quants that say so."""
    found = [_numbers_of(part) for part in parts]
    listed = []
    for what, at in (("weights", 0), ("inputs", 1)):
        kinds = dict.fromkeys(each[at] for each in found if each[at])
        listed += [f"{' and '.join(kinds)} {what}"] if kinds else []
    return ", ".join(listed)


def _numbers_of(part: Part) -> tuple[str, str]:
    """Dtype of weights and of inputs, as the fake quants of a small layer have them."""
    if part.is_qat and part.config.base_config is None:
        return "", ""  # converting takes the fake quants out
    embedding = part.kind is not None and issubclass(part.kind, nn.Embedding)
    key = (repr(part.config), embedding)
    if key not in _numbers:
        with preserved_rng():
            layer = nn.Embedding(_PROBE, _PROBE) if embedding else nn.Linear(_PROBE, _PROBE)
            model = nn.Sequential(layer)
            try:
                part.apply(model, "prepare")
            except _RAISED:
                return "", ""
        names = ("weight_fake_quantizer", "activation_fake_quantizer")
        quants = (getattr(model[0], name, None) for name in names)
        weight, given = (
            scheme_of(one).dtype.removeprefix("torch.")
            if isinstance(one, nn.Module) and is_torchao(one)
            else ""
            for one in quants
        )
        _numbers[key] = weight, given
    return _numbers[key]


# -- stages ----------------------------------------------------------------------------------------


def _prepared(model: nn.Module, options: FlowOptions) -> StageResult:
    parts = parts_of(options, model)
    notes = []
    if options.base_config is None:
        notes.append(f"No base_config was given: {_in_words(parts[0])}.")
    for part in parts:
        try:
            part.apply(model, "prepare")
        except _RAISED as error:
            raise _refused(part, error) from error
        _take_out(model, left_in_float(options))
    swapped = tuple(fake_quants_of_weights(model))
    for part in parts:
        notes += [_groups(part, swapped)]
        why = "" if part.is_qat and part.config.base_config is None else cannot_convert(part)
        if why:
            notes.append(
                f"It can be trained, and not be converted on this machine: with {part.name} "
                f"torchao says “{why}”."
            )
        if part.is_qat and part.config.base_config is None:
            notes.append(
                "The QATConfig has no base_config: converting takes the fake quants out, and the "
                "weights stay float."
            )
    notes.append(_left_alone(model, swapped))
    return StageResult(model, notes=tuple(note for note in notes if note))


def _take_out(model: nn.Module, paths: Iterable[str]) -> None:
    """Make the layers at ``paths`` plain ones again, with the same parameters; converting leaves
    plain layers alone."""
    for path in paths:
        layer: Any = dict(model.named_modules()).get(path)
        back = getattr(layer, "to_linear", None) or getattr(layer, "to_embedding", None)
        if back is not None:
            with preserved_rng():
                model.set_submodule(path, back().train(layer.training))


def _converted(model: nn.Module, options: FlowOptions) -> StageResult:
    parts = parts_of(options, model)
    model.eval()
    for part in parts:
        try:
            part.apply(model, "convert")
        except _RAISED as error:
            raise ConvertError(
                f"torchao cannot convert with {part.name} on this machine: {_first_line(error)}",
                where=_path_in_hand(error),
            ) from error
    return StageResult(model, notes=_stored(model))


def _refused(part: Part, error: Exception) -> QatExplorerError:
    return InputError(
        f"torchao refuses {part.name}: {_first_line(error)}", where=_path_in_hand(error)
    )


def _path_in_hand(error: BaseException) -> str:
    """The layer that torchao's walk over the model was at."""
    path, step = "", error.__traceback__
    while step is not None:
        frame = step.tb_frame
        if frame.f_code.co_name == "_replace_with_custom_fn_if_matches_filter":
            path = str(frame.f_locals.get("cur_fqn", path)).rstrip(".")
        step = step.tb_next
    return path


def _first_line(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line[:200]}" if line else type(error).__name__


def _in_words(part: Part) -> str:
    """What the default does, as the end of a sentence."""
    granularity = part.config.weight_granularity
    size = getattr(granularity, "group_size", None)
    what = f"group of {size} inputs" if size else "row"
    return (
        "inputs are rounded to int8 with a scale for each token, weights to int4 with a scale for "
        f"each {what} ({part.name})"
    )


Swapped = tuple[str, nn.Module, nn.Module]
"""Path of a layer, the layer, and the fake quant of its weight."""


def fake_quants_of_weights(model: nn.Module) -> Iterator[Swapped]:
    """The layers of ``model`` that have one."""
    for path, module in model.named_modules():
        weight = module._modules.get("weight_fake_quantizer")
        if isinstance(weight, nn.Module) and is_torchao(weight):
            yield path, module, weight


def _groups(part: Part, swapped: tuple[Swapped, ...]) -> str:
    """The size of the groups that was asked for, against the one that the fake quants use."""
    asked = group_asked(part.config.base_config if part.is_qat else part.config)
    if asked is None:
        return ""
    used: dict[int | None, list[str]] = {}
    for path, layer, weight in swapped:
        if part.kind is None or isinstance(layer, part.kind):
            used.setdefault(_counted(layer, weight), []).append(path)
    others = {size: paths for size, paths in used.items() if size != asked}
    count = sum(map(len, used.values()))
    if not used:
        return ""
    if not others:
        return (
            f"Groups of {asked} were asked for, and {_layers(count)} use{'s' * (count == 1)} them."
        )
    size, paths = next(iter(others.items()))
    return (
        f"Groups of {asked} were asked for, and {_layers(sum(map(len, others.values())))} of "
        f"{count} use others: {paths[0]} has groups of {size}."
    )


_MOST_COUNTED = 1000
_sizes: dict[tuple[Any, ...], int | None] = {}


def _counted(layer: nn.Module, quantizer: nn.Module) -> int | None:
    """:func:`size_of_blocks`, once a process for layers that are alike: as long as a fake quant
    keeps no scale, its type and configuration and the shape of a row decide."""
    row: Any = layer.weight
    if stored_blocks(quantizer) is not None:
        return size_of_blocks(layer, quantizer)
    config = repr(getattr(quantizer, "config", None))
    alike = (type(quantizer), config, row.shape[1:], row.dtype, row.device)
    if alike not in _sizes:
        if len(_sizes) >= _MOST_COUNTED:
            _sizes.clear()
        _sizes[alike] = size_of_blocks(layer, quantizer)
    return _sizes[alike]


def size_of_blocks(layer: nn.Module, quantizer: nn.Module) -> int | None:
    """Number of values of the layer's weight that share a scale, counted on the scales that the
    fake quant makes of its first row; of a scheme without whole codes as its config says."""
    weight: Any = layer.weight
    if weight.device.type == "meta":
        return scheme_of(quantizer).group
    found = blocks_of(quantizer, weight[:1])
    return scheme_of(quantizer).group if found is None else found.size


def _layers(count: int) -> str:
    return f"{count} layer{'s' * (count != 1)}"


def _left_alone(model: nn.Module, swapped: tuple[Swapped, ...]) -> str:
    held = {id(p) for _path, layer, _ in swapped for p in layer._parameters.values()}
    inside, total = 0, 0
    for parameter in model.parameters():
        total += parameter.numel()
        inside += parameter.numel() if id(parameter) in held else 0
    if not total:
        return ""
    return (
        f"{_layers(len(swapped)).capitalize()} with {inside:,} of {total:,} parameters "
        f"{'has' if len(swapped) == 1 else 'have'} fake quants; torchao leaves all else float."
    )


def _stored(model: nn.Module) -> tuple[str, ...]:
    """What the weights are stored as now, counted."""
    kinds: dict[str, int] = {}
    for module in model.modules():
        weight = own_weight(module)
        if weight is not None and is_torchao_tensor(weight):
            name = f"{type(module).__name__} weights are {type(weight.data).__name__}"
            target = getattr(weight, "target_dtype", None)
            name += f" ({str(target).removeprefix('torch.')})" if target is not None else ""
            kinds[name] = kinds.get(name, 0) + 1
    found = tuple(f"{count} {name}" for name, count in kinds.items())
    if not found:
        return ("No weight is quantized: all of them are float tensors.",)
    return (
        f"{'; '.join(found)}. The layers keep their names, and all other parameters are float.",
    )
