"""The model as a graph of layers: read, rebuilt, counted, made narrower."""
