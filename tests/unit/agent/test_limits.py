from __future__ import annotations

from typing import Any

import pytest
from machine_states import MEASURED

from edgeflock_agent.limits import exceeded, sampling_ms, time_limit_s
from edgeflock_deploy.bundle import Limits
from edgeflock_deploy.messages.measurements import Measurement
from edgeflock_deploy.reasons import Reason


def measured(**changes: Any) -> Measurement:
    return MEASURED.model_copy(update=changes)


def test_what_nobody_declared_is_not_judged() -> None:
    assert exceeded(measured(latency_ms_p95=1e9, peak_rss_bytes=10**12), Limits()) is None


@pytest.mark.parametrize(("p95", "fits"), [(20.0, True), (20.001, False)])
def test_a_p95_above_the_declared_latency_is_too_slow(p95: float, fits: bool) -> None:
    found = exceeded(measured(latency_ms_p95=p95), Limits(latency_ms_p95=20.0))
    assert (found is None) is fits
    if found is not None:
        assert (found.reason, found.detail) == (
            Reason.TOO_SLOW,
            "its p95 is 20.001 ms, declared are at most 20 ms at p95",
        )


def test_with_too_few_samples_for_p95_a_lower_quantile_above_the_limit_says_it_too_and_one_below_says_nothing() -> None:
    few = measured(latency_ms_p95=None, latency_ms_p90=None)
    assert exceeded(few.model_copy(update={"latency_ms_p50": 9.0}), Limits(latency_ms_p95=10.0)) is None
    found = exceeded(few.model_copy(update={"latency_ms_p50": 11.0}), Limits(latency_ms_p95=10.0))
    assert found is not None
    assert found.reason is Reason.TOO_SLOW
    assert "p50" in found.detail


@pytest.mark.parametrize(("peak", "fits"), [(1000, True), (1001, False), (None, True)])
def test_a_peak_above_the_declared_memory_is_over_budget_and_one_that_could_not_be_measured_is_not(
    peak: int | None, fits: bool
) -> None:
    found = exceeded(measured(peak_rss_bytes=peak), Limits(memory_bytes=1000))
    assert (found is None) is fits
    assert found is None or (found.reason, found.detail) == (
        Reason.MEMORY_OVER_BUDGET,
        "its peak memory is 1001 bytes, declared are at most 1000",
    )


def test_a_form_within_its_declared_latency_is_measured_until_its_p95_may_be_said_but_not_for_ever() -> None:
    assert sampling_ms(Limits(), 5000.0) == 5000.0
    assert sampling_ms(Limits(latency_ms_p95=1.0), 5000.0) == 5000.0
    assert sampling_ms(Limits(latency_ms_p95=100.0), 5000.0) == 13_000.0
    assert sampling_ms(Limits(latency_ms_p95=1e6), 5000.0) == 60_000.0


@pytest.mark.parametrize(("declared_ms", "limit_s"), [(None, 10.0), (20.0, 2.0), (500.0, 10.0), (15_000.0, 300.0)])
def test_an_inference_hangs_when_it_takes_many_times_what_was_declared(
    declared_ms: float | None, limit_s: float
) -> None:
    assert time_limit_s(Limits(latency_ms_p95=declared_ms)) == limit_s


def test_an_emulated_boards_latency_is_held_against_no_limit_but_its_memory_is() -> None:
    slow = measured(latency_ms_p95=9000.0, peak_rss_bytes=500)
    assert exceeded(slow, Limits(latency_ms_p95=10.0, memory_bytes=1000), emulated=True) is None
    found = exceeded(slow, Limits(latency_ms_p95=10.0, memory_bytes=100), emulated=True)
    assert found is not None
    assert found.reason is Reason.MEMORY_OVER_BUDGET
