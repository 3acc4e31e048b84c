"""What a check found, on a page: counts, table, card, marks."""
