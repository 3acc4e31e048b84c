"""What the inspector says of one thing."""
