from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from edgeflock_controller.cli import render


def rollout(**changed: Any) -> dict[str, Any]:
    return {
        "id": "r3-38ce",
        "mode": "deploy",
        "model": "digits",
        "version": 2,
        "variant": "three_levels_wi8",
        "selector": "all",
        "phase": "ROLLED_BACK",
        "stage": 0,
        "stages": [{}, {}, {}],
        "devices_committed": 0,
        "devices_total": 12,
        "started_at": 0.0,
        "reason": "FAIL: accuracy is 34.1 points below the incumbent's on 1 of 1 device; 1 device back",
    } | changed


def shown(what: Any, width: int) -> str:
    console = Console(width=width, highlight=False, markup=False, emoji=False, force_terminal=False)
    with console.capture() as captured:
        console.print(what)
    return captured.get()


def test_a_table_of_rollouts_breaks_no_word_of_state_on_80_columns_and_says_why_below() -> None:
    lines = shown(render.rollouts_table([rollout()], 80), 80).splitlines()
    assert lines[2].split() == ["r3-38ce", "digits@2", "three_levels_wi8", "all", "ROLLED_BACK", "1", "of", "3", "0/12"]
    assert lines[4].startswith("r3-38ce: FAIL: accuracy is 34.1 points")


def test_a_wide_table_of_rollouts_says_why_in_the_row() -> None:
    assert "ROLLED_BACK" in (line := shown(render.rollouts_table([rollout()], 200), 200).splitlines()[2])
    assert "FAIL: accuracy is 34.1 points below the incumbent's on 1 of 1 device; 1 device back" in line


def test_what_the_evidence_was_gathered_from_is_said_in_one_sentence() -> None:
    trial = {"windows": 12, "windows_unpaired": 3, "pairs_live": 1040, "pairs_replayed": 350}
    told = "r3-38ce: 1,040 live and 350 replayed pairs in 12 windows, 3 of them unpaired"
    assert render.trial(rollout(trial=trial)) == told
    assert render.trial(rollout(trial=trial | {"windows": 0})) is None


def test_a_wide_table_of_devices_has_their_runtimes_and_a_narrow_one_has_not() -> None:
    device = {"id": "pi-1", "device_class": "a", "runtime": "litert2.3", "online": True, "models": {}}
    device |= {"tags": {}, "frozen": None, "windows_dropped": 0, "events_dropped": 0}
    assert shown(render.devices_table([device], 200), 200).splitlines()[2].split()[:4] == [
        "pi-1",
        "a",
        "litert2.3",
        "online",
    ]
    assert shown(render.devices_table([device], 80), 80).splitlines()[2].split()[:3] == ["pi-1", "a", "online"]


def test_a_chain_is_told_in_the_order_in_which_boards_try_it() -> None:
    forms = [{"variant": name, "raw_bytes": 2000, "wire_bytes": 1500} for name in ("float16", "float32")]
    nothing = {"latency_ms_p95": None, "memory_bytes": None}
    assert render.chain_in_words({"fallbacks": [], "limits": nothing}) == []
    assert render.chain_in_words(
        {"fallbacks": forms, "limits": {"latency_ms_p95": 20.0, "memory_bytes": 3_000_000}}
    ) == [
        "where it does not fit, float16 (2.0 KB raw, 1.5 on the wire), then float32 (2.0 KB raw, 1.5 on the wire)",
        "declared to take at most 20 ms at p95 and 3 MB of memory",
    ]


@pytest.mark.parametrize("said", ["[/red] [Errno 28] No space", "[bold]loud[/bold]", "exit :x: code"])
def test_what_a_device_says_is_shown_as_it_is(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    device = {"device_class": "a", "online": True, "status": "SET_ASIDE", "state": None, "reason": None, "detail": said}
    out = render.console()
    out.print(render.rollout_devices_table({"devices": {"pi-1": device}}))
    out.print(render.headline(rollout(reason=said)))
    assert capsys.readouterr().out.count(said) == 2


def test_of_a_rollouts_devices_nobody_is_online_while_the_service_hears_nobody() -> None:
    device = {"device_class": "a", "online": True, "status": "TRIAL", "state": None, "reason": None, "detail": None}
    for hears, word in ((True, "online"), (False, "unknown")):
        table = render.rollout_devices_table({"devices": {"pi-1": device}}, hears=hears)
        assert shown(table, 80).splitlines()[2].split()[:3] == ["pi-1", "a", word]


def test_a_table_of_devices_shows_tags_where_there_are_any_and_says_which_are_frozen() -> None:
    plain: dict[str, Any] = {"id": "pi-1", "device_class": "a", "runtime": "r", "online": True, "models": {}}
    plain |= {"tags": {}, "frozen": None, "windows_dropped": 0, "events_dropped": 0}
    assert "tags" not in shown(render.devices_table([plain], 200), 200).splitlines()[1]
    tagged = plain | {"id": "pi-2", "tags": {"site": "roof", "owner": "ops"}, "frozen": {"reason": "fair"}}
    lines = shown(render.devices_table([plain, tagged], 200), 200).splitlines()
    assert lines[2].split()[:4] == ["pi-1", "a", "r", "online"]
    assert lines[3].split()[:7] == ["pi-2", "a", "r", "online,", "frozen", "site=roof", "owner=ops"]


def test_what_a_rollout_waits_for_is_said_with_when_it_ends() -> None:
    still: dict[str, Any] = {"devices": {}, "start_at": None, "resumes_at": None, "limits": ["6 devices a minute."]}

    def waits(**changed: Any) -> list[str]:
        return list(render.what_it_waits_for(rollout(**(still | changed)), now=1000.0))

    assert waits(phase="RUNNING") == ["6 devices a minute."]
    assert waits(phase="WAITING_FOR_APPROVAL")[0] == "it waits for somebody's `edgeflock rollouts approve r3-38ce`"
    assert waits(phase="SCHEDULED", start_at=11800.0)[0].startswith("it starts in 3.0 h (19")
    opens = waits(phase="PAUSED", resumes_at=11800.0)[0]
    assert opens.startswith("the next maintenance window opens in 3.0 h (19")
    assert waits(phase="RUNNING", devices={"a": {"frozen": True}, "b": {"frozen": False}})[0] == "frozen: a"


def test_a_rollout_that_ended_under_an_older_release_is_still_shown() -> None:
    older = rollout(devices={"a": {"online": True}})
    assert list(render.what_it_waits_for(older, now=1000.0)) == []
    assert render.stage_in_words({"phase": "PASSED", "target": 1}) == "PASSED (up to 1 device)"


def test_a_stage_says_whose_approval_it_has_or_wants() -> None:
    stage = {"phase": "PENDING", "target": 4, "wants_approval": True, "approved_by": None}
    assert render.stage_in_words(stage) == "PENDING (up to 4 devices), wants approval"
    assert render.stage_in_words(stage | {"approved_by": "ann@hq"}).endswith("approved by ann@hq")


def test_a_table_of_devices_says_which_had_to_drop_what_nobody_heard() -> None:
    device: dict[str, Any] = {"id": "pi-1", "device_class": "a", "runtime": "r", "online": True, "models": {}}
    device |= {"tags": {}, "frozen": None, "windows_dropped": 12, "events_dropped": 3}
    assert "online, 15 lost" in shown(render.devices_table([device], 200), 200)


@pytest.mark.parametrize(
    ("metric", "value", "words"),
    [
        ("latency_ms_p95", 1.25, "1.25x"),
        ("accuracy", 0.02, "-2.0 points"),
        ("agreement", 0.012, "1.2 % differ"),
        ("errors", 0.01, "+1.0 points"),
        ("crashes", 0.0, "0.0 % of windows"),
        ("drift", 0.05, "5.0 % moved"),
        ("energy_mj", None, "no data"),
    ],
)
def test_an_effect_is_shown_in_its_own_unit(metric: str, value: float | None, words: str) -> None:
    assert render.effect(metric, value) == words
