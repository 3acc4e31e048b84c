"""What several screens share: the bridge to the page, controls, tables, plots, styles."""
