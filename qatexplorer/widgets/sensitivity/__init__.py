"""The panel of the sensitivity and of mixed precision."""
