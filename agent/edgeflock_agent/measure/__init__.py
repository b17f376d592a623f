"""Honest measurements on a board: latency, memory, energy, and the conditions they were taken under."""
