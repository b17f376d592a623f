"""Headquarters: the command line, the service, the store."""
