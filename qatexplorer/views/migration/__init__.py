"""One model through several flows, as a table and as a page."""
