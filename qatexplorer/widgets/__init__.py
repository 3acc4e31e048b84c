"""Widgets that show views and hand clicks on. They compute nothing."""
