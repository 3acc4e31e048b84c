"""Curves, telemetry and runs as figures and tables."""
