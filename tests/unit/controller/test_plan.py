"""Plans: who, how many bytes, how long, what the canary detects, and what is missing."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edgeflock_controller.rehearsal.board import Board, Scatter
from edgeflock_controller.rehearsal.candidate import Candidate
from edgeflock_controller.rehearsal.gaps import gaps
from edgeflock_controller.rehearsal.layout import bytes_for, lay_out
from edgeflock_controller.rehearsal.plan import make_plan, plan_json
from edgeflock_controller.rehearsal.plot import Plot, open_rollout
from edgeflock_controller.rehearsal.power import canary_is_over, detects
from edgeflock_controller.rehearsal.regression import alone
from edgeflock_controller.rehearsal.run import rehearse
from edgeflock_controller.rehearsal.subject import Subject
from edgeflock_deploy.bundle import Blob, Encoding, Manifest, Task, Tolerance
from edgeflock_deploy.messages.orders import TrialSettings
from edgeflock_deploy.policy.limits import MaintenanceWindow, Rate
from edgeflock_deploy.policy.rules import Guardrail, Policy, Stage

CANDIDATE = Candidate("digits", 2, "small", "new")
P50 = Guardrail(metric="latency_ms_p50", fail_margin=0.05, pass_margin=0.10)
MEMORY = Guardrail(metric="peak_rss_bytes", fail_margin=0.2, pass_margin=0.25)
ENERGY = Guardrail(metric="energy_mj", fail_margin=0.05, pass_margin=0.1)
HOLDS = "a" * 64
SEEDS = 20


def policy(*sizes: int, guardrail: Any = (P50,), **changed: Any) -> Policy:
    stages = (*(Stage(devices=size, max_windows=20) for size in sizes), Stage(percent=100, max_windows=20))
    trial = TrialSettings(window_pairs=130, window_max_s=60, pause_s=1)
    return Policy(name="p", alpha=0.05, trial=trial, stage=stages, guardrail=guardrail, **changed)


def board(name: str, device_class: str = "pi", **changed: Any) -> Board:
    return Board(
        device=name, device_class=device_class, online=True, committed="old",
        scatter={"latency_ms_p50": Scatter(0.05, 0.0, 0.05)}, throttled_share=0.0, throttled_windows=1.0, pair_s=0.02,
        start_s=30.0, here_s=None, away_s=None, emulated=False, measures_energy=False, windows_from="own",
        presence_from="own",
    )._replace(**changed)  # fmt: skip


def encoding(nbytes: int, base: str | None = None) -> Encoding:
    return Encoding(codec="raw", base=base, sha256="c" * 64, bytes=nbytes, chunks=("c" * 64,))


MODEL = Blob(sha256="b" * 64, bytes=9000, encoding=encoding(5000), deltas=(encoding(700, base="d" * 64),))
MANIFEST = Manifest(
    model="digits", version=2, variant="small", inputs=(), outputs=(), tolerance=Tolerance(runtime="r"),
    task=Task(kind="classification", metric="accuracy"),
    blobs={"model": MODEL, "golden": Blob(sha256=HOLDS, bytes=10, encoding=encoding(10))},
)  # fmt: skip
MANIFESTS = {"new": MANIFEST}


def subject(*boards: Board, **changed: Any) -> Subject:
    made = Subject(1000.0, CANDIDATE, MANIFESTS, list(boards), {}, {})
    return made._replace(**changed)


def plot(rules: Policy, *boards: Board) -> Plot:
    return Plot(CANDIDATE, boards, rules, "all", 1000.0)


def said(about: Subject, rules: Policy) -> str:
    return "\n".join(gaps(about, rules, lay_out(plot(rules, *about.boards), MANIFESTS, {}, 0)))


def test_devices_are_laid_out_by_the_real_rules_by_stage_and_class() -> None:
    fleet = [
        board("a", "x"),
        board("b", "x"),
        board("c", "y"),
        board("d", "y", committed="new"),
        board("e", online=False),
    ]
    found = lay_out(plot(policy(1, 3), *fleet), MANIFESTS, {}, 0)
    assert [stage.target for stage in found.stages] == [1, 3, 5]
    assert found.stages[0].devices == ()  # d has it already, and the first stage is done with it
    assert {name for stage in found.stages for name in stage.devices} == {"a", "b", "c"}
    assert [stage.classes for stage in found.stages[1:]] == [{"x": 2}, {"y": 1}]
    assert (found.asleep, found.current) == (("e",), ("d",))


def test_a_device_fetches_what_it_lacks_in_the_smallest_way_that_it_can_decode() -> None:
    assert bytes_for(MANIFEST, frozenset()) == 5010
    assert bytes_for(MANIFEST, frozenset({HOLDS})) == 5000
    assert bytes_for(MANIFEST, frozenset({HOLDS, "d" * 64})) == 700
    assert bytes_for(MANIFEST, frozenset({HOLDS, MODEL.sha256})) == 0


def test_bytes_are_summed_by_site_over_those_who_have_yet_to_fetch() -> None:
    fleet = [
        board("a", tags={"site": "roof"}),
        board("b", tags={"site": "roof"}),
        board("c", tags={"site": "attic"}),
        board("d", committed="new"),
    ]
    found = lay_out(plot(policy(1), *fleet), MANIFESTS, {"a": frozenset({HOLDS})}, 0)
    assert found.sites == {
        "attic": {"devices": 1, "wire_bytes": 5010},
        "roof": {"devices": 2, "wire_bytes": 10_010},
    }
    assert sum(stage.wire_bytes for stage in found.stages) == 15_020


def test_stages_take_as_long_as_rehearsals_do() -> None:
    rules = policy(1)
    found = lay_out(plot(rules, *(board(name) for name in "abcd")), MANIFESTS, {}, 0)
    first, second = (stage.duration_s for stage in found.stages)
    assert first is not None
    assert second is not None
    assert found.duration_s is not None
    assert first["p50"] > 30
    assert found.duration_s["p50"] == pytest.approx(first["p50"] + second["p50"], rel=0.3)
    assert found.endings == {"succeeded": 20}


def test_a_rollout_that_would_end_for_it_is_told_with_whom_it_would_send_back() -> None:
    under_way = {"rollout": "r1-abcd", "phase": "RUNNING", "going_back": 2}
    told = said(subject(board("a"), overtakes=[under_way, under_way | {"rollout": "r2-x", "going_back": 0}]), policy(1))
    assert "r1-abcd is under way (RUNNING): it would end, and 2 devices not meant here would go back" in told
    assert "r2-x is under way (RUNNING): it would end" in told.splitlines()


def test_a_large_fleet_goes_on_at_the_pace_of_its_first_commits() -> None:
    rules = policy(1, guardrail=(), max_in_trial=10)
    small, large = (
        lay_out(plot(rules, *(board(f"{n:04}") for n in range(size))), MANIFESTS, {}, 0) for size in (300, 600)
    )
    assert small.duration_s is not None
    assert large.duration_s is not None
    assert large.duration_s["p50"] == pytest.approx(2 * small.duration_s["p50"], rel=0.1)


def test_the_regression_that_a_canary_detects_is_detected_that_often_and_a_smaller_one_is_not() -> None:
    rules = policy(1)
    about = plot(rules, *(board(name) for name in "abc"))
    found = detects(about, P50, SEEDS)
    assert found.size is not None
    assert found.power >= 0.9

    def share(size: float, n: int = 120) -> float:
        worse = about._replace(regression=alone("latency_ms_p50", size), stays=True)
        opening = open_rollout(worse)
        runs = (rehearse(worse, 5000 + seed, opening, canary_is_over) for seed in range(n))
        return sum(run.fail_s is not None for run in runs) / n

    # Five standard errors of a share of .9 in 120, on seeds that the search has not seen.
    assert share(found.size) > 0.9 - 5 * math.sqrt(0.09 / 120)
    assert share(0.05 + (found.size - 0.05) / 2) < 0.9
    assert found.windows is not None
    assert 1 <= found.windows["p50"] <= found.windows["p90"] <= 20


def test_a_canary_whose_boards_scatter_more_detects_less() -> None:
    rules = policy(1)
    calm, wild = (
        detects(plot(rules, board("a", scatter={"latency_ms_p50": Scatter(sd, 0.0, sd)})), P50, SEEDS).size
        for sd in (0.02, 0.2)
    )
    assert calm is not None
    assert wild is not None
    assert wild > calm


def test_a_guardrail_without_data_detects_nothing() -> None:
    found = detects(plot(policy(1), board("a", emulated=True)), P50, SEEDS)
    assert (found.size, found.power, found.windows) == (None, 0.0, None)


def test_memory_is_detected_right_above_its_margin() -> None:
    found = detects(plot(policy(1, guardrail=(MEMORY,)), board("a")), MEMORY, SEEDS)
    assert found.size == pytest.approx(0.2, abs=0.002)
    assert found.windows == {"p10": 1.0, "p50": 1.0, "p90": 1.0}


def test_nothing_is_missing_where_nothing_is() -> None:
    assert said(subject(board("a"), board("b")), policy(1)) == ""


@pytest.mark.parametrize(
    ("boards", "rules", "sentence"),
    [
        ([board("a"), board("b", online=False)], policy(2), "stage 1 wants 2 devices, 1 of 2 are online"),
        ([board("a", online=False)], policy(), "none of 1 device is online"),
        ([board("a"), board("b", online=False)], policy(1), "b: offline; each gets it when it wakes"),
        ([board("a")], policy(1, guardrail=()), "policy p has no guardrail"),
        ([board("a", committed=None)], policy(1), "nothing of digits is committed there"),
        ([board("a", emulated=True)], policy(1), "a: emulated, so latency_ms_p50 is not judged there"),
        ([board("a", windows_from="assumed")], policy(1), "a: no trial was recorded"),
        (
            [board("a", pair_s=1.0)],
            policy(1, guardrail=(Guardrail(metric="latency_ms_p95", fail_margin=0.05, pass_margin=0.1),)),
            "a: a window there has fewer than 130 pairs, so latency_ms_p95 has no data",
        ),
        (
            [board("a"), board("b", measures_energy=True)],
            policy(1, guardrail=(ENERGY,)),
            "a: no meter that may judge, so they cannot pass the guardrail on energy_mj",
        ),
        (
            [board("a")],
            policy(1, guardrail=(ENERGY.model_copy(update={"where_measured": True}),)),
            "a: no meter that may judge, so energy_mj is not judged there",
        ),
        (
            [board("a", frozen=True), board("b")],
            policy(1),
            "a: frozen, so nothing new is given there",
        ),
        (
            [board("a")],
            Policy(name="p", stage=(Stage(classes=("rpi4",)), Stage(percent=100, approval=True, bake_s=60))),
            "stage 1 is about class rpi4, of which no device is meant: it is skipped",
        ),
        (
            [board("a")],
            Policy(name="p", stage=(Stage(percent=100, approval=True, bake_s=60),)),
            "stage 1 waits for approval; the times here do not count how long a person takes\nstages bake for 60 s",
        ),
        (
            [board("a", utc_offset_s=0)],
            policy(1, window=(MaintenanceWindow(begins="03:00", ends="04:00"),)),
            "a: outside the policy's maintenance windows now; the next opens at 1970-01-01 03:00 UTC",
        ),
        (
            [board("a"), board("b")],
            policy(1, rate=Rate(devices_per_minute=0.5, site_bytes_per_s=10)),
            "at 0.5 devices a minute, asking takes 240 s at least\nat 10 bytes/s for a site, site - takes 1002 s",
        ),
        (
            [board("a")],
            policy(1, guardrail=(Guardrail(metric="service_ms_p95", fail_margin=0.05, pass_margin=0.1),)),
            "service_ms_p95: measured in a serving trial alone, and this is a shadow one",
        ),
    ],
)
def test_what_is_missing_is_said(boards: list[Board], rules: Policy, sentence: str) -> None:
    assert sentence in said(subject(*boards), rules)


def test_a_candidate_without_a_slice_or_that_answers_otherwise_is_told_so() -> None:
    rules = policy(1, guardrail=(Guardrail(metric="agreement", fail_margin=0.04, pass_margin=0.07),))
    blind = subject(board("a"), candidate=CANDIDATE._replace(has_slice=False))
    assert "no evaluation slice" in said(blind, rules)
    other = subject(board("a"), candidate=CANDIDATE._replace(differs=0.06))
    assert "small answers 6.0 % of the items otherwise than its parent: beyond the guardrail" in said(other, rules)


def test_the_same_plan_comes_out_twice_and_is_plain_json() -> None:
    import json

    about, rules = subject(board("a"), board("b")), policy(1, guardrail=(MEMORY,))
    first, second = (plan_json(make_plan(about, rules, "all"), about, rules, "all") for _ in range(2))
    assert json.dumps(first) == json.dumps(second)
    assert (first["devices"], first["wire_bytes"], first["missing"]) == (2, 10_020, ())
    assert [one["metric"] for one in first["detects"]] == ["peak_rss_bytes"]


def test_a_first_stage_that_is_full_already_detects_nothing_and_says_so() -> None:
    some = subject(board("a", committed="new"), board("b"), board("c"))
    made = make_plan(some, policy(1, guardrail=(MEMORY,)), "all")
    assert made.detects == ()
    full = "stage 1 is full of devices that have it already: nobody tries it before stage 2, which asks 2 devices"
    assert full in made.missing
    everybody = subject(board("a", committed="new"), board("b", committed="new"))
    assert "whoever can get it has it already: nothing is sent to anybody" in said(everybody, policy(1))


def test_a_disk_without_room_is_named_unless_the_blobs_are_there() -> None:
    tight = subject(board("a"), board("b"), free_bytes={"a": 100, "b": 100}, holds={"b": frozenset({MODEL.sha256})})
    assert said(tight, policy(1)) == "a: less disk free than the bundle takes"
