"""An agent on a board whose wall clock is wrong: what it does with the controller's signed orders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeflock_agent.agent import Agent
from edgeflock_agent.arrivals import ARRIVALS
from edgeflock_agent.device import Identity
from edgeflock_agent.inbox import Word
from edgeflock_agent.machine.state import Now
from edgeflock_agent.storage.disk import Disk
from edgeflock_agent.storage.record import RecordFile
from edgeflock_agent.storage.store import Store
from edgeflock_deploy.keys import SigningKey, Trust
from edgeflock_deploy.messages.orders import Desired, DesiredModel, Phase
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.reasons import Reason

CONTROLLER = SigningKey.generate("controller")
TODAY = 1_800_000_000.0
DAY = 24 * 3600.0
IN_1970, IN_2040 = 30.0, 2_208_988_800.0


class NoLink:
    connected = False

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def drop(self) -> None: ...

    def subscribe(self, topic: str, handler: Callable[[str, bytes], None]) -> None: ...

    def unsubscribe(self, topic: str) -> None: ...

    def publish(self, topic: str, payload: bytes, **_: Any) -> None: ...


class Board:
    """A board with a wall clock that a test sets, and a monotonic one that counts seconds since its boot."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wall_s = IN_1970
        self.boot()

    def boot(self) -> None:
        self.up_s = 5.0
        identity = Identity(device="a", device_class="c", runtime="none", boot_id="b", broker="mqtt://h:1")
        trust = Trust(keys=(CONTROLLER.public,))
        now = lambda: Now(self.wall_s, self.up_s)  # noqa: E731
        self.agent = Agent(identity, Store(self.folder, Disk()), trust, lambda _: NoLink(), now=now)
        self.agent.boot()

    def hear(self, generation: int, signed_at: float | None, expires_at: float) -> tuple[DeviceState, Reason | None]:
        entry = DesiredModel(
            generation=generation, phase=Phase.COMMIT, digest=f"{generation:064x}", rollout="r", expires_at=expires_at
        )
        word = Desired(device="a", models={"digits": entry}, signed_at=signed_at).model_dump(mode="json")
        ARRIVALS[Word](self.agent, Word(CONTROLLER.seal(word)))
        state = self.agent.models["digits"]
        assert (state.outcome is Outcome.REJECTED) == (state.reason is Reason.EXPIRED)
        return state.state, state.reason


def test_a_board_at_1970_refuses_an_order_that_had_lapsed_before_the_newest_signature(tmp_path: Path) -> None:
    board = Board(tmp_path)
    assert board.hear(1, TODAY, TODAY + 7 * DAY) == (DeviceState.DOWNLOADING, None)
    assert board.hear(2, TODAY - 30 * DAY, TODAY - 23 * DAY)[1] is Reason.EXPIRED


def test_a_board_at_1970_refuses_it_after_a_reboot_too(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.hear(1, TODAY, TODAY + 7 * DAY)
    board.boot()
    assert board.hear(2, TODAY - 30 * DAY, TODAY - 23 * DAY)[1] is Reason.EXPIRED


def test_on_a_board_at_1970_orders_lapse_with_the_time_that_it_is_up(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.hear(1, TODAY, TODAY + 7 * DAY)
    board.up_s += 8 * DAY
    assert board.hear(2, TODAY, TODAY + 7 * DAY)[1] is Reason.EXPIRED


def test_a_board_whose_clock_leapt_to_2040_goes_on_following_orders(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.hear(1, TODAY, TODAY + 7 * DAY)
    board.wall_s = IN_2040
    assert board.hear(2, TODAY + DAY, TODAY + 8 * DAY) == (DeviceState.DOWNLOADING, None)


def test_a_replayed_older_order_changes_nothing_whatever_the_clock_says(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.hear(5, TODAY, TODAY + 7 * DAY)
    before = board.agent.models["digits"]
    for board.wall_s in (IN_1970, TODAY, IN_2040):
        board.hear(4, TODAY - DAY, TODAY + 6 * DAY)
        assert board.agent.models["digits"] == before


def test_an_order_of_a_controller_that_does_not_date_them_is_followed(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.wall_s = TODAY
    assert board.hear(1, None, TODAY + DAY) == (DeviceState.DOWNLOADING, None)


def test_a_word_that_only_renews_an_order_makes_the_later_time_durable(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.hear(1, TODAY, TODAY + 7 * DAY)
    board.hear(1, TODAY + 4 * DAY, TODAY + 11 * DAY)
    record = RecordFile(tmp_path, Disk()).read()
    assert record is not None
    assert record.signed_time_s == TODAY + 4 * DAY


def test_a_wall_clock_that_jumps_ends_no_trial_and_no_restart_early(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.hear(1, TODAY, TODAY + 7 * DAY)
    for board.wall_s in (IN_2040, IN_1970, TODAY):
        board.agent._tick()
        assert board.agent.models["digits"].state is DeviceState.DOWNLOADING
