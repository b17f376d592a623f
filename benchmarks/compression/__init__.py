"""Benchmarks of compression against the figures of papers. They train for minutes to hours; none is a test."""
