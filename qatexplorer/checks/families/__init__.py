"""Families of rules. A new one is a file here, and a line below."""

from qatexplorer.checks.families import known, ranges

__all__ = ["known", "ranges"]
