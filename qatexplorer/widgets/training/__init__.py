"""Training, live telemetry, runs and their results."""
