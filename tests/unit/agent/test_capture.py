from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgeflock_agent.captures import read_all
from edgeflock_agent.children.confidence import top_probability
from edgeflock_agent.children.runner import Inference, ModelProcess
from edgeflock_agent.cli import main
from edgeflock_agent.client import Client
from edgeflock_agent.machine.state import Now
from edgeflock_agent.serving.capture import Capture
from edgeflock_agent.serving.endpoint import Answered, Endpoint, Serving
from edgeflock_agent.serving.witnesses import each_of
from edgeflock_agent.storage.disk import Disk, DiskFull
from edgeflock_agent.storage.ring import Ring
from edgeflock_agent.storage.store import CAPTURES
from edgeflock_deploy.captured import Why
from edgeflock_deploy.keys import Trust
from edgeflock_deploy.runtime import TensorInfo

DATA = Path(__file__).parents[2] / "data"
OLD, NEW = "a" * 64, "b" * 64


class Clock:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> Now:
        return Now(1.7e9 + self.s, self.s)


class Tape:
    """A ring's writer on a folder, with a capture before it and a clock beside."""

    def __init__(self, state: Path, disk: Disk | None = None, below: float = 0.6, every_s: float = 10.0) -> None:
        self.state, self.clock = state, Clock()
        ring = Ring(state / CAPTURES, disk or Disk(), 1 << 20, lambda: 1 << 30)
        self.capture = Capture(ring, below=below, every_s=every_s, now=self.clock)

    def answered(self, by: Serving, confidence: float | None, value: float = 0.5) -> None:
        inputs = (memoryview(np.full((1, 8), value, "<f4").tobytes()),)
        self.capture.answered(Answered("digits", inputs, by, Inference((b"",), 1.0, confidence)))


@pytest.fixture(scope="module")
def tiny() -> Iterator[ModelProcess]:
    with ModelProcess.start(DATA / "tiny.tflite") as process:
        yield process


@pytest.fixture
def by(tiny: ModelProcess) -> Serving:
    return Serving(OLD, tiny)


def info(dtype: str = "float32", scale: float = 0.0, zero_point: int = 0) -> TensorInfo:
    return TensorInfo(0, "y", dtype, (1, 4), scale, zero_point)


@pytest.mark.parametrize(
    ("held", "of", "wanted"),
    [
        (np.array([[0.1, 0.6, 0.2, 0.1]], "float32"), info(), 0.6),
        (np.array([[2.0, 2.0, 2.0, 2.0]], "float32"), info(), 0.25),
        (np.array([[0.0, np.log(3.0)]], "float32"), info(), 0.75),
        (np.array([[1000.0, -1000.0]], "float32"), info(), 1.0),
        (np.array([[-128, 72, -78, -126]], "int8"), info("int8", 1 / 256, -128), 200 / 256),
        (np.array([[0.5, np.nan]], "float32"), info(), 0.0),
        (np.array([[3.0]], "float32"), info(), None),
    ],
)
def test_confidence_is_the_first_classs_probability_whether_the_scores_are_logits_codes_or_probabilities(
    held: np.ndarray[tuple[int, int], np.dtype[np.float32]], of: TensorInfo, wanted: float | None
) -> None:
    assert top_probability(of, held) == pytest.approx(wanted, abs=1e-6)


def test_a_child_says_how_sure_it_is_only_when_it_was_asked_to() -> None:
    with ModelProcess.start(DATA / "tiny.tflite") as process:
        item = [np.full((1, 8), 0.5, "<f4").tobytes()]
        assert process.infer(item).confidence is None
        process.tell_confidence()
        done = process.infer(item)
        scores = np.frombuffer(done.outputs[0], "<f4")  # the model ends in a softmax
        assert done.confidence == pytest.approx(scores.max())


def test_what_a_variant_was_not_sure_of_is_kept_with_its_bytes_and_the_rest_is_not(tmp_path: Path, by: Serving) -> None:
    tape = Tape(tmp_path)
    tape.answered(by, 0.9)
    tape.answered(by, None)
    tape.answered(by, 0.6)
    tape.answered(by, 0.59, value=0.25)
    tape.capture.stop()
    (kept,) = read_all(tmp_path)
    assert (kept.about.why, kept.about.digest, kept.about.confidence) == (Why.LOW_CONFIDENCE, OLD, 0.59)
    assert kept.about.at_s == 1.7e9 + 1000
    np.testing.assert_array_equal(np.frombuffer(kept.data[0], "<f4"), np.full(8, 0.25))


def test_a_model_that_is_never_sure_writes_no_more_often_than_it_may_and_hides_no_disagreement(
    tmp_path: Path, by: Serving
) -> None:
    tape = Tape(tmp_path)
    for second in range(25):
        tape.clock.s = 1000.0 + second
        for _ in range(20):
            tape.answered(by, 0.1)
    tape.capture.disagreed("digits", [bytes(32)], by, NEW, (3, 5))
    tape.capture.stop()
    kept = read_all(tmp_path)
    assert [one.about.at_s - 1.7e9 for one in kept[:3]] == [1000.0, 1010.0, 1020.0]
    last = kept[3].about
    assert (last.why, last.digest, last.candidate, last.answer, last.candidate_answer) == (
        Why.DISAGREEMENT, OLD, NEW, 3, 5,
    )  # fmt: skip
    assert len(kept) == 4


def test_a_slow_disk_makes_no_request_wait_and_no_input_pile_up(tmp_path: Path, by: Serving) -> None:
    gate = threading.Event()

    class SlowDisk(Disk):
        def make_folder(self, path: Path) -> None:
            assert gate.wait(20)
            super().make_folder(path)

    tape = Tape(tmp_path, SlowDisk(), every_s=0.0)
    for _ in range(100):
        tape.answered(by, 0.1)
    gate.set()
    tape.capture.stop()
    assert 1 <= len(read_all(tmp_path)) <= 4


@pytest.mark.parametrize("error", [DiskFull("full"), OSError(5, "Input/output error")])
def test_a_disk_in_trouble_is_said_once_and_costs_nobody_an_answer(
    tmp_path: Path, by: Serving, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    class BadDisk(Disk):
        def make_folder(self, path: Path) -> None:
            raise error

    tape = Tape(tmp_path, BadDisk(), every_s=0.0)
    for _ in range(3):
        tape.answered(by, 0.1)
    tape.capture.stop()
    assert len([record for record in caplog.records if "not kept" in record.message]) == 1


def test_a_witness_that_fails_costs_neither_the_others_nor_the_application_anything(
    tmp_path: Path, by: Serving, tiny: ModelProcess
) -> None:
    told: list[str] = []

    def broken(_answered: Answered) -> None:
        raise RuntimeError("no")

    witness = each_of(broken, lambda answered: told.append(answered.by.digest))
    endpoint = Endpoint.start({"digits": by}.get, witness=witness)
    try:
        with Client(endpoint.url) as client:
            assert client.infer("digits", {"x": np.zeros((1, 8), "float32")}).digest == OLD
    finally:
        endpoint.stop()
    assert told == [OLD]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    def invoke(*words: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(main, ["captures", words[0], "--state", str(tmp_path), *words[1:]])
        return result.exit_code, result.stdout, result.stderr

    return invoke


def test_captures_are_listed_exported_and_cleared_from_the_state_folder(
    tmp_path: Path, by: Serving, run: Callable[..., tuple[int, str, str]]
) -> None:
    tape = Tape(tmp_path, every_s=0.0)
    tape.answered(by, 0.25, value=1.0)
    tape.capture.disagreed("digits", [np.full(8, 2.0, "<f4").tobytes()], by, NEW, (3, None))
    tape.capture.stop()
    code, out, _ = run("list")
    assert (code, "confidence 0.25" in out, f"says 3, {NEW[:12]} says None" in out) == (0, True, True)
    assert [one["why"] for one in json.loads(run("list", "--json")[1])] == ["low_confidence", "disagreement"]
    assert run("export", str(tmp_path / "out.npz"))[0] == 0
    with np.load(tmp_path / "out.npz", allow_pickle=False) as got:
        assert got["x"].tolist() == [[1.0] * 8, [2.0] * 8]
        assert got["why"].tolist() == ["low_confidence", "disagreement"]
        assert got["digest"].tolist() == [OLD, OLD]
        assert got["candidate"].tolist() == ["", NEW]
        assert got["answer"].tolist() == ["null", "3"]
        assert got["confidence"][0] == 0.25
        assert np.isnan(got["confidence"][1])
    assert run("clear")[:2] == (0, "2 removed\n")
    assert run("list")[1] == "0 inputs kept\n"
    code, _, err = run("export", str(tmp_path / "out.npz"))
    assert (code, "has no kept inputs" in err) == (2, True)


@contextlib.contextmanager
def another_user(folder: Path) -> Iterator[None]:
    """Somebody who may list the state folder, and not what is kept in it."""
    folder.chmod(0o700 if os.geteuid() == 0 else 0)
    try:
        if os.geteuid() == 0:
            os.seteuid(65534)
        yield
    finally:
        if os.geteuid() == 65534:
            os.seteuid(0)
        folder.chmod(0o700)


@pytest.mark.parametrize("words", [("list",), ("list", "--json"), ("clear",), ("export", "out.npz")])
def test_to_another_user_no_inputs_are_shown_as_none(words: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as state:  # whose parents all may pass, as pytest's own may not be
        Path(state).chmod(0o755)
        kept = Path(state, "captures")
        kept.mkdir()
        with another_user(kept):
            result = CliRunner().invoke(main, ["captures", words[0], "--state", state, *words[1:]])
    assert result.exit_code == 2
    assert result.stderr.startswith(
        f"error: inputs kept under {state}: are for the eyes of the agent's own user; ask as"
    )


def test_inputs_of_several_models_are_exported_one_model_at_a_time_and_only_those_that_stack(
    tmp_path: Path, by: Serving, run: Callable[..., tuple[int, str, str]]
) -> None:
    tape = Tape(tmp_path, every_s=0.0)
    tape.capture.disagreed("digits", [bytes(32)], by, NEW, (1, 2))
    tape.capture.disagreed("words", [bytes(32)], by, NEW, (1, 2))
    with ModelProcess.start(DATA / "tiny_int8.tflite") as other:
        tape.capture.disagreed("words", [bytes(8)], Serving(NEW, other), OLD, (1, 2))
    tape.capture.stop()
    file = str(tmp_path / "out.npz")
    code, _, err = run("export", file)
    assert (code, "choose one with --model" in err) == (2, True)
    assert run("export", file, "--model", "digits")[0] == 0
    assert run("export", file, "--model", "none")[0] == 2
    assert "1 of another type or shape left out" in run("export", file, "--model", "words")[1]
    with np.load(file) as got:
        assert (got["x"].dtype, got["x"].shape) == (np.int8, (1, 8))


def test_a_ring_that_would_take_the_whole_quota_is_refused(tmp_path: Path) -> None:
    words = ["run", "--id", "a", "--broker", "mqtt://127.0.0.1:9", "--state", str(tmp_path), "--quota", "1000000"]
    (tmp_path / "trust.json").write_text(Trust(keys=()).model_dump_json())
    result = CliRunner().invoke(main, [*words, "--capture-mb", "1"])
    assert (result.exit_code, "takes all of the 1000000 bytes of --quota" in result.stderr) == (2, True)
