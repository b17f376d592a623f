"""What quantization shares: the rounding of the runtime, ranges, options layer by layer, what runs where."""
