"""What goes in: the trained model and its data."""
