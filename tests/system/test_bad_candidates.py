"""Candidates that misbehave only on the board: stopped there, rolled back with the reason, remembered, never again."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgeflock_controller.client import Client
from edgeflock_deploy.bundle import encode_blob, seal_manifest
from edgeflock_deploy.keys import SigningKey

if TYPE_CHECKING:
    from tests.system.conftest import Bundle, Site

BOARD = "board-1"
BOARDS = (BOARD,)
CORRUPT = Path(__file__).parents[1] / "data" / "corrupt.tflite"


def stopped(site: Site, name: str, first: Bundle, *reasons: str) -> None:
    """The rollout was taken back for one of these reasons, and the board says the same; the incumbent serves."""
    done = site.ends(name, "ROLLED_BACK")
    said = site.wait_for_model(BOARD, first.model, lambda m: m["digest"] == first.digest and m["candidate"] is None)
    assert said["slots"]["active"] == first.digest
    reason = site.failure(BOARD, name)
    assert reason in reasons
    assert f"FAIL: {BOARD} stopped hard, {reason}" in done["reason"]
    assert reason in site.command("why", name)
    assert reason in site.command("devices", "show", BOARD)


def refused_again(site: Site, bundle: Bundle, first: Bundle) -> None:
    """A second deployment of the same bundle is refused without a try."""
    before = site.device(BOARD)["bytes_received"]
    stopped(site, site.deploy(bundle, site.policy()), first, "KNOWN_BAD")
    assert site.device(BOARD)["bytes_received"] == before


def test_a_candidate_that_gives_nan_on_some_inputs_is_stopped_in_the_trial(site: Site, model: str) -> None:
    first = site.install(model)
    bundle = site.publish(model, "tiny_late_nan.tflite", data=site.late_nan_data())
    with site.application(BOARD, model) as application:
        stopped(site, site.deploy(bundle, site.policy(min_windows=500)), first, "NAN_OUTPUT")
        refused_again(site, bundle, first)
    assert application.failures == []
    assert application.story == [first.digest]


def test_a_signed_candidate_that_does_not_load_is_stopped_while_warming(site: Site, model: str) -> None:
    first = site.install(model)
    whole = site.manifest(first)
    blob, (container,) = encode_blob(CORRUPT.read_bytes())
    manifest = whole.model_copy(update={"version": 2, "variant": "corrupt", "blobs": whole.blobs | {"model": blob}})
    sealed = seal_manifest(manifest, SigningKey.read("publish", site.fleet.home / "keys" / "publish.key"))
    with Client(site.store) as client:
        client.put_container(blob.encoding.sha256, container)
        assert client.register(sealed.envelope)["registered"]
    bundle = first._replace(version=2, variant="corrupt", digest=sealed.digest)
    with site.application(BOARD, model) as application:
        stopped(site, site.deploy(bundle, site.policy()), first, "LOAD_FAILED", "LOAD_CRASHED")
        refused_again(site, bundle, first)
    assert application.failures == []
    assert application.story == [first.digest]


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGSEGV, "CRASHED"), (signal.SIGSTOP, "HUNG")], ids=["crashes", "hangs"]
)
def test_a_candidate_whose_process_fails_in_the_trial_is_stopped(
    site: Site, model: str, number: signal.Signals, reason: str
) -> None:
    first = site.install(model)
    bundle = site.publish(model, padding=os.urandom(1000))
    before = site.children(BOARD)
    with site.application(BOARD, model) as application:
        name = site.deploy(bundle, site.policy(pause_s=0.2, min_windows=500))
        site.reaches(name, lambda r: r["windows_received"] >= 1)
        (candidate,) = site.children(BOARD) - before
        os.kill(candidate, number)
        stopped(site, name, first, reason)
        refused_again(site, bundle, first)
    assert application.failures == []
    assert application.story == [first.digest]
    assert site.wait("the candidate's process is gone", lambda: not Path(f"/proc/{candidate}").exists())


def test_an_incumbent_that_dies_is_started_again_and_the_trial_goes_on(site: Site, model: str) -> None:
    before = site.children(BOARD)
    site.install(model)
    (incumbent,) = site.children(BOARD) - before
    bundle = site.publish(model, padding=os.urandom(1000))
    name = site.deploy(bundle, site.policy(pause_s=0.2, min_windows=6))
    site.reaches(name, lambda r: r["windows_received"] >= 1)
    os.kill(incumbent, signal.SIGKILL)
    assert site.first_answer(BOARD, model)
    site.ends(name, "SUCCEEDED")
    assert site.first_answer(BOARD, model) == bundle.digest
