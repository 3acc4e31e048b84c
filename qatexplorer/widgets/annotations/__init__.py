"""The panel of what a quantizer has annotated."""
