"""The law of the fleet, held by somebody who sees only what can be seen from outside: the wire, disks, what serves.

Safety: nothing unverified is loaded; a board that served goes on serving something or says FAILED; a board serves a
bundle for the first time only when it was told to commit it; it is told so only by windows of its own, and never where
the candidate does harm; no more candidates than the policy allows; after a FAIL nobody is given the candidate any more
and who can be reached is back within three beats; versions go down only by order or by need; what a board has
acknowledged it does not forget; a generation means one thing, and what is said again is nothing new; boards follow what
was said to them, and go back to what they had; what has ended stays ended. What operators permit is held in `permits`,
what a PASS must rest on in `proof`, campaigns in `measuring_law`, what rollouts may do in `rollout_law`.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from edgeflock_deploy import topics
from edgeflock_deploy.policy.rules import Policy
from world import proof
from world.agenda import Agenda
from world.board import Board
from world.bundles import MODEL, Published
from world.measuring_law import MeasuringLaw
from world.permits import Permits
from world.rollout_law import RolloutLaw
from world.trace import Trace
from world.words import Word, WordLaw

_ILL_S = 90.0  # so long a board that is up may be without anything that serves


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
        self._agenda, self._published = agenda, published
        self.trace, self.permits = trace, permits
        self.measuring = MeasuringLaw()
        self.shown: dict[str, dict[str, Any]] = {}
        self.failed_at_s: dict[str, float] = {}
        self.policies: dict[str, Policy] = {}
        self.ran: dict[str, set[str]] = defaultdict(set)  # what each board, by its name, ever served or held in a slot
        self.served: dict[str, list[str]] = defaultdict(list)
        self._words = WordLaw(self, agenda, published, harmed)
        self._rollouts = RolloutLaw(self, agenda, beat_s, lossy=lossy)
        self._without_s: dict[str, float] = {}
        self._acknowledged: dict[str, int] = defaultdict(int)
        self._newest_report: dict[str, tuple[int, int]] = {}
        self.reclassed: dict[str, tuple[str, float]] = {}  # the class that a board had before, and until when
        self.inherited: dict[str, int] = {}  # the newest word that a replaced board had been told

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
            for digest in self.measuring.told(board, word["measure"]):
                self.trace.note("controller", f"tells {board}: measure {self.label(digest)}")
            entry = word["models"].get(MODEL)
            if entry is not None:
                self._words.told(board, entry)

    def loaded(self, board: str, variant: str, found: dict[str, str]) -> None:
        """A board has given an interpreter files with these hashes."""
        manifest = self._published.forms[variant]
        wrong = sorted(role for role, sha256 in found.items() if manifest.blobs[role].sha256 != sha256)  # type: ignore[index]
        if wrong:
            self.against(f"{board} loads {variant} with wrong bytes of its {', '.join(wrong)}")

    def looked(self, board: Board) -> None:
        """A board has done something: look at what it serves."""
        serving, name = board.serving, board.name
        served = self.served[name]
        if serving is None:
            self._serves_nothing(board)
            return
        self._without_s.pop(name, None)
        if served and served[-1] == serving:
            return
        self.trace.note(name, f"serves {self.label(serving)}{board.serving_as}")
        self.ran[name].add(serving)
        self._only_measured(name, "serves", serving)
        told = [word for word in self.words[name].values() if word.digest == serving]
        if serving not in served and served and not any(word.phase in ("commit", "revert") for word in told):
            self.against(f"{name} serves {self.label(serving)}, which it was never told to commit")
        if served and self._version(serving) < self._version(served[-1]):
            ordered = any(word.phase == "revert" for word in told)
            if not (ordered or self._needed(board)):
                self.against(f"{name} goes down to {self.label(serving)} without an order and without need")
        served.append(serving)

    def struck(self, whom: str, fault: str) -> None:
        """A fault struck a board, `broker` or `controller`."""
        self.disturbed_at_s[whom] = self._agenda.now_s
        self.trace.note(whom, fault)

    def replaced(self, board: str) -> None:
        """Another board bears the name from now on; what the old one had said may still arrive, and is not its word."""
        for forgotten in (self.served, self._acknowledged, self._without_s, self.reports):
            forgotten.pop(board, None)
        self._newest_report[board] = (self.boards[board].boots, sys.maxsize)
        self.inherited[board] = max(self.words[board], default=0)

    def rollouts(self, shown: list[dict[str, Any]], policies: Mapping[str, Policy]) -> None:
        """What headquarters shows of its rollouts, after a turn."""
        self._rollouts.look(shown, policies)
        self._words.look()

    # --- the law ------------------------------------------------------------------------------------------------------

    def _only_measured(self, board: str, does: str, digest: str | None) -> None:
        if self.measuring.used(board, digest, {word.digest for word in self.words[board].values()}):
            self.against(f"{board} {does} {self.label(digest)}, which it was only told to measure")

    def _reported(self, board: str, said: dict[str, Any]) -> None:
        boot, seq = int(said["boot_id"].rsplit("-", 1)[1]), said["seq"]
        if (boot, seq) <= self._newest_report.get(board, (0, 0)):
            return
        self._newest_report[board] = (boot, seq)
        before, self.reports[board] = self.reports.get(board), said
        if before is not None and before["device_class"] != said["device_class"]:
            self.reclassed[board] = (before["device_class"], self._agenda.now_s)
        for digest, outcome in self.measuring.said(board, said):
            self.trace.note(board, f"has measured {self.label(digest)}: {outcome}")
        entry = said["models"].get(MODEL)
        if entry is None:
            return
        self._follows(board, entry)
        # A disk that takes nothing cannot remember what was answered either; the board says so, and hears it again.
        if entry["generation"] < self._acknowledged[board] and board not in self.forgetful:
            self.against(
                f"{board} had acknowledged generation {self._acknowledged[board]} and is back at {entry['generation']}"
            )
        self._acknowledged[board] = entry["generation"]
        word = self.words[board].get(entry["generation"])
        self.boards[board].law.reported(board, boot, entry, word.digest if word is not None else None)
        state = (before or {}).get("models", {}).get(MODEL, {})
        if (state.get("state"), state.get("outcome")) != (entry["state"], entry["outcome"]):
            why = f", {entry['outcome']}" if entry["outcome"] else ""
            why += f", {entry['reason']}" if entry["reason"] else ""
            self.trace.note(board, f"is {entry['state']}{why}")

    def _follows(self, board: str, entry: dict[str, Any]) -> None:
        """Look whether a board follows what was said to it, and holds what it may."""
        word = self.words[board].get(entry["generation"])
        if entry["generation"] and (word is None or word.rollout != entry["rollout"]):
            self.against(
                f"{board} follows generation {entry['generation']} of {entry['rollout']}, which nobody gave it"
            )
        told = {other.digest for other in self.words[board].values()} | self.ran[board]  # or it goes back by itself
        if entry["candidate"] is not None and entry["candidate"] not in told:
            self.against(f"{board} has {self.label(entry['candidate'])} as a candidate, which nobody gave it")
        held = {digest for digest in (entry["digest"], *entry["slots"].values()) if digest is not None}
        self.ran[board] |= held
        for digest in held:
            self._only_measured(board, "holds", digest)

    def _serves_nothing(self, board: Board) -> None:
        if not self.served[board.name] or board.agent is None:
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
            self.against(f"{board.name} serves nothing since {since_s:.0f} s, and does not say why")
            self._without_s[board.name] = self._agenda.now_s

    def _needed(self, board: Board) -> bool:
        """Whether the board had to go back by itself: what served failed, or its files did."""
        state = board.agent.models.get(MODEL) if board.agent is not None else None
        return state is not None and (state.reason is not None or state.mending is not None or bool(state.known_bad))

    def _version(self, digest: str) -> int:
        return self._published.variants[digest].version

    def label(self, digest: str | None) -> str:
        """What people call a bundle."""
        known = self._published.variants
        return "nothing" if digest is None else known[digest].variant if digest in known else f"an unknown {digest[:8]}"

    def against(self, what: str) -> None:
        """Something is against the law."""
        self.violations.append(f"{self._agenda.now_s:.1f} s: {what}")
        self.trace.note("LAW", what)
