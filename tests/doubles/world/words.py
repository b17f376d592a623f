"""The law of what headquarters says to boards: a word means one thing, and is permitted when it is said.

A generation means one thing, and what is said once more is nothing new. Nobody is told to take what a rollout is not
about, to commit what does harm there or without proof of its own (`proof`), to go back to what the rollout gave it or
what it never had, to go on after a FAIL. What operators permit is held in `permits`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeflock_deploy.policy.rules import Policy
from world import proof
from world.agenda import Agenda
from world.bundles import Published
from world.permits import Said

if TYPE_CHECKING:
    from world.checks import Checks

GIVEN = ("trial", "commit")
_HEARD_S = 5.0  # so long after a board's new class is on the broker, headquarters has heard of it
_HELD_UP_S = 60.0  # so long what headquarters has decided may wait for a broker, or for the next service


class Word(NamedTuple):
    """What a board was told."""

    phase: str
    digest: str | None
    rollout: str


class WordLaw:
    """Looks on.

    Args:
        seen: what is seen besides.
        agenda: the time.
        published: what there is.
        harmed: the boards on which each variant does harm that windows show.
    """

    def __init__(
        self, seen: Checks, agenda: Agenda, published: Published, harmed: Mapping[str, frozenset[str]]
    ) -> None:
        self._seen, self._agenda, self._published, self._harmed = seen, agenda, published, harmed
        self._fresh: list[tuple[Said, Word]] = []
        self._had: dict[tuple[str, str], frozenset[str]] = {}  # what a board had served when a rollout first spoke

    def told(self, board: str, entry: dict[str, Any]) -> None:
        """Headquarters says what a board is to run."""
        word = Word(entry["phase"], entry["digest"], entry["rollout"])
        words, generation = self._seen.words[board], entry["generation"]
        if words.get(generation, word) != word:
            self._seen.against(f"generation {generation} of {board} is {words[generation]} and {word}")
        newest = max(words, default=0)
        before = tuple((other.rollout, other.phase) for _, other in sorted(words.items()))
        words[generation] = word
        if generation <= newest:
            return
        if words.get(newest) == word:
            self._seen.against(
                f"{board} is told to {word.phase} {self._seen.label(word.digest)} once more (generation {generation})"
            )
        what = f"{word.phase} {self._seen.label(word.digest)} (generation {generation}, {word.rollout})"
        self._seen.trace.note("controller", f"tells {board}: {what}")
        self._fresh.append((Said(board, word.phase, word.rollout, self._agenda.now_s, before), word))
        last = max((one for one in words if one < generation), default=None)
        emptied = last is not None and words[last].digest is None  # it was told to go back to nothing
        self._had.setdefault((board, word.rollout), frozenset(() if emptied else self._seen.served[board]))

    def look(self) -> None:
        """Look at what was said since the last time, now that it can be seen how rollouts stand."""
        fresh, self._fresh = self._fresh, []
        for said, word in fresh:
            self._permitted(said, word)

    def _permitted(self, said: Said, word: Word) -> None:
        """Look at a new word when it can be seen how its rollout stands."""
        board, told = said.board, self._seen.words[said.board].values()
        given = {other.digest for other in told if other.rollout == word.rollout and other.phase in GIVEN}
        if word.phase == "revert" and word.digest in given and word.digest not in self._had[board, word.rollout]:
            self._seen.against(
                f"{board} is told to go back to {self._seen.label(word.digest)}, which {word.rollout} gave it"
            )
        elif word.phase == "revert" and word.digest is not None and word.digest not in self._seen.ran[board]:
            self._seen.against(f"{board} is told to go back to {self._seen.label(word.digest)}, which it never had")
        rollout = self._seen.shown.get(word.rollout)
        ended_well = rollout is not None and rollout["phase"] == "SUCCEEDED"
        if word.phase in GIVEN and word.rollout in self._seen.failed_at_s and not ended_well:
            self._seen.against(f"{board} is told to {word.phase} after {word.rollout} began to go back")
        policy = self._seen.policies.get(word.rollout)
        if policy is None or rollout is None:
            return
        if word.phase in GIVEN:
            self._meant(board, word, rollout)
        if rollout["mode"] == "deploy":
            for what in self._seen.permits.against(said, rollout, policy, prompt=self._prompt(said.at_s)):
                self._seen.against(what)
        if word.phase == "commit" and policy.guardrail and not ended_well:
            self._committed(board, word, policy)

    def _meant(self, board: str, word: Word, rollout: Mapping[str, Any]) -> None:
        """Look whether a board is given what its rollout is about."""
        if rollout.get("choice") is None:
            if word.digest != self._published.digests.get(rollout["variant"]):
                what = f"{self._seen.label(word.digest)}, {word.rollout} is about {rollout['variant']}"
                self._seen.against(f"{board} is told to {word.phase} {what}")
        elif (other := self._seen.measuring.given(board, word.digest, rollout)) is not None:
            self._seen.against(other)

    def _prompt(self, at_s: float) -> bool:
        """Whether headquarters could say at this time what it had just decided."""
        return all(abs(self._seen.disturbed_at_s[who] - at_s) > _HELD_UP_S for who in ("broker", "controller"))

    def _committed(self, board: str, word: Word, policy: Policy) -> None:
        if not self._had[board, word.rollout]:
            return  # nothing ran there before: nothing to compare with, and nothing that could be harmed
        variant = self._published.variants[word.digest or ""].variant
        if board in self._harmed.get(variant, ()):
            self._seen.against(f"{board} is told to commit {variant}, which does harm on it")
        own = [window for key, window in self._seen.windows[board].items() if key[0] == word.rollout]
        lacking = proof.lacking(own, self._seen.reports.get(board, {}).get("device_class"), policy)
        was, until_s = self._seen.reclassed.get(board, ("", -_HEARD_S))
        if lacking is not None and self._agenda.now_s - until_s < _HEARD_S:  # it may have been decided just before
            lacking = proof.lacking(own, was, policy)
        if lacking is not None:
            self._seen.against(f"{board} is told to commit after {lacking}")
