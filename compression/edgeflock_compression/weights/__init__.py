"""What passes on weights share: which weights, how they are made from what is trained, and the arithmetic."""
