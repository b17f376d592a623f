"""`kill -9` in the middle of a board's life, at a chosen system call, by strace's fault injection.

A warmed-up process under `strace -f` forks a child for each kill; the child lives the whole story on a real folder with
the real disk, and is killed as it enters its nth call of one kind. strace counts per process and takes one n per
invocation, so a child that is to die sooner makes up the difference beforehand with calls that come to nothing.

`python killed_updates.py PLAN` is that process.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from power_cuts import BadBoot, Tally, check_end, check_state
from recording_disk import UnsyncedDisk
from update_story import STORY, Headquarters, PlayedAgent, World

from edgeflock_agent.storage.disk import Disk
from edgeflock_deploy.messages.reports import ReportedModel

_AT = 3_000  # the call at which strace kills; more than a warming process makes
_BATCH = 40
_NO_FILE = 1_000_000
_NOTHING: dict[str, Callable[[], Any]] = {
    "openat": lambda: os.open("/-/-", os.O_RDONLY),
    "write": lambda: os.write(_NO_FILE, b""),
    "fsync": lambda: os.fsync(_NO_FILE),
    "rename": lambda: Path("/-/-").rename("/-/-"),
    "unlink": lambda: Path("/-/-").unlink(),
    "mkdir": lambda: Path("/-/-").mkdir(),
    "rmdir": lambda: Path("/-/-").rmdir(),
}
"""The system calls at which is killed, each with a call that comes to nothing."""


def why_not() -> str | None:
    """Why nothing can be killed here; None: it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-qq", "-e", "trace=fsync", "true"], capture_output=True, check=False)
    return None if tried.returncode == 0 else f"ptrace is not allowed: {tried.stderr.decode().strip()[:80]}"


def kill_everywhere(world: World, folder: Path, kills: int) -> tuple[Tally, Counter[str]]:
    """Kill at so many places, spread evenly over all disk calls of the story, and look at what comes up.

    Returns:
        The tally, and how many kills there were at each kind of call.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "world").write_bytes(pickle.dumps(world))
    counts = _count(folder)
    places = [(kind, number) for kind in sorted(counts) for number in range(1, counts[kind] + 1)]
    rounds = -(-kills // len(places))
    chosen = (places * rounds)[:: max(1, len(places) * rounds // kills)][:kills]
    tally, killed = Tally(), Counter[str]()
    for kind in sorted(counts):
        numbers = [number for one, number in chosen if one == kind]
        for start in range(0, len(numbers), _BATCH):
            for place in _run(folder, kind, numbers[start : start + _BATCH]):
                if (place / "killed").exists():
                    tally.cuts += 1
                    killed[kind] += 1
                    with contextlib.suppress(FileNotFoundError):
                        _check(world, place, kind, tally)
                elif (place / "failed").exists():
                    tally.bad.append((place / "failed").read_text())
                shutil.rmtree(place)
    return tally, killed


def _check(world: World, place: Path, kind: str, tally: Tally) -> None:
    acknowledged = max([0, *map(int, (place / "answers").read_text().split())])
    try:
        recorded = check_state(world, place / "state", acknowledged)
        headquarters = Headquarters(world)
        given = recorded.desired.generation if recorded is not None and recorded.desired is not None else 1
        headquarters.generation = min(len(STORY), max(given, acknowledged))
        agent = PlayedAgent(place / "state", UnsyncedDisk(), headquarters)
        agent.live_on()
        check_end(world, place / "state", agent)
    except (BadBoot, AssertionError) as bad:
        tally.bad.append(f"killed at {kind} {place.name}: {bad}")


def _run(folder: Path, kind: str, numbers: list[int]) -> list[Path]:
    place = Path(tempfile.mkdtemp(dir=folder))
    plan = place / "plan"
    plan.write_text(json.dumps({"kind": kind, "numbers": numbers, "world": str(folder / "world")}))
    inject = f"inject={kind}:signal=SIGKILL:when={_AT}"
    _strace(plan, "-e", f"trace={kind}", "-e", inject, "-o", "/dev/null")
    plan.unlink()
    return [place / f"{number}-{at}" for at, number in enumerate(numbers)]


def _count(folder: Path) -> Counter[str]:
    """How many calls of each kind the story makes."""
    plan, log = folder / "plan", folder / "log"
    plan.write_text(json.dumps({"kind": "fsync", "numbers": [_AT], "world": str(folder / "world")}))
    _strace(plan, "-e", f"trace={','.join(_NOTHING)}", "-o", str(log))
    shutil.rmtree(folder / f"{_AT}-0")
    lines = [line.split(maxsplit=1) for line in log.read_text().splitlines()]
    by_process = Counter(pid for pid, _ in lines)
    child = next(pid for pid in by_process if pid != lines[0][0])
    return Counter(text.split("(")[0] for pid, text in lines if pid == child and "(" in text)


def _strace(plan: Path, *options: str) -> None:
    subprocess.run(
        ["strace", "-f", "-qq", *options, sys.executable, __file__, str(plan)],
        check=True,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=600,
    )


def main() -> None:
    """Fork a child for each number of the plan, one after the other."""
    path = Path(sys.argv[1])
    plan = json.loads(path.read_text())
    world: World = pickle.loads(Path(plan["world"]).read_bytes())
    for at, number in enumerate(plan["numbers"]):
        place = path.parent / f"{number}-{at}"
        place.mkdir()
        child = os.fork()
        if child == 0:
            _live(world, place, plan["kind"], _AT - number)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            (place / "killed").mkdir()


def _live(world: World, place: Path, kind: str, calls_before: int) -> None:
    try:
        answers = os.open(place / "answers", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        headquarters = Headquarters(world)

        def answered(heard: ReportedModel) -> None:
            os.write(answers, b"%d " % heard.generation)

        headquarters.on_answer = answered
        for _ in range(calls_before):
            with contextlib.suppress(OSError):
                _NOTHING[kind]()
        PlayedAgent(place / "state", Disk(), headquarters).live_on()
        os._exit(0)
    except BaseException:
        (place / "failed").write_text(traceback.format_exc())
        os._exit(1)


if __name__ == "__main__":
    main()
