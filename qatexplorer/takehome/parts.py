"""Functions that are copied into a script as they stand here; they use torch and NumPy only.

They compute what :mod:`qatexplorer.training`, :mod:`qatexplorer.evaluate` and the flows do, bit for
bit, without what those are for: watching, checkpoints, stopping, and telling what went wrong.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.ao.nn.intrinsic.qat import freeze_bn_stats
from torch.ao.quantization import (
    DeQuantStub,
    QuantStub,
    QuantWrapper,
    add_quant_dequant,
)
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map, tree_map_only

# -- models and batches -------------------------------------------------------------------------


def call(model: nn.Module, inputs: Any) -> Any:
    """The model on a tensor, a tuple of arguments or a dict of keyword arguments."""
    tensors = [*model.parameters(), *model.buffers()]
    inputs = moved(inputs, tensors[0].device if tensors else torch.device("cpu"))
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)


def positional(model: nn.Module, inputs: Any) -> tuple[Any, ...]:
    """Example inputs as positional arguments."""
    if isinstance(inputs, Mapping):
        bound = inspect.signature(model.forward).bind(**inputs)
        bound.apply_defaults()
        return bound.args
    return tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)


def arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Example inputs as positional and keyword arguments."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)), {}


def moved(value: Any, device: torch.device) -> Any:
    """``value`` with every tensor in it on ``device``."""
    return tree_map(lambda one: one.to(device) if isinstance(one, Tensor) else one, value)


def main_output(output: Any) -> Tensor:
    """The tensor that the loss is taken of: itself, ``.logits``, or the first one."""
    if isinstance(output, Tensor):
        return output
    if isinstance(getattr(output, "logits", None), Tensor):
        return output.logits  # type: ignore[no-any-return]
    values = output.values() if isinstance(output, Mapping) else output
    return next(one for one in values if isinstance(one, Tensor))


def fingerprint(model: nn.Module) -> str:
    """Short for all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, Tensor) and tensor.dtype != torch.bfloat16:
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


# -- files ---------------------------------------------------------------------------------------


def read_state(folder: str) -> OrderedDict[str, Any]:
    """The state dict of the int8 model that lies in ``folder``."""
    with safe_open(f"{folder}/int8.safetensors", "pt") as file:
        tree = json.loads(file.metadata()["tree"])
        state = OrderedDict((name, unpacked(value, file)) for name, value in tree.items())
        vars(state)["_metadata"] = json.loads(file.metadata()["versions"])
        return state


def read_inputs(folder: str) -> Any:
    """The example inputs that lie in ``folder``."""
    with safe_open(f"{folder}/example.safetensors", "pt") as file:
        return unpacked(json.loads(file.metadata()["tree"])["inputs"], file)


def unpacked(value: Any, file: Any) -> Any:
    """What an entry of a file's tree stands for."""
    kind, what = next(iter(value.items()))
    if kind == "tensor":
        return file.get_tensor(what)
    if kind == "quantized":
        codes, scales, zeros = (
            file.get_tensor(f"{what}.{p}") for p in ("codes", "scales", "zeros")
        )
        if value["axis"] is None:
            return torch._make_per_tensor_quantized_tensor(codes, float(scales), int(zeros))
        return torch._make_per_channel_quantized_tensor(codes, scales, zeros, value["axis"])
    if kind == "dtype":
        return getattr(torch, what)
    if kind == "dict":
        return {name: unpacked(one, file) for name, one in what.items()}
    if kind in ("tuple", "list"):
        many = [unpacked(one, file) for one in what]
        return tuple(many) if kind == "tuple" else many
    return what


# -- stubs --------------------------------------------------------------------------------------


class InputStubs(nn.Module):
    """A QuantStub for each argument that holds float tensors, a DeQuantStub for what is returned.

    torch's QuantWrapper takes one tensor only.
    """

    def __init__(self, module: nn.Module, names: Iterable[str]) -> None:
        super().__init__()
        self.quant = nn.ModuleDict({self.key(name): QuantStub() for name in names})
        self.dequant = DeQuantStub()
        self.module = module
        if getattr(module, "qconfig", None):
            self.qconfig: Any = module.qconfig
        self.train(module.training)

    @staticmethod
    def key(name: str) -> str:
        return f"{name}_" if hasattr(nn.ModuleDict, name) else name

    @staticmethod
    def quantized(stub: nn.Module, value: Tensor) -> Any:
        return stub(value) if value.is_floating_point() else value

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(self.module.forward).bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            if self.key(name) in self.quant:
                stub = self.quant[self.key(name)]
                bound.arguments[name] = tree_map_only(Tensor, partial(self.quantized, stub), value)
        return tree_map_only(Tensor, self.dequant, self.module(*bound.args, **bound.kwargs))


def wrap_layers(model: nn.Module, paths: Iterable[str]) -> None:
    """A QuantStub and a DeQuantStub of its own for each of these layers; what is outside of them
    is left in float. A module under two names gets one wrapper."""
    wrappers: dict[int, nn.Module] = {}
    for path in paths:
        parent, _, name = path.rpartition(".")
        layer = model.get_submodule(path)
        if id(layer) not in wrappers:
            inside = any(True for _ in layer.children())  # a fused module is wrapped as one
            wrappers[id(layer)] = QuantWrapper(layer) if inside else add_quant_dequant(layer)
        model.get_submodule(parent)._modules[name] = wrappers[id(layer)]

    def leave_float(module: nn.Module) -> None:
        module.qconfig = None  # type: ignore[assignment]
        if not isinstance(module, QuantWrapper):
            for child in module.children():
                leave_float(child)

    leave_float(model)


# -- calibration and evaluation -----------------------------------------------------------------


def is_a(module: nn.Module, name: str) -> bool:
    """Whether it is of a class of that name, of ``torch.ao`` or of torchao, which has its own."""
    return any(kind.__name__ == name for kind in type(module).__mro__)


def calibrate(model: nn.Module, batches: Iterable[Any], count: int) -> None:
    """Let the observers see ``count`` batches; weights and batch norms stay as they are."""
    modes = [(module, module.training) for module in model.modules()]
    state = torch.get_rng_state()
    torch.manual_seed(0)
    model.eval()
    with torch.no_grad():
        for number, (inputs, _) in enumerate(batches):
            if number == count:
                break
            call(model, inputs)
    torch.set_rng_state(state)
    for module, training in modes:
        module.training = training


@contextmanager
def observers_paused(model: nn.Module) -> Iterator[None]:
    """No observer learns inside: eval() does not see to that."""
    fake_quants: list[Any] = [m for m in model.modules() if is_a(m, "FakeQuantizeBase")]
    # The flag of a learned step size has a name of its own.
    on = [m for m in fake_quants if getattr(m, "static_enabled", m.observer_enabled)[0]]
    inside = {id(o) for m in fake_quants for o in m.modules()}
    bare = [m for m in model.modules() if is_a(m, "ObserverBase") and id(m) not in inside]
    before = [
        {name: None if b is None else b.clone() for name, b in m._buffers.items()} for m in bare
    ]
    for module in on:
        module.disable_observer()
    try:
        yield
    finally:
        for module in on:
            module.enable_observer()
        for observer, buffers in zip(bare, before, strict=True):
            observer._buffers.update(buffers)


def worked_on(
    model: nn.Module, batches: Iterable[Any], count: int, recipe: Callable[..., None]
) -> None:
    """Run ``recipe`` with ``count`` batches: in eval mode, the observers standing still."""
    modes = [(module, module.training) for module in model.modules()]
    state = torch.get_rng_state()
    torch.manual_seed(0)
    with torch.no_grad(), observers_paused(model):
        model.eval()
        recipe(model, list(islice(iter(batches), count)), call)
    torch.set_rng_state(state)
    for module, training in modes:
        module.training = training


def accuracy(output: Any, target: Tensor) -> Tensor:
    """Share of right answers."""
    return main_output(output).argmax(dim=1).eq(target).float().mean()


def evaluate(model: nn.Module, batches: Iterable[Any], metric: Callable[[Any, Any], Any]) -> float:
    """Mean of ``metric`` over the batches, by their size."""
    modes = [(module, module.training) for module in model.modules()]
    total, samples = 0.0, 0
    with torch.no_grad(), observers_paused(model):
        model.eval()
        for inputs, target in batches:
            size = len(target) if isinstance(target, Tensor) and target.dim() else 1
            total += float(metric(call(model, inputs), target)) * size
            samples += size
    for module, training in modes:
        module.training = training
    return total / samples


# -- training -----------------------------------------------------------------------------------


def seed_everything(seed: int, *sources: Any) -> None:
    """torch, Python, NumPy, and the generators of DataLoaders."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    for source in sources:
        batches = getattr(source, "batch_sampler", None)
        for one in (source, getattr(source, "sampler", None), getattr(batches, "sampler", None)):
            generator = getattr(one, "generator", None)
            if isinstance(generator, torch.Generator):
                generator.manual_seed(seed)


def fake_quants_on(model: nn.Module) -> None:
    """On, with the scale of the range that was observed while they were off."""
    fake_quants: list[Any] = [m for m in model.modules() if is_a(m, "FakeQuantizeBase")]
    for module in fake_quants:
        if not module.fake_quant_enabled[0]:
            if hasattr(module, "calculate_qparams") and not hasattr(module, "static_enabled"):
                scale, zero_point = module.calculate_qparams()
                for buffer, value in ((module.scale, scale), (module.zero_point, zero_point)):
                    buffer.resize_(value.shape).copy_(value)
            module.enable_fake_quant()


def step_sizes(model: nn.Module) -> list[Any]:
    """The fake quants that learn their step size (torch's ``_LearnableFakeQuantize``)."""
    return [m for m in model.modules() if hasattr(m, "enable_param_learning")]


def learn_steps(model: nn.Module) -> None:
    """Learned step sizes that round and have a range leave their observers and learn."""
    for site in step_sizes(model):
        low = site.activation_post_process.min_val
        seen = bool(low.numel()) and bool(torch.isfinite(low).all())
        if site.static_enabled[0] and site.fake_quant_enabled[0] and seen:
            site.enable_param_learning()


def with_step_sizes(
    model: nn.Module, parameters: list[nn.Parameter], lr: float
) -> list[dict[str, Any]]:
    """Parameter groups: learned step sizes have 0.01 times the learning rate, and no decay."""
    learned = {id(p) for site in step_sizes(model) for p in site.parameters()}
    sizes = [p for p in parameters if id(p) in learned]
    groups: list[dict[str, Any]] = [{"params": [p for p in parameters if id(p) not in learned]}]
    return [*groups, {"params": sizes, "lr": lr * 0.01, "weight_decay": 0.0}]


def lr_factor(name: str, step: int, total: int, warmup: int) -> float:
    """What the learning rate of a step is multiplied with."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    share = min(1.0, (step - warmup) / max(1, total - warmup))
    if name == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * share))
    if name == "linear":
        return 1.0 - share
    return 1.0 if share < 0.5 else 0.1 if share < 0.75 else 0.01


class WeightAverage:
    """Exponential moving average of the parameters; without a decay it does nothing."""

    def __init__(self, parameters: list[nn.Parameter], decay: float | None) -> None:
        self.parameters, self.decay, self.updates = list[Tensor](parameters), decay, 0
        self.own: list[Tensor] = []
        self.average = [] if decay is None else [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self) -> None:
        if self.decay is not None:
            self.updates += 1
            decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
            torch._foreach_lerp_(self.average, self.parameters, 1.0 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """The model holds the average, or its own weights again."""
        if self.decay is None:
            return
        own = [] if self.own else [p.detach().clone() for p in self.parameters]
        for parameter, value in zip(self.parameters, self.own or self.average, strict=True):
            parameter.copy_(value)  # a forward clamps learned step sizes: the average stays as is
        self.own = own


def train_mode(model: nn.Module, bn_frozen: bool) -> None:
    """Train mode; the statistics of batch norms stand still if they are frozen."""
    for module in model.modules():
        if isinstance(getattr(type(module), "freeze_bn", None), property):  # an exported model's
            module.freeze_bn = bn_frozen  # type: ignore[assignment]
    model.train()
    if bn_frozen:
        model.apply(freeze_bn_stats)
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


def begin_epoch(
    model: nn.Module,
    epoch: int,
    freeze_observer_epoch: int | None,
    freeze_bn_epoch: int | None,
    fake_quant_start_epoch: int,
) -> None:
    """Switch what is due, and train mode on."""
    fake_quants: list[Any] = [m for m in model.modules() if is_a(m, "FakeQuantizeBase")]
    if fake_quant_start_epoch and epoch == 0:
        for module in fake_quants:
            module.disable_fake_quant()
    if fake_quant_start_epoch and epoch == fake_quant_start_epoch:
        fake_quants_on(model)
    if epoch == freeze_observer_epoch:
        for module in fake_quants:
            module.disable_observer()
    train_mode(model, freeze_bn_epoch is not None and epoch >= freeze_bn_epoch)


def train_epoch(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Callable[[Any, Any], Tensor],
    optimizer: torch.optim.Optimizer,
    average: WeightAverage,
    scheduler: Any,
    clip_grad_norm: float | None,
    weights: Any,
    step: int,
    max_steps: int | None,
) -> tuple[float, int]:
    """Returns the mean loss, and the number of steps so far."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    total, samples = 0.0, 0
    for inputs, target in batches:
        optimizer.zero_grad(set_to_none=True)
        with nullcontext() if weights is None else weights.watching():
            output = call(model, inputs)
        found = loss(output, moved(target, parameters[0].device))
        penalty = None if weights is None else weights.penalty(step)
        (found if penalty is None else found + penalty).backward()
        if weights is not None:
            weights.update(step)
        if clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(parameters, clip_grad_norm)
        optimizer.step()
        learn_steps(model)  # their first batch gives them a start
        if weights is not None:
            weights.hold()
        average.update()
        size = len(target) if isinstance(target, Tensor) and target.dim() else 1
        total, samples, step = total + float(found) * size, samples + size, step + 1
        if scheduler is not None:
            scheduler.step()
        if step == max_steps:
            break
    return total / samples, step


def train(
    model: nn.Module,
    train_batches: Any,
    eval_batches: Any,
    *,
    loss: Callable[[Any, Any], Tensor],
    metric: Callable[[Any, Any], Any],
    make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    epochs: int,
    seed: int = 0,
    make_scheduler: Callable[[torch.optim.Optimizer, int], Any] | None = None,
    scheduler_interval: str = "step",
    freeze_observer_epoch: int | None = None,
    freeze_bn_epoch: int | None = None,
    fake_quant_start_epoch: int = 0,
    clip_grad_norm: float | None = None,
    ema_decay: float | None = None,
    weights: Any = None,
    max_steps: int | None = None,
) -> None:
    """QAT of a prepared model, in place. ``weights`` are those that are dampened or frozen,
    ``max_steps`` is where a run was stopped."""
    seed_everything(seed, train_batches, eval_batches)
    parameters = [p for p in model.parameters() if p.requires_grad]
    step = 0
    optimizer = make_optimizer(parameters)
    scheduler = None
    steps = len(train_batches) if hasattr(train_batches, "__len__") else 0
    if make_scheduler is not None:
        scheduler = make_scheduler(optimizer, steps * epochs)
    if weights is not None:
        weights.total_steps = steps * epochs
    average = WeightAverage(parameters, ema_decay)
    for epoch in range(epochs):
        begin_epoch(model, epoch, freeze_observer_epoch, freeze_bn_epoch, fake_quant_start_epoch)
        if weights is not None:
            weights.begin_epoch()
        mean, step = train_epoch(
            model,
            train_batches,
            loss,
            optimizer,
            average,
            scheduler if scheduler_interval == "step" else None,
            clip_grad_norm,
            weights,
            step,
            max_steps,
        )
        if scheduler is not None and scheduler_interval == "epoch":
            plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
            scheduler.step(*([mean] if plateau else []))
        if step == max_steps:
            break
        average.swap()
        value = evaluate(model, eval_batches, metric)
        print(f"epoch {epoch}: training loss {mean:.4f}, evaluation {value:.4f}")
        average.swap()
    average.swap()
    fake_quants_on(model) if fake_quant_start_epoch else None
    optimizer.zero_grad(set_to_none=True)


def default_loss(output: Any, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy."""
    return F.cross_entropy(main_output(output), target, label_smoothing=label_smoothing)
