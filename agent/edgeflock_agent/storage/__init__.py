"""What is on the device's disk, and how it comes there and stays whole."""
