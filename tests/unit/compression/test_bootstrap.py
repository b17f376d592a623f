import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap as scipy_bootstrap

from edgeflock_compression.proof.bootstrap import Bootstrap, Loss, bca, percentile


def mean_of(values: Any) -> Loss:
    return lambda counts: counts @ values / counts.sum(axis=1)


def skewed(seed: int, n: int) -> Any:
    return np.random.default_rng(seed).lognormal(0, 1, n)


def test_the_bound_of_a_mean_is_that_of_scipy() -> None:
    values = skewed(0, 200)
    ours = bca(mean_of(values), 200, seed=0, resamples=10_000)
    theirs = scipy_bootstrap(
        (values,), np.mean, n_resamples=10_000, confidence_level=0.95, alternative="less", method="BCa", rng=1
    )
    assert ours.upper(0.05) == pytest.approx(theirs.confidence_interval.high, rel=0.01)


def test_a_jackknife_of_groups_gives_the_acceleration_of_all_items() -> None:
    values = skewed(0, 5_000)
    influence = values - values.mean()
    exact = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
    found = bca(mean_of(values), 5_000, seed=0, resamples=10).acceleration
    assert found == pytest.approx(exact, abs=0.005)


def test_the_same_seed_gives_the_same_bound_and_another_one_near_it() -> None:
    loss = mean_of(skewed(1, 300))
    first, again, other = (bca(loss, 300, seed, 4_000).upper(0.05) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    assert first == pytest.approx(other, rel=0.02)


def test_the_size_of_a_chunk_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = mean_of(skewed(1, 70))
    whole = bca(loss, 70, 0, 500)
    monkeypatch.setattr("edgeflock_compression.proof.bootstrap._CELLS", 150)
    parts = bca(loss, 70, 0, 500)
    assert parts.losses == pytest.approx(whole.losses)
    assert parts.acceleration == pytest.approx(whole.acceleration)


@given(
    losses=st.lists(st.integers(-20, 20), min_size=5, max_size=200), bias=st.floats(-1, 1),
    acceleration=st.floats(-0.3, 0.3), margin=st.floats(-25, 25), alpha=st.sampled_from([0.01, 0.05, 0.2]),
)  # fmt: skip
def test_p_is_at_most_alpha_exactly_where_the_bound_does_not_exceed_the_margin(
    losses: list[int], bias: float, acceleration: float, margin: float, alpha: float
) -> None:
    drawn = Bootstrap(np.sort(np.array(losses, float)), bias, acceleration)
    p = drawn.p_value(margin)
    if abs(p - alpha) > 1e-9 and alpha > 1 / (len(losses) + 1):
        assert (p <= alpha) == (drawn.upper(alpha) <= margin)


def test_p_is_never_zero_and_one_far_below_the_loss() -> None:
    drawn = bca(mean_of(skewed(0, 100)), 100, 0, 999)
    assert 1 / 1000 <= drawn.p_value(1e9) < 0.01
    assert drawn.p_value(-1e9) == 1


def test_resamples_in_which_the_loss_is_undefined_count_as_the_worst() -> None:
    def loss(counts: Any) -> Any:
        return np.where(counts[:, 0] > 0, 0.5, np.nan)  # without item 0, which is missing in 37 %

    drawn = bca(loss, 50, 0, 1_000)
    assert math.isinf(drawn.losses[-1])
    assert math.isinf(drawn.upper(0.05))
    assert drawn.p_value(1e9) > 0.05


def test_the_bound_holds_in_about_95_percent_of_draws_of_a_skewed_loss() -> None:
    truth = math.exp(0.5)
    held = [bca(mean_of(skewed(seed, 200)), 200, seed, 600).upper(0.05) >= truth for seed in range(600)]
    assert 0.91 <= np.mean(held) <= 0.97


def test_the_percentile_bound_is_the_quantile_of_the_resamples() -> None:
    values = skewed(2, 300)
    drawn = percentile(mean_of(values), 300, 0, 4_000)
    assert drawn.upper(0.05) == pytest.approx(np.quantile(drawn.losses, 0.95), rel=1e-3)
    assert drawn.p_value(1e9) == pytest.approx(1 / 4_001)
