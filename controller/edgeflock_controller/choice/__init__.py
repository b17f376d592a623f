"""The variant per class: what is wanted of one, what boards measured of each, and which is chosen. Pure."""
