"""Edits of the session's own copy of the float model. A family is a file here, and a line below."""

from qatexplorer.flows.edits import layers, norms, sharing
from qatexplorer.flows.edits.plan import EDITS, Change, Edit, Place, edit, make_edits, tried

__all__ = [
    "EDITS",
    "Change",
    "Edit",
    "Place",
    "edit",
    "layers",
    "make_edits",
    "norms",
    "sharing",
    "tried",
]
