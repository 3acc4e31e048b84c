"""The panel that edits qconfigs."""
