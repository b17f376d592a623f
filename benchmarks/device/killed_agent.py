"""The whole agent killed at places spread over an update and a going back: did it come back as it must?

Real processes, a real broker, a real interpreter; the story and the law stand in `tests/doubles/killed_agent.py`. What
is played with many more kills in less time is in `power_cuts`. Exit code 1: something was bad.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from killed_agent import KilledAgent, Place, Unlawful, spread
from killed_updates import why_not
from tests.integration.agent.conftest import Board, Headquarters

from benchmarks import table
from edgeflock_controller.broker import EmbeddedBroker
from edgeflock_deploy.messages.values import DeviceState

HEADER = ("state that was reported last", "places", "killed at", "calls", "bad boots")
PLACES = 60


def kill_everywhere(folder: Path, count: int) -> tuple[int, Counter[Place], list[str]]:
    """Kill at so many places.

    Returns:
        How many places there are, the places with 1 where the agent died there, and what was bad.
    """
    broker = EmbeddedBroker.start(folder / "broker")
    hq = Headquarters(broker.url, folder)
    board = Board(hq, folder, hq.device)
    try:
        killed = KilledAgent(hq, board)
        try:
            return _killed_at(killed, count)
        finally:
            killed.end()
    finally:
        hq.link.stop()
        broker.stop()


def _killed_at(killed: KilledAgent, count: int) -> tuple[int, Counter[Place], list[str]]:
    places = killed.places()
    died, bad = Counter[Place](), list[str]()
    for place in spread(places, count):
        try:
            died[place] = int(killed.kill_at(place))
        except Unlawful as found:
            bad.append(str(found))
            sys.stderr.write(f"bad: {found}\n")
            killed.end()
            died[place] = 1
    return len(places), died, bad


def main() -> int:
    """Kill, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--places", type=int, default=PLACES)
    options = parser.parse_args()
    if (reason := why_not()) is not None:
        sys.stderr.write(f"nothing can be killed at a system call: {reason}\n")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        known, died, bad = kill_everywhere(Path(folder).resolve(), options.places)
    calls: dict[DeviceState, Counter[str]] = defaultdict(Counter)
    for place, times in died.items():
        calls[place.state][place.call] += times
    rows = [
        (
            state.value,
            sum(place.state is state for place in died),
            sum(calls[state].values()),
            ", ".join(f"{call} {number}" for call, number in calls[state].most_common() if number),
            sum(f"{state!r}" in text for text in bad),
        )
        for state in DeviceState
        if state in calls
    ]
    note = (
        f"One agent, one kill at a time, at {len(died)} of the {known} calls that touch the state folder in the story: "
        "a trial, its commit, a going back. A place that a run did not come to, because threads took other turns, is "
        "in the second column only. Bad: the agent that was started anew did not answer with one of the two bundles, a "
        "blob was not what its name says, or the story did not end as it does without a kill."
    )
    table.write(
        "device/killed_agent", f"python -m benchmarks.device.killed_agent --places {options.places}", HEADER, rows, note
    )
    return min(1, len(bad))


if __name__ == "__main__":
    sys.exit(main())
