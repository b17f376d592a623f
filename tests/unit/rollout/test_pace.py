"""How fast devices are asked: what is promised of any minute and of any site, whatever comes when."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from edgeflock_deploy.policy.limits import Rate
from edgeflock_deploy.rollout.pace import Pace, is_free, site_is_free, spent

STEPS = st.lists(st.tuples(st.floats(0, 40), st.sampled_from(["roof", "yard", ""])), max_size=60)


def played(rate: Rate, steps: list[tuple[float, str]], n_bytes: int) -> list[tuple[float, str]]:
    """When a device of which site was asked, where each step is some seconds later and asks whoever it may."""
    asked: list[tuple[float, str]] = []
    pace, now = Pace(), 1000.0
    for later, site in steps:
        now += later
        while is_free(pace, rate, now) and site_is_free(pace, rate, site, n_bytes, now) and len(asked) < 2000:
            asked.append((now, site))
            pace = spent(pace, rate, site, n_bytes, now)
    return asked


@given(STEPS, st.sampled_from([0.5, 1, 10, 60]))
def test_in_no_minute_more_devices_than_the_rate_says(steps: list[tuple[float, str]], per_minute: float) -> None:
    asked = played(Rate(devices_per_minute=per_minute), steps, 0)
    for began, _ in asked:
        assert sum(began <= at < began + 60 for at, _ in asked) <= max(1, per_minute)


@given(STEPS, st.sampled_from([90, 600]))
def test_more_than_one_a_second_come_in_seconds_worth(steps: list[tuple[float, str]], per_minute: float) -> None:
    asked = played(Rate(devices_per_minute=per_minute), steps, 0)
    for began, _ in asked:
        assert sum(began <= at < began + 60 for at, _ in asked) <= per_minute * 61 / 60 + 1


@given(STEPS)
def test_a_site_has_let_one_bundle_through_before_it_gets_the_next(steps: list[tuple[float, str]]) -> None:
    asked = played(Rate(site_bytes_per_s=10), steps, 300)
    by_site = defaultdict(list)
    for at, site in asked:
        by_site[site].append(at)
    for times in by_site.values():
        assert all(later - earlier >= 30 - 1e-9 for earlier, later in pairwise(times))  # sums of floats


def test_at_the_pace_of_the_ticks_the_rate_is_reached() -> None:
    asked = played(Rate(devices_per_minute=120), [(1.0, "")] * 60, 0)
    assert 118 <= len(asked) <= 122


def test_without_a_rate_nothing_is_remembered() -> None:
    pace = Pace()
    assert spent(pace, Rate(), "roof", 1000, 5.0) is pace


def test_a_bundle_of_unknown_size_holds_up_no_site() -> None:
    rate = Rate(site_bytes_per_s=10)
    assert site_is_free(spent(Pace(), rate, "roof", 0, 5.0), rate, "roof", 0, 5.0)


def test_a_clock_that_was_set_back_holds_up_nobody_for_longer_than_one_device() -> None:
    rate = Rate(devices_per_minute=6, site_bytes_per_s=10)
    pace = spent(Pace(), rate, "roof", 100, 1_000_000.0)
    assert not is_free(pace, rate, 1_000_009.0)
    assert not site_is_free(pace, rate, "roof", 100, 1_000_009.0)
    assert is_free(pace, rate, 5000.0)
    assert site_is_free(pace, rate, "roof", 100, 5000.0)
