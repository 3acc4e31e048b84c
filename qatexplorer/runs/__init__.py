"""A run of training on disk."""
