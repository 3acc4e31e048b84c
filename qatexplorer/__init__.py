"""See what quantization-aware training does to your own PyTorch model, stage by stage.

>>> import qatexplorer as qx
>>> example = qx.zoo.load("digits_cnn")
>>> session = qx.Session(example.model, example.example_inputs, data=example.data)
>>> session.goto("insert")
>>> explorer = qx.explore(example.model, example.example_inputs, data=example.data)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qatexplorer import errors, zoo
from qatexplorer._version import __version__
from qatexplorer.data import Data
from qatexplorer.errors import QatExplorerError
from qatexplorer.session import Session, SessionEvent
from qatexplorer.snapshot.diff import Diff, diff
from qatexplorer.snapshot.records import FakeQuantSite, Graph, ModuleRecord, Snapshot
from qatexplorer.telemetry.watch import Watch, watch
from qatexplorer.training.records import TrainingConfig
from qatexplorer.training.run import TrainingRun

if TYPE_CHECKING:
    from qatexplorer.widgets.explorer import Explorer

__all__ = [
    "Data",
    "Diff",
    "FakeQuantSite",
    "Graph",
    "ModuleRecord",
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
    "watch",
    "zoo",
]


def explore(model: Any = None, example_inputs: Any = None, **settings: Any) -> Explorer:
    """The explorer as a widget: the last line of a notebook cell shows it.

    Args:
        model: your ``torch.nn.Module`` (copied, never changed); None opens the embedded example.
        example_inputs: what you would pass to the model: tensor, tuple or dict.
        settings: ``data=``, ``qconfig=``, … as for :class:`Session`.

    Returns the widget; ``explorer.session`` is the session behind it. Input that cannot be used
    shows its message in the widget and raises nothing.
    """
    from qatexplorer.widgets.explorer import Explorer

    return Explorer(model, example_inputs, **settings)
