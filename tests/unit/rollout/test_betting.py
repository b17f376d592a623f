from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflock_deploy.judge import betting
from edgeflock_deploy.judge.observations import Bet
from edgeflock_deploy.policy.rules import Guardrail

SHARES = st.floats(-1, 1)


def wealth_after(xs: list[float]) -> betting.LogWealth:
    wealth = betting.START
    for x in xs:
        wealth, _ = betting.staked(wealth, x)
    return wealth


@given(st.lists(SHARES, max_size=60))
def test_wealth_is_the_average_over_bets_of_the_products(xs: list[float]) -> None:
    bets = np.array(betting.BETS)[:, None]
    direct = np.prod(1 + bets * np.array(xs)[None, :], axis=1).mean()
    assert math.exp(betting.mixture(wealth_after(xs))) == pytest.approx(direct, rel=1e-9)


@given(st.lists(st.lists(SHARES, max_size=12), min_size=1, max_size=5), st.integers(0, 4))
def test_fleet_wealth_is_half_product_and_half_mean_with_unheard_devices_at_one(
    fleet: list[list[float]], unheard: int
) -> None:
    per_bet = np.array([[np.prod([1 + bet * x for x in xs]) for bet in betting.BETS] for xs in fleet])
    together = per_bet.prod(axis=0).mean()
    apart = (per_bet.mean(axis=1).sum() + unheard) / (len(fleet) + unheard)
    wealths = [wealth_after(xs) for xs in fleet]
    sums = tuple(map(sum, zip(*wealths, strict=True)))
    purses = sum(betting.purse(betting.mixture(wealth)) for wealth in wealths)
    log_wealth = betting.over_devices(sums, purses, len(fleet), len(fleet) + unheard)
    assert math.exp(log_wealth) == pytest.approx((together + apart) / 2, rel=1e-8)


@given(SHARES, SHARES)
def test_a_fair_observation_leaves_the_expected_wealth_unchanged(x: float, start: float) -> None:
    before, log_before = betting.staked(betting.START, start)
    (_, up), (_, down) = betting.staked(before, x), betting.staked(before, -x)
    assert (math.exp(up) + math.exp(down)) / 2 == pytest.approx(math.exp(log_before), rel=1e-9)


def test_a_hundred_thousand_clear_observations_do_not_overflow() -> None:
    log_wealth = betting.mixture(wealth_after([1.0] * 100_000))
    assert log_wealth > 60_000
    assert betting.shown(log_wealth) == pytest.approx(1e15)


def test_a_single_observation_can_never_lose_everything() -> None:
    bet = Bet.on(Guardrail(metric="latency_ms_p50", fail_margin=0.05, pass_margin=0.1))
    for x in (bet.harm(-math.inf), bet.harmless(math.inf)):
        assert min(betting.staked(betting.START, x)[0]) > -math.inf


def test_nobody_heard_means_wealth_one() -> None:
    assert betting.over_devices(betting.START, 0, 0, 5) == 0.0
