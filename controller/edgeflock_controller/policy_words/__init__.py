"""A policy explained: what its numbers mean, what a PASS and a FAIL take under it, what to doubt of it. Pure."""
