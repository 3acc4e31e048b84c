"""Where accuracy is lost: float, fake quant and int8 compared, and what each fake quant costs."""
