"""Compression passes: one short file with one function each, listed in `table`."""
