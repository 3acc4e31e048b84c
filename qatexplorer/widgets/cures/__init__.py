"""The panel of the cures."""
