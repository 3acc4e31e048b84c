"""What the trained model is worth: metric, size, latency, and whether it runs in int8."""
