"""The numbers of the int8 layer that is selected: made off the loop, one output after the other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from qatexplorer.errors import QatExplorerError, StageError
from qatexplorer.session.session import Session
from qatexplorer.views.inspector.int8_layer import Int8Section
from qatexplorer.widgets.common.background import in_background
from qatexplorer.widgets.common.bridge import Bridge

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Chosen:
    """Which output of a layer is worked out; None for the place is one that shows much."""

    path: str = ""
    call: int = 0
    sample: int = 0
    output: tuple[int, ...] | None = None


class Int8Numbers:
    """Makes the section of the inspector; ``ready`` is called on the loop when there is more."""

    def __init__(self, bridge: Bridge, ready: Callable[[], None]) -> None:
        self._bridge, self._ready = bridge, ready
        self._chosen = _Chosen()
        self._shown: tuple[int, ...] = ()
        self._calls = 1
        self._making: tuple[nn.Module, str, int] | None = None
        self._failed: tuple[tuple[nn.Module, str, int], Exception] | None = None

    def forget(self) -> None:
        """Another session is shown."""
        self._chosen, self._failed = _Chosen(), None

    def section(self, session: Session, selection: str) -> Int8Section | None:
        """What is to be shown of ``selection``, None if it is no int8 layer. On any thread; runs
        nothing, but lets the model run in the background where that is needed."""
        path = session.int8_place(selection)
        if not path:
            return None
        if self._chosen.path != path:
            self._chosen = _Chosen(path)
        chosen = self._chosen
        run = session.known_int8_layer(path, chosen.call)
        if run is None:
            try:
                wanted = (session.int8, path, chosen.call)
            except StageError:  # reset meanwhile: another stage is about to be drawn
                return None
            if self._failed is not None and self._same(self._failed[0], wanted):
                return Int8Section(error=self._failed[1])
            self._make(session, wanted)
            return Int8Section()
        output, sizes = chosen.output, run.sizes
        if output is not None and len(output) == len(sizes):
            output = tuple(_inside(at, size) for at, size in zip(output, sizes, strict=True))
        layer = run.layer(output, _inside(chosen.sample, run.samples))
        if layer.worked is not None:
            self._shown = layer.worked.output
        self._calls = layer.calls
        return Int8Section(layer, run.samples, run.sizes)

    def choose(self, wanted: str) -> None:
        """What is typed into a field: ``"sample:<n>"``, ``"call:<n>"`` or
        ``"output:<axis>:<n>"``. Numbers that do not exist are taken to the nearest one."""
        what, _, rest = wanted.partition(":")
        words = rest.split(":")
        if not all(word.lstrip("-").isdigit() for word in words):
            self._ready()  # draws the number again that is in force
            return
        numbers = [int(word) for word in words]
        if what == "sample" and len(numbers) == 1:
            self._chosen = replace(self._chosen, sample=numbers[0])
        elif what == "call" and len(numbers) == 1:
            self._chosen = replace(self._chosen, call=_inside(numbers[0], self._calls))
        elif what == "output" and len(numbers) == 2 and numbers[0] < len(self._shown):
            axis, value = numbers
            place = [value if i == axis else at for i, at in enumerate(self._shown)]
            self._chosen = replace(self._chosen, output=tuple(place))
        self._ready()

    @staticmethod
    def _same(one: tuple[nn.Module, str, int], other: tuple[nn.Module, str, int]) -> bool:
        return one[0] is other[0] and one[1:] == other[1:]

    def _make(self, session: Session, wanted: tuple[nn.Module, str, int]) -> None:
        """Run the int8 model once, off the loop."""
        if self._making is not None and self._same(self._making, wanted):
            return
        self._making = wanted

        def body() -> None:
            try:
                session.int8_layer(wanted[1], call=wanted[2])
            except Exception as error:
                if not isinstance(error, QatExplorerError):
                    log.exception("the numbers of %s cannot be made", wanted[1])
                self._failed = (wanted, error)
            finally:
                if self._making is wanted:
                    self._making = None
            self._bridge.post("int8", self._ready)

        in_background(body, "int8-layer")


def _inside(number: int, size: int) -> int:
    """The nearest number from 0 to below ``size``."""
    return min(max(number, 0), max(size - 1, 0))
