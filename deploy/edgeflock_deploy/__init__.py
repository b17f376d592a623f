"""What both ends agree on: messages, topics, bundles, transport, the runtime adapter, and the rules of a rollout.

This package imports nothing when it is imported: an inference child on a board pays only for what it uses.
"""
