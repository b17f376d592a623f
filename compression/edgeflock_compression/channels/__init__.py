"""Structured pruning: which units, channels and blocks live and die together, and how they are cut."""
