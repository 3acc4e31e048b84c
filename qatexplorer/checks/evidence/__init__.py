"""Evidence: what rules look at, each a function of the subject that is asked once a check."""
