"""What becomes of a trained model, for whoever has to confirm it."""

from __future__ import annotations

from qatexplorer.views.common.html import Html, join, tag


def starts_again_html(folder: str = "", what: str = "A changed qconfig starts") -> Html:
    """What ``what`` does where there is a trained model; ``folder`` is the name of its run folder,
    ``""`` where it has none."""
    kept = "It is kept: session.run.model has it until another run is started"
    kept += f", and the folder {folder} of the tab Runs for good." if folder else "."
    begins = f"{what} again from the float stage: the stages are made anew. "
    return join([tag("b", "There is a trained model. "), begins, kept])


def another_run_html(folder: str = "") -> Html:
    """What another run does where there is a trained model; ``folder`` as above."""
    kept = "session.run is then another run, and no folder keeps this one."
    if folder:
        kept = "session.run is then another run; "
        kept += f"the folder {folder} of the tab Runs keeps this one."
    return join([tag("b", "There is a trained model. "), kept])
