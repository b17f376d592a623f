from __future__ import annotations

from typing import Any

import pytest
from machine_states import LATE, MEASURED, NEW, NOW, S

from edgeflock_agent.machine.effects import (
    AskTurn,
    CollectGarbage,
    FetchBlobs,
    FetchManifest,
    Gauge,
    Persist,
    Report,
    StopWork,
    Switch,
    Verify,
)
from edgeflock_agent.machine.events import (
    BlobsReady,
    BoardBusy,
    BoardIdle,
    DownloadFailed,
    Gauged,
    HardStopped,
    ManifestReady,
    Refused,
    Ticked,
    TurnCame,
    Verified,
)
from edgeflock_agent.machine.measuring import MAX_ATTEMPTS, MEASURING, Measuring, after_boot, asked, step
from edgeflock_deploy.messages.orders import MeasureOrder
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.reasons import Reason

UNDER_WAY = (S.DOWNLOADING, S.VERIFYING, S.STAGED, S.WARMING)
STATES = (S.IDLE, *UNDER_WAY)
ORDER = MeasureOrder(token="m1", digest=NEW, runs=2, expires_at=5_000.0)
GAUGED = Gauged(NEW, (MEASURED, MEASURED), 0.9, 200)


def at(state: DeviceState) -> Measuring:
    return asked("digits", ORDER).but(attempts=int(state is S.WARMING), floor_version=3).saying(state=state)


# One event of each type, and the states that it moves: to which state, and with which outcome, if it ends there.
END = S.IDLE
CELLS: list[tuple[Any, dict[DeviceState, tuple[DeviceState, Outcome | None]]]] = [
    (BoardIdle(NOW), {S.IDLE: (S.DOWNLOADING, None)}),
    (BoardIdle(NOW, known_bad=True), {S.IDLE: (END, Outcome.REJECTED)}),
    (BoardIdle(LATE), {S.IDLE: (END, Outcome.TIMED_OUT)}),
    (BoardBusy(), dict.fromkeys(UNDER_WAY, (S.IDLE, None))),
    (ManifestReady(NEW, 3, ("int8",)), {}),
    (ManifestReady(NEW, 2, ("int8",)), {S.DOWNLOADING: (END, Outcome.REJECTED)}),
    (BlobsReady(NEW), {S.DOWNLOADING: (S.VERIFYING, None)}),
    (
        DownloadFailed(NEW, Reason.DISK_FULL, "full"),
        {S.DOWNLOADING: (END, Outcome.FAILED), S.VERIFYING: (END, Outcome.FAILED)},
    ),
    (
        Refused(NEW, Reason.SIGNATURE_INVALID, "no key"),
        {S.DOWNLOADING: (END, Outcome.REJECTED), S.VERIFYING: (END, Outcome.REJECTED)},
    ),
    (Verified(NEW), {S.VERIFYING: (S.STAGED, None)}),
    (TurnCame(NEW), {S.STAGED: (S.WARMING, None)}),
    (GAUGED, {S.WARMING: (END, Outcome.SUCCEEDED)}),
    (
        HardStopped(NEW, Reason.NAN_OUTPUT, "nan"),
        {S.STAGED: (END, Outcome.FAILED), S.WARMING: (END, Outcome.FAILED)},
    ),
    (Ticked(NOW), {}),
    (Ticked(LATE), dict.fromkeys(STATES, (END, Outcome.TIMED_OUT))),
]


@pytest.mark.parametrize(("event", "moves"), CELLS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.value)
def test_every_cell_of_the_table(
    event: Any, moves: dict[DeviceState, tuple[DeviceState, Outcome | None]], state: DeviceState
) -> None:
    before = at(state)
    after, effects = step(before, event)
    assert (after.answer.state, after.answer.outcome) == moves.get(state, (state, None))
    assert not any(isinstance(effect, Switch) for effect in effects)
    if after.over:
        assert effects == (StopWork(), Persist(), CollectGarbage(), Report())
    again, nothing = step(after.saying(outcome=Outcome.SUCCEEDED), event)
    assert (again.answer.outcome, nothing) == (Outcome.SUCCEEDED, ())  # an ended one stays as it is


def test_every_event_of_the_table_has_its_cells() -> None:
    assert set(MEASURING) == {type(event) for event, _ in CELLS}


def test_an_event_of_another_bundle_changes_nothing() -> None:
    for event in (BlobsReady("other"), Verified("other"), TurnCame("other"), Gauged("other", (), None, 0)):
        for state in STATES:
            assert step(at(state), event) == (at(state), ())


def test_from_the_order_to_the_answer_each_step_is_done_in_turn() -> None:
    measuring, done = asked("digits", ORDER), []
    for event in (
        BoardIdle(NOW, floor_version=3),
        ManifestReady(NEW, 4, ("int8", "float32")),
        BlobsReady(NEW),
        Verified(NEW),
        TurnCame(NEW),
        GAUGED,
    ):
        measuring, effects = step(measuring, event)
        done += [type(effect) for effect in effects]
    assert done == [
        *(Persist, FetchManifest, Report),
        *(FetchBlobs,),
        *(Verify, Report),
        *(AskTurn, Report),
        *(Persist, Gauge, Report),
        *(StopWork, Persist, CollectGarbage, Report),
    ]
    answer = measuring.answer
    assert (answer.token, answer.variant, answer.accuracy, answer.items) == ("m1", "int8", 0.9, 200)
    assert answer.runs == (MEASURED, MEASURED)


def test_the_form_that_a_slot_holds_is_the_one_that_is_measured() -> None:
    begun, _ = step(asked("digits", ORDER), BoardIdle(NOW, form=1))
    named, _ = step(begun, ManifestReady(NEW, 4, ("int8", "float32")))
    assert (named.form, named.answer.variant) == (1, "float32")


def test_an_attempt_that_we_called_off_does_not_count_and_one_that_killed_the_agent_does() -> None:
    called_off, _ = step(at(S.WARMING), BoardBusy())
    assert called_off.attempts == 0
    measuring = asked("digits", ORDER)
    for _ in range(MAX_ATTEMPTS):
        measuring, _ = step(measuring, BoardIdle(NOW))
        for event in (ManifestReady(NEW, 4), BlobsReady(NEW), Verified(NEW), TurnCame(NEW)):
            measuring, _ = step(measuring, event)
        measuring = after_boot(measuring)
    measuring, effects = step(measuring, BoardIdle(NOW))
    assert (measuring.answer.outcome, measuring.answer.reason) == (Outcome.FAILED, Reason.CRASH_LOOP)
    assert Gauge(NEW) not in effects
    assert after_boot(measuring) == measuring
