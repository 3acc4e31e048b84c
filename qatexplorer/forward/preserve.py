"""Look at a model by running it, and leave no trace."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from qatexplorer.quantizers.facts import LEARNED
from qatexplorer.quantizers.torchao_grids import is_torchao

_HOOK_TABLES = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
)
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Put the random state of torch (CPU and, if in use, CUDA), Python and NumPy back at exit."""
    cpu = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    python = random.getstate()
    numpy: Any = sys.modules.get("numpy.random")
    numpy_state = numpy.get_state() if numpy is not None else None
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        random.setstate(python)
        if numpy_state is not None:
            numpy.set_state(numpy_state)


@contextmanager
def preserved_state(model: Module, *, buffers: bool = True) -> Iterator[Module]:
    """Put everything that a forward of ``model`` can change back at exit, also after an error.

    That is, for every module: its buffers (observer ranges, scales, zero points, the
    enabled flags of fake quants, batch-norm statistics), in place, with their shape and bit for
    bit; its plain attributes (numbers, text, flags, ``training`` among them); its hooks, those
    added inside removed and those removed inside back; and the random state, see
    :func:`preserved_rng`. Parameters and their gradients are not saved: run a forward under
    ``torch.no_grad()`` and they do not change.

    The cost is one copy of the buffers, which are small beside the parameters. Buffers that did
    not change are not written to, so an autograd graph that the user holds stays usable. Without
    ``buffers`` they are the caller's business.
    """
    restores = [_remember_module(module, buffers) for module in model.modules()]
    with preserved_rng():
        try:
            yield model
        finally:
            with torch.no_grad():
                for restore in restores:
                    restore()


def _remember_module(module: Module, with_buffers: bool) -> Callable[[], None]:
    """Remember one module (not its children); returns the function that puts it back."""
    state = vars(module)
    scripted = isinstance(module, torch.jit.ScriptModule)  # its tables live in C++
    plain = {key: value for key, value in state.items() if isinstance(value, _PLAIN)}
    if is_torchao(module):  # which keeps its scale as a plain attribute, and replaces it
        plain |= {key: state[key] for key in ("scale", "zero_point") if key in state}
    buffers = dict(module._buffers.items())
    contents = [
        (buffer, buffer.detach().clone(), _version(buffer))
        for buffer in buffers.values()
        # What oneDNN has packed for itself holds weights, which no forward writes to.
        if with_buffers and isinstance(buffer, Tensor) and not buffer.is_mkldnn
    ]
    if with_buffers and LEARNED.is_fake_quant(module):  # whose observer writes to parameters
        learned = [p for p in module._parameters.values() if p is not None]
        contents += [(p, p.detach().clone(), None) for p in learned]
    # An exported model's graph follows its flag.
    follows = isinstance(getattr(type(module), "training", None), property)
    training = module.training
    hooks = [
        (state[name], dict(state[name])) for name in _HOOK_TABLES if state.get(name) is not None
    ]

    def restore() -> None:
        for key, value in plain.items():
            state[key] = value
        if follows:
            module.training = training
        if not scripted:
            _restore_table(module._buffers, buffers)
        for buffer, content, version in contents:
            _restore_tensor(buffer, content, version)
        for table, entries in hooks:
            _restore_table(table, entries)

    return restore


def _restore_table(table: Any, entries: dict[Any, Any]) -> None:
    if not table and not entries:
        return
    same = list(table) == list(entries)
    if not same or any(table[key] is not value for key, value in entries.items()):
        table.clear()
        table.update(entries)


def _restore_tensor(tensor: Tensor, content: Tensor, version: int | None) -> None:
    if tensor.shape != content.shape:
        # torch's own observers grow their buffers in place with resize_; shrink the same way.
        tensor.resize_(content.shape)
    elif version is not None and _version(tensor) == version and torch.equal(tensor, content):
        return
    tensor.copy_(content)


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version
