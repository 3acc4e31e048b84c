"""What rules look at: a float model with its settings, and evidence that is gathered once.

Evidence is a function of the subject, such as one forward of the float model with all that
happened in it. Many rules share one: ``subject.get(float_run)`` makes it the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from torch import nn

from qatexplorer.data import Data
from qatexplorer.errors import QatExplorerError, StoppedError
from qatexplorer.flows.base import Flow, FlowOptions, Role, StageResult
from qatexplorer.flows.edits import Edit
from qatexplorer.shown import error_line
from qatexplorer.snapshot.records import Snapshot

T = TypeVar("T")


class Converted(Protocol):
    """A model at a converted stage, with what torch said on the way."""

    @property
    def result(self) -> StageResult: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...
    @property
    def joins(self) -> tuple[str, ...]: ...


class Maker(Protocol):
    """Makes models at a stage from the pristine copy; a session's ``Models`` does."""

    def rebuild(
        self, stage: str, *, own: bool = False, options: FlowOptions | None = None
    ) -> nn.Module: ...

    def convert_copy(
        self,
        candidate: nn.Module,
        stage: str = "",
        watching: Callable[[nn.Module], AbstractContextManager[Any]] | None = None,
    ) -> Converted: ...

    def translated(self, error: Exception, model: nn.Module) -> QatExplorerError: ...


class NoEvidence(Exception):
    """Why something could not be found out: the rules that need it are skipped."""


@dataclass
class Subject:
    """A session's model, as rules see it. They change nothing.

    Attributes:
        maker: makes prepared and int8 copies of it.
        base: the float model (a copy of the user's), in the user's mode.
        flow, options: the settings in force; ``options.example_inputs`` are the inputs.
        edits: what differs in ``base`` from the user's model, in order.
        data: the session's, None for none. loss, metric: the user's, None for the default.
        snapshots: of all stages reached, by name. stage: the one in view.
        work: the model being worked on (prepared, perhaps trained) and ``work_stage``, its stage.
        observed: whether any of its observers has seen data.
        int8: the session's int8 model, None before there is one.
        run: the newest training run, None before the first.
        calibrated: how many samples ``session.calibrate()`` has shown its observers.
        thorough: whether rules may take longer, and run models beyond the usual forwards.
        report: called with what is being done, now and then. should_stop: asked meanwhile.
    """

    maker: Maker
    base: nn.Module
    flow: Flow
    options: FlowOptions
    edits: tuple[Edit, ...] = ()
    data: Data | None = None
    loss: Any = None
    metric: Any = None
    snapshots: Mapping[str, Snapshot] = field(default_factory=dict)
    stage: str = ""
    work: nn.Module | None = None
    work_stage: str = ""
    observed: bool = False
    int8: nn.Module | None = None
    run: Any = None
    calibrated: int = 0
    thorough: bool = False
    report: Callable[[str], Any] = lambda _what: None
    should_stop: Callable[[], bool] = lambda: False
    _known: dict[Any, Any] = field(default_factory=dict, repr=False)

    def get(self, evidence: Callable[[Subject], T]) -> T:
        """``evidence(self)``, made once. Raises NoEvidence (made once, too) with its reason."""
        if evidence not in self._known:
            self.stop_if_asked()
            title = (evidence.__doc__ or evidence.__name__).partition("\n")[0].rstrip(".")
            self.report(title)
            try:
                self._known[evidence] = evidence(self)
            except (StoppedError, KeyboardInterrupt):
                raise
            except NoEvidence as error:
                self._known[evidence] = error
            except QatExplorerError as error:
                self._known[evidence] = NoEvidence(error.message)
            except Exception as error:
                self._known[evidence] = NoEvidence(error_line(error, 200))
        found = self._known[evidence]
        if isinstance(found, NoEvidence):
            raise found
        return found  # type: ignore[no-any-return]

    def stop_if_asked(self) -> None:
        """Raises StoppedError if the user has asked for it."""
        if self.should_stop():
            raise StoppedError("The check was stopped.")

    def layers(self, *types: type[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
        """(path, module) of the float model's modules of these types, each object once."""
        for path, module in self.base.named_modules():
            if not types or isinstance(module, types):
                yield path, module

    def stage_of(self, role: Role) -> str:
        """The flow's stage of that role; where it has none, the first of a later one."""
        stage = self.flow.stage_with(role)
        return stage.name if stage is not None else self.flow.prepared_stage
