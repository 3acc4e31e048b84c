"""The QAT loop and what it records."""
