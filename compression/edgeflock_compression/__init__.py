"""A model and a recipe in, variants with provenance out."""
