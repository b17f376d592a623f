"""What a whole agent does with an order to measure: the real agent, with played interpreters."""

from __future__ import annotations

from pathlib import Path

import pytest
from update_story import MEASURED, MODEL, Headquarters, Order, PlayedAgent, World

from edgeflock_agent.arrivals import ARRIVALS
from edgeflock_agent.inbox import Word
from edgeflock_agent.storage.disk import Disk, DiskFull
from edgeflock_agent.storage.record import AgentRecord, RecordFile
from edgeflock_deploy.messages.orders import Desired, MeasureOrder, Phase
from edgeflock_deploy.messages.reports import Measured, ReportedModel
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.reasons import Reason

S = DeviceState
MODEL_OF_B_BYTES = 152_000  # `World.make`
NEVER = Order(Phase.COMMIT, "d")  # an order that is not given: the story goes on for as long as a test wants


@pytest.fixture(scope="module")
def world() -> World:
    return World.make()


def order(world: World, bundle: str, token: str = "m1") -> MeasureOrder:
    return MeasureOrder(token=token, digest=world.digests[bundle], runs=2, expires_at=1e9)


STORY = (Order(Phase.COMMIT, "a"), Order(Phase.TRIAL, "b"), Order(Phase.REVERT, "a"), NEVER)


def installed(
    world: World, folder: Path, disk: Disk | None = None, story: tuple[Order, ...] = STORY
) -> tuple[Headquarters, PlayedAgent]:
    """A board that serves `a`, and goes on living until it has answered an order to measure."""
    hq = Headquarters(world, story)
    hq.on_answer = lambda _: hq.say_again()  # with the order to measure, once it serves

    def answered(said: Measured) -> None:
        if said.outcome is not None:
            hq.finished()

    hq.on_measured = answered
    hq.until = lambda _: False
    hq.say_next = lambda: None  # type: ignore[method-assign]
    return hq, PlayedAgent(folder, disk or Disk(), hq)


def test_a_bundle_is_measured_beside_what_serves_and_leaves_nothing_behind(tmp_path: Path, world: World) -> None:
    hq, agent = installed(world, tmp_path)
    hq.measure = order(world, "b")
    agent.live_on()
    states = list(dict.fromkeys(said.state for said in hq.measured))
    assert states == [S.IDLE, S.DOWNLOADING, S.VERIFYING, S.STAGED, S.WARMING]
    answer = hq.measured[-1]
    assert (answer.token, answer.digest, answer.outcome) == ("m1", world.digests["b"], Outcome.SUCCEEDED)
    assert [run.latency_ms_p50 for run in answer.runs] == [MEASURED.latency_ms_p50] * 2
    assert all(run.conditions is not None for run in answer.runs)
    state = agent.models[MODEL]
    assert (state.slots.active, state.slots.previous, state.candidate) == (world.digests["a"], None, None)
    assert state.state is S.COMMITTED
    assert {path.name for path in (tmp_path / "manifests").iterdir()} == {world.digests["a"]}
    assert all(said.digest == world.digests["a"] for said in hq.said if said.outcome is not None)


def test_a_board_that_never_ran_the_model_measures_it_all_the_same(tmp_path: Path, world: World) -> None:
    hq, agent = installed(world, tmp_path, story=())
    hq.measure = order(world, "b")
    agent.live_on()
    assert (hq.measured[-1].outcome, hq.measured[-1].detail, len(hq.measured[-1].runs)) == (Outcome.SUCCEEDED, None, 2)
    assert agent.models == {}


def test_a_bundle_that_rots_between_its_check_and_its_load_is_not_loaded(tmp_path: Path, world: World) -> None:
    hq, agent = installed(world, tmp_path)
    hq.measure, told = order(world, "b"), hq.on_measured

    def rots(said: Measured) -> None:
        if said.state is S.STAGED:
            (model,) = (path for path in (tmp_path / "blobs").iterdir() if path.stat().st_size == MODEL_OF_B_BYTES)
            model.write_bytes(model.read_bytes()[:-1] + b"!")
        told(said)

    hq.on_measured = rots
    agent.live_on()
    answer = hq.measured[-1]
    assert (answer.outcome, answer.reason, answer.runs) == (Outcome.FAILED, Reason.DISK_ERROR, ())


def test_an_answer_outlives_the_agent_and_is_forgotten_when_nobody_asks_any_more(tmp_path: Path, world: World) -> None:
    hq, agent = installed(world, tmp_path)
    hq.measure = order(world, "b")
    agent.live_on()
    record = RecordFile(tmp_path, Disk()).read()
    assert record is not None
    assert record.measuring[MODEL].answer == hq.measured[-1]
    again = PlayedAgent(tmp_path, Disk(), hq)
    hq.measured.clear()
    again.live_on()
    assert [said.outcome for said in hq.measured] == [Outcome.SUCCEEDED] * len(hq.measured)
    hq.measure = None
    last = PlayedAgent(tmp_path, Disk(), hq)
    last.boot()
    ARRIVALS[Word](last, Word(hq._order()))
    assert last.measurements.answers == {}


def test_an_order_to_run_something_goes_first_and_the_measurement_begins_again_after_it(
    tmp_path: Path, world: World
) -> None:
    hq, agent = installed(world, tmp_path)
    hq.measure = order(world, "c")
    heard: list[DeviceState] = []

    def called_off(said: Measured) -> None:
        heard.append(said.state)
        if heard.count(S.VERIFYING) == 1 and said.state is S.VERIFYING:
            hq.generation = 2  # a trial of `b`
            hq.say_again()
        if said.outcome is not None:
            hq.finished()

    def in_trial(said: ReportedModel) -> None:
        if said.state is S.TRIAL:
            hq.generation = 3
        hq.say_again()

    hq.on_measured, hq.on_answer = called_off, in_trial
    agent.live_on()
    assert [said.outcome for said in hq.measured][-1] is Outcome.SUCCEEDED
    assert heard.count(S.DOWNLOADING) >= 2
    tried = next(i for i, said in enumerate(hq.said) if said.state is S.TRIAL)
    assert hq.said[tried].candidate == world.digests["b"]
    assert agent.models[MODEL].slots.active == world.digests["a"]


def test_a_disk_that_takes_no_record_ends_the_measurement_before_it_begins(tmp_path: Path, world: World) -> None:
    class Full(Disk):
        full = False

        def write_whole(self, path: Path, pieces: object) -> None:
            if self.full and path.name == "record.new":
                raise DiskFull("no room")
            super().write_whole(path, pieces)  # type: ignore[arg-type]

    disk = Full()
    hq, agent = installed(world, tmp_path, disk)
    hq.on_answer = lambda _: (setattr(disk, "full", True), hq.say_again())[-1]  # type: ignore[func-returns-value]
    hq.measure = order(world, "b")
    agent.live_on()
    answer = hq.measured[-1]
    assert (answer.outcome, answer.reason) == (Outcome.FAILED, Reason.DISK_FULL)
    assert S.DOWNLOADING not in [said.state for said in hq.measured]


def test_a_word_and_a_record_of_before_measurements_are_read() -> None:
    assert Desired.model_validate_json('{"v":1,"kind":"desired","device":"a","models":{}}').measure == {}
    old = '{"v":1,"device":"a","device_class":"c","broker":"b","models":{},"signed_time_s":1.0}'
    assert AgentRecord.model_validate_json(old).measuring == {}
