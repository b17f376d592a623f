"""What applications see of a model, asked of real children: names, real values, processing, open sizes, state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeflock_agent.children.runner import HardStop, Inference, InferenceFailed, ModelProcess
from edgeflock_deploy import transforms
from edgeflock_deploy.processing import InputProcessing
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.runtime import LoadedModel
from edgeflock_deploy.steps import Cast, Crop, Layout, Letterbox, Normalise, Sigmoid, Softmax, Threshold, TopK

DATA = Path(__file__).parents[2] / "data"
X = np.array([[0.5, -0.25, 1, 0, 0, 1.5, -1, 0.125]], "float32")
ONES = np.ones((1, 4), "float32")


def tensor(name: str, dtype: str, shape: list[int], of: int = 0, **other: Any) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": shape, "limit": None, "of": of, "steps": []} | other


def view(inputs: list[dict[str, Any]], outputs: list[dict[str, Any]], **other: Any) -> dict[str, Any]:
    return {"inputs": inputs, "outputs": outputs, "state": [], "max_batch": 1} | other


SCORES = view([tensor("x", "float32", [1, 8])], [tensor("scores", "float32", [1, 3])])
Start = Callable[..., ModelProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    started = []

    def start(file: str, told: dict[str, Any] | None = None, labels: Path | None = None) -> ModelProcess:
        process = ModelProcess.start(DATA / f"{file}.tflite", view=told, labels=labels)
        started.append(process)
        return process

    yield start
    for process in started:
        process.close()


def values(done: Inference, place: int = 0, dtype: str = "float32") -> Any:
    return np.frombuffer(done.outputs[place], dtype).reshape(done.shapes[place])


def test_real_values_go_into_an_int8_model_and_real_values_come_out(start: Start) -> None:
    small, whole = start("tiny_int8", SCORES), start("tiny", SCORES)
    assert (small.inputs, small.outputs) == (whole.inputs, whole.outputs)
    given, wanted = (values(one.infer([X.tobytes()])) for one in (small, whole))
    np.testing.assert_allclose(given, wanted, atol=0.02)
    loaded = LoadedModel.load(DATA / "tiny_int8.tflite")
    codes = loaded.run(loaded.inputs[0].encode(X))[0]
    np.testing.assert_array_equal(given, loaded.outputs[0].decode(codes))


def test_the_codes_themselves_stay_possible(start: Start) -> None:
    raw = view([tensor("x", "int8", [1, 8])], [tensor("scores", "int8", [1, 3])])
    process, codes = start("tiny_int8", raw), np.arange(8, dtype="int8")[None]
    wanted = LoadedModel.load(DATA / "tiny_int8.tflite").run(codes)[0]
    np.testing.assert_array_equal(values(process.infer([codes.tobytes()]), dtype="int8"), wanted)


def test_several_tensors_are_found_by_place_under_names_and_in_an_order_of_the_versions_own(start: Start) -> None:
    told = view(
        [
            tensor("halves", "float16", [1, 2], 2),
            tensor("x", "float32", [1, 8], 0),
            tensor("shift", "int32", [1, 3], 1),
        ],
        [tensor("scores", "float32", [1, 3], 1), tensor("class", "int32", [1], 0)],
    )
    halves, shift = np.array([[0.5, -3]], "float16"), np.array([[0, 5, 0]], "int32")
    done = start("tiny_mixed", told).infer([halves.tobytes(), X.tobytes(), shift.tobytes()])
    np.testing.assert_allclose(values(done), LoadedModel.load(DATA / "tiny.tflite").run(X)[0] + shift, rtol=1e-5)
    np.testing.assert_array_equal(values(done, 1, "int32"), [1])


def test_an_image_is_resized_and_normalised_and_its_answer_named(start: Start, tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("cat\ndog\nkühe\n")
    steps = [{"do": "resize", "height": 4, "width": 4, "method": "nearest"}]
    steps.append({"do": "normalise", "scale": 0.5, "mean": [1.0], "std": [1.0]})
    told = view(
        [tensor("picture", "uint8", [1, -1, -1, 3], limit=[1, 16, 16, 3], steps=steps)],
        [
            tensor("label", "text", [1], steps=[{"do": "argmax"}, {"do": "labels"}]),
            tensor("sure", "bool", [1, 3], steps=[{"do": "threshold", "at": 0.5}]),
        ],
    )
    process = start("tiny_pixels", told, tmp_path / "labels")
    picture = np.random.default_rng(1).integers(0, 9, (1, 8, 12, 3)).astype("uint8")
    done = process.infer([picture.tobytes()], [picture.shape])
    small = picture[:, 1::2, [1, 4, 7, 10]].astype("float32") * np.float32(0.5) - 1
    scores = LoadedModel.load(DATA / "tiny_pixels.tflite").run(small)[0]
    label = ["cat", "dog", "kühe"][int(scores.argmax())].encode()
    assert done.outputs[0] == len(label).to_bytes(4, "little") + label
    np.testing.assert_array_equal(values(done, 1, "bool"), scores >= 0.5)
    assert done.pre_ms > 0
    assert done.end_to_end_ms >= done.latency_ms + done.pre_ms + done.post_ms
    with pytest.raises(ValueError, match="has shape"):
        process.infer([bytes(17 * 16 * 3)], [(1, 17, 16, 3)])


def test_every_step_runs_in_the_sealed_child_as_it_does_here(start: Start) -> None:
    before = InputProcessing(
        name="picture",
        steps=(
            Letterbox(height=6, width=6, fill=2.0),
            Crop(height=4, width=4),
            Normalise(scale=0.1, mean=(1, 2, 3), std=(2, 2, 2)),
            Layout(to="CHW"),
            Layout(to="HWC"),
        ),
    )
    after: dict[str, tuple[Any, ...]] = {
        "shares": (Softmax(),),
        "sure": (Sigmoid(), Threshold(at=0.6)),
        "first": (TopK(k=2),),
        "most": (TopK(k=2, part="value"), Cast(dtype="float16")),
    }
    told = {name: [step.model_dump(mode="json") for step in steps] for name, steps in after.items()}
    steps = [step.model_dump(mode="json") for step in before.steps]
    picture = np.random.default_rng(3).integers(0, 255, (1, 5, 9, 3)).astype("uint8")
    held = transforms.apply(steps, picture[0])[None]
    scores = LoadedModel.load(DATA / "tiny_pixels.tflite").run(held)[0]
    wanted = {name: transforms.apply(told[name], scores[0])[None] for name in told}
    outputs = [tensor(name, one.dtype.name, list(one.shape), steps=told[name]) for name, one in wanted.items()]
    process = start("tiny_pixels", view([tensor("picture", "uint8", [1, 5, 9, 3], steps=steps)], outputs))
    done = process.infer([picture.tobytes()])
    for place, one in enumerate(wanted.values()):
        np.testing.assert_array_equal(values(done, place, one.dtype.name), one)


def test_whole_requests_are_timed_where_steps_are_declared_and_where_none_are(start: Start) -> None:
    steps = [{"do": "resize", "height": 4, "width": 4, "method": "bilinear"}]
    told = view(
        [tensor("picture", "uint8", [1, -1, 9, 3], limit=[1, 16, 9, 3], steps=steps)],
        [tensor("scores", "float32", [1, 3])],
    )
    for process in (start("tiny_pixels", told), start("tiny_kept"), start("tiny_int8", SCORES)):
        process.use_random_inputs(items=3)
        assert len(process.measure_end_to_end(5)) == 5
        assert all(took > 0 for took in process.measure_end_to_end(2))


def test_a_batch_is_answered_item_by_item(start: Start) -> None:
    told = view([tensor("x", "float32", [-1, 8], limit=[4, 8])], [tensor("scores", "float32", [-1, 3])], max_batch=4)
    process = start("tiny", told)
    rows = np.concatenate([X, 2 * X, -X])
    whole = process.infer([rows.tobytes()], [rows.shape])
    alone = [values(process.infer([row.tobytes()])) for row in rows]
    np.testing.assert_array_equal(values(whole), np.concatenate(alone))


def test_an_open_size_is_taken_within_its_limit_and_does_not_stay(start: Start) -> None:
    told = view(
        [tensor("x", "float32", [-1, -1, 4], limit=[3, 6, 4])],
        [tensor("mean", "float32", [-1, 4], of=1), tensor("twice", "float32", [-1, -1, 4], of=0)],
        max_batch=3,
    )
    process = start("tiny_open", told)
    for length in (5, 1, 6, 2):
        x = np.random.default_rng(length).normal(size=(2, length, 4)).astype("float32")
        done = process.infer([x.tobytes()], [x.shape])
        np.testing.assert_allclose(values(done), x.mean(axis=1), atol=1e-6)
        np.testing.assert_array_equal(values(done, 1), 2 * x)
    with pytest.raises(ValueError, match="not"):
        process.infer([bytes(7 * 16)], [(1, 7, 4)])


def sequence(key: int | str | None = None, *, start: bool = False, end: bool = False) -> dict[str, Any]:
    return {"key": key, "start": start, "end": end}


FED = view(
    [tensor("x", "float32", [1, 4])], [tensor("total", "float32", [1, 1], of=0)], state=[[1, 1]]
)  # its second output into its second input


@pytest.mark.parametrize(("file", "told", "first"), [("tiny_fed", FED, 4.0), ("tiny_kept", None, 1.0)])
def test_a_sequence_goes_on_where_it_was_until_it_starts_again(
    start: Start, file: str, told: dict[str, Any] | None, first: float
) -> None:
    process = start(file, told)
    assert process.stateful
    assert process.takes_sequences

    def ask(**said: bool) -> tuple[float, bool]:
        done = process.infer([ONES.tobytes()], None, sequence(**said) if said else None)
        return values(done).reshape(-1)[0] / first, done.restarted

    assert ask(start=True) == (1.0, False)
    assert ask() == (1.5, False)
    assert ask(end=True) == (1.75, False)
    assert ask() == (1.0, True)  # nothing is known of it any more, and it did not say that it starts


def test_sequences_with_state_in_the_open_run_side_by_side_and_the_oldest_is_forgotten(start: Start) -> None:
    process = start("tiny_fed", FED)

    def ask(key: int | str, *, begin: bool = False) -> tuple[float, bool]:
        done = process.infer([ONES.tobytes()], None, sequence(key, start=begin))
        return float(values(done)[0, 0]), done.restarted

    for key in (1, "one"):
        assert ask(key, begin=True) == (4.0, False)
    assert ask(1) == (6.0, False)
    assert ask("one") == (6.0, False)
    for key in range(100, 163):
        ask(key, begin=True)
    assert ask("one") == (7.0, False)
    assert ask(1) == (4.0, True)


def test_a_model_that_keeps_its_state_inside_runs_one_sequence_and_says_so(start: Start) -> None:
    process = start("tiny_kept")
    process.infer([ONES.tobytes()], None, sequence("a", start=True))
    with pytest.raises(InferenceFailed, match="sequence 'a' is running: sequence 'b' must begin with sequence_start"):
        process.infer([ONES.tobytes()], None, sequence("b"))
    assert not process.infer([ONES.tobytes()], None, sequence("b", start=True)).restarted


@pytest.mark.parametrize("file", ["tiny_kept", "tiny_recurrent"])
def test_golden_cases_and_measurements_leave_a_running_sequence_alone(start: Start, tmp_path: Path, file: str) -> None:
    from edgeflock_deploy.cases import Evaluation, Golden, write_evaluation, write_golden

    process = start(file)
    one = np.ones((1, *process.inputs[0].shape[1:]), "float32")
    (tmp_path / "golden.npz").write_bytes(write_golden(Golden((np.repeat(one, 3, 0),), (np.repeat(one, 3, 0),))))
    labelled = Evaluation((np.repeat(one, 3, 0),), np.zeros(3, "int64"))
    (tmp_path / "slice.npz").write_bytes(write_evaluation(labelled))

    def ours() -> None:
        process.check_golden(tmp_path / "golden.npz", atol=1e-6, rtol=0, steps=0, exact=False)
        process.open_slice(tmp_path / "slice.npz", kind="classification", agreement_atol=None)
        assert {process.run_item(item).answer for item in (0, 1, 2)} == {0}
        assert len(process.measure(3).latencies_ms) == 3

    ours()
    last = [float(values(process.infer([one.tobytes()], None, sequence("a", start=True))).reshape(-1)[0])]
    for _ in range(2):
        ours()
        last.append(float(values(process.infer([one.tobytes()], None, sequence("a"))).reshape(-1)[0]))
    assert last == [1.0, 1.5, 1.75]


def test_a_recurrent_layer_sees_each_request_by_itself_unless_it_belongs_to_a_sequence(start: Start) -> None:
    process = start("tiny_recurrent")
    assert process.takes_sequences
    assert not process.stateful
    one = np.ones((1, 1, 2), "float32").tobytes()
    for _ in range(2):
        assert values(process.infer([one])).reshape(-1)[0] == 1.0
    assert values(process.infer([one], None, sequence(7, start=True))).reshape(-1)[0] == 1.0
    assert values(process.infer([one])).reshape(-1)[0] == 1.0
    assert values(process.infer([one], None, sequence(7))).reshape(-1)[0] == 1.5


@pytest.mark.parametrize(
    "told",
    [
        view([tensor("x", "float32", [1, 8], of=1)], [tensor("scores", "float32", [1, 3])]),
        view([tensor("x", "float32", [1, 8])], [tensor("scores", "float32", [1, 3], of=1)]),
        view([], [tensor("scores", "float32", [1, 3])]),
        SCORES | {"state": [[0, 1]]},
        SCORES | {"state": [[0, 0]]},
    ],
)
def test_a_view_of_another_model_is_a_manifest_that_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(HardStop) as stopped:
        ModelProcess.start(DATA / "tiny.tflite", view=told)
    assert stopped.value.reason is Reason.MANIFEST_INVALID


def test_an_operator_that_the_runtime_lacks_is_named(start: Start) -> None:
    with pytest.raises(HardStop) as stopped:
        start("tiny_custom")
    assert stopped.value.reason is Reason.OPERATOR_MISSING
    assert stopped.value.detail.startswith("this runtime has no operator Sorcery: ")
