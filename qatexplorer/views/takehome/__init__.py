"""What was taken home, in words."""
