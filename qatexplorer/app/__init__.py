"""The command line, the servers it starts and what they open."""
