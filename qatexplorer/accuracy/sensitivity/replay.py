"""A forward that begins in the middle: what comes before a fake quant is remembered, not computed.

A forward of a Python model is a sequence of calls: of its modules, and of torch's functions in the
code between. In a baseline forward the result of each call is kept, in the order of the calls. In a
later forward, with one fake quant switched, every call that is over before that fake quant's first
one gives back what it gave in the baseline: nothing before it can have changed. That asks nothing
of the model but that it makes the same calls in the same order up to there, which is looked at in
every forward; so it serves eager models and FX graphs alike.

torch's max pooling of float images on the CPU is many times as fast in the channels-last layout,
and gives the same values: it is computed there.

A call that writes to what it is given, or to whose result something writes later, is computed in
every forward, so that tensors that share their memory go on to do so.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from qatexplorer.accuracy.sensitivity.sites import copies_when_off
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
    """The model made another call than in the baseline, before the switched fake quant."""


def seed(device: torch.device) -> None:
    """Every forward draws the same random numbers. The caller puts the random state back."""
    torch.default_generator.manual_seed(0)
    if device.type != "cpu":
        torch.manual_seed(0)  # of all devices, which takes its time
    random.seed(0)
    np.random.seed(0)


@dataclass
class _Call:
    """One call of a forward, of a module or of a function of torch's.

    ``end`` is the index of the last call inside it (its own, if none). ``leaves`` are those of its
    result, None where it is not kept; ``versions`` say how often the tensors among them had been
    written to. ``random_state`` is that after the call, where it drew random numbers.
    """

    what: Any
    end: int = -1
    seconds: float = 0.0
    passed: bool = False  # a fake quant that is off
    leaves: list[Any] | None = None
    spec: TreeSpec | None = None  # None for one tensor
    versions: list[int] = field(default_factory=list)
    random_state: Tensor | None = None

    @property
    def tensors(self) -> list[Tensor]:
        return [leaf for leaf in self.leaves or () if isinstance(leaf, Tensor)]

    @property
    def usable(self) -> bool:
        """Whether its result is kept, and nothing has been written into it since."""
        return self.leaves is not None and self.versions == [t._version for t in self.tensors]

    def result(self) -> Any:
        leaves = self.leaves or []
        return leaves[0] if self.spec is None else tree_unflatten(leaves, self.spec)

    def forget(self) -> None:
        self.leaves, self.spec, self.versions = None, None, []


class _Functions(TorchFunctionMode):
    """Hands the calls of torch's functions to a tape. Those that one makes itself are no calls of
    their own."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self._tape = tape

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._tape.function(func, args, kwargs or {})


class Tape:
    """Runs forwards of ``model`` with some of its fake quants on, from the start or from a cut.

    Args:
        model: a copy that nobody else uses: the ``forward`` of its modules is replaced for good.
        weights: fake quants whose input is a parameter, or made of parameters alone. Their result
            is computed once, where their input is found to be the same in two baselines.
        limit: bytes of results to keep of one baseline. Beyond it, those that save the least time
            for their size are dropped, and computed again where they are needed.

    Attributes:
        total: module calls of a whole forward, fake quants that are off among them. computed:
            module calls that computed something, since the start.
        dropped: results that the limit left no room for, in the newest baseline.
    """

    def __init__(
        self, model: nn.Module, weights: Iterable[nn.Module] = (), limit: int = 1 << 30
    ) -> None:
        self.limit, self.total, self.computed, self.dropped = limit, 0, 0, 0
        quantizers = find_quantizers(model).values()
        self._quantizers = {id(m) for m in quantizers}
        self._weights = {id(m) for m in weights}
        self._weight_inputs: dict[int, tuple[int, Tensor]] = {}  # and the number of the baseline
        self._weight_results: dict[int, Tensor] = {}
        self._steady: dict[int, bool] = {}  # whether a weight's input is always the same
        # Fake quants that are off and must copy; after a baseline, those where it matters.
        self._copying = {id(m) for m in quantizers if copies_when_off(m)} - self._weights
        self._copied: list[tuple[int, Tensor, Tensor, int, int]] = []
        self._on: Collection[int] = frozenset()
        self._mode, self._at, self._cut, self._baseline = "plain", 0, 0, 0
        self._aside = 0  # inside of what needs no look: the tape's own work, modules of one piece
        self._draws = True
        self._device = device_of(model)
        self.forget()
        inside = {id(part) for m in quantizers for part in m.children()}
        for module in python_modules(model):
            if id(module) not in inside:
                self._wrap(module)
        # Nothing can begin inside of a module without fake quants.
        self._of_one_piece = {
            id(m)
            for m in model.modules()
            if not any(id(p) in self._quantizers for p in m.modules())
        } | self._quantizers

    # -- forwards -------------------------------------------------------------------------------

    def plain(self, run: Run, on: Collection[int]) -> Any:
        """A whole forward with the fake quants of these ids on, all others off."""
        self._mode, self._on = "plain", on
        seed(self._device)
        return self._forward(run)

    def record(self, run: Run, on: Collection[int]) -> Any:
        """The same, and it is the baseline from now on. Raises Diverged for a model that draws
        random numbers in a way that cannot be repeated from the middle."""
        self.forget()
        self._mode, self._on = "record", on
        self._baseline += 1
        seed(self._device)
        others = _other_random_states(self._device)
        out = self._forward(run)
        if _other_random_states(self._device) != others:
            raise Diverged
        self._draws = any(call.random_state is not None for call in self._calls)
        for call in self._calls:
            if call.leaves is not None and not call.usable:
                self._drop(call)
        if self._copied:
            self._copying = {
                key
                for key, x, copy, old, new in self._copied
                if (x._version, copy._version) != (old, new)
            } | (self._copying - {key for key, *_ in self._copied})
            self._copied = []
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
        seed(self._device)
        return self._forward(run)

    def first_call(self, site: nn.Module) -> int | None:
        """Index of the first call of a module in the baseline, None if it does not run."""
        return self._first.get(id(site))

    def remaining(self, site: nn.Module) -> float:
        """Share of the baseline's calls from the first of ``site`` on, 0 to 1."""
        first = self.first_call(site)
        return 0.0 if first is None else 1 - first / len(self._calls)

    def forget(self) -> None:
        """Let the baseline's results go."""
        self._calls: list[_Call] = []
        self._first: dict[int, int] = {}
        self._count: dict[int, int] = {}
        self._held: dict[int, tuple[int, int]] = {}  # (kept calls, bytes) by storage
        self._bytes, self._last_quantizer, self.dropped = 0, -1, 0
        self.total = 0

    def _forward(self, run: Run) -> Any:
        try:
            with _Functions(self):
                return run()
        finally:
            self._mode = "plain"

    # -- calls ----------------------------------------------------------------------------------

    def _wrap(self, module: nn.Module) -> None:
        usual = module.forward

        @functools.wraps(usual)
        def forward(*args: Any, **kwargs: Any) -> Any:
            self.total += int(self._mode == "record")
            if self._mode == "plain" or self._aside:
                return self._compute(module, usual, args, kwargs)
            if self._mode == "record":
                return self._recorded(module, usual, args, kwargs)
            return self._replayed(module, usual, args, kwargs)

        module.forward = forward

    def function(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A call of a function of torch's, in the code of the model or of a module."""
        if func is F.max_pool2d and _slow_to_pool(args):
            func = _max_pool
        if self._aside or self._mode == "plain" or func.__name__ in ("__get__", "__set__"):
            return func(*args, **kwargs)
        if self._mode == "record":
            return self._recorded(func, func, args, kwargs)
        if self._at > self._cut:
            return func(*args, **kwargs)
        return self._replayed(func, func, args, kwargs)

    def _compute(self, what: Any, usual: Any, args: Any, kwargs: Any) -> Any:
        if not isinstance(what, nn.Module):
            return usual(*args, **kwargs)
        key = id(what)
        if self._passes(key):
            return self._handed_on(key, args[0])
        if key in self._weights:
            return self._weight(key, usual, args, kwargs)
        self.computed += 1
        if key not in self._of_one_piece:
            return usual(*args, **kwargs)
        self._aside += 1  # the context manager below would take longer than many a module
        try:
            return usual(*args, **kwargs)
        finally:
            self._aside -= 1

    def _passes(self, key: int) -> bool:
        """What a fake quant does that is off: it hands on what it is given."""
        return key in self._quantizers and key not in self._on

    def _handed_on(self, key: int, x: Any) -> Any:
        if key not in self._copying or not isinstance(x, Tensor):
            return x
        self._aside += 1
        copy = x.clone()
        if self._mode == "record":
            self._copied.append((key, x, copy, x._version, copy._version))
        self._aside -= 1
        return copy

    def _weight(self, key: int, usual: Any, args: Any, kwargs: Any) -> Any:
        known = self._weight_results.get(key)
        if known is not None:
            return known
        self.computed += 1
        with self._looked_away():
            out = usual(*args, **kwargs)
        if self._steady.get(key):
            self._weight_results[key] = out
        return out

    def _recorded(self, what: Any, usual: Any, args: Any, kwargs: Any) -> Any:
        index, call = len(self._calls), _Call(what)
        self._calls.append(call)
        with self._looked_away():
            given = list(_tensors((args, kwargs)))
            versions = [t._version for t in given]
            if isinstance(what, nn.Module):
                self._count_call(index, what, args)
                call.passed = self._passes(id(what))
            state = torch.get_rng_state() if self._draws else None
        started = time.perf_counter()
        out = self._compute(what, usual, args, kwargs)
        call.seconds = time.perf_counter() - started
        call.end = len(self._calls) - 1
        with self._looked_away():
            if state is not None:
                after = torch.get_rng_state()
                call.random_state = None if torch.equal(after, state) else after
            # Nothing begins between the last fake quant inside and the end: of no use.
            for inner in self._calls[max(index, self._last_quantizer) + 1 :]:
                self._drop(inner)
            if versions == [t._version for t in given]:
                self._keep(call, out, given)
        return out

    def _count_call(self, index: int, module: nn.Module, args: Any) -> None:
        key = id(module)
        self._first.setdefault(key, index)
        self._count[key] = self._count.get(key, 0) + 1
        if key in self._quantizers:
            self._last_quantizer = index
        if key in self._weights and args:
            self._look_at_weight(key, args[0])

    def _replayed(self, what: Any, usual: Any, args: Any, kwargs: Any) -> Any:
        index, self._at = self._at, self._at + 1
        if index > self._cut:
            return self._compute(what, usual, args, kwargs)
        call = self._calls[index]
        if call.what != what:
            raise Diverged
        if index == self._cut:
            out = self._compute(what, usual, args, kwargs)
            with self._looked_away():
                if self._count[id(what)] == 1 and self._equals_baseline(call, args, out):
                    raise Unchanged
            return out
        if call.end >= self._cut:  # the switched fake quant is inside
            return self._compute(what, usual, args, kwargs)
        self._aside += 1
        try:
            if call.usable:
                self._at = call.end + 1
                if call.random_state is not None:
                    torch.set_rng_state(call.random_state)
                return call.result()
        finally:
            self._aside -= 1
        out = self._compute(what, usual, args, kwargs)
        if self._at != call.end + 1:
            raise Diverged
        return out

    @contextmanager
    def _looked_away(self) -> Iterator[None]:
        """What is called inside is no call of the tape's."""
        self._aside += 1
        try:
            yield
        finally:
            self._aside -= 1

    def _equals_baseline(self, call: _Call, args: Any, out: Any) -> bool:
        """Whether the switched fake quant gives what it gave in the baseline: there it was off, and
        gave back its input, or its result was kept."""
        if not (call.passed or call.usable):
            return False
        kept = args[0] if call.passed else call.result()
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

    def _keep(self, call: _Call, out: Any, given: list[Tensor]) -> None:
        leaves, spec = ([out], None) if isinstance(out, Tensor) else tree_flatten(out)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        known = all(isinstance(leaf, (Tensor, *_PLAIN)) for leaf in leaves)
        handed_on = any(one is two for one in tensors for two in given)
        if not known or not tensors or handed_on:
            return  # computed whenever it is needed
        call.leaves, call.spec = leaves, spec
        call.versions = [t._version for t in tensors]
        for tensor in tensors:
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
            count, size = self._held.pop(pointer)
            if count > 1:
                self._held[pointer] = (count - 1, size)
            else:
                self._bytes -= size
        call.forget()


def _slow_to_pool(args: Any) -> bool:
    x = args[0] if args else None
    return (
        type(x) is Tensor
        and x.dim() == 4
        and x.dtype is torch.float32
        and x.device.type == "cpu"
        and x.is_contiguous()
    )


def _max_pool(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    pooled: Tensor = F.max_pool2d(x.contiguous(memory_format=torch.channels_last), *args, **kwargs)
    return pooled.contiguous()


def _tensors(value: Any) -> Iterator[Tensor]:
    """Those in arguments; quicker than torch's own way through any container."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif not isinstance(value, _PLAIN):
        yield from (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor))


def _other_random_states(device: torch.device) -> tuple[Any, ...]:
    """Of Python, NumPy and the model's device; that of the CPU is put right call by call."""
    numpy: Any = np.random.get_state()
    states: list[Any] = [random.getstate(), numpy[1].tobytes(), numpy[2:]]
    if device.type != "cpu":
        read = getattr(torch.get_device_module(device), "get_rng_state", None)
        states += [read(device).tolist()] if read is not None else []
    return tuple(states)
