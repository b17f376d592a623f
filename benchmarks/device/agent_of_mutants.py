"""Damaged models as signed bundles through one real agent process, over a real broker, beside a whole incumbent."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.device.forked_trials import BY_REASON, CRASHED, HUNG, MEMORY, MISMATCH, REFUSED, RIGHT, Trial
from edgeflock_controller.broker import EmbeddedBroker
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.reports import ReportedModel
from edgeflock_deploy.messages.values import DeviceState, Outcome

if TYPE_CHECKING:
    from tests.integration.agent.conftest import Board

    from benchmarks.device.mutated_models import Mutant

ALIKE = ("tiny", "tiny_slow", "tiny_int4")  # these take and give what the incumbent does


class Told(NamedTuple):
    """What the agent said of each mutant by number, how often it died, and what the application saw meanwhile."""

    trials: dict[int, Trial]
    deaths: int
    asked: int
    unanswered: int


def chosen(models: Mapping[int, str], alone: Mapping[int, Trial], most: int) -> list[int]:
    """Some mutants of every outcome, by number, the harmless ones last, for they are committed.

    Those over the memory budget are left out: an agent's child has none unless its bundle says so.
    """
    shares = {CRASHED: most // 2, HUNG: most // 5, REFUSED: most // 5, MISMATCH: most // 5, RIGHT: 2, MEMORY: 0}
    picked: list[int] = []
    for outcome, share in shares.items():
        picked += [number for number, trial in alone.items() if trial.outcome == outcome and models[number] in ALIKE][
            :share
        ]
    return picked


def deploy(mutants: Mapping[int, Mutant], folder: Path) -> Told:
    """Have one agent try each in turn, while an application asks on."""
    # The tests' headquarters: a real broker, real keys, real bundles.
    from tests.integration.agent.conftest import Board, Headquarters

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    broker = EmbeddedBroker.start(folder)
    hq = Headquarters(broker.url, folder)
    board = Board(hq, folder, hq.device).start()
    try:
        hq.want(board.device, Phase.COMMIT, hq.bundle("tiny.tflite", 1), 1, rollout="first")
        assert hq.wait_done(1).outcome is Outcome.SUCCEEDED
        application = Application(board)
        trials, deaths, generation = {}, 0, 1
        for version, (number, one) in enumerate(mutants.items(), start=2):
            generation += 1
            digest = hq.bundle(f"{one.model}.tflite", version, model_bytes=one.data)
            hq.want(board.device, Phase.TRIAL, digest, generation, rollout=f"mutant-{number}")
            trials[number] = _trial(hq.wait_reported(f"mutant {number}", _ended(generation)))
            assert board.process is not None
            deaths += board.process.poll() is not None
        application.stop.set()
        application.thread.join()
        return Told(trials, deaths, application.asked, application.unanswered)
    finally:
        board.end()
        hq.link.stop()
        broker.stop()


class Application:
    """Asks the board for inferences, one after the other, until it is told to stop."""

    def __init__(self, board: Board) -> None:
        self.board, self.asked, self.unanswered = board, 0, 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self.stop.wait(0.05):
            self.asked += 1
            try:
                self.board.infer()
            except OSError:
                self.unanswered += 1


def _ended(generation: int) -> Callable[[ReportedModel], bool]:
    """Refused, or harmless and in its trial."""

    def matches(model: ReportedModel) -> bool:
        return model.generation == generation and (model.outcome is not None or model.state is DeviceState.TRIAL)

    return matches


def _trial(model: ReportedModel) -> Trial:
    if model.reason is None:
        return Trial(RIGHT, "")
    return Trial(BY_REASON[model.reason], f"{model.reason.value}: {model.detail}")
