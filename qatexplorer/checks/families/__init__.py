"""Families of rules. A new one is a file here, and a line below."""

from qatexplorer.checks.families import known, parity

__all__ = ["known", "parity"]
