"""Replaying a journal: the same events through the same rules, held against what was decided at the time. Pure.

What is decided here: what counts as the same. After every event the journal keeps one line: the phase of the rollout,
the reason for it, the verdict's sentence, and a hash of what devices were told. A replay computes the line anew; where
it comes out otherwise, the rules (or the arithmetic of the machine) are other ones than those that decided, and the
first such row is named. Each row also carries a seal, a hash over the row and the seal of the row before it: a row that
was changed, taken out or put in afterwards breaks it. A seal has no key: it finds accidents and edits by hand, and not
somebody who writes the whole journal anew; that one cannot make the devices' own records agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from edgeflock_deploy.rollout.events import RolloutEvent, SetDesired
from edgeflock_deploy.rollout.machine import step
from edgeflock_deploy.rollout.state import Rollout

Fault = Literal["altered", "differs"]
FAULTS: dict[Fault, str] = {
    "altered": "is not as it was written: it, or one before it, was changed, taken out or put in",
    "differs": "is decided otherwise by this release than it was then",
}


class Entry(NamedTuple):
    """One event of a rollout, with its place in the journal; `decided` and `seal` are None before schema 6."""

    seq: int
    event: RolloutEvent
    text: str  # the event as it was written
    decided: str | None
    seal: str | None


class Step(NamedTuple):
    """One event replayed."""

    entry: Entry
    before: Rollout | None
    after: Rollout
    effects: tuple[SetDesired, ...]
    decided: str
    fault: Fault | None


def decision(rollout: Rollout, effects: Iterable[SetDesired]) -> str:
    """What was decided on an event, in one line: phase, reason, the verdict's sentence, what devices were told."""
    told = [f"{effect.device} {effect.phase.value} {effect.digest}" for effect in effects]
    orders = hashlib.sha256("\n".join(told).encode()).hexdigest()[:16] if told else "none"
    verdict = "none" if rollout.verdict is None else rollout.verdict.sentence
    return f"{rollout.phase.value} | {rollout.reason} | {verdict} | {len(told)} told: {orders}"


def sealed(before: str | None, text: str, decided: str) -> str:
    """The seal of a row, from the seal of the row before it (None: the first row that has one)."""
    return hashlib.sha256("\n".join((before or "", text, decided)).encode()).hexdigest()[:32]


def replay(entries: Iterable[Entry], rollout: Rollout | None = None, seal: str | None = None) -> Iterator[Step]:
    """Step through a journal; nothing of it is believed but the events.

    Args:
        entries: rows of one rollout, oldest first.
        rollout: the state before the first of them; None: they begin with the first event.
        seal: the seal of the row before the first of them.
    """
    for entry in entries:
        before = rollout
        rollout, effects = step(before, entry.event)
        decided = decision(rollout, effects)
        fault: Fault | None = None
        if entry.decided is None or entry.seal is None:
            fault = None if seal is None else "altered"  # rows without a seal are older than all that have one
        elif sealed(seal, entry.text, entry.decided) != entry.seal:
            fault = "altered"
        elif decided != entry.decided:
            fault = "differs"
        seal = entry.seal
        yield Step(entry, before, rollout, effects, decided, fault)
