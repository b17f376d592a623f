"""Measurements that the documentation quotes. Each module prints one table and writes it to `results/`."""
