"""The life of one model on a device, as rules: pure, and apart from all that carries them out."""
