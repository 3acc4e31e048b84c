"""One forward of a model, watched."""
