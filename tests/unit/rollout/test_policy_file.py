from __future__ import annotations

from pathlib import Path

import fastjsonschema
import pytest

from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.policy.policy_file import (
    load_policy,
    parse_policy,
    policy_schema,
    shipped_policies,
    shipped_text,
    toml_values,
)

GOOD = """
version = 1
[trial]
window_pairs = 50
[[stage]]
devices = 1
[[guardrail]]
metric = "latency_ms_p50"
fail_margin = 0.05
pass_margin = 0.10
"""


@pytest.mark.parametrize("name", ["cautious", "demo", "fast", "install", "standard"])
def test_shipped_policies_are_found_by_name(name: str) -> None:
    assert name in shipped_policies()
    assert load_policy(name).name == name


def test_install_judges_nothing_and_goes_to_all_at_once() -> None:
    policy = load_policy("install")
    assert policy.guardrail == ()
    assert [stage.percent for stage in policy.stage] == [100]


def test_demo_gates_on_everything_but_p95_with_two_in_trial() -> None:
    policy = load_policy("demo")
    assert {rail.metric for rail in policy.guardrail} == {"latency_ms_p50", "agreement", "accuracy", "peak_rss_bytes"}
    assert (policy.max_in_trial, policy.alpha) == (2, 0.05)
    assert [(stage.devices, stage.percent) for stage in policy.stage] == [(1, None), (2, None), (None, 100)]


def test_a_policy_file_is_read_and_named_after_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    policy = load_policy(str(path))
    assert (policy.name, policy.trial.window_pairs) == ("mine", 50)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version = 1", "versoin = 1", "unknown key 'versoin' in the policy; keys that exist there: version, name"),
        ("window_pairs", "window_pair", r"unknown key 'window_pair' in \[trial\]; keys that exist there: mode"),
        ("devices = 1", "device = 1", r"unknown key 'device' in \[\[stage\]\] 1; keys that exist there: devices"),
        ("fail_margin", "margin", r"unknown key 'margin' in \[\[guardrail\]\] 1; keys that exist there: metric"),
        ("latency_ms_p50", "speed", "guardrail.1.metric: Input should be 'latency_ms_p50'"),
        ("0.10", "0.01", "pass_margin must be larger than fail_margin"),
        ("devices = 1", "devices = 0", "stage.1.devices"),
        ("devices = 1", "devices = 1\npercent = 10", "give either devices or percent"),
        ("version = 1", "version = 2", "version"),
        ("version = 1", "version = ", "not TOML"),
        ("[[stage]]", "[stage]", "stage"),
    ],
)
def test_a_wrong_policy_is_refused_with_the_place_and_the_mend(old: str, new: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse_policy(GOOD.replace(old, new), "mine.toml")


def test_an_unknown_policy_lists_the_shipped_ones() -> None:
    with pytest.raises(
        BadInput, match="no such policy or file; shipped policies: cautious, demo, fast, install, standard"
    ):
        load_policy("brave")


def test_a_folder_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        load_policy(str(tmp_path))


def test_a_trial_may_serve_and_says_how_long_its_blocks_are() -> None:
    serving = GOOD.replace("[trial]", '[trial]\nmode = "serving"\nblock_requests = 8\nblock_s = 0.5')
    trial = parse_policy(serving, "mine.toml").trial
    assert (trial.mode, trial.block_requests, trial.block_s) == ("serving", 8, 0.5)
    with pytest.raises(BadInput, match=r"trial\.mode: Input should be 'shadow' or 'serving'"):
        parse_policy(serving.replace('"serving"', '"mirror"'), "mine.toml")


@pytest.mark.parametrize("name", shipped_policies())
def test_every_shipped_policy_is_valid_by_the_schema_as_another_validator_reads_it(name: str) -> None:
    fastjsonschema.compile(policy_schema())(toml_values(shipped_text(name), name))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version = 1", "version = 2"),
        ("version = 1", "versoin = 1"),
        ("window_pairs", "window_pair"),
        ("devices = 1", "devices = 0"),
        ("fail_margin", "margin"),
        ("latency_ms_p50", "speed"),
    ],
)
def test_the_schema_refuses_wrong_keys_types_and_bounds(old: str, new: str) -> None:
    validate = fastjsonschema.compile(policy_schema())
    validate(toml_values(GOOD, "mine.toml"))
    with pytest.raises(fastjsonschema.JsonSchemaValueException):
        validate(toml_values(GOOD.replace(old, new), "mine.toml"))


def test_every_shipped_policy_says_in_its_first_line_what_it_is_for_and_why_beside_its_numbers() -> None:
    for name in shipped_policies():
        lines = shipped_text(name).splitlines()
        assert lines[0].startswith("# ")
        assert sum("#" in line for line in lines) > 2


def test_a_policy_that_is_not_shipped_has_no_text() -> None:
    with pytest.raises(BadInput, match="none that comes with the product; shipped policies: cautious, demo"):
        shipped_text("../secrets")


def test_a_guardrail_on_energy_has_devices_measure_it() -> None:
    standard = load_policy("standard")
    assert any(guardrail.metric == "energy_mj" for guardrail in standard.guardrail)
    assert standard.trial_settings.energy
    assert not load_policy("install").trial_settings.energy
