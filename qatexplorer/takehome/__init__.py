"""What a user takes home from a session: the walk as a plain script."""
