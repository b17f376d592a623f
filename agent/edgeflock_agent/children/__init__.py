"""Models run here, each in a process of its own, and nowhere else."""
