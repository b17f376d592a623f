"""The law of the fleet, held by somebody who sees only what can be seen from outside: the wire, disks, what serves.

Safety: nothing unverified is loaded; a board that served goes on serving something or says FAILED; a board serves a
bundle for the first time only when it was told to commit it; it is told so only by windows of its own, and never where
the candidate does harm; no more candidates than the policy allows; after a FAIL nobody is given the candidate any more
and who can be reached is back within three beats; versions go down only by order or by need; what a board has
acknowledged it does not forget; a generation means one thing, and what is said again is nothing new; boards follow what
was said to them, and go back to what they had; what has ended stays ended. What operators permit is held in `permits`,
what a PASS must rest on in `proof`, campaigns in `measuring_law`.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from edgeflock_deploy import topics
from edgeflock_deploy.policy.rules import Policy
from world import proof
from world.agenda import Agenda
from world.board import Board
from world.bundles import MODEL, Published
from world.measuring_law import MeasuringLaw
from world.permits import Permits, Said
from world.trace import Trace

BEATS_TO_GO_BACK = 3
_ILL_S = 90.0  # so long a board that is up may be without anything that serves
_HELD_UP_S = 60.0  # so long what headquarters has decided may wait for a broker, or for the next service
_GIVEN = ("trial", "commit")


class Word(NamedTuple):
    """What a board was told."""

    phase: str
    digest: str | None
    rollout: str


class Checks:
    """Looks on, and notes what is against the law.

    Args:
        agenda: the time.
        published: what there is.
        harmed: the boards on which each variant does harm that windows show.
        beat_s: of the boards.
        trace: is told what is seen.
        permits: what operators permit.
        lossy: whether what boards report may be lost.
    """

    def __init__(
        self,
        agenda: Agenda,
        published: Published,
        harmed: Mapping[str, frozenset[str]],
        beat_s: float,
        trace: Trace,
        permits: Permits,
        *,
        lossy: bool,
    ) -> None:
        self.violations: list[str] = []
        self.disturbed_at_s: dict[str, float] = defaultdict(lambda: -1e9)
        self.words: dict[str, dict[int, Word]] = defaultdict(dict)
        self.reports: dict[str, dict[str, Any]] = {}
        self.windows: dict[str, dict[tuple[str, str, int], proof.Heard]] = defaultdict(dict)
        self.boards: dict[str, Board] = {}
        self.forgetful: set[str] = set()
        self._agenda, self._published, self._harmed, self._beat_s = agenda, published, harmed, beat_s
        self._trace, self._lossy, self.permits = trace, lossy, permits
        self._measuring = MeasuringLaw()
        self._rollouts: dict[str, dict[str, Any]] = {}
        self._failed_at_s: dict[str, float] = {}
        self._policies: dict[str, Policy] = {}
        self._fresh: list[tuple[Said, Word]] = []
        self._ran: dict[str, set[str]] = defaultdict(set)  # what each board, by its name, ever served or held in a slot
        self._had: dict[tuple[str, str], frozenset[str]] = {}  # what a board had served when a rollout first spoke
        self._served: dict[str, list[str]] = defaultdict(list)
        self._without_s: dict[str, float] = {}
        self._acknowledged: dict[str, int] = defaultdict(int)
        self._newest_report: dict[str, tuple[int, int]] = {}

    # --- what can be seen ---------------------------------------------------------------------------------------------

    def heard(self, client: str, topic: str, payload: bytes) -> None:
        """Something reached the broker."""
        up = topics.parse_up(topic)
        if up is not None and client == f"agent-{up.device}":
            if up.kind == "reported":
                self._reported(up.device, json.loads(payload))
            elif up.kind == "window":
                said = json.loads(payload)
                key = (said["rollout"], said["boot_id"], said["number"])
                self.windows[up.device].setdefault(key, proof.heard(said))
                self._only_measured(up.device, "tries", said["new_digest"])

    def told(self, topic: str, payload: bytes) -> None:
        """Headquarters says something."""
        if topic.endswith("/desired"):
            board, word = topic.split("/")[-2], json.loads(json.loads(payload)["payload"])
            for digest in self._measuring.told(board, word["measure"]):
                self._trace.note("controller", f"tells {board}: measure {self._label(digest)}")
            entry = word["models"].get(MODEL)
            if entry is not None:
                self._told(board, entry)

    def loaded(self, board: str, variant: str, found: dict[str, str]) -> None:
        """A board has given an interpreter files with these hashes."""
        manifest = self._published.forms[variant]
        wrong = sorted(role for role, sha256 in found.items() if manifest.blobs[role].sha256 != sha256)  # type: ignore[index]
        if wrong:
            self._against(f"{board} loads {variant} with wrong bytes of its {', '.join(wrong)}")

    def looked(self, board: Board) -> None:
        """A board has done something: look at what it serves."""
        serving, name = board.serving, board.name
        served = self._served[name]
        if serving is None:
            self._serves_nothing(board)
            return
        self._without_s.pop(name, None)
        if served and served[-1] == serving:
            return
        self._trace.note(name, f"serves {self._label(serving)}{board.serving_as}")
        self._ran[name].add(serving)
        self._only_measured(name, "serves", serving)
        told = [word for word in self.words[name].values() if word.digest == serving]
        if serving not in served and served and not any(word.phase in ("commit", "revert") for word in told):
            self._against(f"{name} serves {self._label(serving)}, which it was never told to commit")
        if served and self._version(serving) < self._version(served[-1]):
            ordered = any(word.phase == "revert" for word in told)
            if not (ordered or self._needed(board)):
                self._against(f"{name} goes down to {self._label(serving)} without an order and without need")
        served.append(serving)

    def struck(self, whom: str, fault: str) -> None:
        """A fault struck a board, `broker` or `controller`."""
        self.disturbed_at_s[whom] = self._agenda.now_s
        self._trace.note(whom, fault)

    def replaced(self, board: str) -> None:
        """Another board bears the name from now on; what the old one had said may still arrive, and is not its word."""
        for forgotten in (self._served, self._acknowledged, self._without_s, self.reports):
            forgotten.pop(board, None)
        self._newest_report[board] = (self.boards[board].boots, sys.maxsize)

    def rollouts(self, shown: list[dict[str, Any]], policies: Mapping[str, Policy]) -> None:
        """What headquarters shows of its rollouts, after a turn."""
        self._policies.update(policies)
        for rollout in shown:
            name, phase = rollout["id"], rollout["phase"]
            before = self._rollouts.get(name)
            if before is None or before["phase"] != phase:
                self._trace.note("rollout", f"{name} is {phase}: {rollout['reason']}")
                if before is not None and before["phase"] in ("SUCCEEDED", "ROLLED_BACK", "ABORTED", "FAILED"):
                    self._against(f"{name} had ended {before['phase']} and is {phase}")
                if phase in ("ROLLING_BACK", "ROLLED_BACK") and name not in self._failed_at_s:
                    self._begin_going_back(name)
                if before is None:
                    self._chosen(rollout)
            self._rollouts[name] = rollout
            if name in policies and policies[name].guardrail:
                self._candidates(name, policies[name])
        fresh, self._fresh = self._fresh, []
        for said, word in fresh:
            self._permitted(said, word)

    # --- the law ------------------------------------------------------------------------------------------------------

    def _told(self, board: str, entry: dict[str, Any]) -> None:
        word = Word(entry["phase"], entry["digest"], entry["rollout"])
        words, generation = self.words[board], entry["generation"]
        if words.get(generation, word) != word:
            self._against(f"generation {generation} of {board} is {words[generation]} and {word}")
        newest = max(words, default=0)
        before = tuple((other.rollout, other.phase) for _, other in sorted(words.items()))
        words[generation] = word
        if generation <= newest:
            return
        if words.get(newest) == word:
            self._against(
                f"{board} is told to {word.phase} {self._label(word.digest)} once more (generation {generation})"
            )
        what = f"{word.phase} {self._label(word.digest)} (generation {generation}, {word.rollout})"
        self._trace.note("controller", f"tells {board}: {what}")
        self._fresh.append((Said(board, word.phase, word.rollout, self._agenda.now_s, before), word))
        self._had.setdefault((board, word.rollout), frozenset(self._served[board]))

    def _permitted(self, said: Said, word: Word) -> None:
        """Look at a new word when it can be seen how its rollout stands."""
        board, told = said.board, self.words[said.board].values()
        given = {other.digest for other in told if other.rollout == word.rollout and other.phase in _GIVEN}
        if word.phase == "revert" and word.digest in given and word.digest not in self._had[board, word.rollout]:
            self._against(f"{board} is told to go back to {self._label(word.digest)}, which {word.rollout} gave it")
        elif word.phase == "revert" and word.digest is not None and word.digest not in self._ran[board]:
            self._against(f"{board} is told to go back to {self._label(word.digest)}, which it never had")
        rollout = self._rollouts.get(word.rollout)
        ended_well = rollout is not None and rollout["phase"] == "SUCCEEDED"
        if word.phase in _GIVEN and word.rollout in self._failed_at_s and not ended_well:
            self._against(f"{board} is told to {word.phase} after {word.rollout} began to go back")
        policy = self._policies.get(word.rollout)
        if policy is None or rollout is None:
            return
        if word.phase in _GIVEN:
            self._meant(board, word, rollout)
        if rollout["mode"] == "deploy":
            for what in self.permits.against(said, rollout, policy, prompt=self._prompt(said.at_s)):
                self._against(what)
        if word.phase == "commit" and policy.guardrail and not ended_well:
            self._committed(board, word, policy)

    def _meant(self, board: str, word: Word, rollout: Mapping[str, Any]) -> None:
        """Look whether a board is given what its rollout is about."""
        if rollout.get("choice") is None:
            if word.digest != self._published.digests.get(rollout["variant"]):
                what = f"{self._label(word.digest)}, {word.rollout} is about {rollout['variant']}"
                self._against(f"{board} is told to {word.phase} {what}")
        elif (other := self._measuring.given(board, word.digest, rollout)) is not None:
            self._against(other)

    def _prompt(self, at_s: float) -> bool:
        """Whether headquarters could say at this time what it had just decided."""
        return all(abs(self.disturbed_at_s[who] - at_s) > _HELD_UP_S for who in ("broker", "controller"))

    def _chosen(self, rollout: Mapping[str, Any]) -> None:
        calm = {name for name in self.boards if self.disturbed_at_s[name] < 0}
        if not self._lossy:
            self.violations += list(self._measuring.chosen(rollout, calm))

    def _only_measured(self, board: str, does: str, digest: str | None) -> None:
        if self._measuring.used(board, digest, {word.digest for word in self.words[board].values()}):
            self._against(f"{board} {does} {self._label(digest)}, which it was only told to measure")

    def _committed(self, board: str, word: Word, policy: Policy) -> None:
        if not self._had[board, word.rollout]:
            return  # nothing ran there before: nothing to compare with, and nothing that could be harmed
        variant = self._published.variants[word.digest or ""].variant
        if board in self._harmed.get(variant, ()):
            self._against(f"{board} is told to commit {variant}, which does harm on it")
        now = self.reports.get(board, {}).get("device_class")
        own = [window for key, window in self.windows[board].items() if key[0] == word.rollout]
        if (lacking := proof.lacking(own, now, policy)) is not None:
            self._against(f"{board} is told to commit after {lacking}")

    def _candidates(self, rollout: str, policy: Policy) -> None:
        newest = {board: words[max(words)] for board, words in self.words.items() if words}
        trying = [board for board, last in newest.items() if last.rollout == rollout and last.phase == "trial"]
        if policy.max_in_trial is not None and len(trying) > policy.max_in_trial:
            self._against(f"{len(trying)} boards are to try {rollout}, {policy.max_in_trial} may")
        running = [
            board
            for board, last in newest.items()
            if last.rollout == rollout
            and last.phase == "commit"
            and self.reports.get(board, {}).get("models", {}).get(MODEL, {}).get("digest") == last.digest
        ]
        if too_far := self.permits.too_far(rollout, self._rollouts[rollout], policy, len(trying) + len(running)):
            self._against(too_far)
        first = policy.stage[0].devices
        if first is not None and len(policy.stage) > 1 and len(trying) > first and not self._passed(rollout):
            self._against(f"{len(trying)} boards are to try {rollout} in its first stage, {first} may")

    def _passed(self, rollout: str) -> bool:
        """Whether any board was told to commit for this rollout, or ran its bundle before."""
        words = [word for told in self.words.values() for word in told.values() if word.rollout == rollout]
        given = {word.digest for word in words if word.phase == "trial"}
        running = {said.get("models", {}).get(MODEL, {}).get("digest") for said in self.reports.values()}
        return any(word.phase == "commit" for word in words) or bool(given & running)

    def _begin_going_back(self, rollout: str) -> None:
        self._failed_at_s[rollout] = since_s = self._agenda.now_s
        due_s = BEATS_TO_GO_BACK * self._beat_s + 5.0
        self._agenda.after(due_s, lambda: self._check_back(rollout, since_s))

    def _check_back(self, rollout: str, since_s: float) -> None:
        calm_since_s = since_s - 60.0
        if self._lossy or any(self.disturbed_at_s[who] > calm_since_s for who in ("broker", "controller")):
            return
        for name, words in self.words.items():
            newest = words[max(words)] if words else Word("", None, "")
            board = self.boards[name]
            given = {word.digest for word in words.values() if word.rollout == rollout and word.phase in _GIVEN}
            if newest.rollout != rollout or not given or self.disturbed_at_s[name] > calm_since_s:
                continue
            if board.link is None or not board.link.connected:
                continue
            said = self.reports.get(name, {}).get("models", {}).get(MODEL, {})
            if board.serving in given - {newest.digest} or said.get("candidate") in given - {None}:
                self._against(f"{name} is not back {self._agenda.now_s - since_s:.0f} s after {rollout} failed")

    def _reported(self, board: str, said: dict[str, Any]) -> None:
        boot, seq = int(said["boot_id"].rsplit("-", 1)[1]), said["seq"]
        if (boot, seq) <= self._newest_report.get(board, (0, 0)):
            return
        self._newest_report[board] = (boot, seq)
        before, self.reports[board] = self.reports.get(board), said
        for digest, outcome in self._measuring.said(board, said):
            self._trace.note(board, f"has measured {self._label(digest)}: {outcome}")
        entry = said["models"].get(MODEL)
        if entry is None:
            return
        self._follows(board, entry)
        # A disk that takes nothing cannot remember what was answered either; the board says so, and hears it again.
        if entry["generation"] < self._acknowledged[board] and board not in self.forgetful:
            self._against(
                f"{board} had acknowledged generation {self._acknowledged[board]} and is back at {entry['generation']}"
            )
        self._acknowledged[board] = entry["generation"]
        word = self.words[board].get(entry["generation"])
        self.boards[board].law.reported(board, boot, entry, word.digest if word is not None else None)
        state = (before or {}).get("models", {}).get(MODEL, {})
        if (state.get("state"), state.get("outcome")) != (entry["state"], entry["outcome"]):
            why = f", {entry['outcome']}" if entry["outcome"] else ""
            why += f", {entry['reason']}" if entry["reason"] else ""
            self._trace.note(board, f"is {entry['state']}{why}")

    def _follows(self, board: str, entry: dict[str, Any]) -> None:
        """Look whether a board follows what was said to it, and holds what it may."""
        word = self.words[board].get(entry["generation"])
        if entry["generation"] and (word is None or word.rollout != entry["rollout"]):
            self._against(
                f"{board} follows generation {entry['generation']} of {entry['rollout']}, which nobody gave it"
            )
        told = {other.digest for other in self.words[board].values()}
        if entry["candidate"] is not None and entry["candidate"] not in told:
            self._against(f"{board} has {self._label(entry['candidate'])} as a candidate, which nobody gave it")
        held = {digest for digest in (entry["digest"], *entry["slots"].values()) if digest is not None}
        self._ran[board] |= held
        for digest in held:
            self._only_measured(board, "holds", digest)

    def _serves_nothing(self, board: Board) -> None:
        if not self._served[board.name] or board.agent is None:
            self._without_s.pop(board.name, None)
            return
        since_s = self._without_s.setdefault(board.name, self._agenda.now_s)
        state = board.agent.models.get(MODEL)
        nothing_ordered = any(
            word.phase == "revert" and word.digest is None for word in self.words[board.name].values()
        )
        if state is not None and (state.state.value == "FAILED" or state.mending is not None):
            self._without_s[board.name] = float("inf")  # it has said so
        since_s = self._without_s[board.name]
        if self._agenda.now_s - since_s > _ILL_S and not nothing_ordered:
            self._against(f"{board.name} serves nothing since {since_s:.0f} s, and does not say why")
            self._without_s[board.name] = self._agenda.now_s

    def _needed(self, board: Board) -> bool:
        """Whether the board had to go back by itself: what served failed, or its files did."""
        state = board.agent.models.get(MODEL) if board.agent is not None else None
        return state is not None and (state.reason is not None or state.mending is not None or bool(state.known_bad))

    def _version(self, digest: str) -> int:
        return self._published.variants[digest].version

    def _label(self, digest: str | None) -> str:
        known = self._published.variants
        return "nothing" if digest is None else known[digest].variant if digest in known else f"an unknown {digest[:8]}"

    def _against(self, what: str) -> None:
        self.violations.append(f"{self._agenda.now_s:.1f} s: {what}")
        self._trace.note("LAW", what)
