from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import numpy as np

from edgeflock_deploy import topics
from edgeflock_deploy.keys import SigningKey

DATA = Path(__file__).parents[2] / "data"


def test_names_that_do_not_exist_are_refused_with_those_that_do(hq: Any) -> None:
    hq.device("pi-1")
    hq.publish_tiny()
    to_all = ("--to", "all", "--policy", "demo")
    cases = [
        (("deploy", "tyni", "--variant", "tiny", *to_all), "model 'tyni'", "the models are tiny"),
        (("deploy", "tiny@7", "--variant", "tiny", *to_all), "tiny@7", "the versions are 1"),
        (("deploy", "tiny@x", "--variant", "tiny", *to_all), "tiny@x", "MODEL@2"),
        (("deploy", "tiny", "--variant", "int8", *to_all), "variant 'int8'", "the variants are tiny"),
        (("deploy", "tiny", "--variant", "tiny", "--to", "id=pi-9", "--policy", "demo"), "pi-9", "known: pi-1"),
        (("deploy", "tiny", "--variant", "tiny", "--to", "class=x", "--policy", "demo"), "class x", "known: class-a"),
        (("deploy", "tiny", "--variant", "tiny", "--to", "some", "--policy", "demo"), "'some'", "all, id="),
        (("deploy", "tiny", "--variant", "tiny", "--to", "all", "--policy", "dmeo"), "dmeo", "demo"),
        (("rollback", "tyni", "--to", "all"), "model 'tyni'", "the models are tiny"),
        (("rollouts", "show", "r9"), "rollout 'r9'", "there are no rollouts yet"),
        (("devices", "show", "pi-9"), "device 'pi-9'", "the devices are pi-1"),
    ]
    for command, thing, mend in cases:
        said = hq.run(*command, code=2)
        assert said.startswith("error: "), said
        assert thing in said
        assert mend in said
        assert said.count("\n") == 1


def test_messages_that_cannot_be_read_become_dead_letters_and_harm_nothing(hq: Any) -> None:
    device = hq.device("pi-1")
    device.send_raw(topics.up("pi-1", "window"), b"\x00 not json")
    device.send_raw(topics.up("pi-1", "reported"), json.dumps({"v": 1, "kind": "reported", "device": "pi-1"}).encode())
    forged = {"v": 1, "kind": "presence", "device": "pi-2", "boot_id": "b", "seq": 1, "online": False}
    device.send_raw(topics.up("pi-1", "presence"), json.dumps(forged).encode())
    device.send_raw(topics.up("pi-1", "event"), json.dumps({"v": 1, "kind": "song"}).encode())
    hq.wait_for("three dead letters", lambda: hq.ask("status")["dead_letters"] == 3)
    letters = hq.ask("dead_letters")
    assert any("not JSON" in letter["error"] for letter in letters)
    assert any("pi-2 on a topic of pi-1" in letter["error"] for letter in letters)
    hq.device("pi-3")


def test_publishing_the_same_again_changes_nothing(hq: Any) -> None:
    first = hq.publish_tiny()
    again = hq.publish_tiny()
    assert (first["new"], again["new"]) == (True, False)
    assert first["digest"] == again["digest"]
    assert [bundle["version"] for bundle in hq.ask("bundles")] == [1]
    assert "already published as tiny@1" in hq.run(
        "publish", str(DATA / "tiny.tflite"), "--data", str(hq.folder / "data.npz"), "--model", "tiny"
    )
    assert "tiny@1" in hq.run("models")


def test_a_bundle_signed_by_another_key_is_refused(hq: Any) -> None:
    hq.publish_tiny()
    other = hq.folder / "other"
    other.mkdir()
    SigningKey.generate("publish").write(other / "publish.key")
    command = ("publish", str(DATA / "tiny_other.tflite"), "--data", str(hq.folder / "data.npz"), "--model", "tiny")
    assert "no pinned publish key signed it" in hq.run(*command, "--keys", str(other), code=2)
    assert len(hq.ask("bundles")) == 1


def test_a_variant_that_answers_nan_or_does_not_load_is_not_published(hq: Any) -> None:
    data = hq.folder / "data.npz"
    x, y = np.zeros((8, 8), np.float32), np.zeros(8, np.int64)
    np.savez(data, x_train=x, y_train=y, x_test=x, y_test=y)
    options = ("--data", str(data), "--model", "tiny")
    assert "NaN" in hq.run("publish", str(DATA / "tiny_nan.tflite"), *options, code=2)
    assert "no model that runs here" in hq.run("publish", str(DATA / "corrupt.tflite"), *options, code=2)
    assert hq.ask("bundles") == []


def test_a_store_has_one_service_and_a_stopped_one_is_named_as_such(hq: Any) -> None:
    assert stat.S_IMODE((hq.store / "service.json").stat().st_mode) == 0o600
    assert "is in use by another" in hq.run("serve", code=2)
    assert hq.stop() == 0
    assert not hq.broker.alive
    assert "is not running; start it with `edgeflock serve`" in hq.run("devices", code=2)
    assert "is not an MQTT address" in hq.run("serve", "--broker", "http://x", code=2)


def test_requests_without_the_token_are_refused(hq: Any) -> None:
    import httpx

    with hq.client() as client, httpx.Client(base_url=client.url) as stranger:
        assert stranger.get("/v1/devices").status_code == 401
        assert stranger.get("/v1/devices", headers={"Authorization": "Bearer x"}).status_code == 401
