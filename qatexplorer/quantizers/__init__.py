"""What is true of one fake quant, and of the engines."""
