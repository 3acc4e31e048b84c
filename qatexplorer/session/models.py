"""The session's own models: which exist, what they share, and how a stage is rebuilt.

At most one extra copy of the user's parameters is held until training starts: every stage up to
the last prepared one shares them with the pristine copy, because torch's stages never write to a
parameter. Training, and handing a model out, gives that model parameters of its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from torch import nn

from qatexplorer.errors import (
    QatExplorerError,
    StageError,
    TraceFailedError,
    UnsupportedTorchError,
)
from qatexplorer.evaluate.int8 import convert_error, place_in_walk, run_int8
from qatexplorer.evaluate.joins import JoinWatch
from qatexplorer.evaluate.parity import Parity, ParityRun
from qatexplorer.explain.translations import translate
from qatexplorer.flows.base import (
    Flow,
    FlowOptions,
    StageResult,
    copy_sharing_parameters,
    moved_to_cpu,
    own_parameters,
)
from qatexplorer.flows.copying import copied
from qatexplorer.flows.edits import Edit
from qatexplorer.forward.costs import count_macs
from qatexplorer.forward.preserve import preserved_rng, preserved_state
from qatexplorer.garbage import cycles_collected_later
from qatexplorer.quantizers.engine import quantized_engine
from qatexplorer.quantizers.facts import any_seen, never_observed
from qatexplorer.session.settings import Settings
from qatexplorer.shown import error_line
from qatexplorer.takehome.records import Action


@dataclass(frozen=True)
class Built:
    """A model at a stage, with what torch said on the way (``warnings``), and what it computes
    wrongly in int8 without a word (``joins``)."""

    result: StageResult
    warnings: tuple[str, ...] = ()
    joins: tuple[str, ...] = ()


Watching = Callable[[nn.Module], AbstractContextManager[Any]]
"""Looks at a model while it runs."""

OnStage = Callable[[str, Built], object]
"""Sees a stage that a torch call makes, with the model as it is then."""


class Models:
    """Holds the pristine copy, the model being worked on, and the converted ones.

    ``base`` is the pristine copy with the edits in force made, ``original`` the one without them;
    ``own_edits`` are those that copying the user's model has made in both.

    ``trained`` says whether a run has had the working model: from then on it is that of the train
    stage, and the prepared one before it is made anew when it is asked for. ``calibrated`` counts
    the samples that its observers were shown without training. ``done`` has both, in order;
    ``handed_out`` says whether the user has had the working model in hand.
    """

    def __init__(
        self, base: nn.Module, settings: Settings, own_edits: tuple[Edit, ...] = ()
    ) -> None:
        self.original = self.base = base
        self.own_edits = own_edits
        self.settings = settings
        self.work: nn.Module = base
        self.work_stage = self.flow.stage_names[0]
        self.converted: dict[str, nn.Module] = {}
        self.parity: Parity | None = None  # of the int8 model with the one it was made of
        self._viewed: tuple[str, nn.Module] | None = None
        self._macs: dict[str, int] | None = None
        self._handed_out: WeakValueDictionary[str, nn.Module] = WeakValueDictionary()
        self._restart()

    def _restart(self) -> None:
        self.work = copy_sharing_parameters(self.base)
        self.work_stage = self.flow.stage_names[0]
        self._owns_parameters = False
        self.trained = False
        self.calibrated = 0
        self.done: list[Action] = []
        self.handed_out = False
        self.forget_converted()
        self._viewed = None
        self._handed_out.clear()

    @property
    def flow(self) -> Flow:
        return self.settings.flow

    @property
    def options(self) -> FlowOptions:
        return self.settings.options

    @property
    def edits(self) -> tuple[Edit, ...]:
        """All that is changed in ``base`` against the user's model, in order."""
        return (*self.own_edits, *self.settings.edits)

    def reset(self, settings: Settings | None = None, base: nn.Module | None = None) -> None:
        """Start again from the pristine copy, with other settings, or edited anew, if given."""
        self.settings = settings or self.settings
        if base is not None:
            self.base, self._macs = base, None
        self._restart()

    def set_training(self, mode: bool) -> None:
        """Put the pristine copy and what is made of it into train or eval mode."""
        self.original.train(mode)
        self.base.train(mode)
        self._restart()

    @property
    def int8(self) -> nn.Module | None:
        """The int8 model, None before there is one."""
        return self.converted.get(self.flow.int8_stage)

    def forget_converted(self) -> None:
        """What was converted is no longer made of the working model."""
        self.converted.clear()
        self.parity = None

    def advance(self, stage: str, on_stage: OnStage) -> None:
        """Run the torch call that begins with ``stage``, the next one, to its last stage.

        ``on_stage`` sees each stage that the call makes, with the model as it is then. If torch's
        call or ``on_stage`` (which may run the model) raises, the working model is as it was
        before. Raises StageError (ConvertError, Int8RunError) with the place in the user's model.
        """
        with cycles_collected_later():
            if stage in self.flow.converted_stages:
                compared = self.comparison() if stage == self.flow.int8_stage else None
                watching = compared.watching if compared is not None else None
                built = self.convert_copy(copy_sharing_parameters(self.work), stage, watching)
                on_stage(stage, built)
                self.converted[stage] = built.result.model
                if compared is not None:
                    self.parity = compared.parity
            else:
                self._prepare(stage, on_stage)

    def comparison(self) -> ParityRun | None:
        """The working model, run once with its fake quants on, to compare an int8 model with. None
        where its observers have seen nothing, or it does not run."""
        if self.never_observed:
            return None
        try:
            return ParityRun(self.work, self.options.example_inputs)
        except Exception:  # converting says what is wrong
            return None

    def _prepare(self, stage: str, on_stage: OnStage) -> None:
        # A model that was handed out stays what its user took it for, and what the user has done
        # to it goes on to the later stages. Training is what it was handed out for.
        in_users_hands = self._owns_parameters and stage != self.flow.train_stage
        model = copied(self.work) if in_users_hands else self.work
        at, last = stage, self.flow.call_of(stage)[-1]
        result: StageResult | None = None

        def passing(name: str, now: StageResult) -> None:
            nonlocal at, result
            at, result = name, now
            on_stage(name, Built(now))
            following = self.flow.stage_names[self.flow.stage_names.index(name) + 1]
            at, result = following, None

        try:
            with _quietly() as warned, preserved_rng():
                done = self.flow.apply(last, model, self.options, passing)
            at, result = last, done
            on_stage(last, Built(done, tuple(warned)))
        except Exception as error:
            explained = self._stage_error(at, error, model, result)
            if model is self.work:  # a stage that fails half way leaves it half changed
                self.work = self.rebuild(self.work_stage)
            if explained is error:
                raise
            raise explained from error
        self.work, self.work_stage = done.model, last

    def convert_copy(
        self, candidate: nn.Module, stage: str = "", watching: Watching | None = None
    ) -> Built:
        """Convert ``candidate`` (given up by the caller) and run the result once.

        ``stage`` is one of the flow's converted stages, the int8 stage by default. The run is made
        within ``watching(model)``.

        Raises ConvertError if torch's convert raises, Int8RunError if the result does not run.
        """
        stage = stage or self.flow.int8_stage
        candidate = moved_to_cpu(candidate)  # torch's int8 kernels run there
        engine = self.options.qconfig.backend
        with _quietly() as warned, preserved_rng():
            with quantized_engine(engine):
                try:
                    result = self.flow.apply(stage, candidate, self.options, _nothing_seen)
                except QatExplorerError:
                    raise
                except Exception as error:
                    raise convert_error(error, candidate) from error
            # A traced batch norm may learn in eval mode too.
            watch = watching(result.model) if watching is not None else nullcontext()
            with preserved_state(result.model), JoinWatch(result.model) as joins, watch:
                run_int8(result.model, self.options.example_inputs, engine)
        return Built(result, tuple(warned), joins.notes)

    def _stage_error(
        self, stage: str, error: Exception, model: nn.Module, result: StageResult | None
    ) -> QatExplorerError:
        if isinstance(error, (TraceFailedError, UnsupportedTorchError)):
            return error
        call = self.flow.stage(stage).call
        if result is None:
            translated = self.translated(error, model)
            message = f"stage {stage!r} failed in {call}: {translated.message}"
        else:
            translated = self.translated(error, result.model)
            message = f"after stage {stage!r} the model does not run: {translated.message}"
            origin_path = result.origin(translated.where or "")
            if translated.where and origin_path in dict(self.base.named_modules()):
                translated.where = origin_path
        return type(translated)(
            message, where=translated.where, why=translated.why, fix=translated.fix
        )

    def translated(self, error: Exception, model: nn.Module) -> QatExplorerError:
        """``error`` as one of ours, with place and fix."""
        if isinstance(error, QatExplorerError):
            return error
        place = place_in_walk(error, model)
        explained = translate(error, place, in_fx=not self.flow.offers_stubs)
        message = error_line(error, 300)
        return StageError(message, where=place.path, why=explained.why, fix=explained.fix)

    def engine(self) -> AbstractContextManager[Any]:
        """The quantized engine that the int8 model runs on; the user's is put back."""
        return quantized_engine(self.options.qconfig.backend)

    @property
    def untouched(self) -> bool:
        """Whether nothing but the stages has had the working model in hand."""
        return not self._owns_parameters

    @property
    def observed(self) -> bool:
        """Whether any fake quant or observer of the working model has seen data, or there is none
        that has to."""
        return any_seen(self.work) or not self.flow.calibrates

    @property
    def never_observed(self) -> bool:
        """Whether observers of the working model need data and none of them has seen any."""
        return never_observed(self.work)

    @property
    def macs(self) -> Mapping[str, int]:
        """:func:`~qatexplorer.forward.costs.count_macs` of the float model, counted once."""
        if self._macs is None:
            self._macs = count_macs(self.base, self.options.example_inputs)
        return self._macs

    def own_work(self) -> nn.Module:
        """The working model, with parameters that nothing else shares: safe to train."""
        if not self._owns_parameters:
            own_parameters(self.work)
            self._owns_parameters = True
        return self.work

    def rebuild(
        self, stage: str, *, own: bool = False, options: FlowOptions | None = None
    ) -> nn.Module:
        """A model at ``stage`` made anew from the pristine copy; int8 is never made this way."""
        chosen = options or self.options
        model = copy_sharing_parameters(self.base)
        with _quietly(), preserved_rng():
            for name in self.flow.calls_to(stage):
                model = self.flow.apply(name, model, chosen).model
        if own:
            own_parameters(model)
        return model

    def view(self, stage: str, *, own: bool = False) -> nn.Module:
        """The model of ``stage``: the working one, a converted one, or one made anew.

        ``own`` gives it parameters that nothing else shares.
        """
        if stage in self.converted:
            converted = self.converted[stage]
            if own and self._handed_out.get(stage) is not converted:
                own_parameters(converted)
                self._handed_out[stage] = converted
            return converted
        # Up to training, the prepared model is the same at the stage before it.
        waiting = stage == self.flow.prepared_stage and self.work_stage == self.flow.train_stage
        if stage == self.work_stage or (waiting and not self.trained):
            self.handed_out = self.handed_out or own
            return self.own_work() if own else self.work
        if own:
            # Held by the user alone: going back must not keep another copy of the weights.
            model = self._handed_out.get(stage)
            if model is None:
                self._handed_out[stage] = model = self.rebuild(stage, own=True)
            return model
        if self._viewed is None or self._viewed[0] != stage:
            self._viewed = (stage, self.rebuild(stage))
        return self._viewed[1]


def _nothing_seen(_stage: str, _result: StageResult) -> None:
    """Converting makes one stage a call."""


@contextmanager
def _quietly() -> Iterator[list[str]]:
    """Collect torch's warnings instead of printing them; the known noise is dropped."""
    warned: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield warned
    warned += dict.fromkeys(
        str(w.message).strip() for w in caught if not any(n in str(w.message) for n in _NOISE)
    )


_NOISE = (
    "torch.ao.quantization is deprecated",
    "reduce_range will be deprecated",
    "will be removed in a future PyTorch release",
    "`isinstance(treespec, LeafSpec)` is deprecated",
    "`torch.jit.script_method` is deprecated",
)
