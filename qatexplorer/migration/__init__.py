"""One float model through several flows: what each of them rounds, place by place."""
