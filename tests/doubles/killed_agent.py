"""The whole agent, on a real broker, killed as it enters one of its calls on the disk: strace's fault injection.

The story: a board that serves one bundle tries another, commits it, and goes back. It is recorded once; then it is
lived again for each place, the agent dies there, is started anew, and the story goes on. A place is the nth call of a
kind on a path, so that it is the same call of the same thread each time.

The law: the agent that is started anew answers with one of the two bundles; the blobs under their names are whole; the
story ends as it would have without the kill.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.reports import Reported, ReportedModel
from edgeflock_deploy.messages.values import DeviceState, Outcome

if TYPE_CHECKING:
    from tests.integration.agent.conftest import Board, Headquarters

CALLS = ("openat", "write", "fsync", "rename", "unlink", "mkdir", "rmdir", "pwrite64")
PATIENCE_S = 120.0
_LOOK_S = 0.02
_PATH = re.compile(r'<(/[^>]*)>|"(/[^"]*)"')


class Place(NamedTuple):
    """The nth call of a kind that touches a path, which is told below the state folder; and what went on then."""

    call: str
    path: str
    number: int
    state: DeviceState


class Unlawful(AssertionError):
    """A board came back, or went on, otherwise than the law says."""


class KilledAgent:
    """A board whose agent dies at a place.

    Args:
        hq: headquarters by hand.
        board: its board, of which nothing was started yet.
    """

    def __init__(self, hq: Headquarters, board: Board) -> None:
        self._hq, self._board, self._traced = hq, board, False
        self._old, self._new = hq.bundle("tiny.tflite", 1), hq.bundle("tiny_other.tflite", 2)
        board.start()
        hq.want(board.device, Phase.COMMIT, self._old, 1)
        if hq.wait_done(1).outcome is not Outcome.SUCCEEDED:
            raise Unlawful("the first bundle was not installed")
        board.end()
        self._before = board.state.with_name("before")
        shutil.copytree(board.state, self._before)

    def places(self) -> list[Place]:
        """Live the story once under strace, and say where it may be cut, in the order of the calls."""
        log = self._board.state.with_name("calls")
        self._begin("-ttt", "-y", "-e", f"trace={','.join(CALLS)}", "-o", str(log))
        self._live()
        self.end()
        return list(self._read(log.read_text().splitlines()))

    def kill_at(self, place: Place) -> bool:
        """Live the story, die there, and go on; False: the story came to its end without that call.

        Raises:
            Unlawful: the board came back, or went on, otherwise than the law says.
        """
        path = self._board.state / place.path
        inject = f"inject={place.call}:signal=SIGKILL:when={place.number}"
        self._begin("-e", f"trace={place.call}", "-P", str(path), "-e", inject, "-o", "/dev/null")
        if self._live():
            self.end()
            return False
        (self._board.state / "endpoint.json").unlink(missing_ok=True)
        self._traced = False
        self._board.start()
        self._look(place)
        if not self._live():
            raise Unlawful(f"{place}: the agent that was started anew died")
        self._board.end()
        return True

    def end(self) -> None:
        """End what runs; strace hands no signal on, and an agent outlives it."""
        running = self._board.process
        if running is None:
            return
        if self._traced and running.poll() is None:
            for agent in Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split():
                os.kill(int(agent), signal.SIGKILL)
        elif running.poll() is None:
            running.send_signal(signal.SIGTERM)
        running.wait(20)

    # --- the story ----------------------------------------------------------------------------------------------------

    def _begin(self, *options: str) -> None:
        board, hq = self._board, self._hq
        shutil.rmtree(board.state)
        shutil.copytree(self._before, board.state)
        self._generation, self._mark, self._states = 2, len(hq.said), [(time.time(), DeviceState.IDLE)]
        self._say()
        words = ["strace", "-f", "-qq", *options, sys.executable, "-m", "edgeflock_agent.cli", "run"]
        words += ["--id", board.device, "--broker", hq.url, "--state", str(board.state), "--beat", "0.5"]
        with board.log_path.open("ab") as log:
            self._traced = True
            board.process = subprocess.Popen(words, stdout=log, stderr=log)

    def _say(self) -> None:
        orders = {2: (Phase.TRIAL, self._new), 3: (Phase.COMMIT, self._new), 4: (Phase.REVERT, self._old)}
        phase, digest = orders[self._generation]
        self._hq.want(self._board.device, phase, digest, self._generation, window_pairs=5)

    def _live(self) -> bool:
        """Give the orders until the last one was followed; False: the agent died before."""
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            for heard in self._heard():
                if heard.generation == self._generation and self._answered(heard):
                    if self._generation == 4:
                        return True
                    self._generation += 1
                    self._say()
            assert self._board.process is not None
            if self._board.process.poll() is not None:
                return False
            time.sleep(_LOOK_S)
        raise Unlawful(f"generation {self._generation} was never answered; {self._hq.said[-1:]}")

    def _heard(self) -> Iterator[ReportedModel]:
        said = self._hq.said[self._mark :]
        self._mark += len(said)
        for message in said:
            if isinstance(message, Reported) and "digits" in message.models:
                model = message.models["digits"]
                self._states.append((time.time(), model.state))
                yield model

    def _answered(self, heard: ReportedModel) -> bool:
        if heard.outcome in (Outcome.FAILED, Outcome.REJECTED, Outcome.TIMED_OUT):
            raise Unlawful(f"generation {heard.generation}: {heard.outcome.value}, {heard.reason}: {heard.detail}")
        if self._generation == 2:
            return heard.state is DeviceState.TRIAL
        wanted = Outcome.SUCCEEDED if self._generation == 3 else Outcome.ROLLED_BACK
        return heard.outcome is wanted and heard.digest == (self._new if self._generation == 3 else self._old)

    def _look(self, place: Place) -> None:
        digest = self._first_answer(place)
        if digest not in (self._old, self._new):
            raise Unlawful(f"{place}: {digest} serves")
        for blob in (self._board.state / "blobs").iterdir():
            if re.fullmatch("[0-9a-f]{64}", blob.name) and sha256_hex(blob.read_bytes()) != blob.name:
                raise Unlawful(f"{place}: a blob is not what its name says")

    def _first_answer(self, place: Place) -> str:
        """Which bundle answers first; until one is loaded the endpoint says 503."""
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            try:
                return str(self._board.infer()["parameters"]["digest"])
            except urllib.error.URLError:
                time.sleep(_LOOK_S)
        raise Unlawful(f"{place}: nothing serves")

    def _read(self, lines: list[str]) -> Iterator[Place]:
        """Calls on paths of the state folder, from the first order on, of strace's log."""
        counted: Counter[tuple[str, str, str]] = Counter()  # strace counts for each thread
        known = set[tuple[str, str, int]]()
        for line in lines:
            thread, at_s, text = line.split(maxsplit=2)
            call, _, rest = text.partition("(")
            found = next((one or two for one, two in _PATH.findall(rest) if self._is_own(one or two)), None)
            if call not in CALLS or found is None:
                continue
            path = str(Path(found).relative_to(self._board.state))
            counted[thread, call, path] += 1
            place = call, path, counted[thread, call, path]
            if place not in known:  # else the agent dies when the first thread comes there
                known.add(place)
                yield Place(*place, self._state_at(float(at_s)))

    def _state_at(self, moment_s: float) -> DeviceState:
        return [state for at_s, state in self._states if at_s <= moment_s or state is DeviceState.IDLE][-1]

    def _is_own(self, path: str) -> bool:
        return path.startswith(f"{self._board.state}/")


def spread(places: list[Place], count: int) -> list[Place]:
    """So many of the places, evenly over the story."""
    return [places[number * len(places) // count] for number in range(min(count, len(places)))]
