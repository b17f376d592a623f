"""What may be said of a variant: metrics, paired tests, bounds, certificates."""
