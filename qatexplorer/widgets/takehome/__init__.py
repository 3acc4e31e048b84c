"""The panel that writes what is taken home."""
