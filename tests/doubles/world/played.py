"""What runs on a simulated board in place of an interpreter: it reads the bytes it would load, and behaves as declared.

Everything that decides and everything that touches the disk is the agent's own. Played are: loading and golden cases,
measuring, the pairs of a window, and waiting for a message in a download.
"""

from __future__ import annotations

import math
import queue
import random
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeflock_agent.children.runner import HardStop
from edgeflock_agent.children.tensors import Tensor
from edgeflock_agent.gauging import gauge
from edgeflock_agent.jobs import Jobs
from edgeflock_agent.lane import Lane
from edgeflock_agent.limits import exceeded
from edgeflock_agent.machine.events import Event
from edgeflock_agent.measurements import Measurements
from edgeflock_agent.storage.download import Cancelled, Download
from edgeflock_agent.trial.side import SideStopped
from edgeflock_agent.trial.window import WindowSides
from edgeflock_agent.work import Work
from edgeflock_deploy.bundle import Manifest
from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.messages.measurements import Conditions, Measurement
from edgeflock_deploy.messages.orders import MeasureOrder
from edgeflock_deploy.messages.windows import VariantWindow
from edgeflock_deploy.reasons import Reason
from world import keeping

if TYPE_CHECKING:
    from world.board import Board

PAIRS = 130
_RSS_BYTES = 4_000_000


class Effect(NamedTuple):
    """What a variant does on a board, against the first one: latency as a logarithm, shares, and how it fails."""

    latency_log: float = 0.0
    accuracy_drop: float = 0.0
    disagreement: float = 0.005
    memory: float = 1.0
    load: Reason | None = None
    dies: Reason | None = None  # in its third window, or after a while of serving
    alone: float = 1.0  # times the latency of the first one while it warms
    over: Reason | None = None  # what is declared of chains


EFFECTS = {
    "harmless": Effect(),
    "lean": Effect(memory=0.6),
    "slow": Effect(latency_log=math.log(1.6)),
    "wrong": Effect(accuracy_drop=0.15, disagreement=0.2),
    "hungry": Effect(memory=2.0),
    "crashing": Effect(dies=Reason.CRASHED),
    "hanging": Effect(dies=Reason.HUNG),
    "unloadable": Effect(load=Reason.LOAD_FAILED),
    "mismatching": Effect(load=Reason.GOLDEN_MISMATCH),
    # of one form of a chain, on some boards
    "memory": Effect(memory=20.0, over=Reason.MEMORY_OVER_BUDGET),
    "operator": Effect(load=Reason.OPERATOR_MISSING),
    "golden": Effect(load=Reason.GOLDEN_MISMATCH),
    "deadline": Effect(alone=20.0, over=Reason.TOO_SLOW),
}


class PlayedProcess:
    """An interpreter that is not one; `variant` is whose bytes it was given."""

    pid = 0
    inputs = (Tensor("x", "uint8", (-1,), (1 << 16,)),)

    def __init__(self, variant: str) -> None:
        self.variant, self.alive, self.failure = variant, True, None

    def beat(self, within_s: float) -> None:
        """It answers."""

    def recall(self) -> None:
        """It has no application's connection in hand."""

    def close(self) -> None:
        self.alive = False

    def __enter__(self) -> PlayedProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Climate:
    """How fast a board is at the moment: unlike others, warm, throttled now and then."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._own, self._heat, self.slower = rng.gauss(0.0, 0.35), 0.0, 0.0

    def half(self) -> float:
        """Log p95 of half a window, without any effect of a variant."""
        self._heat = 0.95 * self._heat + self._rng.gauss(0.0, 0.02)
        return self._own + self._heat + self.slower + self._rng.gauss(0.0, 0.03)


class PlayedTrials:
    """Closes windows in place of the real ones."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def window(self, _model: str, digest: str, _child: Any, old: Any, _settings: Any, _over: Any) -> WindowSides:
        board = self._board
        was = board.effect_on(old.process.variant) if old is not None else Effect()
        now = board.effect_on(_child.variant)
        board.law.tries(board.name, _child.variant)
        if old is not None:
            keeping.disagree(board, old, digest)
        number = board.windows_of(digest)
        if now.dies is not None and number >= 2:
            _child.alive = False
            raise SideStopped("new", HardStop(now.dies, "as declared"))
        first, second = board.climate.half(), board.climate.half()
        before, after = (first, second) if number % 2 else (second, first)
        before, after = before + was.latency_log, after + now.latency_log
        drop = now.accuracy_drop - was.accuracy_drop
        agreement = 1.0 - max(now.disagreement, was.disagreement) * board.rng.uniform(0.7, 1.3)
        if board.liar:
            after, drop = before + math.log(board.liar), 0.0
        return WindowSides(
            duration_s=8.0,
            pairs=PAIRS,
            old=_side(before, 0.95, mute=board.mute),
            new=_side(after, 0.95 - drop + board.rng.gauss(0.0, 0.005), mute=board.mute),
            agreement=agreement,
            conditions=Conditions(),
        )


class PlayedJobs(Jobs):
    """The agent's jobs on a simulated board."""

    played: Board
    _rest = staticmethod(lambda _seconds: None)

    @classmethod
    def of(cls, jobs: Jobs, board: Board) -> PlayedJobs:
        """The same jobs with their outermost parts played."""
        made = cls.__new__(cls)
        made.__dict__ |= jobs.__dict__
        made.played, made._trials = board, PlayedTrials(board)  # type: ignore[assignment]
        return made

    def _start(self, manifest: Manifest) -> Any:
        files = self._store.files(manifest)
        found = {str(role): sha256_hex(path.read_bytes()) for role, path in files.items()}
        effect = self.played.effect_on(manifest.variant)
        if effect.load is not None:
            raise HardStop(effect.load, "as declared")
        self.played.watcher.loaded(self.played.name, manifest.variant, found)
        self.played.law.loads(self.played.name, manifest.variant)
        return PlayedProcess(manifest.variant)

    def _measure(self, child: Any, manifest: Manifest, *_: Any) -> Measurement:
        measured = _measured(self.played.effect_on(child.variant))
        over = exceeded(measured, manifest.limits)
        if over is not None:
            raise HardStop(over.reason, over.detail)
        return measured

    def _fits(self, work: Work, manifest: Manifest) -> bool:
        return True

    def _download(self, work: Work) -> Download:
        made = PlayedDownload(self._link, self._store, self._traffic, work.given_up)
        made.played = self.played
        return made


class PlayedMeasurements(Measurements):
    """The agent's measurements, on a machine that tells nothing of its conditions."""

    def gauged(self, work: Work, order: MeasureOrder) -> Event:
        agent: Any = self._agent
        root = agent.board.nothing
        return gauge(agent.jobs, work, order, emulated=False, clock=lambda: agent.board.now_s, root=root)


class PlayedDownload(Download):
    """A download that waits in the world's time."""

    played: Board

    def _next(self) -> tuple[str, bytes] | None:
        until_s = self.played.now_s + self._stall_s
        while True:
            if self._cancelled():
                raise Cancelled
            try:
                return self._inbox.get_nowait()
            except queue.Empty:
                pass
            if self.played.now_s >= until_s:
                if self._link.connected:
                    return None
                until_s = self.played.now_s + self._stall_s
            self.played.wait(until_s, self._cancelled)


class BoardLane(Lane):
    """A lane that does one job after the other, each when the world's time has come for it."""

    def __init__(self, board: Board, takes_s: float, *, waits: bool = False, boots: bool = False) -> None:
        self._board, self._takes_s, self._waits, self._boots = board, takes_s, waits, boots
        self._queue: list[Any] = []
        self.busy = False

    def submit(self, job: Any) -> None:
        if self._board.booting and self._boots:
            job()
            return
        self._queue.append(job)
        self._next_job()

    def stop(self, timeout_s: float) -> None:
        """It ends with its board."""

    def done(self) -> None:
        """The job at hand has ended."""
        self.busy = False
        self._next_job()

    def _next_job(self) -> None:
        if self._queue and not self.busy:
            self.busy = True
            job = self._queue.pop(0)
            self._board.later(self._takes_s, lambda: self._board.work(self, job, waits=self._waits))


def _measured(effect: Effect) -> Measurement:
    return Measurement(
        n=PAIRS,
        latency_ms_p50=1.0 * effect.alone,
        latency_ms_p90=1.1 * effect.alone,
        latency_ms_p95=1.2 * effect.alone,
        first_inference_ms=2.0,
        load_ms=3.0,
        warmed_up=True,
        peak_rss_bytes=int(_RSS_BYTES * effect.memory),
    )


def _side(log_p95: float, accuracy: float, *, mute: bool) -> VariantWindow:
    p95 = math.exp(log_p95)
    known = None if mute else accuracy
    return VariantWindow(
        n=PAIRS, latency_ms_p50=0.8 * p95, latency_ms_p90=0.95 * p95, latency_ms_p95=p95, accuracy=known
    )
