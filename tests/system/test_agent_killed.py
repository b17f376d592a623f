"""An agent killed in each state of a rollout: it takes it up again, fetches nothing twice, and serves at once."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from edgeflock_controller.journal import Journal
from edgeflock_deploy import topics
from edgeflock_deploy.bundle import CHUNK_BYTES, Manifest
from edgeflock_deploy.judge.verdict import VerdictKind
from edgeflock_deploy.messages.values import DeviceState
from edgeflock_deploy.rollout.machine import step

if TYPE_CHECKING:
    from tests.system.conftest import Bundle, Site

BOARD = "board-1"
BOARDS = (BOARD,)


def missing_bytes(site: Site, manifest: Manifest) -> int:
    """Chunk payload bytes of a bundle that are not on the board's disk."""
    state, missing = site.fleet.state(BOARD), 0
    for blob in manifest.blobs.values():
        if not (state / "blobs" / blob.sha256).exists():
            bitmap = state / "incoming" / blob.encoding.sha256 / "bitmap"
            marks = bitmap.read_bytes() if bitmap.exists() else b""
            for number in range(len(blob.encoding.chunks)):
                if marks[number : number + 1] != b"\x01":
                    missing += min(CHUNK_BYTES, blob.encoding.bytes - number * CHUNK_BYTES)
    return missing


def killed_in(site: Site, bundle: Bundle, incumbent: Bundle, state: DeviceState) -> int:
    """Kill the board and start it again: the record and the incumbent must be there; how much is left to fetch."""
    site.kill_board(BOARD)
    missing = missing_bytes(site, site.manifest(bundle))
    folder = str(site.fleet.state(BOARD))
    said = site.told("status", "--state", folder, code=1, program="edgeflock-agent")["models"][bundle.model]
    assert said["slots"]["active"] == incumbent.digest
    assert said["state"] in (state.value, *_NEIGHBOURS.get(state, ()))
    site.fleet.start_agent(BOARD, "class-a")
    return missing


# The event of a transition leaves before the record is written, and what follows is a matter of milliseconds.
_NEIGHBOURS = {
    DeviceState.VERIFYING: ("DOWNLOADING", "STAGED", "WARMING"),
    DeviceState.STAGED: ("VERIFYING",),
    DeviceState.WARMING: ("STAGED", "TRIAL"),
    DeviceState.TRIAL: ("WARMING",),
    DeviceState.COMMITTED: ("TRIAL",),
    DeviceState.ROLLING_BACK: ("COMMITTED", "ROLLED_BACK"),
}


def ends_well(site: Site, name: str, bundle: Bundle, missing: int) -> None:
    """The rollout ends as it would have, with no more fetched than was missing."""
    done = site.ends(name, "SUCCEEDED")
    assert done["devices_committed"] == 1
    said = site.wait_for_model(BOARD, bundle.model, lambda m: m["state"] == "COMMITTED")
    assert said["digest"] == bundle.digest
    assert site.first_answer(BOARD, bundle.model) == bundle.digest
    site.wait("its last report", lambda: site.device(BOARD)["bytes_received"] >= missing)
    assert site.device(BOARD)["bytes_received"] == missing


def boots_of_the_verdict(site: Site, name: str) -> dict[str, int]:
    """The windows that stood under the board's PASS, as its journal has them: how many of each boot."""
    with closing(sqlite3.connect(site.store / "edgeflock.db")) as connection:
        connection.row_factory = sqlite3.Row
        rollout = None
        for entry in Journal(connection).read(name):
            rollout, _ = step(rollout, entry.event)
            if rollout.verdict is not None and rollout.verdict.kind is VerdictKind.PASS:
                seen = rollout.evidence.of(BOARD).seen
                return {boot: sum(last - first + 1 for first, last in runs) for boot, runs in seen.items()}
    raise AssertionError(f"{name} has no PASS")


def test_killed_while_downloading_it_fetches_only_what_is_missing(site: Site, model: str) -> None:
    incumbent = site.install(model)
    bundle = site.publish(model, padding=os.urandom(6 * CHUNK_BYTES))
    blob = site.manifest(bundle).blobs["model"]
    last = topics.chunk(blob.encoding.sha256, len(blob.encoding.chunks) - 1)
    with site.frozen(BOARD):
        name = site.deploy(bundle, site.policy())
        site.desired_with(BOARD, bundle.digest)
        chunk = site.retained(last)
        site.plant(last, b"")
    bitmap = site.fleet.state(BOARD) / "incoming" / blob.encoding.sha256 / "bitmap"
    there = b"\x01" * (len(blob.encoding.chunks) - 1)
    site.wait("every chunk but the last", lambda: bitmap.exists() and bitmap.read_bytes() == there)

    missing = killed_in(site, bundle, incumbent, DeviceState.DOWNLOADING)
    assert missing < blob.encoding.bytes - 5 * CHUNK_BYTES
    assert site.first_answer(BOARD, model) == incumbent.digest
    site.plant(last, chunk)
    ends_well(site, name, bundle, missing)


@pytest.mark.parametrize("state", [DeviceState.VERIFYING, DeviceState.WARMING], ids=lambda state: state.value)
def test_killed_on_the_way_to_the_trial_it_fetches_nothing_again(site: Site, model: str, state: DeviceState) -> None:
    incumbent = site.install(model)
    bundle = site.publish(model, padding=bytes(48 << 20), variant="long")  # takes a moment to unpack
    name = site.deploy(bundle, site.policy())
    site.wait_state(BOARD, name, state)
    missing = killed_in(site, bundle, incumbent, state)
    assert missing == 0
    assert site.first_answer(BOARD, model) in (incumbent.digest, bundle.digest)
    ends_well(site, name, bundle, missing)


def test_killed_while_it_waits_for_the_bench_it_warms_up_later(site: Site, model: str) -> None:
    incumbent = site.install(model)
    other = site.install(f"{model}-x")
    neighbour = site.deploy(site.publish(other.model, padding=b"x"), site.policy(window_pairs=100_000))
    site.wait_state(BOARD, neighbour, DeviceState.TRIAL)  # from here on it has the bench, for a long window
    bundle = site.publish(model, padding=os.urandom(1000))
    name = site.deploy(bundle, site.policy())
    site.wait_state(BOARD, name, DeviceState.STAGED)
    missing = killed_in(site, bundle, incumbent, DeviceState.STAGED)
    assert missing == 0
    site.told("rollouts", "abort", neighbour)
    assert site.first_answer(BOARD, other.model) == other.digest
    ends_well(site, name, bundle, missing)
    site.ends(neighbour, "ABORTED")


def test_killed_in_the_trial_its_evidence_is_kept_and_the_rest_is_gathered_after_the_restart(
    site: Site, model: str
) -> None:
    incumbent = site.install(model)
    bundle = site.publish(model, padding=os.urandom(1000))
    name = site.deploy(bundle, site.policy(pause_s=0.5, min_windows=16))
    site.reaches(name, lambda r: r["windows_received"] >= 5)
    missing = killed_in(site, bundle, incumbent, DeviceState.TRIAL)
    assert missing == 0
    assert site.first_answer(BOARD, model) == incumbent.digest
    with site.application(BOARD, model) as application:
        ends_well(site, name, bundle, missing)
    assert application.failures == []
    boots = boots_of_the_verdict(site, name)
    assert len(boots) == 2
    assert sum(boots.values()) >= 16


def test_killed_at_the_commit_it_ends_committed(site: Site, model: str) -> None:
    incumbent = site.install(model)
    bundle = site.publish(model, padding=os.urandom(1000))
    name = site.deploy(bundle, site.policy())
    site.wait_state(BOARD, name, DeviceState.COMMITTED)
    site.kill_board(BOARD)
    site.fleet.start_agent(BOARD, "class-a")
    assert site.first_answer(BOARD, model) in (incumbent.digest, bundle.digest)
    ends_well(site, name, bundle, 0)


def test_killed_while_going_back_it_goes_back(site: Site, model: str) -> None:
    incumbent = site.install(model)
    bundle = site.publish(model, padding=os.urandom(1000))
    site.ends(site.deploy(bundle, site.policy()), "SUCCEEDED")
    name = site.told("rollback", model, "--to", "all")["rollout"]["id"]
    site.wait_state(BOARD, name, DeviceState.ROLLING_BACK)
    site.kill_board(BOARD)
    site.fleet.start_agent(BOARD, "class-a")
    assert site.first_answer(BOARD, model) in (incumbent.digest, bundle.digest)
    site.ends(name, "ROLLED_BACK")
    site.wait_for_model(BOARD, model, lambda m: m["digest"] == incumbent.digest and m["state"] == "ROLLED_BACK")
    assert site.first_answer(BOARD, model) == incumbent.digest
    # It may have gone back before it was killed: then its last word was of before, and this is of its next.
    site.wait("a report of after the restart, with nothing fetched", lambda: site.device(BOARD)["bytes_received"] == 0)
