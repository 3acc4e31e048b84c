"""What the qconfig editor shows: what a rule is for, rules in force, what a change would do."""
