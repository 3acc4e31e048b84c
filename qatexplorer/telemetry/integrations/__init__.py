"""Telemetry in other people's trainers and tools."""
