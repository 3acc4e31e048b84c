"""What each fake quant of a prepared model costs, measured in three ways."""
