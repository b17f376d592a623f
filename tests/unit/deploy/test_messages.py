"""What is on the wire decodes, is dropped, or goes to the dead letters; nothing else happens."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflock_deploy import topics
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.messages.orders import Desired, TrialSettings
from edgeflock_deploy.messages.reports import AgentEvent, CapturePiece, Presence, Reported, ReportedModel, Tried
from edgeflock_deploy.messages.values import DeviceState
from edgeflock_deploy.messages.windows import VariantWindow, Window
from edgeflock_deploy.messages.wire import Malformed, Unknown, Up, decode_up, encode
from edgeflock_deploy.reasons import Reason

HEAD = {"device": "b1", "boot_id": "boot", "seq": 3}
SIDE = VariantWindow(n=130, latency_ms_p50=0.05, accuracy=0.9)
MESSAGES = [
    Presence(online=True, **HEAD),
    Reported(
        device_class="c",
        runtime="litert2.3",
        free_bytes=1,
        models={
            "m": ReportedModel(
                digest="d",
                generation=1,
                rollout="R1",
                state=DeviceState.TRIAL,
                variant="float32",
                candidate_variant="int8",
                tried=(Tried(variant="int4", reason=Reason.TOO_SLOW, detail="30 ms"),),
            )
        },
        **HEAD,
    ),
    AgentEvent(model="m", rollout="R1", before=DeviceState.IDLE, after=DeviceState.DOWNLOADING, at=1.5, **HEAD),
    Window(
        device_class="c", rollout="R1", model="m", number=0, old_digest="a", new_digest="b", duration_s=1.0, pairs=130,
        old=SIDE, new=SIDE, agreement=0.99, **HEAD,
    ),
    CapturePiece(model="m", token="c1-abcd", number=0, pieces=1, data="AAAA", **HEAD),
]  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.kind)
def test_every_message_survives_the_wire(message: Up) -> None:
    assert decode_up(encode(message)) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.kind)
def test_fields_of_a_newer_release_are_accepted(message: Up) -> None:
    assert decode_up(json.dumps(json.loads(encode(message)) | {"introduced_later": [1]}).encode()) == message


def test_a_window_of_an_older_release_is_read() -> None:
    raw = json.loads(encode(MESSAGES[3]))
    later = {"mode", "live_pairs"}, {"service_n", "service_ms_p50", "service_ms_p95", "outcomes"}
    later[1].update({"end_to_end_n", "end_to_end_ms_p50", "end_to_end_ms_p95"})
    for name in later[0]:
        del raw[name]
    for side in (raw["old"], raw["new"]):
        for name in later[1]:
            del side[name]
    del raw["conditions"]["governor"]
    window = decode_up(json.dumps(raw).encode())
    assert window == MESSAGES[3]
    assert isinstance(window, Window)
    assert (window.mode, window.live_pairs, window.new.service_n) == ("shadow", 0, 0)


def test_trial_settings_of_an_older_release_are_read() -> None:
    old = {"mode": "shadow", "window_pairs": 130, "window_max_s": 10.0, "pause_s": 0.2, "deadline_s": 1800.0}
    assert TrialSettings.model_validate(old) == TrialSettings()


def test_a_report_of_before_forms_were_told_is_read() -> None:
    old = json.loads(encode(MESSAGES[1]))
    for field in ("variant", "candidate_variant", "tried"):
        del old["models"]["m"][field]
    read = decode_up(json.dumps(old).encode())
    assert isinstance(read, Reported)
    assert (read.models["m"].variant, read.models["m"].candidate_variant, read.models["m"].tried) == (None, None, ())


def test_words_of_the_release_before_are_read() -> None:
    old = '{"v":1,"kind":"desired","device":"b1","models":{}}'
    assert Desired.model_validate_json(old).signed_at is None
    said = json.loads(encode(MESSAGES[1]))
    for field in ("windows_dropped", "events_dropped", "nan_answers", "tags", "utc_offset_s"):
        del said[field]
    assert decode_up(json.dumps(said).encode()) == MESSAGES[1]


@pytest.mark.parametrize("change", [{"kind": "introduced_later"}, {"v": 2}])
def test_kinds_and_versions_of_a_newer_release_are_unknown_not_malformed(change: dict[str, object]) -> None:
    assert isinstance(decode_up(json.dumps(json.loads(encode(MESSAGES[0])) | change).encode()), Unknown)


@given(st.binary(max_size=300) | st.text().map(str.encode))
def test_garbage_is_malformed_or_unknown_and_nothing_else(data: bytes) -> None:
    try:
        assert isinstance(decode_up(data), Unknown)
    except Malformed as error:
        assert str(error)


def test_deep_nesting_is_malformed() -> None:
    with pytest.raises(Malformed):
        decode_up(b"[" * 100_000)


@pytest.mark.parametrize("field", ["device", "boot_id", "seq", "online"])
def test_a_missing_field_is_named(field: str) -> None:
    raw = {k: v for k, v in json.loads(encode(MESSAGES[0])).items() if k != field}
    with pytest.raises(Malformed, match=field):
        decode_up(json.dumps(raw).encode())


def test_not_a_number_cannot_travel() -> None:
    raw = json.loads(encode(MESSAGES[3]))
    raw["new"]["latency_ms_p50"] = float("nan")
    with pytest.raises(Malformed, match="latency_ms_p50"):
        decode_up(json.dumps(raw).encode())


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True), st.sampled_from(["reported", "window"]))
def test_an_upward_topic_comes_apart_as_it_was_made(device: str, kind: str) -> None:
    assert topics.parse_up(topics.up(device, kind)) == (device, kind)


@pytest.mark.parametrize("device", ["", "a/b", "+", "#", "a b", "-a", "x" * 65, "ä", "a\n"])
def test_a_device_id_that_could_escape_its_topic_is_refused(device: str) -> None:
    with pytest.raises(BadInput, match="device id"):
        topics.desired(device)


@pytest.mark.parametrize("topic", ["edgeflock/v1/d/a/desired", "edgeflock/v1/d/a/b/up/window", "x/d/a/up/window", ""])
def test_other_topics_are_not_upward(topic: str) -> None:
    assert topics.parse_up(topic) is None


def test_a_word_of_a_release_that_wanted_no_captures_is_still_read() -> None:
    older = {"v": 1, "kind": "desired", "device": "b1", "models": {}}
    assert Desired.model_validate_json(json.dumps(older)).captures_wanted == {}
