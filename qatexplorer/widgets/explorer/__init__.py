"""The explorer: all screens on one page, and the bar over the stages."""
