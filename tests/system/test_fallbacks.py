"""A variant that does not fit a board gives way to the next of its bundle, and headquarters shows which held."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeflock_controller.client import Client
from edgeflock_deploy.bundle import encode_blob, seal_manifest
from edgeflock_deploy.keys import SigningKey

if TYPE_CHECKING:
    from tests.system.conftest import Bundle, Site

BOARD = "board-1"
BOARDS = (BOARD,)
DATA = Path(__file__).parents[1] / "data"


def publish(site: Site, first: Bundle) -> Bundle:
    """A chain whose first form takes more memory than is declared, and whose second fits."""
    words = ["publish", str(DATA / "tiny_slow.tflite"), "--data", str(site.data), "--model", first.model]
    (done,) = site.told(*words, "--fallback", str(DATA / "tiny.tflite"), "--max-memory-mb", "1")
    with Client(site.store) as client:
        (digest,) = (m["digest"] for m in client.manifests(first.model) if m["version"] == done["version"])
    return first._replace(version=done["version"], variant=done["variant"], digest=digest)


def spoil_the_fallback(site: Site, bundle: Bundle) -> Bundle:
    """The same chain with a second form that does not load, signed by the right key."""
    whole = site.manifest(bundle)
    (second,) = whole.fallbacks
    blob, (container,) = encode_blob((DATA / "corrupt.tflite").read_bytes())
    spoilt = second.model_copy(update={"blobs": {**second.blobs, "model": blob}})
    manifest = whole.model_copy(update={"version": whole.version + 1, "fallbacks": (spoilt,)})
    sealed = seal_manifest(manifest, SigningKey.read("publish", site.fleet.home / "keys" / "publish.key"))
    with Client(site.store) as client:
        client.put_container(blob.encoding.sha256, container)
        assert client.register(sealed.envelope)["registered"]
    return bundle._replace(version=manifest.version, digest=sealed.digest)


def test_the_fallback_is_tried_and_committed_and_named_and_serves_after_a_kill(site: Site, model: str) -> None:
    first = site.install(model)
    bundle = publish(site, first)
    with site.application(BOARD, model) as application:
        site.ends(site.deploy(bundle, site.policy()), "SUCCEEDED")
        said = site.wait_for_model(BOARD, model, lambda m: m["digest"] == bundle.digest)
    assert application.failures == []
    assert application.story == [first.digest, bundle.digest]
    assert said["variant"] == "tiny"
    assert [(one["variant"], one["reason"]) for one in said["tried"]] == [("tiny_slow", "MEMORY_OVER_BUDGET")]
    held = f"{model}@{bundle.version} tiny for tiny_slow"
    for shown in (site.command("devices"), site.command("watch", "--once"), site.command("devices", "show", BOARD)):
        assert held in shown
    assert f"{model}: tiny_slow did not fit: MEMORY_OVER_BUDGET: " in shown
    site.kill_board(BOARD)
    site.fleet.start_agent(BOARD, "class-a")
    assert site.first_answer(BOARD, model) == bundle.digest
    again = site.wait_for_model(BOARD, model, lambda m: m["digest"] == bundle.digest)
    assert (again["variant"], again["tried"]) == (said["variant"], said["tried"])


def test_where_no_form_fits_the_rollout_is_taken_back_for_all_the_reasons(site: Site, model: str) -> None:
    first = site.install(model)
    bundle = spoil_the_fallback(site, publish(site, first))
    with site.application(BOARD, model) as application:
        name = site.deploy(bundle, site.policy())
        done = site.ends(name, "ROLLED_BACK")
    assert application.failures == []
    assert application.story == [first.digest]
    for told in (done["reason"], site.command("why", name)):
        assert "no form fits: tiny_slow: MEMORY_OVER_BUDGET (" in told
        assert "tiny: LOAD_FAILED (" in told
    steps = [event for event in site.device(BOARD)["events"] if event["rollout"] == name and event["reason"]]
    assert [event["reason"] for event in sorted(steps, key=lambda e: e["seq"])] == ["MEMORY_OVER_BUDGET", "LOAD_FAILED"]
    assert any(event["detail"].endswith("; tiny is next") for event in steps)
    assert site.failure(BOARD, name) == "LOAD_FAILED"
