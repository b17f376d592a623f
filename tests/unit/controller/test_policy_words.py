from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeflock_controller.cli import main
from edgeflock_controller.policy_words.doubts import doubts
from edgeflock_controller.policy_words.durations import duration
from edgeflock_controller.policy_words.least import least_windows
from edgeflock_controller.policy_words.sentences import passages
from edgeflock_deploy.policy.policy_file import load_policy, parse_policy, shipped_policies

TRIAL = "[trial]\nwindow_pairs = 130\nwindow_max_s = 60\npause_s = 0\ndeadline_s = 90000\n"
STAGES = "[[stage]]\ndevices = 1\ndeadline_s = 90000\n[[stage]]\npercent = 100\ndeadline_s = 90000\n"
P50 = '[[guardrail]]\nmetric = "latency_ms_p50"\nfail_margin = 0.05\npass_margin = 0.10\n'
ACCURACY = '[[guardrail]]\nmetric = "accuracy"\nfail_margin = 0.01\npass_margin = 0.03\n'
ERRORS = '[[guardrail]]\nmetric = "errors"\nfail_margin = 0.01\npass_margin = 0.03\nweight = 0.05\n'
HALT = '[[halt]]\nwhen = "offline"\ndevices = 2\npercent = 50\n'
PLAIN = f"version = 1\nalpha = 0.05\n{HALT}{TRIAL}{STAGES}{P50}{ACCURACY}{ERRORS}"


def said(text: str) -> dict[str, str]:
    policy = parse_policy(text, "mine.toml")
    return {passage.about: passage.text for passage in passages(policy, least_windows(policy))}


def doubted(text: str) -> list[str]:
    policy = parse_policy(text, "mine.toml")
    return doubts(policy, least_windows(policy))


def test_a_policy_that_is_as_such_policies_are_leaves_nothing_to_doubt() -> None:
    assert doubted(PLAIN) == []


@pytest.mark.parametrize("name", ["cautious", "standard", "fast"])
def test_nothing_is_to_doubt_of_what_is_shipped(name: str) -> None:
    policy = load_policy(name)
    assert doubts(policy, least_windows(policy)) == []


def test_the_policy_for_a_first_model_says_that_it_judges_nothing() -> None:
    policy = load_policy("install")
    assert "nothing is judged" in doubts(policy, least_windows(policy))[0]


@pytest.mark.parametrize(
    ("old", "new", "doubt"),
    [
        ("alpha = 0.05", "alpha = 0.2", "alpha 0.2 takes back 1 harmless candidate in 5 by chance"),
        ("alpha = 0.05", "alpha = 0.0001", "alpha 0.0001 asks for evidence 10,000 of every device"),
        ("devices = 1\n", "percent = 100\n", "the first stage is the whole fleet"),
        (ACCURACY, "", "no guardrail looks at the answers"),
        (P50, "", "no guardrail looks at latency"),
        (ERRORS, "", "no guardrail looks at errors"),
        (HALT, HALT.replace("offline", "failed"), "one that kills boards goes on to the last of them"),
        (ERRORS, ERRORS.replace("errors", "energy_mj"), "energy_mj without where_measured: a device without a meter"),
        ('accuracy"\n', 'accuracy"\nweight = 0.01\n', "accuracy has 0.9 % of the weight"),
        ("devices = 1\n", "devices = 1\nmax_windows = 3\n", "stage 1: max_windows 3 is too few: even a perfect copy"),
        ("devices = 1\n", "devices = 1\nmin_windows = 61\n", "stage 1: min_windows 61 is above max_windows 60"),
        ("1\ndeadline_s = 90000", "1\ndeadline_s = 60", "stage 1: deadline_s gives a device 60 s"),
        ("0\ndeadline_s = 90000", "0\ndeadline_s = 90", "drops the candidate by itself after 90 s (trial)"),
        ("window_pairs = 130", "window_pairs = 100", None),
        ("latency_ms_p50", "service_ms_p50", "only a trial with mode = 'serving' gives data for service_ms_p50"),
        ("percent = 100", "percent = 50", "the last stage means all devices, although it says 50 %"),
        (TRIAL, TRIAL + "[rate]\ndevices_per_minute = 0.01\n", "1,000 devices take 69 d 10 h"),
        (TRIAL, TRIAL + '[[window]]\nfrom = "22:00"\nto = "22:00"\n', None),
    ],
)
def test_each_number_that_was_hardly_meant_is_doubted(old: str, new: str, doubt: str | None) -> None:
    assert old in PLAIN
    found = doubted(PLAIN.replace(old, new, 1))
    assert found == [] if doubt is None else any(doubt in sentence for sentence in found), found


def test_a_guardrail_that_a_device_can_never_meet_is_named() -> None:
    p95 = PLAIN.replace("latency_ms_p50", "latency_ms_p95").replace("window_pairs = 130", "window_pairs = 100")
    assert doubted(p95)[0] == "no device can ever pass: no data for latency_ms_p95"
    assert "No device can pass." in said(p95)["evidence"]


def test_stages_that_do_not_grow_are_doubted() -> None:
    three = PLAIN.replace("[[stage]]\ndevices = 1", "[[stage]]\ndevices = 4\n[[stage]]\ndevices = 3", 1)
    assert any("stage 2 is no larger than the one before it" in sentence for sentence in doubted(three))


def test_the_fewest_windows_are_those_after_which_the_judge_says_the_word() -> None:
    # By hand: each window of a perfect copy stakes log(1.1) / 0.2 = 0.477 on p50 and 0.03 / 0.05 = 0.6 on accuracy.
    bets = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9)

    def fewest(x: float, needed: float) -> int:
        return next(n for n in range(1, 100) if sum((1 + bet * x) ** n for bet in bets) / len(bets) >= needed)

    least = least_windows(parse_policy(PLAIN, "mine.toml"))
    assert least.to_pass == max(fewest(0.4766, 20), fewest(0.6, 20))
    # A FAIL needs 40 (two stages). p50 has 1 of the weights 2.05; the sceptics of the others lose almost all they have.
    found = least.to_fail["latency_ms_p50"]
    assert found is not None
    assert fewest(1.0, 40 * 2.05 - 1.05) <= found <= fewest(1.0, 40 * 2.05) + 1


def test_a_brake_holds_and_what_no_pass_is_asked_of_says_so() -> None:
    more = (
        '[[guardrail]]\nmetric = "drift"\nfail_margin = 0.05\n[[guardrail]]\nmetric = "crashes"\nfail_margin = 0.02\n'
    )
    more += '[[guardrail]]\nmetric = "energy_mj"\nfail_margin = 0.1\npass_margin = 0.2\nwhere_measured = true\n'
    words = said(PLAIN + more)
    assert words["guardrail drift"].startswith("A mix of answers that is more than 5 % away from the incumbent's holds")
    assert "never" not in words["guardrail drift"]
    assert "takes nothing back" in words["guardrail drift"]
    assert "in more than 2 % of the windows is a regression; no PASS is asked of it." in words["guardrail crashes"]
    assert "needs no PASS of it" in words["guardrail energy_mj"]
    assert words["guardrail errors"].startswith("More than 1 % of the inferences failing, beyond the incumbent's is")


def test_what_a_policy_says_is_said_in_words() -> None:
    limits = (
        '[rate]\ndevices_per_minute = 2\nsite_bytes_per_s = 5e5\n[[window]]\ndays = ["mon", "fri"]\nfrom = "22:00"\n'
    )
    limits += 'to = "05:00"\n[[halt]]\nwhen = "offline"\ndevices = 3\npercent = 10\n'
    more = "approval = true\nbake_s = 3600\nmin_evaluable = 1\nstage_deadline_s = 100000\nmin_windows = 5\n"
    words = said(PLAIN.replace(TRIAL, TRIAL + limits).replace("devices = 1\n", f"devices = 1\n{more}"))
    assert "1 of 20 rollouts at most" in words["evidence"]
    assert "FAIL needs evidence 40 (2 stages share alpha), the PASS of a device 20" in words["evidence"]
    stage = words["stage 1 of 2"]
    for part in (
        "Begins when a person has approved it: 1 device.",
        "before 5 windows",
        "for 1 h before the next stage",
    ):
        assert part in stage
    assert "passes only if 1 device gave evidence" in stage
    assert "The stage as a whole has 1 d 3 h" in stage
    assert words["stage 2 of 2"].startswith("All devices that the selector means.")
    assert (
        words["window"]
        == "Devices are asked only from 22:00 to 05:00 of the next day, mon, fri, by their own local time."
    )
    assert words["rate"] == "The devices of a site (tag site) are asked no faster than 0.5 MB/s brings the bundle."
    assert words["halt rule"] == "Pauses when 3 devices and 10 % of the devices that were asked are offline."
    assert words["guardrail accuracy"].startswith("A drop of more than 1 point is a regression")
    assert "takes part in the last stage" in words["joining"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0.2 s"), (90, "90 s"), (900, "15 min"), (16200, "4 h 30 min"), (86400, "1 d"), (187200, "2 d 4 h")],
)
def test_lengths_of_time_read_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_the_commands_list_show_check_and_give_the_schema(tmp_path: Path) -> None:
    def run(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(main, ["policy", *words])
        assert done.exit_code == code, done.output
        return done.output

    assert [line.split()[0] for line in run("list").splitlines()] == list(shipped_policies())
    mine = tmp_path / "mine.toml"
    mine.write_text(run("show", "standard"))
    assert run("check", str(mine)) == run("check", "standard")
    mine.write_text(PLAIN.replace("alpha = 0.05", "alpha = 0.2"))
    assert "\nto doubt\n- alpha 0.2 takes back" in run("check", str(mine))
    assert '"doubts": [' in run("check", str(mine), "--json")
    assert '"additionalProperties": false' in run("schema")
    assert "shipped policies: cautious" in run("check", "brave", code=2)


def test_what_is_never_passed_or_only_brakes_says_so() -> None:
    policy = load_policy("standard")
    words = {one.about: one.text for one in passages(policy, least_windows(policy))}
    assert "in more than 2 % of the windows is a regression; no PASS is asked of it." in words["guardrail crashes"]
    assert words["guardrail drift"].endswith("it takes nothing back.")
    assert "Two devices must fall silent for a FAIL" in words["guardrail silence"]
