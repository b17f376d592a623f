from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeflock_agent.children.runner import ItemResult, ModelProcess, Slice
from edgeflock_agent.trial.outcomes import CLASS_BINS, OutcomeCounts, class_bin, even_bin
from edgeflock_deploy.messages.windows import Outcomes, VariantWindow
from edgeflock_deploy.messages.wire import encode

DATA = Path(__file__).parents[2] / "data"
CLASSES = Slice(64, "classification", None, None)


@pytest.fixture(scope="module")
def process() -> Iterator[ModelProcess]:
    with ModelProcess.start(DATA / "tiny.tflite") as process:
        yield process


def _result(answer: int | tuple[float, ...], sure: float | None = None) -> ItemResult:
    return ItemResult(0.1, answer, None, None, 0, sure)


def test_each_class_of_a_small_model_has_its_bin() -> None:
    assert [class_bin(answer, 64) for answer in (0, 5, 63)] == [0, 5, 63]


def test_the_classes_of_a_large_model_are_spread_over_the_bins() -> None:
    bins = [class_bin(answer, 1000) for answer in range(1000)]
    assert set(bins) == set(range(CLASS_BINS))
    assert max(map(bins.count, set(bins))) < 2 * 1000 / CLASS_BINS


@pytest.mark.parametrize(
    ("value", "at"), [(-9.0, 0), (0.0, 0), (0.05, 0), (0.1, 1), (0.999, 9), (1.0, 9), (float("inf"), 9)]
)
def test_what_lies_outside_is_in_the_end_bins(value: float, at: int) -> None:
    assert even_bin(value, 0.0, 1.0, 10) == at


def test_a_range_of_one_point_has_two_bins() -> None:
    assert [even_bin(value, 1.0, 1.0, 20) for value in (0.5, 1.0, 1.5)] == [0, 0, 19]


def test_classes_and_confidences_are_counted(process: ModelProcess) -> None:
    counts = OutcomeCounts(CLASSES, process)
    for result in (_result(2, 0.95), _result(2, 1.0), _result(0, 0.41), _result(-1, 0.0)):
        counts.add(result)
    assert counts.counted() == Outcomes(classes=(1, 0, 2), confidence=(1, 0, 0, 0, 1, 0, 0, 0, 0, 2))


def test_values_of_a_regression_are_counted_between_the_ends_of_the_targets(process: ModelProcess) -> None:
    counts = OutcomeCounts(Slice(8, "regression", 0.1, 1.0, (0.0, 10.0)), process)
    for answer in ((-5.0,), (0.6, 0.8), (10.0, 10.0), (float("inf"), float("-inf"))):
        counts.add(_result(answer))
    counted = counts.counted()
    assert (counted.low, counted.high, counted.classes) == (0.0, 10.0, ())
    assert counted.values == (1, 1) + (0,) * 17 + (1,)
    assert sum(counted.values) == 3


def test_the_outcomes_of_a_window_take_less_than_a_kilobyte(process: ModelProcess) -> None:
    fullest = Outcomes(
        classes=(1562,) * 64, confidence=(10_000,) * 10, low=-0.1234567890123456, high=1.2345678901234567
    )
    with_them, without = VariantWindow(n=1, outcomes=fullest), VariantWindow(n=1)
    assert 2 * (len(encode(with_them)) - len(encode(without))) < 1024
