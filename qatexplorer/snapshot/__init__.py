"""Immutable snapshots of a model, how they are taken, and how two are compared."""
