"""The law of campaigns: who measures serves nobody with it, and a class gets what its own boards could run.

What a board was only told to measure is in none of its slots, answers no application, is in no trial. The rollout of a
campaign gives the boards of a class one variant, which no board of the class has answered not to fit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from edgeflock_deploy.reasons import Reason

_UNFIT = ("FAILED", "REJECTED")


class MeasuringLaw:
    """Looks on what boards are told to measure, and what they answer."""

    def __init__(self) -> None:
        self._measures: dict[str, set[str]] = defaultdict(set)
        self._unfit: dict[str, dict[str, str]] = defaultdict(dict)  # by class: digest -> the board that said so
        self._tokens: dict[str, str | None] = {}  # of orders: how each was answered
        self._classes: dict[str, set[str]] = defaultdict(set)

    def told(self, board: str, orders: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
        """A board is told what to measure, by model; the digests that are new."""
        for order in orders.values():
            if order["token"] not in self._tokens:
                self._tokens[order["token"]] = None
                self._measures[board].add(order["digest"])
                yield order["digest"]

    def said(self, board: str, said: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """A board reports; what it has measured since, by digest, and what came of it."""
        self._classes[board].add(said["device_class"])
        for answer in said.get("measured", {}).values():
            outcome = answer.get("outcome")
            blames = answer.get("reason") is not None and Reason(answer["reason"]).blames_variant
            if outcome in _UNFIT and blames:
                self._unfit[said["device_class"]].setdefault(answer["digest"], board)
            if outcome is not None and self._tokens.get(answer["token"]) != outcome:
                self._tokens[answer["token"]] = outcome
                yield answer["digest"], outcome

    def used(self, board: str, digest: str | None, ordered: Collection[str | None]) -> bool:
        """Whether a board uses what it was only told to measure; `ordered` is what it was told to run."""
        return digest is not None and digest in self._measures[board] and digest not in ordered

    def chosen(self, shown: Mapping[str, Any], calm: Collection[str]) -> Iterator[str]:
        """Look at a rollout that has just come of a campaign.

        Args:
            shown: the rollout.
            calm: boards of which everything was heard.
        """
        for name, choice in (shown.get("choice") or {"classes": {}})["classes"].items():
            board = self._unfit[name].get(choice["digest"])
            if board is not None and board in calm:
                yield f"{shown['id']} gives class {name} {choice['variant']}, which {board} of it cannot run"

    def given(self, board: str, digest: str | None, shown: Mapping[str, Any]) -> str | None:
        """Look at what a rollout of a campaign gives a board."""
        classes = (shown.get("choice") or {"classes": {}})["classes"]
        own = self._classes[board]
        if not classes or len(own) != 1:
            return None
        device_class = next(iter(own))
        due = classes.get(device_class, {}).get("digest")
        return f"{board} of class {device_class} gets another variant than its class" if digest != due else None
