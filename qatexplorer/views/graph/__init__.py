"""The dataflow graph as a scene."""
