"""Whose line raised, and torch's errors in plain words."""
