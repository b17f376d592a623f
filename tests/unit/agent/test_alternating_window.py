from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edgeflock_agent.children.runner import HardStop, ItemResult, ModelProcess
from edgeflock_agent.trial.alternating_window import run_alternating_window
from edgeflock_agent.trial.side import SideName, SideStopped
from edgeflock_deploy.messages.orders import TrialSettings
from edgeflock_deploy.reasons import Reason

DATA = Path(__file__).parents[2] / "data"


class Noting(ModelProcess):
    """A child that notes the items it runs."""

    notes: list[int]

    def run_item(self, item: int) -> ItemResult:
        self.notes.append(item)
        return super().run_item(item)


class Place:
    """One place: bringing a variant in ends the other."""

    def __init__(self, stack: ExitStack, **models: str) -> None:
        self._stack, self._models = stack, models
        self.entered: list[SideName] = []
        self.items: dict[SideName, list[list[int]]] = {"old": [], "new": []}
        self._now: Noting | None = None

    def enter(self, side: SideName) -> ModelProcess:
        if self._now is None or not self.entered or self.entered[-1] != side:
            if self._now is not None:
                self._now.close()
            process = self._stack.enter_context(Noting.start(DATA / f"{self._models[side]}.tflite"))
            process.open_slice(DATA / "tiny_evaluation.npz", kind="classification", agreement_atol=None)
            assert isinstance(process, Noting)
            self._now = process
        self.entered.append(side)
        self._now.notes = []
        self.items[side].append(self._now.notes)
        return self._now


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_blocks_run_abba_on_the_same_items_with_one_variant_loaded_at_a_time(stack: ExitStack, seed: int) -> None:
    place = Place(stack, old="tiny", new="tiny_other")
    window = run_alternating_window(
        place.enter, TrialSettings(window_pairs=40, window_max_s=60), random.Random(seed), time.monotonic
    )
    assert window is not None
    assert place.entered in (["old", "new", "new", "old"], ["new", "old", "old", "new"])
    assert place.items["old"] == place.items["new"]
    assert [len(items) for items in place.items["old"]] == [20, 20]
    assert (window.mode, window.paired, window.pairs, window.live_pairs) == ("alternating", True, 40, 0)
    assert (window.old.n, window.new.n, window.old.accuracy) == (40, 40, 1.0)
    assert window.agreement is not None
    assert window.agreement == pytest.approx(window.new.accuracy or 0.0)  # the incumbent is always right here


def test_a_block_ends_by_time_and_the_other_variant_runs_as_many(stack: ExitStack) -> None:
    place, now = Place(stack, old="tiny", new="tiny"), [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    window = run_alternating_window(
        place.enter, TrialSettings(window_pairs=1000, window_max_s=20), random.Random(0), clock
    )
    assert window is not None
    assert 2 <= window.pairs < 20
    assert window.agreement == 1.0


def test_a_window_that_is_stopped_is_given_up(stack: ExitStack) -> None:
    place = Place(stack, old="tiny", new="tiny")
    asked = iter([False] * 5 + [True])
    stop: Callable[[], bool] = lambda: next(asked)  # noqa: E731
    assert run_alternating_window(place.enter, TrialSettings(), random.Random(0), time.monotonic, stop) is None


def test_a_variant_that_does_not_load_any_more_ends_the_window(stack: ExitStack) -> None:
    def enter(side: SideName) -> ModelProcess:
        raise SideStopped(side, HardStop(Reason.LOAD_FAILED, "no"))

    with pytest.raises(SideStopped):
        run_alternating_window(enter, TrialSettings(), random.Random(0), time.monotonic)
