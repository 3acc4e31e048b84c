"""Widgets that show views and hand clicks on, by screen. They compute nothing."""
