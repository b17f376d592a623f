"""An agent that dies without its process: what a kernel closes then is closed when nobody holds the agent any more."""

from __future__ import annotations

from edgeflock_agent.agent import Agent


class MortalAgent(Agent):
    """The real agent. Its backlog keeps a file open, which a killed agent has no time to close."""

    def __del__(self) -> None:
        if "outbox" in vars(self):  # its making may have failed
            backlog = self.outbox._backlog
            for kind in backlog._streams:
                backlog._close(kind)
