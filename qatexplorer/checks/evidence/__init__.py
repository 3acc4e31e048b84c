"""Evidence: what a check finds out by running a model, once for all rules that ask."""
