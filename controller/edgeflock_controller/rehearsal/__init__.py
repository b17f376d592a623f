"""A rollout before it happens: the real rules on simulated boards that behave as the fleet was recorded. Pure."""
