"""The part of a session that changes settings, and says beforehand what they lead to."""

from __future__ import annotations

from typing import Any

from qatexplorer.flows import get_flow
from qatexplorer.flows.base import StubMode
from qatexplorer.flows.fusion import FusionRuns
from qatexplorer.flows.own_copy import in_plain_names_of
from qatexplorer.flows.own_qconfig import warn_of_post_training
from qatexplorer.flows.settings import changed_options
from qatexplorer.session.assess import Preflight, StubOption
from qatexplorer.session.stages import StageWalk
from qatexplorer.snapshot.records import Snapshot


class Configured(StageWalk):
    """Settings of a :class:`~qatexplorer.session.session.Session`."""

    def use_train_mode(self) -> Snapshot:
        """Put the session's copy into train mode (for a model given in eval mode)."""
        with self._lock:
            self._require_idle("change the mode")
            before = self.snapshot
            self._bench.set_training(True)
            self._start_over()
        self._show(before)
        return self.snapshot

    def configure(
        self,
        *,
        qconfig: Any = ...,
        stubs: StubMode | None = None,
        fusion: Any = None,
        engine: str | None = None,
        flow: str | None = None,
        **custom: Any,
    ) -> Snapshot:
        """Change settings and start again from the float stage; what is not given stays.

        ``fusion`` is a list of runs of module paths, or ``"auto"``. ``custom`` may be
        non_traceable, prepare_custom_config, convert_custom_config and backend_config, as at the
        start. Raises the InputError types (then nothing changes) and BusyError.
        """
        with self._lock:
            self._require_idle("change the settings")
            flow_now = self.flow if flow is None else get_flow(flow)
            given = {
                "qconfig": qconfig,
                "engine": engine,
                "stubs": stubs,
                "fusion": fusion,
                **custom,
            }
            given = {k: v for k, v in given.items() if v is not (... if k == "qconfig" else None)}
            given = in_plain_names_of(given, self._names)
            options = changed_options(self._bench.base, self.options, given)
            before = self.snapshot
            self.flow = flow_now
            self._bench.reset(options, flow_now)
            self._start_over()
        if "qconfig" in given:
            warn_of_post_training(self.options.qconfig, stacklevel=3)
        self._emit("config")
        self._show(before)
        if "qconfig" in given or "engine" in given:
            options.qconfig.warn(stacklevel=3)
        return self.snapshot

    @property
    def fusion(self) -> FusionRuns:
        """Runs of module paths that the fuse stage fuses."""
        return self.options.fusion

    def stub_options(self) -> tuple[StubOption, ...]:
        """Each way of getting int8 tensors into the model, tried on a copy, with its cost.

        Empty in a flow that quantizes the input by itself.
        """
        return self._assessor.stub_options() if self.flow.offers_stubs else ()

    def preflight(self) -> Preflight:
        """Convert a copy and run it once in int8: will this model get there after training?"""
        return self._assessor.preflight()
