"""The law of rollouts, held by an outsider: what headquarters shows of them, beside what boards were told and say.

What has ended stays ended; no more candidates than the policy allows; who could be reached is back within three beats
after a FAIL; a choice per class rests on what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgeflock_deploy.policy.rules import Policy
from world.agenda import Agenda
from world.bundles import MODEL
from world.words import GIVEN, Word

if TYPE_CHECKING:
    from world.checks import Checks

BEATS_TO_GO_BACK = 3
_ENDED = ("SUCCEEDED", "ROLLED_BACK", "ABORTED", "FAILED")


class RolloutLaw:
    """Looks on.

    Args:
        seen: what is seen besides.
        agenda: the time.
        beat_s: of the boards.
        lossy: whether what boards report may be lost.
    """

    def __init__(self, seen: Checks, agenda: Agenda, beat_s: float, *, lossy: bool) -> None:
        self._seen, self._agenda, self._beat_s, self._lossy = seen, agenda, beat_s, lossy
        self._run_then: dict[str, set[str | None]] = {}  # what boards ran when a rollout began

    def look(self, shown: list[dict[str, Any]], policies: Mapping[str, Policy]) -> None:
        """What headquarters shows of its rollouts, after a turn."""
        self._seen.policies.update(policies)
        for rollout in shown:
            name, phase = rollout["id"], rollout["phase"]
            before = self._seen.shown.get(name)
            if before is None or before["phase"] != phase:
                self._seen.trace.note("rollout", f"{name} is {phase}: {rollout['reason']}")
                if before is not None and before["phase"] in _ENDED:
                    self._seen.against(f"{name} had ended {before['phase']} and is {phase}")
                if phase in ("ROLLING_BACK", "ROLLED_BACK") and name not in self._seen.failed_at_s:
                    self._begin_going_back(name)
                if before is None:
                    self._run_then[name] = self._run()
                    self._chosen(rollout)
            self._seen.shown[name] = rollout
            if name in policies and policies[name].guardrail:
                self._candidates(name, policies[name])
            elif before is not None and before["phase"] != phase and name in self._seen.policies:
                self._not_too_far(name, 0)

    def _chosen(self, rollout: Mapping[str, Any]) -> None:
        calm = {name for name in self._seen.boards if self._seen.disturbed_at_s[name] < 0}
        if not self._lossy:
            self._seen.violations += list(self._seen.measuring.chosen(rollout, calm))

    def _candidates(self, rollout: str, policy: Policy) -> None:
        newest = {board: words[max(words)] for board, words in self._seen.words.items() if words}
        has = {
            board: last.rollout == rollout
            and self._seen.reports.get(board, {}).get("models", {}).get(MODEL, {}).get("digest") == last.digest
            for board, last in newest.items()
        }
        trying = [  # one that had it already has nothing to try
            board
            for board, last in newest.items()
            if last.rollout == rollout and last.phase == "trial" and not has[board]
        ]
        if policy.max_in_trial is not None and len(trying) > policy.max_in_trial:
            self._seen.against(f"{len(trying)} boards are to try {rollout}, {policy.max_in_trial} may")
        running = [
            board
            for board, last in newest.items()
            if has[board]
            and last.phase == "commit"
            and max(self._seen.words[board])
            > self._seen.inherited.get(board, -1)  # a stage was filled up for the one before it
        ]
        self._not_too_far(rollout, len(trying) + len(running))
        first = policy.stage[0].devices
        if first is not None and len(policy.stage) > 1 and len(trying) > first and not self._passed(rollout):
            self._seen.against(f"{len(trying)} boards are to try {rollout} in its first stage, {first} may")

    def _not_too_far(self, rollout: str, given: int) -> None:
        if too_far := self._seen.permits.too_far(
            rollout, self._seen.shown[rollout], self._seen.policies[rollout], given
        ):
            self._seen.against(too_far)

    def _passed(self, rollout: str) -> bool:
        """Whether any board was told to commit for this rollout, or ran its bundle before."""
        words = [word for told in self._seen.words.values() for word in told.values() if word.rollout == rollout]
        given = {word.digest for word in words if word.phase == "trial"}
        return any(word.phase == "commit" for word in words) or bool(given & (self._run() | self._run_then[rollout]))

    def _run(self) -> set[str | None]:
        """What boards run, as far as they have said."""
        return {said.get("models", {}).get(MODEL, {}).get("digest") for said in self._seen.reports.values()}

    def _begin_going_back(self, rollout: str) -> None:
        self._seen.failed_at_s[rollout] = since_s = self._agenda.now_s
        due_s = BEATS_TO_GO_BACK * self._beat_s + 5.0
        self._agenda.after(due_s, lambda: self._check_back(rollout, since_s))

    def _check_back(self, rollout: str, since_s: float) -> None:
        calm_since_s = since_s - 60.0
        if self._lossy or any(self._seen.disturbed_at_s[who] > calm_since_s for who in ("broker", "controller")):
            return
        for name, words in self._seen.words.items():
            newest = words[max(words)] if words else Word("", None, "")
            board = self._seen.boards[name]
            given = {word.digest for word in words.values() if word.rollout == rollout and word.phase in GIVEN}
            if newest.rollout != rollout or not given or self._seen.disturbed_at_s[name] > calm_since_s:
                continue
            if board.link is None or not board.link.connected:
                continue
            said = self._seen.reports.get(name, {}).get("models", {}).get(MODEL, {})
            if board.serving in given - {newest.digest} or said.get("candidate") in given - {None}:
                self._seen.against(f"{name} is not back {self._agenda.now_s - since_s:.0f} s after {rollout} failed")
