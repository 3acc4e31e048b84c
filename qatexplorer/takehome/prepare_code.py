"""The part of a script that makes the prepared model of the float one, in either flow."""

from __future__ import annotations

from torch import nn
from torch.ao.quantization import QuantWrapper

from qatexplorer.flows.base import copy_sharing_parameters
from qatexplorer.flows.fx import FxFlow
from qatexplorer.flows.pt2e import Pt2eFlow
from qatexplorer.flows.stubs import InputStubs
from qatexplorer.forward.preserve import preserved_rng
from qatexplorer.takehome import parts
from qatexplorer.takehome.code import NotCode
from qatexplorer.takehome.pt2e_code import pt2e_prepare
from qatexplorer.takehome.writer import Writer, call, indented


def prepare_code(writer: Writer) -> list[str]:
    """The lines of the function ``prepare``."""
    if isinstance(writer.walk.flow, Pt2eFlow):
        made = pt2e_prepare(writer)
    else:
        made = _fx(writer) if isinstance(writer.walk.flow, FxFlow) else _eager(writer)
    lines = [*_edits(writer), *_modes(writer), *made]
    writer.prepare_needs = tuple(writer.arguments)
    writer.code.need("torch", "nn")
    writer.code.need("typing", "Any")
    arguments = [
        "model: nn.Module",
        "example_inputs: Any",
        *(f"{n}: Any" for n in writer.arguments),
    ]
    head = call("def prepare", arguments, " -> nn.Module:")
    doc = '    """The float model with fake quants, ready for training. The model is changed."""'
    return [*head, doc, *indented(lines)]


def _edits(writer: Writer) -> list[str]:
    lines = []
    for edit in writer.walk.edits:
        lines += [f"# {edit}", *edit.code.splitlines()]
        writer.need_names(edit.code)
    return lines


def _modes(writer: Writer) -> list[str]:
    evaluating = [path for path, m in writer.walk.base.named_modules() if not m.training]
    if "" in evaluating:  # torch refuses it, and so has the session
        return []
    lines = ["model.train()", *(f"model.get_submodule({path!r}).eval()" for path in evaluating)]
    if writer.walk.options.own_qconfigs:
        lines += [
            "for module in model.modules():  # what of them counts is set below",
            '    vars(module).pop("qconfig", None)',
        ]
    return lines


# -- eager mode ---------------------------------------------------------------------------------


def _eager(writer: Writer) -> list[str]:
    options = writer.walk.options
    fused = _fused(writer)
    lines = []
    if options.fusion:
        groups = repr([list(group) for group in options.fusion])
        fuse = writer.quantization("fuse_modules_qat")
        lines += call(f"model = {fuse}", ["model", groups, "inplace=True"])
    stubbed = copy_sharing_parameters(fused)
    with preserved_rng():
        stubbed = writer.walk.flow.apply("propagate", stubbed, options).model
    options.qconfig.assign(fused)
    lines += [*_qconfigs(writer, fused), *_stubs(writer, fused, stubbed)]
    return [*lines, *_prepare_qat(writer)]


def _fused(writer: Writer) -> nn.Module:
    model = copy_sharing_parameters(writer.walk.base)
    with preserved_rng():
        return writer.walk.flow.apply("fuse", model, writer.walk.options).model


def _qconfigs(writer: Writer, model: nn.Module) -> list[str]:
    """One line for each module that the plan names; equal qconfigs are one object, as they were."""
    lines: list[str] = []
    names: dict[str, str] = {"None": "None"}
    for path, module in model.named_modules():
        if "qconfig" not in vars(module):
            continue
        name = "qconfig" if len(names) == 1 else f"qconfig_{len(names)}"
        text = writer.given(name, module.qconfig, writer.code.qconfig)
        if text not in names:
            names[text] = name
            lines += [] if text == name else [f"{name} = {text}"]
        place = f"model.get_submodule({path!r})" if path else "model"
        lines.append(f"{place}.qconfig = {names[text]}")
    return lines


def _stubs(writer: Writer, fused: nn.Module, stubbed: nn.Module) -> list[str]:
    if writer.walk.options.stubs == "none":
        return []
    if isinstance(stubbed, InputStubs):
        return [f"model = {writer.use(parts.InputStubs)}(model, {list(stubbed.quant)!r})"]
    if isinstance(stubbed, QuantWrapper) and not isinstance(fused, QuantWrapper):
        return [f"model = {writer.quantization('QuantWrapper')}(model)"]
    before = dict(fused.named_modules(remove_duplicate=False))
    now = dict(stubbed.named_modules(remove_duplicate=False))
    wrapped = [
        path
        for path, module in before.items()
        if isinstance(now.get(path), QuantWrapper) and not isinstance(module, QuantWrapper)
    ]
    propagate = writer.quantization("propagate_qconfig_")
    return [f"{propagate}(model)", *call(writer.use(parts.wrap_layers), ["model", repr(wrapped)])]


def _prepare_qat(writer: Writer) -> list[str]:
    options = writer.walk.options
    table = options.qat_mapping
    mapping = None if table is None else writer.given("qat_mapping", dict(table))
    custom, of_convert = options.custom.for_eager(), options.custom.for_eager_convert()
    if custom is None and of_convert is None:
        arguments = ["model", *([f"mapping={mapping}"] if mapping else []), "inplace=True"]
        return call(f"return {writer.quantization('prepare_qat')}", arguments)
    # prepare_qat takes no custom config, so its three calls stand one by one.
    default = f"{writer.quantization('get_default_qat_module_mappings')}()"
    given = writer.given("prepare_custom_config", custom)
    swap = ["model", "mapping=mapping", "inplace=True", "remove_qconfig=False"]
    if of_convert is not None:
        text = writer.given("convert_custom_config", of_convert)
        swap.append(f"convert_custom_config_dict={text}")
    watched = "observer_non_leaf_module_list=set(mapping.values())"
    insert = ["model", watched, "inplace=True", "prepare_custom_config_dict=custom"]
    return [
        f"mapping = {mapping or default}",
        f"custom = {given}",
        f"{writer.quantization('propagate_qconfig_')}(model, prepare_custom_config_dict=custom)",
        *call(writer.quantization("convert"), swap),
        *call(f"return {writer.quantization('prepare')}", insert),
    ]


# -- FX -----------------------------------------------------------------------------------------


def _fx(writer: Writer) -> list[str]:
    walk, need = writer.walk, writer.code.need
    custom = walk.options.custom
    lines = _mapping(writer)
    named = walk.options.qconfig.as_mapping(walk.base).module_name_qconfigs
    for path in custom.untraced_layers(walk.base):
        if path not in named:
            lines.append(f"mapping.set_module_name({path!r}, None)")
    arguments = ["model", "mapping", f"{writer.use(parts.positional)}(model, example_inputs)"]
    config = {key: value for key, value in custom.for_fx().to_dict().items() if value}
    classes = config.pop("non_traceable_module_class", [])
    kept = [one for one in classes if one.__module__.partition(".")[0] != "qatexplorer"]
    if kept:
        config["non_traceable_module_class"] = kept
    if config:
        kind = need("torch.ao.quantization.fx.custom_config", "PrepareCustomConfig")
        given = writer.given("prepare_custom_config", config)
        arguments.append(f"prepare_custom_config={kind}.from_dict({given})")
    if walk.options.backend_config is not None:
        arguments.append(f"backend_config={writer.backend_config()}")
    prepare = need("torch.ao.quantization.quantize_fx", "prepare_qat_fx")
    return [*lines, *call(f"return {prepare}", arguments)]


def _mapping(writer: Writer) -> list[str]:
    walk = writer.walk
    plan = walk.options.qconfig
    if not plan.default_of or plan.given is not None:
        try:
            return writer.code.mapping(plan.as_mapping(walk.base), "mapping")
        except NotCode as error:
            writer.arguments["mapping"] = f"the QConfigMapping of the session; it has {error}"
            return []
    make = writer.quantization("get_default_qat_qconfig_mapping")
    lines = [f"mapping = {make}({plan.default_of!r})"]
    for kind, qconfig in plan.by_type:
        key = writer.given(f"type_{kind.__name__}", kind)
        text = writer.given(f"qconfig_of_{kind.__name__}", qconfig, writer.code.qconfig)
        lines.append(f"mapping.set_object_type({key}, {text})")
    whole = plan.as_mapping(walk.base)  # with what rules say
    if any(rule.by == "model" for rule in plan.rules):
        text = writer.given("qconfig_of_all", whole.global_qconfig, writer.code.qconfig)
        lines.append(f"mapping.set_global({text})")
    for number, (path, qconfig) in enumerate(whole.module_name_qconfigs.items()):
        text = writer.given(f"qconfig_{number}", qconfig, writer.code.qconfig)
        lines.append(f"mapping.set_module_name({path!r}, {text})")
    return lines
