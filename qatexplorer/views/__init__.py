"""Pure functions from snapshots and telemetry to rows, HTML and plotly figures."""
