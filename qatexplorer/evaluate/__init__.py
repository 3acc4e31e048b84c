"""Metric, size, latency and the int8 run."""
