"""The one training loop, and what it makes small."""
