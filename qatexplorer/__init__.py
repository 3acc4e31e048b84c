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
from qatexplorer.errors import QatExplorerError

if TYPE_CHECKING:
    from qatexplorer import zoo
    from qatexplorer.data import Data
    from qatexplorer.ledger import Ledger, ledger_of
    from qatexplorer.runs.opened import OpenedRun, list_runs, open_run
    from qatexplorer.runs.records import TrainingConfig
    from qatexplorer.session.session import Session, SessionEvent
    from qatexplorer.snapshot.diff import Diff, diff
    from qatexplorer.snapshot.records import FakeQuantSite, Graph, ModuleRecord, Snapshot
    from qatexplorer.telemetry.watching import Watch, watch
    from qatexplorer.training.run import TrainingRun
    from qatexplorer.widgets.explorer.explorer import Explorer

__all__ = [
    "Data",
    "Diff",
    "FakeQuantSite",
    "Graph",
    "Ledger",
    "ModuleRecord",
    "OpenedRun",
    "QatExplorerError",
    "Session",
    "SessionEvent",
    "Snapshot",
    "TrainingConfig",
    "TrainingRun",
    "Watch",
    "__version__",
    "diff",
    "errors",
    "explore",
    "ledger_of",
    "list_runs",
    "open_run",
    "running",
    "watch",
    "zoo",
]

# Loaded when first asked for: the command line starts servers, which need no torch.
_LAZY = {
    "Data": "qatexplorer.data",
    "Diff": "qatexplorer.snapshot.diff",
    "FakeQuantSite": "qatexplorer.snapshot.records",
    "Graph": "qatexplorer.snapshot.records",
    "Ledger": "qatexplorer.ledger",
    "ModuleRecord": "qatexplorer.snapshot.records",
    "OpenedRun": "qatexplorer.runs.opened",
    "Session": "qatexplorer.session.session",
    "SessionEvent": "qatexplorer.session.session",
    "Snapshot": "qatexplorer.snapshot.records",
    "TrainingConfig": "qatexplorer.runs.records",
    "TrainingRun": "qatexplorer.training.run",
    "Watch": "qatexplorer.telemetry.watching",
    "diff": "qatexplorer.snapshot.diff",
    "ledger_of": "qatexplorer.ledger",
    "list_runs": "qatexplorer.runs.opened",
    "open_run": "qatexplorer.runs.opened",
    "watch": "qatexplorer.telemetry.watching",
}


def __getattr__(name: str) -> Any:
    if name == "zoo":
        return importlib.import_module("qatexplorer.zoo")
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def running() -> tuple[Session, ...]:
    """Sessions of this kernel that train now or stand in a pause.

    A training goes on when its page is closed: ``qx.explore(qx.running()[0])`` shows it again.
    """
    from qatexplorer.session.running import training

    return training()


def explore(model: Any = None, example_inputs: Any = None, **settings: Any) -> Explorer:
    """The explorer as a widget: the last line of a notebook cell shows it.

    Args:
        model: your ``torch.nn.Module`` (copied, never changed); None opens an embedded example; a
            :class:`Session` that exists is shown as it is, its training too (:func:`running`).
        example_inputs: what you would pass to the model: tensor, tuple or dict.
        settings: ``data=``, ``qconfig=``, … as for :class:`Session`; ``suggested=`` fills the
            fields of the training panel, ``example=`` names the embedded example.

    Returns the widget; ``explorer.session`` is the session behind it. Input that cannot be used
    shows its message in the widget and raises nothing.
    """
    from qatexplorer.widgets.explorer.explorer import Explorer

    return Explorer(model, example_inputs, **settings)
