"""See what quantization-aware training does to your own PyTorch model, stage by stage.

>>> import qatexplorer as qx
>>> example = qx.zoo.load("digits_cnn")
>>> session = qx.Session(example.model, example.example_inputs, data=example.data)
>>> session.goto("insert")
>>> explorer = qx.explore(example.model, example.example_inputs, data=example.data)

Public is what ``__all__`` has: these names, their attributes without a leading underscore, and
those of the objects that they return. Everything else is private, whatever it is called, and can
change or move in any release.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from qatexplorer import errors
from qatexplorer._version import __version__
from qatexplorer.errors import QatExplorerError, QatExplorerWarning
from qatexplorer.reports import Draw, drawn_by

if TYPE_CHECKING:
    from qatexplorer import flows, studies, zoo
    from qatexplorer.accuracy.records import Comparison, Sensitivity
    from qatexplorer.checks.families.training import check_optimizer
    from qatexplorer.checks.records import Finding, Findings
    from qatexplorer.data import Data
    from qatexplorer.evaluate.benchmark_records import Benchmark
    from qatexplorer.evaluate.evaluation import Evaluation
    from qatexplorer.flows.base import StubMode
    from qatexplorer.flows.edits import Edit
    from qatexplorer.ledger import Ledger, ledger_of
    from qatexplorer.migration.make import migrate
    from qatexplorer.migration.records import Migration
    from qatexplorer.runs.config import TrainingConfig
    from qatexplorer.runs.opened import OpenedRun, list_runs, open_run
    from qatexplorer.session.session import Session, SessionEvent
    from qatexplorer.snapshot.diff import Diff, diff
    from qatexplorer.snapshot.overlay import Overlay
    from qatexplorer.snapshot.records import FakeQuantSite, Graph, ModuleRecord, Snapshot
    from qatexplorer.telemetry.watch import Watch, watch
    from qatexplorer.training.run import TrainingRun
    from qatexplorer.widgets.explorer.explorer import Explorer
    from qatexplorer.widgets.ledger.ledger import LedgerView

__all__ = [
    "Benchmark",
    "Comparison",
    "Data",
    "Diff",
    "Edit",
    "Evaluation",
    "FakeQuantSite",
    "Finding",
    "Findings",
    "Graph",
    "Ledger",
    "LedgerView",
    "Migration",
    "ModuleRecord",
    "OpenedRun",
    "Overlay",
    "QatExplorerError",
    "QatExplorerWarning",
    "Sensitivity",
    "Session",
    "SessionEvent",
    "Snapshot",
    "TrainingConfig",
    "TrainingRun",
    "Watch",
    "__version__",
    "check_optimizer",
    "dashboard",
    "diff",
    "errors",
    "explore",
    "flows",
    "ledger_of",
    "list_runs",
    "migrate",
    "open_run",
    "running",
    "studies",
    "watch",
    "zoo",
]

# Loaded when first asked for: the command line starts servers, which need no torch.
_LAZY = {
    "Benchmark": "qatexplorer.evaluate.benchmark_records",
    "Comparison": "qatexplorer.accuracy.records",
    "Data": "qatexplorer.data",
    "Diff": "qatexplorer.snapshot.diff",
    "Edit": "qatexplorer.flows.edits",
    "Evaluation": "qatexplorer.evaluate.evaluation",
    "FakeQuantSite": "qatexplorer.snapshot.records",
    "Finding": "qatexplorer.checks.records",
    "Findings": "qatexplorer.checks.records",
    "Graph": "qatexplorer.snapshot.records",
    "Ledger": "qatexplorer.ledger",
    "LedgerView": "qatexplorer.widgets.ledger.ledger",
    "Migration": "qatexplorer.migration.records",
    "ModuleRecord": "qatexplorer.snapshot.records",
    "OpenedRun": "qatexplorer.runs.opened",
    "Overlay": "qatexplorer.snapshot.overlay",
    "Sensitivity": "qatexplorer.accuracy.records",
    "Session": "qatexplorer.session.session",
    "SessionEvent": "qatexplorer.session.session",
    "Snapshot": "qatexplorer.snapshot.records",
    "TrainingConfig": "qatexplorer.runs.config",
    "TrainingRun": "qatexplorer.training.run",
    "Watch": "qatexplorer.telemetry.watch",
    "check_optimizer": "qatexplorer.checks.families.training",
    "diff": "qatexplorer.snapshot.diff",
    "ledger_of": "qatexplorer.ledger",
    "list_runs": "qatexplorer.runs.opened",
    "migrate": "qatexplorer.migration.make",
    "open_run": "qatexplorer.runs.opened",
    "watch": "qatexplorer.telemetry.watch",
}


def __getattr__(name: str) -> Any:
    if name in ("flows", "studies", "zoo"):
        return importlib.import_module(f"qatexplorer.{name}")
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _draw() -> Draw:
    return importlib.import_module("qatexplorer.views.report.page").report_html  # type: ignore[no-any-return]


drawn_by(_draw)


def running() -> tuple[Session, ...]:
    """Sessions of this kernel that train now or stand in a pause.

    A training goes on when its page is closed: ``qx.explore(qx.running()[0])`` shows it again.
    """
    from qatexplorer.session.running import training

    return training()


def explore(
    model: Any = None,
    example_inputs: Any = None,
    *,
    data: Any = None,
    flow: str | None = None,
    qconfig: Any = None,
    loss: Any = None,
    metric: Any = None,
    stubs: StubMode | None = None,
    fusion: Any = None,
    qat_mapping: Any = None,
    engine: str | None = None,
    non_traceable: Any = None,
    prepare_custom_config: Any = None,
    convert_custom_config: Any = None,
    backend_config: Any = None,
    quantizer: Any = None,
    base_config: Any = None,
    edits: Any = None,
    suggested: dict[str, Any] | None = None,
    example: str | None = None,
) -> Explorer:
    """The explorer as a widget: the last line of a notebook cell shows it.

    Args:
        model: your ``torch.nn.Module`` (copied, never changed); None opens an embedded example; a
            :class:`Session` that exists is shown as it is, its training too (:func:`running`).
        example_inputs: what you would pass to the model: tensor, tuple or dict.
        suggested: values for the fields of the training panel, by name.
        example: name of the embedded example to open first.

    All others are as for :class:`Session`; None is its default.

    Returns the widget; ``explorer.session`` is the session behind it. Input that cannot be used
    shows its message in the widget and raises nothing.
    """
    given = {k: v for k, v in locals().items() if k not in ("model", "example_inputs")}
    from qatexplorer.widgets.explorer.explorer import Explorer

    settings = {name: value for name, value in given.items() if value is not None}
    return Explorer(model, example_inputs, **settings)


def dashboard() -> Explorer:
    """The page of the command line: the explorer on what ``qatexplorer dashboard`` was started
    with."""
    from qatexplorer.app.dashboard import dashboard as page

    return page()


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext qatexplorer``: the magic ``%qat model``, see ``%qat?``; Tab completes."""
    from qatexplorer.app import magic

    magic.load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """``%unload_ext qatexplorer``."""
    from qatexplorer.app import magic

    magic.unload(shell)
