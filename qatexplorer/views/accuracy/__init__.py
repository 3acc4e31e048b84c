"""Where accuracy is lost, as tables, figures and sentences."""
