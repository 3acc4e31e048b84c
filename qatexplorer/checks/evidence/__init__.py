"""Evidence that rules share: a function of the subject each, made once in a check."""
