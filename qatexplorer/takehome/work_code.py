"""The part of a script that calibrates, trains and converts the prepared model."""

from __future__ import annotations

import re

from qatexplorer.flows.fx import FxFlow
from qatexplorer.flows.pt2e import Pt2eFlow
from qatexplorer.runs.config import TrainingConfig
from qatexplorer.takehome import parts
from qatexplorer.takehome.pt2e_code import pt2e_convert
from qatexplorer.takehome.records import Calibrated, Trained
from qatexplorer.takehome.writer import Writer, call, indented
from qatexplorer.telemetry.weights import FollowedWeights

_PASSED_ON = (
    "epochs",
    "seed",
    "scheduler_interval",
    "freeze_observer_epoch",
    "freeze_bn_epoch",
    "fake_quant_start_epoch",
    "clip_grad_norm",
    "ema_decay",
)


def work_code(writer: Writer) -> list[str]:
    """The lines that do to ``model`` what was done to the working model, in order."""
    lines: list[str] = []
    for action in writer.walk.actions:
        if isinstance(action, Calibrated):
            name = writer.use(parts.calibrate)
            lines.append(f"{name}(model, train_batches, {action.batches})")
        elif isinstance(action, Trained):
            lines += _train(writer, action)
        else:
            recipe = writer.use(action.recipe)
            arguments = ["model", "train_batches", str(action.batches), recipe]
            lines += call(writer.use(parts.worked_on), arguments)
    return lines


def _train(writer: Writer, action: Trained) -> list[str]:
    config, default = action.config, TrainingConfig()
    arguments = ["model", "train_batches", "eval_batches"]
    arguments += [f"loss={_loss(writer, config)}", f"metric={_metric(writer)}"]
    arguments += [f"make_optimizer={_optimizer(writer, config)}"]
    if config.scheduler is not None:
        arguments.append(f"make_scheduler={_scheduler(writer, config)}")
    for name in _PASSED_ON:
        value = getattr(config, name)
        by_name = name == "scheduler_interval" and isinstance(config.scheduler, str)
        if name in ("epochs", "seed") or (value != getattr(default, name) and not by_name):
            arguments.append(f"{name}={value!r}")
    if config.dampen_weights or config.freeze_weights is not None:
        arguments.append(f"weights={_weights(writer, action)}")
    if action.steps is not None:
        arguments.append(f"max_steps={action.steps}")
    return call(writer.use(parts.train), arguments)


def _weights(writer: Writer, action: Trained) -> str:
    config = action.config
    made = [f"momentum={config.oscillation_momentum!r}", f"dampening={config.dampen_weights!r}"]
    made += [f"freezing={config.freeze_weights!r}", f"freezing_from={config.freeze_weights_from!r}"]
    lines = call(writer.use(FollowedWeights), ["model", f"{list(action.weights)!r}", *made])
    return "".join(line.strip() + " " * line.endswith(",") for line in lines)


def _loss(writer: Writer, config: TrainingConfig) -> str:
    if writer.walk.loss is not None:
        return writer.given("loss", writer.walk.loss)
    name = writer.use(parts.default_loss)
    if not config.label_smoothing:
        return name
    partial = writer.code.need("functools", "partial")
    return f"{partial}({name}, label_smoothing={config.label_smoothing!r})"


def _metric(writer: Writer) -> str:
    metric = writer.walk.metric
    return writer.use(parts.accuracy) if metric is None else writer.given("metric", metric)


def _optimizer(writer: Writer, config: TrainingConfig) -> str:
    chosen = config.optimizer or "adam"
    if not isinstance(chosen, str):
        return writer.given("make_optimizer", chosen)
    groups = "parameters"
    if writer.walk.options.qconfig.learns_steps:
        groups = f"{writer.use(parts.with_step_sizes)}(model, parameters, {config.lr!r})"
    made = {
        "adam": f"Adam({groups}, lr={config.lr!r})",
        "adamw": f"AdamW({groups}, lr={config.lr!r})",
        "sgd": f"SGD({groups}, lr={config.lr!r}, momentum=0.9)",
    }[chosen]
    writer.code.need("torch")
    return f"lambda parameters: torch.optim.{made}"


def _scheduler(writer: Writer, config: TrainingConfig) -> str:
    if isinstance(config.scheduler, str):
        kind = writer.code.need("torch.optim.lr_scheduler", "LambdaLR")
        factor = writer.use(parts.lr_factor)
        arguments = f"{config.scheduler!r}, n, total, {config.warmup_steps}"
        return f"lambda optimizer, total: {kind}(optimizer, lambda n: {factor}({arguments}))"
    made = writer.given("make_scheduler", config.scheduler)
    return f"lambda optimizer, total: {made}(optimizer)"


def convert_code(writer: Writer) -> list[str]:
    """The lines of the function ``to_int8``, and the objects that are its arguments."""
    options, need = writer.walk.options, writer.code.need
    need("torch")
    need("torch", "nn")
    need("copy")
    if isinstance(writer.walk.flow, Pt2eFlow):
        return pt2e_convert(writer)
    arguments = ["model"]
    if isinstance(writer.walk.flow, FxFlow):
        convert = need("torch.ao.quantization.quantize_fx", "convert_fx")
        config = {k: v for k, v in options.custom.for_fx_convert().to_dict().items() if v}
        if config:
            kind = need("torch.ao.quantization.fx.custom_config", "ConvertCustomConfig")
            given = writer.given("convert_custom_config", config)
            arguments.append(f"convert_custom_config={kind}.from_dict({given})")
        if options.backend_config is not None:
            arguments.append(f"backend_config={writer.backend_config()}")
    else:
        convert = writer.quantization("convert")
        arguments.append("inplace=True")
        custom = options.custom.for_eager_convert()
        if custom is not None:
            given = writer.given("convert_custom_config", custom)
            arguments.append(f"convert_custom_config_dict={given}")
    text = " ".join(arguments)
    needs = [name for name in writer.arguments if re.search(rf"\b{name}\b[^=]", f"{text} ")]
    head = call(
        "def to_int8", ["model: nn.Module", *(f"{n}: Any" for n in needs)], " -> nn.Module:"
    )
    lines = [
        '"""The int8 model of a copy of a prepared one."""',
        f"torch.backends.quantized.engine = {options.qconfig.backend!r}",
        'model = copy.deepcopy(model).to("cpu").eval()',
        *call(f"return {convert}", arguments),
    ]
    writer.convert_needs = tuple(needs)
    return [*head, *indented(lines)]
