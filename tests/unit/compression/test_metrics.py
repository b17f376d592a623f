from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.metrics import (
    f1_score,
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    roc_auc_score,
    top_k_accuracy_score,
)

from edgeflock_compression.proof.metrics import METRICS, Metric, metric_named
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.scoring import accuracy, answers

N = 300


def scores(seed: int, classes: int, n: int = N) -> tuple[Any, Any]:
    """Rounded softmax scores, so that ties occur, and labels that they guess better than chance."""
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), y] += 1
    powers = np.exp(logits)
    return (powers / powers.sum(axis=1, keepdims=True)).round(2), y


def resampled(metric: Metric, outputs: Any, y: Any, counts: Any) -> Any:
    assert metric.resampled is not None
    return metric.resampled(outputs, y)(counts)


def counts_of(n: int, rows: int = 4) -> Any:
    rng = np.random.default_rng(7)
    return np.stack([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(rows)]).astype(np.float64)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_accuracy_f1_and_auc_are_those_of_scikit_learn(classes: int) -> None:
    outputs, y = scores(classes, classes)
    said = outputs.argmax(axis=1)
    assert metric_named("accuracy").value(outputs, y) == accuracy(answers("classification", outputs), y)
    assert metric_named("f1").value(outputs, y) == pytest.approx(f1_score(y, said, average="macro"))
    if classes == 2:
        expected = roc_auc_score(y, outputs[:, 1])
        assert metric_named("auc").value(outputs[:, 1:], y) == pytest.approx(expected)
    else:  # scikit-learn wants rows that sum to 1; ranks do not care
        expected = np.mean([roc_auc_score(y == label, outputs[:, label]) for label in range(classes)])
    assert metric_named("auc").value(outputs, y) == pytest.approx(expected)


def test_ties_count_half_in_auc() -> None:
    outputs = np.array([[0.5], [0.5], [0.5], [0.9]])
    assert metric_named("auc").value(outputs, np.array([0, 1, 0, 1])) == pytest.approx((0.5 * 2 + 2) / 4)


def test_top_k_is_that_of_scikit_learn_and_top_1_is_accuracy() -> None:
    digits = load_digits()
    means = np.stack([digits.data[:500][digits.target[:500] == label].mean(axis=0) for label in range(10)])
    outputs, y = -((digits.data[500:, None] - means) ** 2).sum(axis=2), digits.target[500:]
    for k in (2, 3, 5):
        assert metric_named(f"top_{k}").value(outputs, y) == pytest.approx(top_k_accuracy_score(y, outputs, k=k))
    top_1, right = (metric_named(name).per_item(outputs, y) for name in ("top_1", "accuracy"))
    assert top_1 is not None
    assert right is not None
    assert top_1.dtype == bool
    assert (top_1 == right).all()


def test_among_equal_scores_top_k_takes_the_lower_class_first_as_argmax_does() -> None:
    outputs, y = np.zeros((3, 3)), np.array([0, 1, 2])
    first = metric_named("top_1").per_item(outputs, y)
    second = metric_named("top_2").per_item(outputs, y)
    assert first is not None
    assert second is not None
    assert (first.tolist(), second.tolist()) == ([True, False, False], [True, True, False])


def test_a_row_with_nan_is_wrong() -> None:
    outputs, y = np.eye(4), np.arange(4)
    outputs[2, 0] = np.nan
    for name in ("accuracy", "top_2"):
        assert metric_named(name).value(outputs, y) == 0.75
    assert metric_named("f1").value(outputs, y) == 0.75


def test_regression_metrics_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(N, 3))
    outputs = (y + 0.3 * rng.normal(size=y.shape)).astype(np.float32)
    assert metric_named("mse").value(outputs, y) == pytest.approx(mean_squared_error(y, outputs))
    assert metric_named("mae").value(outputs, y) == pytest.approx(mean_absolute_error(y, outputs))
    assert metric_named("r2").value(outputs, y) == pytest.approx(r2_score(y, outputs, multioutput="variance_weighted"))


@pytest.mark.parametrize("name", ["f1", "auc", "r2"])
def test_a_count_of_two_is_an_item_that_stands_there_twice(name: str) -> None:
    metric = metric_named(name)
    outputs, y = scores(3, 4, 60)
    if name == "r2":
        outputs, y = outputs[:, :2], np.random.default_rng(1).normal(size=(60, 2))
    counts = counts_of(60)
    repeated = [np.repeat(np.arange(60), row.astype(int)) for row in counts]
    expected = [metric.value(outputs[items], y[items]) for items in repeated]
    assert resampled(metric, outputs, y, counts) == pytest.approx(expected)


@given(st.integers(0, 10_000))
def test_a_rescaling_of_the_scores_changes_no_auc(seed: int) -> None:
    outputs, y = scores(seed, 3, 30)
    assert metric_named("auc").value(outputs**3, y) == pytest.approx(metric_named("auc").value(outputs, y))


def test_what_is_undefined_is_nan() -> None:
    assert np.isnan(metric_named("auc").value(np.random.default_rng(0).random((9, 1)), np.ones(9, int)))
    assert np.isnan(metric_named("r2").value(np.zeros((9, 1)), np.ones((9, 1))))
    outputs, y = scores(0, 2, 10)
    only_one_class = (y == 1).astype(np.float64)[None]
    assert np.isnan(resampled(metric_named("auc"), outputs, y, only_one_class)).all()


def test_unknown_names_are_answered_with_those_that_exist() -> None:
    with pytest.raises(BadInput, match="accuracy, auc, f1, mse, mae, r2, top_3"):
        metric_named("precision")
    with pytest.raises(BadInput, match="not known"):
        metric_named("top_0")


def test_a_metric_refuses_the_other_kind_of_task() -> None:
    with pytest.raises(BadInput, match="mse, mae, r2, or FILE"):
        metric_named("f1").check_kind("regression")
    with pytest.raises(BadInput, match="accuracy, auc, f1, top_3"):
        metric_named("mse").check_kind("classification")


def test_top_k_of_no_more_classes_is_refused() -> None:
    with pytest.raises(BadInput, match="always right of 3 classes"):
        metric_named("top_3").value(np.eye(3), np.arange(3))


def test_every_metric_of_the_table_says_its_direction() -> None:
    smaller = {name for name, metric in METRICS.items() if not metric.larger_is_better}
    assert smaller == {"mse", "mae"}


def written(tmp_path: Path, body: str) -> str:
    path = tmp_path / "own.py"
    path.write_text(f"import numpy as np\n{body}\n")
    return f"{path}:score"


def test_a_function_of_the_user_may_give_one_number_or_one_per_item(tmp_path: Path) -> None:
    outputs, y = scores(0, 3)
    whole = metric_named(written(tmp_path, "def score(outputs, y):\n    return np.mean(outputs.argmax(1) == y)"))
    assert whole.per_item(outputs, y) is None
    assert whole.value(outputs, y) == metric_named("accuracy").value(outputs, y)
    each = metric_named(written(tmp_path, "def score(outputs, y):\n    return -np.abs(outputs.argmax(1) - y)"))
    items = each.per_item(outputs, y)
    assert items is not None
    assert items.shape == (N,)
    assert each.value(outputs, y) == pytest.approx(-np.abs(outputs.argmax(axis=1) - y).mean())


def test_a_file_of_the_user_may_define_dataclasses(tmp_path: Path) -> None:
    body = (
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: 'int' = 1\ndef score(o, y):\n    return A().x"
    )
    assert metric_named(written(tmp_path, body)).value(np.eye(2), np.arange(2)) == 1


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("def score(outputs, y):\n    raise KeyError('no')", "raised KeyError: 'no'"),
        ("def score(outputs, y):\n    return None", "returned None"),
        ("def score(outputs, y):\n    return 'good'", "returned <U4 values"),
        ("def score(outputs, y):\n    return float('nan')", "NaN or infinite"),
        ("def score(outputs, y):\n    return np.ones(2)", r"returned shape \(2,\) for 3 items"),
        ("def score(outputs, y):\n    return [[1], [2, 3]]", "raised ValueError"),
    ],
)
def test_nonsense_from_a_function_of_the_user_is_told_in_one_line(tmp_path: Path, body: str, complaint: str) -> None:
    metric = metric_named(written(tmp_path, body))
    with pytest.raises(BadInput, match=complaint) as raised:
        metric.value(np.eye(3), np.arange(3))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("def other(o, y):\n    return 1", "has no function 'score'; it has other"),
        ("score = 3", "has no function 'score'; it has none"),
        ("import there_is_no_such_module", "raised ModuleNotFoundError"),
        ("def score(:", "raised SyntaxError"),
        ("raise SystemExit(3)", "raised SystemExit"),
    ],
)
def test_a_file_that_gives_no_function_is_refused(tmp_path: Path, body: str, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        metric_named(written(tmp_path, body))


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no file"):
        metric_named(f"{tmp_path}/absent.py:score")


def test_a_function_without_a_value_on_some_resamples_leaves_nan_there(tmp_path: Path) -> None:
    metric = metric_named(written(tmp_path, "def score(o, y):\n    assert (y == 1).any()\n    return y.mean()"))
    y = np.array([0, 1, 0])
    found = resampled(metric, np.eye(3), y, np.array([[1.0, 1, 1], [3, 0, 0]]))
    assert found[0] == pytest.approx(1 / 3)
    assert np.isnan(found[1])
