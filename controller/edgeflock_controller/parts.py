"""A long journal replayed in parts, each on a core of its own; together they are the replay from the first event.

The law of this file: a part may begin with a snapshot, and nothing is believed for that. Every event is replayed, by
one of the parts. Each part ends with a state, and this must be, to the last bit, the one with which the next part
began; the first began with nothing, and the last must end with what the service has. So, part by part, every state is
the one that the events before it give. Where that does not hold, where a snapshot cannot be read or a process ends
early, nothing is said here, and whoever asked replays in one go, which says where the fault is.

Each part has a process, at a lower priority than the service: a thread would share the interpreter with what devices
are told meanwhile. `python -m edgeflock_controller.parts DATABASE ROLLOUT AFTER UPTO EVERYTHING PARENT_PID` is one; it
prints what it has to say as JSON, and ends with the process that started it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import NamedTuple

from edgeflock_controller.reading import Reading, read_only
from edgeflock_controller.replay import replay
from edgeflock_controller.snapshots import Snapshot
from edgeflock_controller.state_bytes import state_sha256
from edgeflock_controller.telling import Telling, Told
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.lifeline import die_with_parent

log = logging.getLogger(__name__)

LEAST_EVENTS = 20_000
"""Places of the journal in a part: a process takes a second or two to begin."""
_MOST = 8  # parts; the process of each holds the rollout's whole state
_NICER = 5
_working = threading.Lock()  # one journal at a time: two would take each other's cores, and twice the memory


class Part(NamedTuple):
    """The events of a rollout after one place in the journal up to another; `after` 0: from the first."""

    rollout: str
    after: int
    upto: int


class Outcome(NamedTuple):
    """What is told of a part, and the hash of the state at its end."""

    told: Told
    ends: str


Run = Callable[[str, list[Part], bool], list[Outcome | None]]


def proved(
    rollouts: Reading, now: Snapshot, everything: bool, cores: int | None = None, run: Run | None = None
) -> Told | None:
    """What is told of a journal from its first event, where its parts prove that it gives the state `now`.

    Args:
        rollouts: what the store has of them.
        now: the state that the service has, and the place of its last event.
        everything: see `Telling`.
        cores: how many of them may work at once; None: as many as there are.
        run: has the parts replayed; None: in a process each.

    Returns:
        None: it is short, or in memory; it has no snapshots; there is one core; or it is not proved.
    """
    parts = _cut(rollouts, now, _cores() if cores is None else cores)
    if rollouts.file is None or len(parts) < 2:
        return None
    seams = [rollouts.snapshots.state_sha256(part.rollout, part.upto) for part in parts[:-1]]
    outcomes = (run or _in_processes)(rollouts.file, parts, everything)
    whole = Told()
    for part, outcome, ends in zip(parts, outcomes, [*seams, state_sha256(now.rollout)], strict=True):
        if outcome is None or outcome.ends != ends:
            log.warning("rollout %s: not proved up to event %d; it is replayed in one go", part.rollout, part.upto)
            return None
        whole = whole.then(outcome.told)
    return whole


def folded(rollouts: Reading, part: Part, everything: bool) -> Outcome | None:
    """Replay one part; None if the snapshot before it cannot be believed, an event cannot be read, or it has none."""
    before = rollouts.snapshots.at(part.rollout, part.after) if part.after else None
    if part.after and before is None:
        return None
    telling = Telling(everything)
    entries = rollouts.journal.read(part.rollout, part.after, part.upto)
    seal = rollouts.journal.seal_at(part.rollout, part.after)
    try:
        for step in replay(entries, None if before is None else before.rollout, seal):
            telling.take(step)
    except BadInput:
        return None
    return None if telling.rollout is None else Outcome(telling.told(), state_sha256(telling.rollout))


def _cut(rollouts: Reading, now: Snapshot, cores: int) -> list[Part]:
    """Parts of about the same length, as many as there are cores, cut where there is a snapshot."""
    rollout = now.rollout.id
    first, places = rollouts.journal.oldest(rollout), rollouts.snapshots.places(rollout)
    length = now.seq - first
    wanted = min(cores, _MOST, length // LEAST_EVENTS)
    ideal = [first + length * number / wanted for number in range(1, wanted)]
    cuts = {min(places, key=lambda place: abs(place - where)) for where in ideal} if places else set()
    ends = [*sorted(cut for cut in cuts if cut < now.seq), now.seq]
    return [Part(rollout, after, upto) for after, upto in zip([0, *ends], ends, strict=False)]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_processes(file: str, parts: list[Part], everything: bool) -> list[Outcome | None]:
    running = []
    with _working, contextlib.ExitStack() as ended:
        for part in parts:
            words = (file, *part, int(everything), os.getpid())
            command = [sys.executable, "-m", "edgeflock_controller.parts", *map(str, words)]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            ended.enter_context(process)
            ended.callback(process.kill)
            running.append(process)
        return [_heard(process.communicate()[0], process.returncode) for process in running]


def _heard(said: bytes, code: int) -> Outcome | None:
    found = json.loads(said) if code == 0 else None
    return None if found is None else Outcome(Told(**found["told"]), found["ends"])


def main() -> None:
    """Be the process of one part."""
    file, rollout, after, upto, everything, parent = sys.argv[1:]
    die_with_parent(int(parent))
    os.nice(_NICER)
    gc.disable()  # it walks through a million objects in vain, and the process ends with its part
    with read_only(file) as rollouts:
        found = folded(rollouts, Part(rollout, int(after), int(upto)), bool(int(everything)))
    json.dump(found and {"told": found.told._asdict(), "ends": found.ends}, sys.stdout)


if __name__ == "__main__":
    main()
