"""Families of rules. A new one is a file here, and a line below."""

from qatexplorer.checks.families import keeping, known, observers, settings, training

__all__ = ["keeping", "known", "observers", "settings", "training"]
