"""What the panel says while models are taken through the flows."""

from __future__ import annotations

NOTHING = (
    "One float model in several flows: which tensors each of them rounds, how, and what that does "
    "to the output. Copies are made; the session stays as it is."
)
GONE = "The model or its settings have changed since: take it through the flows again."
STOPPED = "Stopped; nothing is shown."
NO_FLOW = "Choose one flow at least."
