"""Families of rules. A new one is a file here, and a line below."""

from qatexplorer.checks.families import inputs, known, operations

__all__ = ["inputs", "known", "operations"]
