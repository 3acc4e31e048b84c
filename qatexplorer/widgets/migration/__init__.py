"""The panel that takes the model through several flows."""
