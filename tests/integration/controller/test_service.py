from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import numpy as np

from edgeflock_deploy import topics
from edgeflock_deploy.keys import SigningKey

DATA = Path(__file__).parents[2] / "data"


def test_names_that_do_not_exist_are_refused_with_those_that_do(flock: Any, hq: Any) -> None:
    assert "there are no rollouts yet" in hq.run("rollouts", "show", "r9", code=2)
    one, model = flock.device("pi-1").name, flock.model
    flock.publish()
    to_all = ("--to", "all", "--policy", "demo")
    demo = ("--policy", "demo")
    cases = [
        (("deploy", "tyni", "--variant", "tiny", *to_all), "model 'tyni'", f"the models are {model}"),
        (("deploy", f"{model}@7", "--variant", "tiny", *to_all), f"{model}@7", "the versions are 1"),
        (("deploy", f"{model}@x", "--variant", "tiny", *to_all), f"{model}@x", "MODEL@2"),
        (("deploy", model, "--variant", "int8", *to_all), "variant 'int8'", "the variants are tiny"),
        (("deploy", model, "--variant", "tiny", "--to", "id=pi-9", *demo), "pi-9", f"known: {one}"),
        (("deploy", model, "--variant", "tiny", "--to", "class=x", *demo), "class x", f"known: {flock.tag}"),
        (("deploy", model, "--variant", "tiny", "--to", "some", *demo), "'some'", "all, id="),
        (("deploy", model, "--variant", "tiny", "--to", "all", "--policy", "dmeo"), "dmeo", "demo"),
        (("rollback", "tyni", "--to", "all"), "model 'tyni'", f"the models are {model}"),
        (("devices", "show", "pi-9"), "device 'pi-9'", f"the devices are {one}"),
    ]
    for command, thing, mend in cases:
        said = hq.run(*command, code=2)
        assert said.startswith("error: "), said
        assert thing in said
        assert mend in said
        assert said.count("\n") == 1


def test_boards_are_tagged_frozen_and_named_by_their_tags_and_the_log_says_by_whom(flock: Any, hq: Any) -> None:
    one, two = flock.device("pi-1").name, flock.device("pi-2").name
    flock.publish()
    assert hq.run("devices", "tag", one, f"site={flock.tag}") == "changed the tags of 1 of 1 devices\n"
    hq.run("devices", "tag", one, f"site={flock.tag}", code=1)
    assert "are named twice" in hq.run("devices", "tag", one, "a=b", "--to", "all", code=2)
    shown = {d["id"]: d["tags"] for d in hq.json("devices")}
    assert (shown[one], shown[two]) == ({"site": flock.tag}, {})
    assert f"tags: site={flock.tag}" in hq.run("devices", "show", one)

    hq.run("freeze", "model", flock.model, "--reason", "labels are checked")
    to = ("--to", f"tag.site={flock.tag}", "--policy", "install")
    assert "(labels are checked)" in hq.run("deploy", flock.model, "--variant", "tiny", *to, code=2)
    assert flock.model in hq.run("freeze")
    hq.run("unfreeze", "model", flock.model)
    hq.run("freeze", "device", two, "--reason", "fair")
    assert "frozen by " in hq.run("devices", "show", two)
    hq.run("unfreeze", "device", two)
    assert hq.run("freeze") == "nothing is frozen\n"
    rollout = hq.json("deploy", flock.model, "--variant", "tiny", *to, "--wait")
    assert list(rollout["devices"]) == [one]

    log = hq.json("audit", "--model", flock.model)
    did = [(entry["action"], entry["result"].split(":")[0]) for entry in log]
    freezing = [("freeze", "frozen"), ("deploy", "refused"), ("unfreeze", "unfrozen")]
    assert did == [("publish", "published"), *freezing, ("deploy", f"started {rollout['id']}")]
    assert {entry["by"] for entry in log} == {rollout["by"]}
    assert [e["action"] for e in hq.json("audit", "--device", one)] == ["tag", "tag", "deploy"]
    assert [e["action"] for e in hq.json("audit", "--rollout", rollout["id"])] == ["deploy"]
    assert "labels are checked" in hq.run("audit", "--model", flock.model)


def test_messages_that_cannot_be_read_become_dead_letters_and_harm_nothing(flock: Any, hq: Any) -> None:
    device = flock.device("pi-1")
    before = hq.ask("status")["dead_letters"]
    device.send_raw(topics.up(device.name, "window"), b"\x00 not json")
    device.send_raw(
        topics.up(device.name, "reported"), json.dumps({"v": 1, "kind": "reported", "device": device.name}).encode()
    )
    forged = {"v": 1, "kind": "presence", "device": "pi-2", "boot_id": "b", "seq": 1, "online": False}
    device.send_raw(topics.up(device.name, "presence"), json.dumps(forged).encode())
    device.send_raw(topics.up(device.name, "event"), json.dumps({"v": 1, "kind": "song"}).encode())
    hq.wait_for("three dead letters", lambda: hq.ask("status")["dead_letters"] == before + 3)
    letters = hq.ask("dead_letters")
    assert any("not JSON" in letter["error"] for letter in letters)
    assert any(f"pi-2 on a topic of {device.name}" in letter["error"] for letter in letters)
    flock.device("pi-3")


def test_publishing_the_same_again_changes_nothing(flock: Any, hq: Any) -> None:
    first = flock.publish()
    again = flock.publish()
    assert (first["new"], again["new"]) == (True, False)
    assert first["digest"] == again["digest"]
    assert versions(hq, flock.model) == [1]
    command = ("publish", str(DATA / "tiny.tflite"), "--data", str(hq.data), "--model", flock.model)
    assert f"already published as {flock.model}@1" in hq.run(*command)
    assert f"{flock.model}@1" in hq.run("models")


def test_publishing_shows_nothing_of_what_the_runtime_prints(flock: Any, hq: Any) -> None:
    command = ("publish", str(DATA / "tiny.tflite"), "--data", str(hq.data), "--model", flock.model)
    done = hq.run_process(*command)
    assert (done.returncode, done.stderr) == (0, "")
    refused = hq.run_process(*command[:-1], "no/name")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: model 'no/name'")
    assert refused.stderr.count("\n") == 1


def test_a_bundle_signed_by_another_key_is_refused(flock: Any, hq: Any) -> None:
    other = hq.folder / "other"
    other.mkdir()
    SigningKey.generate("publish").write(other / "publish.key")
    command = ("publish", str(DATA / "tiny.tflite"), "--data", str(hq.data), "--model", flock.model)
    assert "no pinned publish key signed it" in hq.run(*command, "--keys", str(other), code=2)
    assert versions(hq, flock.model) == []


def test_a_variant_that_answers_nan_or_does_not_load_is_not_published(flock: Any, hq: Any) -> None:
    data = hq.folder / "zeros.npz"
    x, y = np.zeros((8, 8), np.float32), np.zeros(8, np.int64)
    np.savez(data, x_train=x, y_train=y, x_test=x, y_test=y)
    options = ("--data", str(data), "--model", flock.model)
    assert "NaN" in hq.run("publish", str(DATA / "tiny_nan.tflite"), *options, code=2)
    assert "no model that runs here" in hq.run("publish", str(DATA / "corrupt.tflite"), *options, code=2)
    assert versions(hq, flock.model) == []


def test_requests_without_the_token_are_refused(hq: Any) -> None:
    import httpx

    with hq.client() as client, httpx.Client(base_url=client.url) as stranger:
        assert stranger.get("/v1/devices").status_code == 401
        assert stranger.get("/v1/devices", headers={"Authorization": "Bearer x"}).status_code == 401


def test_a_store_has_one_service_and_a_stopped_one_is_named_as_such(hq: Any) -> None:
    assert stat.S_IMODE((hq.store / "service.json").stat().st_mode) == 0o600
    assert "is in use by another" in hq.run("serve", code=2)
    assert hq.stop() == 0
    assert not hq.broker.alive
    assert "is not running; start it with `edgeflock serve`" in hq.run("devices", code=2)
    assert "is not an MQTT address" in hq.run("serve", "--broker", "http://x", code=2)


def versions(hq: Any, model: str) -> list[int]:
    return [bundle["version"] for bundle in hq.ask("bundles") if bundle["model"] == model]
