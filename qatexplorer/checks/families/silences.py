"""What :mod:`qatexplorer.checks.silence` finds itself."""

from __future__ import annotations

from qatexplorer.checks.rules import declare

declare(
    "QX990", "unused-silence", "info", "float",
    "A silence matches no finding.",
    """

    Symptom:
        A finding was silenced once, and nobody knows whether the reason still holds.
    Cause:
        An entry of the silence list names a rule and a path at which that rule finds nothing in
        this model: the model has been put right, or the path has changed.
    Fix:
        Remove the entry, or correct its path.
    Sources:
        https://docs.astral.sh/ruff/rules/unused-noqa/
    """,
)  # fmt: skip
