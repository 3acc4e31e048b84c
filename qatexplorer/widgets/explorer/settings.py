"""The panel of settings: qconfig, how the input is quantized, what is fused."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any, cast

import ipywidgets as widgets

from qatexplorer.flows import FLOWS
from qatexplorer.flows.base import StubMode
from qatexplorer.flows.pt2e_quantizers import DEFAULT, QUANTIZERS, title_of
from qatexplorer.flows.torchao import BASE_CONFIGS, DEFAULT_BASE, base_name
from qatexplorer.quantizers.engine import available_engines
from qatexplorer.quantizers.engine_choice import default_backend
from qatexplorer.quantizers.engine_probe import probe_engines
from qatexplorer.session.assess import Preflight, StubOption
from qatexplorer.session.session import Session
from qatexplorer.views.common.engines import concern_html, engines_html
from qatexplorer.views.common.options import preflight_html, qconfig_words, stub_options_html
from qatexplorer.widgets.common.controls import Html, button, labelled, row

_STUBS = (
    ("The model as it is", "none"),
    ("Stubs around the whole model", "model"),
    ("add_quant_dequant around each layer", "layers"),
)
_KEEP = "as given"
_PROBED = "chosen for this CPU"
_OF_QCONFIG = "that of the qconfig"
_WILL_IT_RUN, _CAN_IT = "Will it run in int8?", "Can it be converted?"


class SettingsPanel(widgets.VBox):
    """Change what the next stages do; Apply starts again from the float stage."""

    def __init__(self, start_job: Callable[..., Any]) -> None:
        self._start_job = start_job
        self._session: Session | None = None
        self._make_choices()
        self.fusion = widgets.Textarea(
            description="Fuse",
            placeholder="one run a line: conv1, bn1, relu1",
            tooltip="Runs of modules to fuse, one a line, separated by commas",
        )
        self.fusion.layout.width, self.fusion.layout.height = "min(640px, 100%)", "120px"
        self.fusion.style.description_width = "60px"
        self.apply = button("Apply and start again", "Back to the float stage", primary=True)
        self.auto = button("Find runs again", "What the dataflow graph allows to fuse")
        self.compare = button("What does each way cost?", "Try each on a copy, up to int8")
        self.check = button(_WILL_IT_RUN, "Convert a copy and run it once")
        self.words = Html(kind="qx-muted")
        self.cannot = Html(kind="qx-muted")
        self.outcome = Html()
        self.engines = Html(kind="qx-engines")
        self.flow.observe(lambda _: self._offer(), "value")
        self.apply.on_click(lambda _: self._apply())
        self.auto.on_click(lambda _: self._find_again())
        self.compare.on_click(lambda _: self._try_each_way())
        self.check.on_click(lambda _: self._check())
        super().__init__(
            [
                self.words,
                row(self.flow, self.quantizer, self.base, self.qconfig, self.engine, self.stubs),
                self.cannot,
                self.fusion,
                row(self.apply, self.auto, self.compare, self.check),
                self.outcome,
                self.engines,
            ]
        )
        self.add_class("qx-panel")

    def _make_choices(self) -> None:
        self.flow = labelled(
            widgets.Dropdown(options=_flows()),
            "Flow",
            "which of torch's systems",
            width="330px",
        )
        self.qconfig = labelled(
            widgets.Dropdown(options=[_KEEP, _PROBED, *available_engines()]),
            "QConfig",
            "torch's default QAT qconfig of a backend, or the one that was given",
            width="250px",
        )
        self.quantizer = labelled(
            widgets.Dropdown(options=[(one.title, name) for name, one in QUANTIZERS.items()]),
            "Quantizer",
            "who says which operations are rounded, and how",
            width="430px",
        )
        self.base = labelled(
            widgets.Dropdown(options=[(one.title, name) for name, one in BASE_CONFIGS.items()]),
            "Base config",
            "what torchao trains the layers for, and converts them with",
            width="430px",
        )
        self.engine = labelled(
            widgets.Dropdown(options=[_OF_QCONFIG, *available_engines()]),
            "Int8 engine",
            "the library that runs the int8 model",
            width="270px",
        )
        self.stubs = labelled(
            widgets.Dropdown(options=_STUBS), "Input is quantized by", width="430px"
        )

    def use(self, session: Session | None) -> None:
        """Show the settings of ``session``."""
        self._session = session
        self.outcome.html = ""
        self.qconfig.value, self.engine.value = _KEEP, _OF_QCONFIG
        self.refresh()

    def refresh(self) -> None:
        """Fill the fields from the session."""
        if self._session is None:
            return
        options = self._session.options
        plan = options.qconfig
        if self._session.flow.offers_quantizer:
            self.words.html = f"In force: quantizer {escape(title_of(options.quantizer))}"
            self.engines.html = ""
        elif self._session.flow.kind() == "layers":
            self.words.html = f"In force: base config {escape(base_name(options.base_config))}"
            self.engines.html = ""
        else:
            words, concern = escape(qconfig_words(options)), concern_html(plan.concern)
            self.words.html = f"In force: {words}{concern}"
            self.engines.html = engines_html(probe_engines(), plan.backend, default_backend())
        self.check.description = _WILL_IT_RUN if self._to_int8 else _CAN_IT
        self.flow.value = self._session.flow.name
        self._offer()
        self.stubs.value = options.stubs
        self._show_quantizer(options.quantizer)
        self._show_base(options.base_config)
        self.fusion.value = "\n".join(", ".join(run) for run in options.fusion)

    @property
    def _to_int8(self) -> bool:
        """Whether the session's flow comes to int8."""
        return self._session is None or self._session.flow.result == "int8"

    def _offer(self) -> None:
        """Show the fields that mean something in the flow chosen."""
        flow = FLOWS[self.flow.value]()
        why = flow.unavailable()
        self.cannot.html = escape(f"{flow.title} cannot run here: {why}.") if why else ""
        self.apply.disabled = bool(why) or self._session is None
        for control in (self.qconfig, self.engine):
            control.layout.display = "" if flow.offers_qconfig else "none"
        self.quantizer.layout.display = "" if flow.offers_quantizer else "none"
        self.base.layout.display = "" if flow.kind() == "layers" else "none"
        for control in (self.stubs, self.compare):
            control.layout.display = "" if flow.offers_stubs else "none"
        for control in (self.fusion, self.auto):
            control.layout.display = "" if flow.offers_fusion else "none"

    def _show_quantizer(self, given: Any) -> None:
        """The one in force, an object of the user's own under the name of its class."""
        if given is None or isinstance(given, str):
            self.quantizer.value = given or DEFAULT
            return
        named = [(one.title, name) for name, one in QUANTIZERS.items()]
        self.quantizer.options = [*named, (f"yours: {type(given).__name__}", _KEEP)]
        self.quantizer.value = _KEEP

    def _show_base(self, given: Any) -> None:
        """As :meth:`_show_quantizer`, of the base config."""
        if given is None or isinstance(given, str):
            self.base.value = given or DEFAULT_BASE
            return
        named = [(one.title, name) for name, one in BASE_CONFIGS.items()]
        self.base.options = [*named, (f"yours: {base_name(given)}", _KEEP)]
        self.base.value = _KEEP

    def _lines(self) -> list[list[str]]:
        lines = (line.strip() for line in self.fusion.value.splitlines())
        return [[part.strip() for part in line.split(",")] for line in lines if line]

    def _apply(self) -> None:
        session = self._session
        if session is None:
            return
        flow = FLOWS[self.flow.value]
        changes: dict[str, Any] = {"flow": flow.name}
        if flow.offers_stubs:
            changes["stubs"] = cast(StubMode, self.stubs.value)
        if flow.offers_fusion:
            changes["fusion"] = self._lines()
        if flow.offers_quantizer and self.quantizer.value != _KEEP:
            changes["quantizer"] = self.quantizer.value
        if flow.kind() == "layers" and self.base.value != _KEEP:
            changes["base_config"] = self.base.value
        if self.qconfig.value != _KEEP:
            changes["qconfig"] = None if self.qconfig.value == _PROBED else self.qconfig.value
        if self.engine.value != _OF_QCONFIG:
            changes["engine"] = self.engine.value
        self._start_job("starting again", lambda _job: session.configure(**changes))

    def _find_again(self) -> None:
        session = self._session
        if session is not None:
            self._start_job("finding runs", lambda _job: session.configure(fusion="auto"))

    def _try_each_way(self) -> None:
        session = self._session
        if session is None:
            return

        def show(options: tuple[StubOption, ...]) -> None:
            self.outcome.html = stub_options_html(options, session.options.stubs)

        self._start_job("trying each way", lambda _job: session.stub_options(), show)

    def _check(self) -> None:
        session = self._session
        if session is None:
            return

        def show(flight: Preflight) -> None:
            self.outcome.html = f"<p>{what}: {preflight_html(flight)}</p>"

        what = "Runs in int8" if self._to_int8 else "Can be converted"
        self._start_job("trying to convert", lambda _job: session.preflight(), show)

    def set_enabled(self, enabled: bool) -> None:
        for control in (self.apply, self.auto, self.compare, self.check):
            control.disabled = not enabled or self._session is None
        self.apply.disabled = self.apply.disabled or bool(self.cannot.html)


def _flows() -> list[tuple[str, str]]:
    """Title and name; one that cannot run here says so."""
    made = ((name, flow()) for name, flow in FLOWS.items())
    return [(f"{f.title}{' (cannot run here)' if f.unavailable() else ''}", n) for n, f in made]
