"""The judge: is the candidate worse than the incumbent, as the devices themselves measured it? Pure."""
