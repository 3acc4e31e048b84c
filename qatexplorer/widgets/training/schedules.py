"""Fields for what a run does over time: freezes, delays, learning rate, smoothing, averaging."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

from qatexplorer.errors import InputError
from qatexplorer.runs.config import OPTIMIZERS, SCHEDULERS, TrainingConfig
from qatexplorer.session.session import Session
from qatexplorer.widgets.common.controls import labelled, row

_CONSTANT = "constant"
_BEFORE = "0-based; before it nothing is rounded, and only the observers work"
_BEFORE_UNOBSERVED = "0-based; before it nothing is rounded: float training"


class ScheduleFields(widgets.VBox):
    """:meth:`settings` gives keyword arguments for ``session.start_training``.

    Freezes are here too, so that a panel needs only epochs and learning rate besides.
    """

    def __init__(self) -> None:
        self.optimizer = labelled(
            widgets.Dropdown(options=OPTIMIZERS, value="adam"), "Optimizer", width="170px"
        )
        self.scheduler = labelled(
            widgets.Dropdown(options=(_CONSTANT, *SCHEDULERS)),
            "Learning rate over time",
            "cosine and linear fall to 0; step is a tenth at half and at three quarters",
            width="260px",
        )
        self.warmup = labelled(
            widgets.BoundedIntText(0, min=0, max=1_000_000),
            "Warm-up steps",
            "Steps over which the learning rate rises to its value",
            width="180px",
        )
        self.fake_quant_start = labelled(
            widgets.BoundedIntText(0, min=0, max=10_000),
            "Fake quants on from epoch",
            _BEFORE,
            width="240px",
        )
        self.freeze_observers = _epoch_field(
            "Freeze observers from epoch",
            "0-based epoch from which on the observers' ranges stand still; empty is never",
        )
        self.freeze_bn = _epoch_field(
            "Freeze BN statistics from epoch",
            "0-based epoch from which on batch-norm running statistics stand still",
        )
        self.smoothing = _number_field("Label smoothing", "0 to below 1; empty is none", "none")
        self.clip = _number_field(
            "Gradient norm at most", "2-norm of all gradients together; empty is no limit", "any"
        )
        self.ema = _number_field(
            "EMA decay",
            "Moving average of the weights that evaluation and the end see, such as 0.999; "
            "ranges of fake quants are copied, not averaged; empty is none",
            "none",
        )
        self.every = labelled(
            widgets.BoundedIntText(0, min=0, max=10_000_000),
            "Checkpoint every … steps",
            "Besides those at each epoch's end, pause, stop and failure; 0 is those only",
            width="240px",
        )
        self.sampled = labelled(
            widgets.BoundedIntText(10, min=0, max=10_000_000),
            "Sample every … steps",
            "How often the fake quants are looked at while the model trains; 0 is never",
            width="240px",
        )
        super().__init__(
            [
                row(self.optimizer, self.scheduler, self.warmup),
                row(self.fake_quant_start, self.freeze_observers, self.freeze_bn),
                row(self.smoothing, self.clip, self.ema, self.every, self.sampled),
                self._weight_fields(),
            ]
        )

    def _weight_fields(self) -> Any:
        """The row of what is done about weights that oscillate."""
        self.dampen = _number_field(
            "Dampen weights by",
            "Pulls weights to the values of their codes, so that fewer oscillate; the factor rises "
            "from 0 over the run; empty is none",
            "none",
        )
        self.freeze_weights = _number_field(
            "Freeze weights above",
            "A weight is frozen once its rate of reversals (1 is one in every step) is above this, "
            "such as 0.02; empty freezes none",
            "none",
        )
        self.oscillation = labelled(
            widgets.Dropdown(options=("sampled", "every step")),
            "Oscillation",
            "sampled: of some weights, in the steps that are sampled; every step: the published "
            "rate of reversals of every weight, which costs time in each step",
            width="210px",
        )
        return row(self.dampen, self.freeze_weights, self.oscillation)

    def use(self, session: Session | None, suggested: dict[str, Any] | None = None) -> None:
        """Fill the fields from ``suggested`` (fields of TrainingConfig), else with defaults."""
        self.follow(session)
        config = TrainingConfig()
        value = {name: getattr(config, name) for name in config.__dataclass_fields__}
        value |= {k: v for k, v in (suggested or {}).items() if k in value}
        self.optimizer.value = value["optimizer"] if value["optimizer"] in OPTIMIZERS else "adam"
        named = value["scheduler"] in SCHEDULERS
        self.scheduler.value = value["scheduler"] if named else _CONSTANT
        self.warmup.value = value["warmup_steps"]
        self.fake_quant_start.value = value["fake_quant_start_epoch"]
        self.freeze_observers.value = _text(value["freeze_observer_epoch"])
        self.freeze_bn.value = _text(value["freeze_bn_epoch"])
        self.smoothing.value = _text(value["label_smoothing"] or None)
        self.clip.value = _text(value["clip_grad_norm"])
        self.ema.value = _text(value["ema_decay"])
        self.dampen.value = _text(value["dampen_weights"] or None)
        self.freeze_weights.value = _text(value["freeze_weights"])
        self.oscillation.value = value["oscillation"]
        self.every.value = value["checkpoint_every"]
        self.sampled.value = value["telemetry_every"]

    def follow(self, session: Session | None) -> None:
        """Offer what means something in the session's flow."""
        observers = session is None or session.flow.calibrates
        self.freeze_observers.layout.display = "" if observers else "none"
        self.fake_quant_start.tooltip = _BEFORE if observers else _BEFORE_UNOBSERVED

    def settings(self) -> dict[str, Any]:
        """What the fields say. Raises InputError for text that is no number."""
        schedule = None if self.scheduler.value == _CONSTANT else self.scheduler.value
        return {
            "optimizer": self.optimizer.value,
            "scheduler": schedule,
            "warmup_steps": self.warmup.value if schedule else 0,
            "fake_quant_start_epoch": self.fake_quant_start.value,
            "freeze_observer_epoch": _epoch(self.freeze_observers),
            "freeze_bn_epoch": _epoch(self.freeze_bn),
            "label_smoothing": _number(self.smoothing) or 0.0,
            "clip_grad_norm": _number(self.clip),
            "ema_decay": _number(self.ema),
            "dampen_weights": _number(self.dampen) or 0.0,
            "freeze_weights": _number(self.freeze_weights),
            "oscillation": self.oscillation.value,
            "checkpoint_every": self.every.value,
            "telemetry_every": self.sampled.value,
        }


def _epoch_field(label: str, tip: str) -> Any:
    return labelled(widgets.Text("", placeholder="never"), label, tip, width="255px")


def _number_field(label: str, tip: str, empty: str) -> Any:
    return labelled(widgets.Text("", placeholder=empty), label, tip, width="210px")


def _text(value: Any) -> str:
    return "" if value is None else f"{value:g}"


def _epoch(field: Any) -> int | None:
    text = field.value.strip()
    if not text or text.lower() == "never":
        return None
    if not text.isdigit():
        raise InputError(
            f"“{field.description}” is {text!r}.",
            fix="Write a whole number (0 is from the start), or leave it empty for never.",
        )
    return int(text)


def _number(field: Any) -> float | None:
    text = field.value.strip()
    if not text or text.lower() in ("none", "any"):
        return None
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"“{field.description}” is {text!r}.",
            fix="Write a number, or leave it empty.",
        ) from None
