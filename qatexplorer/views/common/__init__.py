"""HTML, names, colours and sentences that several screens share."""
