"""The rollout machine: what a rollout is, what each event does to it, and which devices it means. Pure."""
