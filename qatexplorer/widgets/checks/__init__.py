"""The panel of checks, and what makes them in the background."""
