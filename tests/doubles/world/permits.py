"""What operators have permitted, held by an outsider: whom a rollout is for, at which hours, and which of its stages.

A board that the selector does not mean is told nothing; where the policy has windows a board is asked in one of its own
and is left nothing for a later hour; nobody gets anything by a stage without the approval that it wants.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any, NamedTuple

from edgeflock_deploy.policy.rules import Policy, Stage
from world.agenda import Agenda

_DAY_S = 86_400


class Said(NamedTuple):
    """A word to a board, when it was said, and what was said to this board before, oldest first: (rollout, phase)."""

    board: str
    phase: str
    rollout: str
    at_s: float
    before: tuple[tuple[str, str], ...]


class Permits:
    """Knows what was permitted.

    Args:
        agenda: the time.
        begin_s: when the world began, in seconds since 1970.
        zones_s: what each board's local time is ahead of UTC.
        sites: what each board says of its place.
    """

    def __init__(
        self, agenda: Agenda, begin_s: float, zones_s: Mapping[str, int], sites: Mapping[str, str | None]
    ) -> None:
        self._agenda, self._begin_s, self._zones_s, self._own = agenda, begin_s, zones_s, sites
        self._sites = {board: [(0.0, site)] for board, site in sites.items()}
        self._unsure: set[str] = set()
        self._approved: dict[str, set[int]] = defaultdict(set)

    def approved(self, rollout: str, stage: int) -> bool:
        """Somebody approves a stage, from 1; whether nobody had before."""
        new = stage not in self._approved[rollout]
        self._approved[rollout].add(stage)
        return new

    def refused_to_approve(self, rollout: str, stage: int) -> None:
        """The first to approve a stage was refused."""
        self._approved[rollout].discard(stage)

    def tagged(self, board: str, site: str | None) -> None:
        """Somebody says where a board is; None: takes back what was said."""
        self._sites[board].append((self._agenda.now_s, self._own[board] if site is None else site))

    def refused(self, board: str) -> None:
        """What was said last of a board's place was refused."""
        self._sites[board].pop()

    def unsure(self, board: str) -> None:
        """Nobody knows whether what was said last of a board's place was heard."""
        self._unsure.add(board)

    def against(self, said: Said, shown: Mapping[str, Any], policy: Policy, *, prompt: bool) -> Iterator[str]:
        """What is against the law in a word of a rollout that brings something.

        Args:
            said: the word.
            shown: its rollout as headquarters shows it.
            policy: its rules.
            prompt: whether nothing kept headquarters from saying it at once.
        """
        board, rollout = said.board, said.rollout
        since_s = shown["started_at"] - self._begin_s
        if not self._meant(board, shown["selector"], since_s, said.at_s):
            yield f"{board} is told to {said.phase} by {rollout}, which is for {shown['selector']}"
        elif not self._meant(board, shown["selector"], since_s, since_s):
            others = [name for name, _ in said.before if name != rollout]
            if others and len(others) == len(said.before):
                yield f"{board} is told to {said.phase} by {rollout}, which it joined after {others[-1]} had it"
        if policy.window and said.phase == "trial" and prompt and not self._open(policy, board, said.at_s):
            yield f"{board} is told to try {rollout} outside its maintenance windows"
        if policy.window and said.phase == "commit" and (rollout, "trial") not in said.before:
            yield f"{board} is left something of {rollout} for an hour that nobody knows"
        own = [phase for name, phase in said.before if name == rollout]
        if said.phase == "commit" and own[-1:] not in (["trial"], ["commit"]):  # left for whoever has not passed
            for number, stage in enumerate(policy.stage, start=1):
                if stage.approval and not self._is_approved(rollout, policy, number):
                    yield f"{board} is left something of {rollout}, whose stage {number} nobody approved"

    def too_far(self, rollout: str, shown: Mapping[str, Any], policy: Policy, given: int) -> str | None:
        """Whether so many boards have something of a rollout that a stage must have begun which nobody approved."""
        for number, stage in enumerate(policy.stage, start=1):
            if stage.approval and not self._is_approved(rollout, policy, number):
                before = _target(policy.stage[number - 2], shown["devices_total"]) if number > 1 else 0
                if given > before:
                    return f"{given} boards have something of {rollout}, whose stage {number} nobody approved"
                return None
        return None

    def _is_approved(self, rollout: str, policy: Policy, stage: int) -> bool:
        """Whether a stage was approved, from 1, or a later one in its place, which by itself wants no approval."""
        given = self._approved[rollout]
        unasked = [
            number for number, rules in enumerate(policy.stage, start=1) if number > stage and not rules.approval
        ]
        return stage in given or not given.isdisjoint(unasked)

    def _meant(self, board: str, selector: str, since_s: float, until_s: float) -> bool:
        """Whether a selector meant a board at some time of a stretch."""
        if selector == "all" or board in self._unsure:
            return True
        site = selector.partition("tag.site=")[2]
        ends = [*(at_s for at_s, _ in self._sites[board][1:]), float("inf")]
        return any(
            of == site and at_s <= until_s and end_s >= since_s
            for (at_s, of), end_s in zip(self._sites[board], ends, strict=True)
        )

    def _open(self, policy: Policy, board: str, at_s: float) -> bool:
        local_s = self._begin_s + at_s + self._zones_s[board]
        return any((local_s - window.begins_s) % _DAY_S < window.lasts_s for window in policy.window)


def _target(stage: Stage, devices: int) -> int:
    return min(devices, stage.devices) if stage.devices is not None else ceil((stage.percent or 0) * devices / 100)
