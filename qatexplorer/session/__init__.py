"""A model's way through a quantization flow: the one state object."""

from qatexplorer.session.session import Session, SessionEvent

__all__ = ["Session", "SessionEvent"]
