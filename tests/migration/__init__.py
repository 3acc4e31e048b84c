"""One model through several flows."""
