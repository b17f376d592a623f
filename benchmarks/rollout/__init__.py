"""The judge against other ways to judge, on simulated boards."""
