"""Whether switching fake quants off does what it says: a forward with all on, one with all off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qatexplorer.data import call_model, cloned, main_output
from qatexplorer.evaluate.metric import evaluation_mode
from qatexplorer.forward.hooks import hooked
from qatexplorer.forward.preserve import preserved_state
from qatexplorer.quantizers.facts import fake_quants, switch
from qatexplorer.shown import Shown, at_most

_LISTED = 3


@dataclass(frozen=True, repr=False)
class Switching(Shown):
    """What fake quants do, on and off, to the tensors of one forward.

    Attributes:
        ran: paths of those that ran with all of them on.
        idle: of these, those that changed nothing in what they were given though they were on.
        stuck: those that changed what they were given though they were off: the switch has no
            effect.
        output: the largest change of an element of the model's output from off to on.
    """

    ran: tuple[str, ...]
    idle: tuple[str, ...]
    stuck: tuple[str, ...]
    output: float

    def summary(self) -> str:
        """In one sentence or two."""
        if not self.ran:
            return "No fake quant ran."
        text = f"Switching {len(self.ran):,} fake quants off changes the output by at most "
        text += f"{self.output:.3g}."
        if not self.output:
            text = f"Switching {len(self.ran):,} fake quants off changes nothing in the output."
        if self.stuck:
            some = ", ".join(self.stuck[:_LISTED])
            text += f" {len(self.stuck):,} of them round though they are off ({some})."
        return text

    def __repr__(self) -> str:
        lines = [self.summary()]
        lines += [f"on, and changes nothing: {path}" for path in self.idle]
        return at_most(lines)


def switching(model: nn.Module, inputs: Any) -> Switching:
    """Run ``model`` in eval mode on ``inputs`` with all its fake quants on and with all off.

    The model, its flags and the random state are put back. Raises what its forward raises.
    """
    found = fake_quants(model)
    changed: dict[bool, dict[str, bool]] = {True: {}, False: {}}
    outputs: dict[bool, Tensor] = {}
    with preserved_state(model), evaluation_mode(model):
        for on in (True, False):

            def ran(
                path: str, _module: nn.Module, args: Any, _kwargs: Any, result: Any, on: bool = on
            ) -> None:
                if args and isinstance(args[0], Tensor) and isinstance(result, Tensor):
                    same = torch.equal(result, args[0])
                    changed[on][path] = changed[on].get(path, False) or not same

            for module in found.values():
                switch(module, fake_quant=on)
            with hooked(found.items(), returned=ran):
                outputs[on] = main_output(call_model(model, cloned(inputs))).detach().clone()
    output = float((outputs[True] - outputs[False]).abs().max()) if outputs[True].numel() else 0.0
    return Switching(
        ran=tuple(changed[True]),
        idle=tuple(path for path, is_changed in changed[True].items() if not is_changed),
        stuck=tuple(path for path, is_changed in changed[False].items() if is_changed),
        output=output,
    )
