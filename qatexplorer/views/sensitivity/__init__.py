"""A ranking of fake quants by what they cost, and what to leave in float, as pages."""
