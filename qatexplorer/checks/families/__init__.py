"""Families of rules. A new one is a file here, and a line below."""

from qatexplorer.checks.families import hooks, inputs, known, operations

__all__ = ["hooks", "inputs", "known", "operations"]
