from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflock_deploy.quantiles import latency_quantiles, median, quantile

LATENCIES = st.lists(st.floats(1e-4, 1e4), min_size=1, max_size=300)


@given(LATENCIES, st.floats(0, 1))
def test_a_quantile_is_numpys_linear_one(values: list[float], q: float) -> None:
    assert quantile(sorted(values), q) == pytest.approx(float(np.quantile(values, q)), rel=1e-9)


@pytest.mark.parametrize(
    ("n", "given_quantiles"),
    [
        (0, ()),
        (1, ("p50",)),
        (63, ("p50",)),
        (64, ("p50", "p90")),
        (129, ("p50", "p90")),
        (130, ("p50", "p90", "p95")),
        (661, ("p50", "p90", "p95")),
        (662, ("p50", "p90", "p95", "p99")),
    ],
)
def test_a_quantile_below_its_count_is_null(n: int, given_quantiles: tuple[str, ...]) -> None:
    found = latency_quantiles([float(i) for i in range(n)])
    assert tuple(name for name in ("p50", "p90", "p95", "p99") if getattr(found, name) is not None) == given_quantiles
    assert found.n == n


def test_the_counts_are_where_the_largest_sample_is_three_sigma_sure_to_lie_above_the_quantile() -> None:
    for q, n in ((0.90, 64), (0.95, 130), (0.99, 662)):
        assert q**n <= 0.0013 < q ** (n - 1)


def test_the_order_of_the_samples_does_not_matter() -> None:
    values = [float(i * 7919 % 700) for i in range(700)]
    assert latency_quantiles(values) == latency_quantiles(sorted(values))
    assert median(values) == 349.5


def test_there_is_no_quantile_of_nothing() -> None:
    with pytest.raises(ValueError, match="0 values"):
        quantile([], 0.5)
