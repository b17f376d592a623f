"""Journals and policies as earlier releases wrote them are still read, and mean what they meant."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.policy.policy_file import parse_policy
from edgeflock_deploy.policy.rules import Policy
from edgeflock_deploy.rollout.events import EVENTS, journaled
from edgeflock_deploy.rollout.machine import step
from edgeflock_deploy.rollout.state import Rollout, RolloutPhase

if TYPE_CHECKING:
    from tests.unit.rollout.conftest import Fleet

FIRST_JOURNAL: list[dict[str, Any]] = [
    {
        "v": 1,
        "at": 1000.0,
        "kind": "started",
        "rollout": "r1",
        "mode": "deploy",
        "model": "digits",
        "version": 2,
        "variant": "small",
        "digest": "new",
        "selector": "all",
        "policy": {
            "version": 1,
            "name": "install",
            "alpha": 0.05,
            "max_in_trial": None,
            "trial": {},
            "stage": [{"devices": None, "percent": 100.0, "min_windows": 1, "max_windows": 60, "deadline_s": 3600.0}],
            "guardrail": [],
        },
        "devices": [{"device": "a", "device_class": "pi", "online": True, "committed": None}],
        "by": "op",
    },
    {
        "v": 1,
        "at": 1001.0,
        "kind": "device_seen",
        "device": "a",
        "device_class": "pi",
        "online": True,
        "digest": "new",
        "state": "COMMITTED",
        "phase": "trial",
        "outcome": "SUCCEEDED",
        "reason": None,
        "detail": None,
    },
]


def test_a_journal_of_the_first_version_is_replayed() -> None:
    rollout: Rollout | None = None
    told = []
    for line in FIRST_JOURNAL:
        rollout, effects = step(rollout, EVENTS.validate_json(json.dumps(line)))
        told += [effect.phase for effect in effects]
    assert rollout is not None
    assert (rollout.phase, told) == (RolloutPhase.SUCCEEDED, [Phase.TRIAL])


def test_every_kind_of_event_survives_its_own_json(fleet: Callable[..., Fleet], policy: Callable[..., Policy]) -> None:
    world = fleet(policy(1, 100.0, stages={0: {"approval": True}}, window=[{"from": "22:00", "to": "05:00"}]))
    world.approve(0)
    world.freeze("a")
    world.freeze_model("why")
    world.unfreeze_model()
    world.joins("z")
    world.window("a", mode="serving", paired=False)
    world.window("a")
    kinds = {event.kind for event in world.journal}
    assert kinds >= {"started", "device_seen", "window_closed", "approved", "model_frozen", "model_unfrozen", "joined"}
    again = [EVENTS.validate_json(journaled(event)) for event in world.journal]
    assert again == world.journal
    assert [event.model_dump_json() for event in again] == [event.model_dump_json() for event in world.journal]


# What a window and a report of a device say where nothing is written of it.
NOTHING: dict[str, Any] = dict.fromkeys(
    ("latency_ms_p50", "latency_ms_p90", "latency_ms_p95", "latency_ms_p99", "accuracy")
)
NOTHING |= dict.fromkeys(("peak_rss_bytes", "service_ms_p50", "service_ms_p95", "end_to_end_ms_p50"))
NOTHING |= dict.fromkeys(("end_to_end_ms_p95",))
NO_METER: dict[str, Any] = dict.fromkeys(
    ("mj", "meter", "reason", "scope", "net_mj", "net_error_mj", "net_reason", "sample_hz")
)
SIDE = NOTHING | {
    **dict.fromkeys(("errors", "crashes", "service_n", "end_to_end_n"), 0),
    "sketch": {"relative_accuracy": 0.01, "bins": {}},
    "energy": NO_METER | {"error_pct": None, "method": "none"},
    "outcomes": {"classes": [], "confidence": [], "values": [], "low": None, "high": None},
}
CALM: dict[str, Any] = dict.fromkeys(
    ("cpu_pressure_pct", "throttled", "frequency_mhz", "frequency_max_mhz", "temperature_c")
)
CONDITIONS = CALM | {"emulated": False, "contended": False, "involuntary_switches": 0, "governor": None}
WINDOW = {"device": "a", "boot_id": "b", "seq": 0, "device_class": "pi", "rollout": "r1", "model": "m", "number": 0}
WINDOW |= {"old_digest": "old", "new_digest": "new", "duration_s": 1.0, "pairs": 3}
LEFT_OUT = {"v": 1, "kind": "window", "agreement": None, "paired": True, "mode": "shadow", "live_pairs": 0}
SEEN = {"v": 1, "kind": "device_seen", "at": 1.0, "device": "a", "device_class": "pi", "online": True, "digest": None}
SEEN_LEFT_OUT: dict[str, Any] = dict.fromkeys(
    ("state", "phase", "outcome", "reason", "detail", "utc_offset_s", "variant")
) | {"frozen": False}


def test_what_a_journal_leaves_out_means_for_ever_what_it_meant() -> None:
    closed, side = {"v": 1, "kind": "window_closed", "at": 1.0}, {"n": 3} | SIDE
    bare = closed | {"window": WINDOW | {"old": {"n": 3}, "new": {"n": 3}}}
    full = closed | {"window": WINDOW | LEFT_OUT | {"old": side, "new": side, "conditions": CONDITIONS}}
    for left_out, written in ((bare, full), (SEEN, SEEN | SEEN_LEFT_OUT)):
        event = EVENTS.validate_python(left_out)
        assert event.model_dump(mode="json") == written
        assert json.loads(journaled(event)) == left_out


FULL = """
version = 1
join = false
[rate]
devices_per_minute = 10
site_bytes_per_s = 200_000
[[window]]
days = ["mon", "fri"]
from = "22:00"
to = "05:00"
[[halt]]
when = "offline"
devices = 2
percent = 10
[[stage]]
classes = ["pi4", "pi5"]
percent = 10
approval = true
bake_s = 600
min_evaluable = 2
stage_deadline_s = 86400
[[stage]]
percent = 100
[[guardrail]]
metric = "latency_ms_p50"
fail_margin = 0.05
pass_margin = 0.10
"""


def test_a_policy_says_when_how_fast_and_until_what() -> None:
    policy = parse_policy(FULL, "mine.toml")
    assert (policy.window[0].days, policy.window[0].begins, policy.window[0].ends) == (("mon", "fri"), "22:00", "05:00")
    assert (policy.rate.devices_per_minute, policy.rate.site_bytes_per_s) == (10, 200_000)
    assert (policy.halt[0].when, policy.halt[0].devices, policy.halt[0].percent) == ("offline", 2, 10)
    assert (policy.stage[0].classes, policy.stage[0].approval, policy.join) == (("pi4", "pi5"), True, False)


def test_a_policy_survives_its_own_json() -> None:
    policy = parse_policy(FULL, "mine.toml")
    assert Policy.model_validate_json(policy.model_dump_json()) == policy


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'from = "22:00"',
            'frm = "22:00"',
            r"unknown key 'frm' in \[\[window\]\] 1; keys that exist there: days, from, to",
        ),
        ('"22:00"', '"24:00"', "window.1.from: write a time of day as HH:MM, from 00:00 to 23:59"),
        ('"05:00"', '"5"', "window.1.to: write a time of day"),
        ('"fri"', '"friday"', "window.1.days.2: Input should be 'mon'"),
        ('"offline"', '"tired"', "halt.1.when: Input should be 'offline'"),
        ("devices = 2\npercent = 10\n[[stage]]", "[[stage]]", "halt.1: give devices, percent or both"),
        ("devices_per_minute = 10", "per_minute = 10", r"unknown key 'per_minute' in \[rate\]"),
        ("percent = 100", 'classes = ["pi4"]', "the last stage means every device of the rollout"),
        ("percent = 100", "min_windows = 3", "give either devices or percent, or classes"),
        ("min_evaluable = 2", "min_evaluable = 2\nmin_evaluable_percent = 5", "give either min_evaluable or"),
        (FULL[FULL.index("[[guardrail]]") :], "", "min_evaluable needs a guardrail"),
    ],
)
def test_what_contradicts_itself_in_a_policy_is_refused_with_its_place(old: str, new: str, message: str) -> None:
    assert FULL.count(old) >= 1
    with pytest.raises(BadInput, match=message):
        parse_policy(FULL.replace(old, new, 1), "mine.toml")
