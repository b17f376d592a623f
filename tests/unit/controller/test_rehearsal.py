"""Rehearsals: what a simulated fleet says, and that the real rules deal with it as they would with a real one."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import pytest

from edgeflock_controller.rehearsal.board import Board, Scatter, assumed_scatter
from edgeflock_controller.rehearsal.boards import Unlike, paired_logs
from edgeflock_controller.rehearsal.candidate import Candidate
from edgeflock_controller.rehearsal.outcomes import outcomes, reason_in_short
from edgeflock_controller.rehearsal.plot import Plot
from edgeflock_controller.rehearsal.power import unjudged
from edgeflock_controller.rehearsal.regression import HARMLESS, Regression, parse_regression
from edgeflock_controller.rehearsal.run import Run, rehearse
from edgeflock_controller.rehearsal.windows import Windows, pairs_in_window, window_s
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.messages.orders import TrialSettings
from edgeflock_deploy.policy.limits import MaintenanceWindow, Rate
from edgeflock_deploy.policy.policy_file import load_policy
from edgeflock_deploy.policy.rules import Guardrail, Policy, Stage

TRIAL = TrialSettings(window_pairs=130, window_max_s=60, pause_s=1)
CANDIDATE = Candidate("digits", 2, "small", "new")
P50 = Policy(
    name="p50",
    alpha=0.05,
    trial=TRIAL,
    stage=(Stage(devices=1, deadline_s=3600), Stage(percent=100, deadline_s=3600)),
    guardrail=(Guardrail(metric="latency_ms_p50", fail_margin=0.05, pass_margin=0.10),),
)


def board(name: str = "a", **changed: Any) -> Board:
    scatter, share, length = assumed_scatter()
    return Board(
        device=name, device_class="pi", online=True, committed="old", scatter=scatter, throttled_share=share,
        throttled_windows=length, pair_s=0.02, start_s=30.0, here_s=None, away_s=None, emulated=False,
        measures_energy=False, windows_from="own", presence_from="own",
    )._replace(**changed)  # fmt: skip


def boards(n: int, **changed: Any) -> list[Board]:
    return [board(f"b{number}", **changed) for number in range(n)]


def plot(n: int = 3, regression: str | None = None, policy: Policy = P50, **changed: Any) -> Plot:
    worse = HARMLESS if regression is None else parse_regression(regression)
    return Plot(CANDIDATE, boards(n, **changed), policy, "all", 1000.0, worse)


def observed(one: Board, n: int, regression: Regression = HARMLESS, trial: TrialSettings = TRIAL) -> list[Any]:
    said = Windows(np.random.default_rng(7), one, CANDIDATE, regression, trial)
    return [said.next("r") for _ in range(n)]


def test_a_window_scatters_and_remembers_as_its_board_was_recorded() -> None:
    one = board(scatter={"latency_ms_p50": Scatter(0.1, 0.6, 0.1)}, throttled_share=0.0)
    z = [math.log(w.new.latency_ms_p50 / w.old.latency_ms_p50) for w in observed(one, 6_000)]
    assert statistics.stdev(z) == pytest.approx(0.1, rel=0.08)
    assert np.corrcoef(z[:-1], z[1:])[0, 1] == pytest.approx(0.6, abs=0.05)


def test_a_board_is_throttled_as_often_and_as_long_as_it_was_recorded() -> None:
    one = board(throttled_share=0.2, throttled_windows=5.0)
    hot = [w.conditions.throttled for w in observed(one, 6_000)]
    bouts = sum(now and not before for before, now in zip([False, *hot], hot, strict=False))
    assert statistics.fmean(hot) == pytest.approx(0.2, abs=0.03)
    assert sum(hot) / bouts == pytest.approx(5.0, rel=0.1)


def test_what_is_assumed_of_unknown_boards_is_what_the_model_of_unlike_boards_says() -> None:
    scatter, share, _ = assumed_scatter()
    z = [float(new[0] - old[0]) for old, new in paired_logs(np.random.default_rng(1), np.zeros(1), 6_000)]
    said = [math.log(w.new.latency_ms_p95 / w.old.latency_ms_p95) for w in observed(board(), 6_000)]
    assert statistics.stdev(said) == pytest.approx(statistics.stdev(z), rel=0.1)
    calm = Unlike(bout_enter=0.0)
    assert assumed_scatter(calm)[1] == 0.0
    assert share > 0
    assert scatter["latency_ms_p95"].throttled_sd > scatter["latency_ms_p95"].sd


@pytest.mark.parametrize(
    ("text", "metric", "at_least"),
    [("latency +25%", "latency_ms_p95", 0.2), ("accuracy -4pt", "accuracy", 0.03), ("agreement -10%", "agreement", 0.1),
     ("peak_rss_bytes +30%", "peak_rss_bytes", 0.29), ("errors +5%", "errors", 0.04),
     ("errors +5%", "accuracy", 0.03), ("crashes +50%", "crashes", 0.4),
     ("energy_mj +20%", "energy_mj", 0.17)],
)  # fmt: skip
def test_a_regression_shows_in_the_metric_that_it_names(text: str, metric: str, at_least: float) -> None:
    from edgeflock_deploy.judge.observations import observations

    worse = [observations(w)[metric] for w in observed(board(measures_energy=True), 300, parse_regression(text))]  # type: ignore[index]
    assert statistics.fmean(worse) >= at_least


def test_a_window_that_would_take_too_long_has_fewer_pairs_and_no_p95() -> None:
    slow = board(pair_s=2.0)
    assert pairs_in_window(slow, TRIAL) == 30
    assert window_s(slow, TRIAL) == 60.0
    assert observed(slow, 1)[0].new.latency_ms_p95 is None
    assert window_s(board(pair_s=None), TRIAL) == 60.0


def test_a_harmless_candidate_succeeds_on_every_device_and_the_same_seed_says_the_same() -> None:
    run = rehearse(plot(4), 3)
    assert (run.ending, run.committed, run.fail_s) == ("succeeded", 4, None)
    assert [run.asked_in[f"b{n}"] for n in range(4)] == [0, 1, 1, 1]
    assert rehearse(plot(4), 3) == run


def test_a_bad_candidate_is_stopped_at_the_canary_and_what_was_risked_is_counted() -> None:
    run = rehearse(plot(4, "latency +60%"), 0)
    assert (run.ending, run.reached, run.blamed, run.serving_device_s) == ("rolled back", 1, ("b0",), 0.0)
    assert run.windows_to_fail == run.windows
    assert run.fail_s == pytest.approx(1 + 30 + 3.6 * run.windows - 1, abs=2)
    assert run.trying_device_s == pytest.approx(run.duration_s - 31, abs=2)


def test_a_candidate_that_crashes_is_taken_back_from_those_that_had_committed_it() -> None:
    run = rehearse(plot(3, "crash on id=b2"), 0)
    assert run.ending == "rolled back"
    assert "CRASH_LOOP" in run.sentence
    assert run.serving_device_s > 0


def test_a_device_that_alone_shows_a_regression_is_set_aside_and_named() -> None:
    run = rehearse(plot(4, "latency +60% on id=b2"), 0)
    assert run.ending == "held"
    assert run.set_aside == ("b2",)
    assert run.blamed == ()


def test_a_share_of_the_fleet_is_drawn_anew_in_each_run() -> None:
    worse = parse_regression("latency +60% on 34%")
    drawn = {worse.on(boards(3), np.random.default_rng(seed)) for seed in range(20)}
    assert drawn == {frozenset({"b0"}), frozenset({"b1"}), frozenset({"b2"})}


def test_a_fleet_without_an_evaluation_slice_closes_no_window_and_is_held() -> None:
    blind = plot()._replace(candidate=CANDIDATE._replace(has_slice=False))
    run = rehearse(blind, 0)
    assert (run.ending, run.windows) == ("held", 0)


def test_devices_that_sleep_are_waited_for_no_longer_than_the_rules_say() -> None:
    asleep = plot(3)._replace(boards=[*boards(2), board("b2", online=False)])
    run = rehearse(asleep, 0)
    assert (run.ending, run.committed) == ("succeeded", 2)
    nobody = rehearse(plot(2, online=False)._replace(horizon_s=7200.0), 0)
    assert (nobody.ending, nobody.reached, nobody.duration_s) == ("open", 0, 7200.0)


def test_a_device_that_comes_and_goes_takes_longer_and_still_commits() -> None:
    steady, flapping = (
        [rehearse(plot(1, here_s=here, away_s=120.0), seed) for seed in range(10)] for here in (None, 60.0)
    )
    assert {run.ending for run in (*steady, *flapping)} == {"succeeded"}
    assert sum(run.duration_s for run in flapping) > 1.5 * sum(run.duration_s for run in steady)


def test_the_shipped_policy_promotes_a_harmless_candidate_and_stops_a_slow_one() -> None:
    standard = load_policy("standard")
    good = [rehearse(plot(3, policy=standard), seed) for seed in range(5)]
    bad = [rehearse(plot(3, "latency_ms_p95 +40%", policy=standard), seed) for seed in range(5)]
    assert {run.ending for run in good} == {"succeeded"}
    assert {run.ending for run in bad} == {"rolled back"}


def timed(**changed: Any) -> Policy:
    """One stage of everybody, nothing judged: a device has it 33 s after it was asked."""
    return Policy(name="timed", trial=TRIAL, stage=(Stage(percent=100, deadline_s=3600),), **changed)


def test_an_approval_is_given_at_once_and_counted() -> None:
    stages = (Stage(devices=1, deadline_s=3600), Stage(percent=100, deadline_s=3600, approval=True))
    run = rehearse(plot(2, policy=P50.model_copy(update={"stage": stages})), 0)
    assert (run.ending, run.approvals) == ("succeeded", 1)


def test_bake_time_is_waited_for() -> None:
    baking = timed().model_copy(update={"stage": (Stage(percent=100, deadline_s=3600, bake_s=5000),)})
    run = rehearse(plot(2, policy=baking), 0)
    assert run.ending == "succeeded"
    assert run.duration_s == pytest.approx(5033, abs=2)


def test_a_maintenance_window_is_waited_for() -> None:
    # The rehearsal begins 1,000 s after midnight UTC, and an hour later where the devices are.
    night = timed(window=(MaintenanceWindow(begins="03:00", ends="04:00"),))
    run = rehearse(plot(2, policy=night, utc_offset_s=3600), 0)
    assert run.ending == "succeeded"
    assert run.duration_s == pytest.approx(2 * 3600 - 1000 + 33, abs=5)


def test_a_start_at_a_time_is_waited_for_and_time_is_counted_from_it() -> None:
    later = rehearse(plot(2, policy=timed())._replace(start_at=90_000.0), 0)
    assert later.ending == "succeeded"
    assert later.duration_s == pytest.approx(33, abs=5)


def test_devices_are_asked_no_faster_than_the_rate_allows() -> None:
    run = rehearse(plot(5, policy=timed(rate=Rate(devices_per_minute=1))), 0)
    assert run.duration_s == pytest.approx(4 * 60 + 33, abs=5)
    sites = plot(2, policy=timed(rate=Rate(site_bytes_per_s=100)), tags={"site": "roof"})._replace(bundle_bytes=60_000)
    assert rehearse(sites, 0).duration_s == pytest.approx(600 + 33, abs=5)


def test_a_frozen_device_is_left_as_it_is() -> None:
    run = rehearse(plot(2, policy=timed())._replace(boards=[board("b0"), board("b1", frozen=True)]), 0)
    assert (run.ending, run.committed, dict(run.asked_in)) == ("succeeded", 1, {"b0": 0})


def test_outcomes_count_every_run_once() -> None:
    runs: list[Run] = [rehearse(plot(4, "latency +60% on 50%"), seed) for seed in range(6)]
    found = outcomes(runs)
    assert sum(of["runs"] for of in found["endings"].values()) == found["runs"] == 6
    assert found["endings"]["rolled back"]["share"] == 1.0
    assert found["fail_s"]["p10"] <= found["fail_s"]["p50"] <= found["fail_s"]["p90"]
    assert {one["device"] for one in found["blamed"]} <= {"b0", "b1", "b2", "b3"}
    assert outcomes([])["runs"] == 0


@pytest.mark.parametrize(
    "text",
    ["", "latency", "latency 0%", "latency -5%", "accuracy +1pt", "speed +5%", "accuracy -200pt", "latency +5% on",
     "latency +5% on nobody", "latency +5% on 0%", "latency +5% on class=", "crash +"],
)  # fmt: skip
def test_a_regression_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--regression"):
        parse_regression(text)


def test_a_regression_on_devices_that_are_not_in_the_rollout_is_refused() -> None:
    with pytest.raises(BadInput, match="no device of this rollout"):
        rehearse(plot(2, "latency +5% on class=other"), 0)


def test_like_reasons_are_counted_together() -> None:
    said = "FAIL: latency_ms_p50 is {} % above the incumbent's on 1 of 1 device ({} windows, evidence 433 of 300)"
    assert reason_in_short(said.format(24, 19)) == reason_in_short(said.format(31, 12))
    assert reason_in_short("FAIL: a is up") != reason_in_short("FAIL: b is up")


def test_a_regression_that_nothing_of_the_rollout_judges_is_said() -> None:
    standard = load_policy("standard")
    assert unjudged(plot(2, "energy_mj +25%", standard)) == "no board here measures energy_mj"
    assert unjudged(plot(2, "energy_mj +25%", standard, measures_energy=True)) is None
    assert unjudged(plot(2, "errors +2%")) == "no guardrail of policy p50 looks at errors"
    assert [unjudged(plot(2, text)) for text in (None, "latency +25%", "crash")] == [None, None, None]
