"""Where accuracy is lost."""
