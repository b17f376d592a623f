"""The rules of a rollout: the values, and reading them from a file."""
