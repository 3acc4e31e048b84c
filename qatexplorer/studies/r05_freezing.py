"""R5: when to freeze batch norms and observers."""

from __future__ import annotations

from functools import partial

from qatexplorer.studies.base import Arm, Reading, Row, Study, Values
from qatexplorer.studies.bench import Bench, measured
from qatexplorer.zoo.digits_depthwise import per_tensor_qconfig

EPOCHS = 6
SCHEDULES: dict[str, tuple[int | None, int | None]] = {
    "never": (None, None),
    "recipe": (3, 4),
    "batch norms 0": (0, None),
    "batch norms 1": (1, None),
    "batch norms 3": (3, None),
    "observers 0": (None, 0),
    "observers 1": (None, 1),
    "observers 3": (None, 3),
}
"""Epochs at which batch norms and observers freeze."""


def frozen(name: str, seed: int, bench: Bench) -> Values:
    """Calibrated, then trained; all arms have the same number of epochs, with any effort."""
    batch_norms, observers = SCHEDULES[name]
    session = bench.session("digits_depthwise", seed, qconfig=per_tensor_qconfig())
    session.calibrate()
    session.train(
        EPOCHS,
        lr=1e-3,
        freeze_bn_epoch=batch_norms,
        freeze_observer_epoch=observers,
        seed=seed,
        telemetry_every=0,
        progress=False,
    )
    return {name: measured(session, "int8")["int8"]}


STUDY = Study(
    "R5",
    "When to freeze batch norms and observers",
    "Batch norms are frozen after epoch 3 and observers after epoch 4.",
    "pytorch/vision, references/classification/README.md (a recipe; an ablation was not found)",
    f"digits_depthwise, calibrated first, {EPOCHS} epochs with each schedule; epochs count from 0; "
    "int8",
    tuple(Arm(f"freeze-{name.replace(' ', '-')}", partial(frozen, name)) for name in SCHEDULES),
    (
        Row("never", "nothing is frozen"),
        Row("recipe", "batch norms at epoch 3, observers at 4 (the recipe)"),
        *(
            Row(name, f"{name[:-2]} at epoch {name[-1]}, nothing else")
            for name in SCHEDULES
            if name[-1] in "013"
        ),
    ),
    (
        Reading("the recipe is better than no freezing", "recipe", "never"),
        Reading("batch norms frozen at 3 are better than never", "batch norms 3", "never"),
        Reading("batch norms frozen at 0 are worse than at 3", "batch norms 3", "batch norms 0"),
        Reading("observers frozen at 3 are better than never", "observers 3", "never"),
        Reading("observers frozen at 0 are worse than at 3", "observers 3", "observers 0"),
    ),
    "the recipe is for ImageNet, ours are six epochs of 20 steps.",
)
