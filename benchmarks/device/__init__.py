"""Measurements of what a device does: serving, measuring, surviving."""
