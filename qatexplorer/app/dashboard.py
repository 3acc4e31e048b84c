"""What ``notebooks/dashboard.ipynb`` shows: the explorer on the model the command line named."""

from __future__ import annotations

import os

from qatexplorer.errors import QatExplorerError
from qatexplorer.widgets.explorer.explorer import Explorer
from qatexplorer.zoo.base import OF_SESSION

MODEL_VARIABLE = "QATEXPLORER_MODEL"
EXAMPLE_VARIABLE = "QATEXPLORER_EXAMPLE"


def dashboard() -> Explorer:
    """The explorer on ``$QATEXPLORER_MODEL`` (``package.module:factory``), else on the embedded
    example ``$QATEXPLORER_EXAMPLE``, else on the first one.

    A factory that cannot be used is reported in the widget, which then shows the embedded example.
    """
    factory = os.environ.get(MODEL_VARIABLE, "")
    example = os.environ.get(EXAMPLE_VARIABLE, "")
    chosen = {"example": example} if example else {}
    if not factory:
        return Explorer(**chosen)
    from qatexplorer.app.load_model import load_factory

    try:
        loaded = load_factory(factory)
    except QatExplorerError as error:
        explorer = Explorer(**chosen)
        explorer.message.error(error)
        return explorer
    suggested = dict(loaded.suggested)
    given = {name: suggested.pop(name) for name in OF_SESSION if name in suggested}
    return Explorer(
        loaded.model, loaded.example_inputs, data=loaded.data, suggested=suggested, **given
    )
