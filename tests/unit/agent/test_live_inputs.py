from __future__ import annotations

import random
from pathlib import Path

import pytest

from edgeflock_agent.children.runner import Inference, ModelProcess
from edgeflock_agent.serving.endpoint import Answered, Serving
from edgeflock_agent.trial import live_inputs
from edgeflock_agent.trial.live_inputs import LiveInputs

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def process() -> ModelProcess:
    process = ModelProcess.start(DATA / "tiny.tflite")
    process.close()  # who answered is all that counts here
    return process


def _answered(process: ModelProcess, data: bytes, digest: str = "old", model: str = "digits") -> Answered:
    return Answered(model, (bytearray(data),), Serving(digest, process), Inference((b"",), 0.1))


def test_nothing_is_kept_while_no_trial_runs(process: ModelProcess) -> None:
    live = LiveInputs(random.Random(0))
    live(_answered(process, b"a"))
    assert live.take("digits") is None


def test_inputs_are_kept_in_order_as_copies_and_given_once(process: ModelProcess) -> None:
    live = LiveInputs(random.Random(0))
    live.keep("digits", "old", 1.0, lambda: False)
    data = bytearray(b"one")
    live(Answered("digits", (data,), Serving("old", process), Inference((b"",), 0.1)))
    data[:] = b"xxx"
    live(_answered(process, b"two"))
    live.keep("digits", "old", 1.0, lambda: False)  # as the next window does
    assert [live.take("digits") for _ in range(3)] == [(b"one",), (b"two",), None]


def test_batches_and_sequences_are_nothing_for_a_trial(process: ModelProcess) -> None:
    live = LiveInputs(random.Random(0))
    live.keep("digits", "old", 1.0, lambda: False)
    live(_answered(process, b"several")._replace(plain=False))
    assert live.take("digits") is None


def test_only_the_share_is_kept(process: ModelProcess) -> None:
    live = LiveInputs(random.Random(0))
    live.keep("digits", "old", 0.25, lambda: False)
    for _ in range(400):
        live(_answered(process, b"a"))
    kept = 0
    while live.take("digits") is not None:
        kept += 1
    assert 60 < kept < 140


def test_other_models_and_other_variants_are_not_kept(process: ModelProcess) -> None:
    live = LiveInputs(random.Random(0))
    live.keep("digits", "old", 1.0, lambda: False)
    live(_answered(process, b"a", digest="new"))
    live(_answered(process, b"a", model="faces"))
    assert live.take("digits") is None
    assert live.take("faces") is None


def test_the_newest_stay_within_the_bytes(process: ModelProcess) -> None:
    live = LiveInputs(random.Random(0))
    live.keep("digits", "old", 1.0, lambda: False)
    third = live_inputs.MAX_BYTES // 3
    live(_answered(process, bytes(live_inputs.MAX_BYTES + 1)))  # never fits
    for letter in (b"a", b"b", b"c", b"d"):
        live(_answered(process, letter * third))
    first = live.take("digits")
    assert first is not None
    assert first[0][:1] == b"b"


def test_the_newest_stay_within_the_number(process: ModelProcess) -> None:
    live = LiveInputs(random.Random(0))
    live.keep("digits", "old", 1.0, lambda: False)
    for number in range(live_inputs.MAX_INPUTS + 5):
        live(_answered(process, number.to_bytes(2, "big")))
    assert live.take("digits") == ((5).to_bytes(2, "big"),)


def test_what_was_kept_goes_with_its_trial(process: ModelProcess) -> None:
    live, over = LiveInputs(random.Random(0)), [False]
    live.keep("digits", "old", 1.0, lambda: over[0])
    live(_answered(process, b"a"))
    over[0] = True
    live(_answered(process, b"b"))
    assert live.take("digits") is None
    live.keep("digits", "old", 1.0, lambda: False)
    live.drop_over()
    live(_answered(process, b"c"))
    assert live.take("digits") == (b"c",)
