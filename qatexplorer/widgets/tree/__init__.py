"""The module tree."""
