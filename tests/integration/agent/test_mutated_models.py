"""Models that were damaged before they were signed: the short form of `make bench ARGS=mutated_models`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from benchmarks.device import forked_trials, mutations
from benchmarks.device.mutated_models import MODELS, in_forks, in_processes, mutant, sample

from edgeflock_agent.children.child_process import ChildProcess
from edgeflock_agent.children.runner import HardStop, ModelProcess
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.reasons import Reason

if TYPE_CHECKING:
    from tests.integration.agent.conftest import Board, Headquarters

DATA = Path(__file__).parents[2] / "data"
SEED, COUNT = 7, 200


def test_whole_models_pass_and_every_damaged_one_ends_in_an_outcome_that_its_own_process_confirms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    found = in_forks(SEED, COUNT)
    assert len(found) == COUNT
    outcomes = {trial.outcome for _, _, trial in found}
    assert outcomes >= {forked_trials.RIGHT, forked_trials.MISMATCH, forked_trials.REFUSED}
    sampled = in_processes(SEED, sample(found, 1, 2))
    # What reads beyond its memory may find other bytes in another process: whether it is refused is what must agree.
    assert sampled
    for number, trial in sampled.items():
        in_fork = found[number][2]
        assert (trial.outcome == forked_trials.RIGHT) == (in_fork.outcome == forked_trials.RIGHT), (number, in_fork)
    golden = forked_trials.golden_files(DATA, MODELS, tmp_path)
    for name in MODELS:
        whole = forked_trials.tried(DATA / f"{name}.tflite", golden[name], ChildProcess.start)
        assert whole.outcome == forked_trials.RIGHT, (name, whole)


def test_a_mutant_is_made_again_from_its_number_and_every_kind_of_damage_occurs() -> None:
    made = [mutant(SEED, number) for number in range(200)]
    assert made == [mutant(SEED, number) for number in range(200)]
    assert {one.kind for one in made} == set(mutations.KINDS)
    whole = {name: (DATA / f"{name}.tflite").read_bytes() for name in MODELS}
    assert sum(one.data != whole[one.model] for one in made) > 190


def test_a_model_that_the_runtime_refuses_under_a_memory_budget_is_not_blamed_on_the_budget(tmp_path: Path) -> None:
    data = bytearray((DATA / "tiny.tflite").read_bytes())
    places = [place for place in mutations.places(bytes(data)) if not place.skeleton and place.width == 4]
    reasons = []
    for place in places:  # an operator's input becomes a tensor that is not there: "AllocateTensors() failed"
        broken = bytearray(data)
        broken[place.at : place.at + 4] = (4096).to_bytes(4, "little")
        path = tmp_path / "broken.tflite"
        path.write_bytes(broken)
        try:
            ModelProcess.start(path, memory_budget_bytes=forked_trials.BUDGET_BYTES).close()
        except HardStop as stop:
            reasons.append(stop)
            if "AllocateTensors" in stop.detail:
                assert stop.reason is Reason.LOAD_FAILED
                return
    raise AssertionError(reasons)


def test_an_agent_outlives_signed_bundles_of_damaged_models_and_its_incumbent_answers(
    hq: Headquarters, board: Board
) -> None:
    whole = hq.bundle("tiny.tflite", 1)
    board.start()
    hq.want(board.device, Phase.COMMIT, whole, 1, rollout="first")
    assert hq.wait_done(1).outcome is Outcome.SUCCEEDED
    assert board.process is not None
    numbers = range(0, 15, len(MODELS))  # mutants of tiny
    for generation, number in enumerate(numbers, start=2):
        digest = hq.bundle("tiny.tflite", generation, model_bytes=mutant(SEED, number).data)
        hq.want(board.device, Phase.TRIAL, digest, generation, rollout=f"mutant-{number}")
        done = hq.wait_reported(
            f"mutant {number}",
            lambda model, now=generation: (  # type: ignore[misc]
                model.generation == now and (model.outcome is not None or model.state is DeviceState.TRIAL)
            ),
        )
        assert done.outcome in (Outcome.FAILED, None)
        assert (done.reason is None) == (done.outcome is None)
        assert board.process.poll() is None
        assert board.infer()["parameters"]["digest"] == whole
