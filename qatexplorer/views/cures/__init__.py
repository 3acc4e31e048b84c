"""Cures: what each would do, what one has done, and which are on, as pages."""
