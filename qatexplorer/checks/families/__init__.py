"""Families of rules. A new one is a file here, and a line below."""

from qatexplorer.checks.families import known, observers, settings

__all__ = ["known", "observers", "settings"]
