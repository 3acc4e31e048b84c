"""A forward that begins in the middle: what comes before a fake quant is remembered, not computed.

A forward of a Python model is a sequence of module calls with some code between them. In a baseline
forward the result of each call is kept, in the order of the calls. In a later forward, with one
fake quant switched, every call that is over before that fake quant's first one gives back what it
gave in the baseline: nothing before it can have changed. Only the code between the calls runs
again. That asks nothing of the model but that it calls its modules in the same order up to there,
which is looked at in every forward; so it serves eager models and FX graphs alike.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from qatexplorer.data import device_of
from qatexplorer.forward.scripted import python_modules
from qatexplorer.quantizers.facts import find_quantizers

Run = Callable[[], Any]
"""One forward of the model that the tape was made for."""

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)


class Unchanged(BaseException):
    """The switched fake quant gave what it gave before, so the output is that of the baseline.

    No Exception: it passes through a model's own handlers.
    """


class Diverged(BaseException):
    """The model called another module than in the baseline, before the switched fake quant."""


def seed() -> None:
    """Every forward draws the same random numbers. The caller puts the random state back."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


@dataclass
class _Call:
    """One call of a forward. ``end`` is the index of the last call inside it (its own, if none)."""

    module: nn.Module
    end: int = -1
    seconds: float = 0.0
    passed: bool = False  # a fake quant that is off
    leaves: list[Any] | None = None  # None: not kept
    spec: TreeSpec | None = None
    versions: list[int] = field(default_factory=list)
    copied: bool = False
    random_state: Tensor | None = None  # after the call, where it drew random numbers

    @property
    def tensors(self) -> list[Tensor]:
        return [leaf for leaf in self.leaves or () if isinstance(leaf, Tensor)]

    def unwritten(self) -> bool:
        """Whether nothing has been written into the tensors since they were kept."""
        found = [t._version for t in self.tensors]
        return self.leaves is not None and found == self.versions

    def result(self) -> Any:
        leaves = self.leaves or []
        if self.copied:
            leaves = [x.clone() if isinstance(x, Tensor) else x for x in leaves]
        assert self.spec is not None
        return tree_unflatten(leaves, self.spec)

    def forget(self) -> None:
        self.leaves, self.spec, self.versions = None, None, []


class Tape:
    """Runs forwards of ``model`` with some of its fake quants on, from the start or from a cut.

    Args:
        model: a copy that nobody else uses: the ``forward`` of its modules is replaced for good.
        weights: fake quants whose input is a parameter, or made of parameters alone. Their result
            is computed once, where their input is found to be the same in two baselines.
        limit: bytes of results to keep of one baseline. Beyond it, those that save the least time
            for their size are dropped, and computed again where they are needed.

    Attributes:
        total: calls of a whole forward, fake quants that are off among them. computed: calls that
            computed something, since the start.
        dropped: results that the limit left no room for, in the newest baseline.
    """

    def __init__(
        self, model: nn.Module, weights: Iterable[nn.Module] = (), limit: int = 1 << 30
    ) -> None:
        self.limit, self.total, self.computed, self.dropped = limit, 0, 0, 0
        self._quantizers = {id(m) for m in find_quantizers(model).values()}
        self._weights = {id(m) for m in weights}
        self._weight_inputs: dict[int, tuple[int, Tensor]] = {}  # and the number of the baseline
        self._weight_results: dict[int, Tensor] = {}
        self._steady: dict[int, bool] = {}  # whether a weight's input is always the same
        self._written: set[int] = set()  # indices of calls whose result is written to later
        self._calls: list[_Call] = []
        self._first: dict[int, int] = {}
        self._count: dict[int, int] = {}
        self._on: Collection[int] = frozenset()
        self._mode, self._at, self._cut, self._baseline = "plain", 0, 0, 0
        self._draws = True
        self._device = device_of(model)
        self._held: dict[int, tuple[int, int]] = {}  # storage: (calls, bytes)
        self._bytes = 0
        inside = {id(part) for m in find_quantizers(model).values() for part in m.children()}
        for module in python_modules(model):
            if id(module) not in inside:
                self._wrap(module)

    # -- forwards -------------------------------------------------------------------------------

    def plain(self, run: Run, on: Collection[int]) -> Any:
        """A whole forward with the fake quants of these ids on, all others off."""
        self._mode, self._on = "plain", on
        return self._forward(run)

    def record(self, run: Run, on: Collection[int]) -> Any:
        """The same, and it is the baseline from now on. Raises Diverged for a model that draws
        random numbers in a way that cannot be repeated from the middle."""
        self.forget()
        self._mode, self._on = "record", on
        self._baseline += 1
        seed()
        others = _other_random_states(self._device)
        out = self._forward(run)
        self.total = len(self._calls)
        if _other_random_states(self._device) != others:
            raise Diverged
        self._draws = any(c.random_state is not None for c in self._calls)
        for index, call in enumerate(self._calls):
            if call.leaves is not None and not call.copied and not call.unwritten():
                self._written.add(index)
                self._drop(call)
        return out

    def replay(self, run: Run, on: Collection[int], site: nn.Module) -> Any:
        """A forward with the fake quants ``on``, which are those of the baseline but for ``site``,
        computed from the first call of ``site`` on. Ask for the last site first: what a module
        leaves in its attributes is then what it left there in the baseline.

        Raises Unchanged where the output is that of the baseline, and Diverged.
        """
        first = self.first_call(site)
        if first is None:
            raise Unchanged
        self._mode, self._on, self._at, self._cut = "replay", on, 0, first
        return self._forward(run)

    def first_call(self, site: nn.Module) -> int | None:
        """Index of the first call of a module in the baseline, None if it does not run."""
        return self._first.get(id(site))

    def remaining(self, site: nn.Module) -> float:
        """Share of the baseline's calls from the first of ``site`` on, 0 to 1."""
        first = self.first_call(site)
        if first is None or not self._calls:
            return 0.0
        return 1 - first / len(self._calls)

    def forget(self) -> None:
        """Let the baseline's results go."""
        self._calls, self._first, self._count = [], {}, {}
        self._held, self._bytes, self.dropped = {}, 0, 0

    def _forward(self, run: Run) -> Any:
        seed()
        try:
            return run()
        finally:
            self._mode = "plain"

    # -- calls ----------------------------------------------------------------------------------

    def _wrap(self, module: nn.Module) -> None:
        usual = module.forward

        @functools.wraps(usual)
        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._mode == "plain":
                return self._compute(module, usual, args, kwargs)
            if self._mode == "record":
                return self._recorded(module, usual, args, kwargs)
            return self._replayed(module, usual, args, kwargs)

        module.forward = forward

    def _compute(self, module: nn.Module, usual: Any, args: Any, kwargs: Any) -> Any:
        key = id(module)
        if key in self._quantizers:
            if self._passes(key):
                return args[0]
            if key in self._weights:
                return self._weight(module, usual, args, kwargs)
        self.computed += 1
        return usual(*args, **kwargs)

    def _passes(self, key: int) -> bool:
        """What a fake quant does that is off: it hands on what it is given."""
        return key in self._quantizers and key not in self._on

    def _weight(self, module: nn.Module, usual: Any, args: Any, kwargs: Any) -> Any:
        key = id(module)
        known = self._weight_results.get(key)
        if self._steady.get(key) and known is not None:
            return known
        self.computed += 1
        out = usual(*args, **kwargs)
        if self._steady.get(key):
            self._weight_results[key] = out
        return out

    def _recorded(self, module: nn.Module, usual: Any, args: Any, kwargs: Any) -> Any:
        index, call = len(self._calls), _Call(module)
        self._calls.append(call)
        key = id(module)
        self._first.setdefault(key, index)
        self._count[key] = self._count.get(key, 0) + 1
        if key in self._weights and args:
            self._look_at_weight(key, args[0])
        state = torch.get_rng_state() if self._draws else None
        started = time.perf_counter()
        call.passed = self._passes(key)
        out = self._compute(module, usual, args, kwargs)
        call.seconds = time.perf_counter() - started
        call.end = len(self._calls) - 1
        if state is not None:
            after = torch.get_rng_state()
            call.random_state = None if torch.equal(after, state) else after
        if not call.passed:
            self._keep(index, call, out)
        return out

    def _replayed(self, module: nn.Module, usual: Any, args: Any, kwargs: Any) -> Any:
        index, self._at = self._at, self._at + 1
        if index > self._cut:
            return self._compute(module, usual, args, kwargs)
        call = self._calls[index]
        if call.module is not module:
            raise Diverged
        if index == self._cut:
            out = self._compute(module, usual, args, kwargs)
            if self._count[id(module)] == 1 and self._equals_baseline(call, args, out):
                raise Unchanged
            return out
        if call.end >= self._cut:  # the switched fake quant is inside
            return self._compute(module, usual, args, kwargs)
        if call.unwritten():
            self._at = call.end + 1
            if call.random_state is not None:
                torch.set_rng_state(call.random_state)
            return call.result()
        out = self._compute(module, usual, args, kwargs)
        if self._at != call.end + 1:
            raise Diverged
        return out

    def _equals_baseline(self, call: _Call, args: Any, out: Any) -> bool:
        """Whether the switched fake quant gives what it gave in the baseline: there it was off, and
        gave back its input, or its result was kept."""
        if call.passed:
            kept = args[0]
        elif call.unwritten():
            kept = call.result()
        else:
            return False
        return isinstance(out, Tensor) and isinstance(kept, Tensor) and torch.equal(out, kept)

    def _look_at_weight(self, key: int, value: Any) -> None:
        """Compare the input of a weight's fake quant with what it was before."""
        if not isinstance(value, Tensor) or key in self._steady:
            return
        baseline, before = self._weight_inputs.setdefault(key, (self._baseline, value))
        if before is value and baseline == self._baseline:
            return
        same = torch.equal(before, value)
        if not same or baseline != self._baseline:
            self._steady[key] = same
            del self._weight_inputs[key]

    # -- what is kept ---------------------------------------------------------------------------

    def _keep(self, index: int, call: _Call, out: Any) -> None:
        leaves, spec = tree_flatten(out)
        if not all(isinstance(leaf, (Tensor, *_PLAIN)) for leaf in leaves):
            return  # computed whenever it is needed
        call.copied = index in self._written
        call.leaves = [
            x.detach().clone() if isinstance(x, Tensor) and call.copied else x for x in leaves
        ]
        call.spec, call.versions = spec, [t._version for t in call.tensors]
        for tensor in call.tensors:
            storage = tensor.untyped_storage()
            count, size = self._held.get(storage.data_ptr(), (0, storage.nbytes()))
            self._held[storage.data_ptr()] = (count + 1, size)
            self._bytes += 0 if count else size
        if self._bytes > self.limit:
            self._make_room()

    def _make_room(self) -> None:
        """Drop what saves the least time for its size."""
        kept = [call for call in self._calls if call.leaves is not None]
        kept.sort(key=lambda c: c.seconds / max(sum(t.nbytes for t in c.tensors), 1))
        for call in kept:
            if self._bytes <= 0.8 * self.limit:
                return
            self.dropped += 1
            self._drop(call)

    def _drop(self, call: _Call) -> None:
        for tensor in call.tensors:
            pointer = tensor.untyped_storage().data_ptr()
            count, size = self._held.get(pointer, (1, 0))
            if count > 1:
                self._held[pointer] = (count - 1, size)
            else:
                self._held.pop(pointer, None)
                self._bytes -= size
        call.forget()


def _other_random_states(device: torch.device) -> tuple[Any, ...]:
    """Of Python, NumPy and the model's device; that of the CPU is put right call by call."""
    numpy: Any = np.random.get_state()
    states: list[Any] = [random.getstate(), numpy[1].tobytes(), numpy[2:]]
    if device.type != "cpu":
        read = getattr(torch.get_device_module(device), "get_rng_state", None)
        states += [read(device).tolist()] if read is not None else []
    return tuple(states)
