"""The integer codes of all weights in every step of a training, and what can be done about weights
that go back and forth: dampening and freezing (Nagel et al. 2022, arXiv 2203.11086).

The formulas are those of the authors' code, github.com/Qualcomm-AI-research/oscillations-qat. There
a frozen weight's code is held in the forward. Here the weight itself is put in the middle of its
code after each step, so that the model is torch's own at any moment: what is evaluated, kept and
converted has the code too.

Classes and functions of this file are copied into scripts as they stand, so they use torch only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


def annealed(start: float, end: float, step: int, total: int) -> float:
    """From ``start`` in the first quarter of ``total`` steps to ``end`` in the last step, along a
    cosine."""
    share = min(1.0, max(0.0, (step / max(1, total - 1) - 0.25) / 0.75))
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * share))


class FollowedWeight:
    """One weight as its fake quant rounds it. ``state`` has, with a number per element:

    - code: the integer code in the last step; direction: +1 or -1, of its last change, or 0;
    - rate: the moving average of reversals: m * reversed + (1 - m) * rate, in each step;
    - mean: the moving average of the code; frozen: whether it is held; held: the code that it is
      held at. These three are there for freezing only.
    """

    def __init__(self, model: nn.Module, path: str) -> None:
        self.path = path
        self.fake_quant: Any = model.get_submodule(path)
        self.owner: Any = model.get_submodule(path.rpartition(".")[0])
        self.parameters = list(model.parameters())
        self.model: Any = model
        self.graph: Any = getattr(model, "graph", None)
        self.found: tuple[nn.Parameter | None, Any] | None = None
        self.state: dict[str, Tensor] = {}
        self.before: Tensor | None = None
        self.rounded: Tensor | None = None
        self.rounded_on: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))

    def see(self, module: nn.Module, args: Any, output: Tensor) -> None:
        """A forward hook: what the fake quant is given, and what it makes of it. An evaluation is
        no step."""
        if not module.training and not torch.is_grad_enabled():
            return
        self.before, self.rounded = args[0], output.detach()
        # An evaluation before the end of the step may move the range.
        scale, zero, _, _ = self.grid()
        self.rounded_on = scale.clone(), zero.clone()

    def forget(self) -> None:
        """What was seen in this step."""
        self.before = self.rounded = None

    def shaped(self, value: Tensor) -> Tensor:
        """A number, or a number per channel, for the weight's shape."""
        if value.numel() == 1:
            return value.reshape(())
        assert self.rounded is not None
        shape = [1] * self.rounded.dim()
        shape[self.fake_quant.ch_axis] = -1
        return value.reshape(shape)

    def grid(self) -> tuple[Tensor, Tensor, int, int]:
        """Scale, zero point, smallest and largest code."""
        site = self.fake_quant
        bounds: Any = getattr(site, "activation_post_process", site)
        low, high = (getattr(bounds, n, getattr(site, n)) for n in ("quant_min", "quant_max"))
        zero = site.zero_point.detach()
        if isinstance(site.zero_point, nn.Parameter):  # learned: a kernel rounds it
            zero = zero.round().clamp(low, high)
        return self.shaped(site.scale.detach()), self.shaped(zero), low, high

    def penalty(self) -> Tensor | None:
        """Squared distance to the codes' values, summed; what is clipped counts nothing."""
        if self.before is None or self.rounded is None:
            return None
        scale, zero, low, high = self.grid()
        least, most = (low - zero) * scale, (high - zero) * scale
        clipped = torch.minimum(torch.maximum(self.before, least), most)
        return (clipped - self.rounded).square().sum()

    def update(self, momentum: float, freezes: bool, threshold: float | None) -> None:
        """Take the codes of this step; weights whose rate is above ``threshold`` are frozen."""
        if self.rounded is None:
            return
        scale, zero = self.rounded_on
        codes = (self.rounded / scale + zero).round_()
        state = self.state
        if not state:
            state |= {"code": codes}
            state |= {name: torch.zeros_like(codes) for name in ("direction", "rate")}
        if freezes and "frozen" not in state:
            frozen = torch.zeros_like(codes, dtype=torch.bool)
            state |= {"mean": codes.clone(), "held": codes.clone(), "frozen": frozen}
        direction = (codes - state["code"]).sign_()
        back = (direction * state["direction"]) < 0
        state["rate"].mul_(1.0 - momentum).add_(back.to(codes.dtype), alpha=momentum)
        state["direction"] = torch.where(direction == 0, state["direction"], direction)
        state["code"] = codes
        if freezes:
            if threshold is not None:
                new = (state["rate"] > threshold) & ~state["frozen"]
                state["held"] = torch.where(new, state["mean"].round(), state["held"])
                state["frozen"] |= new
            state["mean"].mul_(1.0 - momentum).add_(codes, alpha=momentum)

    def source(self) -> tuple[nn.Parameter | None, Any]:
        """The parameter that is rounded, and the batch norm whose scale it is multiplied with."""
        if self.found is None:
            self.found = self.search()
        return self.found

    def search(self) -> tuple[nn.Parameter | None, Any]:
        """What :meth:`source` keeps."""
        assert self.before is not None
        for one in self.parameters:
            if one.data_ptr() == self.before.data_ptr() and one.shape == self.before.shape:
                return one, None
        weight, norm = (getattr(self.owner, name, None) for name in ("weight", "bn"))
        if isinstance(weight, nn.Parameter) and norm is not None:
            return weight, norm
        return self.search_graph() if self.graph is not None else (None, None)

    def search_graph(self) -> tuple[nn.Parameter | None, Any]:
        """Of an exported model: the weight that torchao multiplies by gamma / sqrt(var + eps)."""
        nodes = [n for n in self.graph.nodes if str(n.target) == self.path]
        tensors: list[Any] = []
        eps, waiting = 0.0, [one for node in nodes for one in node.all_input_nodes]
        while waiting:
            node = waiting.pop(0)
            if node.op == "get_attr":
                holder, _, name = str(node.target).rpartition(".")
                tensors.append(getattr(self.model.get_submodule(holder), name))
            elif "add." in str(node.target):
                eps = float(node.args[1])
            waiting += node.all_input_nodes
        if len(tensors) != 3 or not isinstance(tensors[0], nn.Parameter):
            return None, None
        return tensors[0], SimpleNamespace(weight=tensors[1], running_var=tensors[2], eps=eps)

    def still(self) -> None:
        """No gradient for what is frozen."""
        weight, _ = self.source() if self.before is not None else (None, None)
        if weight is not None and weight.grad is not None and self.state:
            weight.grad.masked_fill_(self.state["frozen"], 0.0)

    def hold(self) -> nn.Parameter | None:
        """Put what is frozen in the middle of its code; returns the parameter."""
        weight, norm = self.source() if self.before is not None else (None, None)
        if weight is None or not self.state:
            return None
        scale, zero, _, _ = self.grid()
        value, frozen = (self.state["held"] - zero) * scale, self.state["frozen"]
        if norm is not None:
            factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            factor = factor.reshape([-1] + [1] * (weight.dim() - 1))
            value, frozen = value / factor, frozen & (factor != 0)
        weight.copy_(torch.where(frozen, value, weight))
        return weight


class FollowedWeights:
    """The weights at the fake quants ``paths`` of ``model``, in every step.

    Args:
        momentum: of the moving averages.
        dampening: what :meth:`penalty` is multiplied with in the end; it rises from 0.
        freezing: a weight is frozen where its rate of reversals is above this threshold.
        freezing_from: with it the threshold goes from here to ``freezing``, and nothing is frozen
            in the first quarter.
        total_steps: of the run, for what rises or falls.
    """

    def __init__(
        self,
        model: nn.Module,
        paths: Iterable[str],
        *,
        momentum: float = 0.01,
        dampening: float = 0.0,
        freezing: float | None = None,
        freezing_from: float | None = None,
        total_steps: int = 0,
    ) -> None:
        self.weights = [FollowedWeight(model, path) for path in paths]
        self.momentum, self.dampening = momentum, dampening
        self.freezing, self.freezing_from = freezing, freezing_from
        self.total_steps = total_steps
        self.active: list[FollowedWeight] = []

    def begin_epoch(self) -> None:
        """A fake quant that is off rounds nothing that could be followed."""
        self.active = [one for one in self.weights if bool(one.fake_quant.fake_quant_enabled[0])]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, the forward of a step."""
        handles = [one.fake_quant.register_forward_hook(one.see) for one in self.weights]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def penalty(self, step: int) -> Tensor | None:
        """What is added to the loss; None for nothing."""
        factor = annealed(0.0, self.dampening, step, self.total_steps)
        if not factor:
            return None
        found = [one.penalty() for one in self.active]
        parts = [part for part in found if part is not None]
        return factor * torch.stack(parts).sum() if parts else None

    def threshold(self, step: int) -> float | None:
        """Above which rate a weight is frozen now; None for no weight."""
        if self.freezing is None or self.freezing_from is None:
            return self.freezing
        early = step < 0.25 * self.total_steps
        return (
            None if early else annealed(self.freezing_from, self.freezing, step, self.total_steps)
        )

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After the backward: take the codes of ``step``."""
        freezes = self.freezing is not None
        for one in self.active:
            one.update(self.momentum, freezes, self.threshold(step))
            if freezes:
                one.still()

    @torch.no_grad()
    def hold(self) -> list[nn.Parameter]:
        """After the optimizer's step; returns the parameters of which parts may be held."""
        found = [one.hold() for one in self.active] if self.freezing is not None else []
        for one in self.weights:
            one.forget()
        return [weight for weight in found if weight is not None]
