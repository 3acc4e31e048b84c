"""Checks: what is wrong with a model's quantization, where, and how to put it right."""

from qatexplorer.checks import families

__all__ = ["families"]
