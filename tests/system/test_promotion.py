"""The main thread from outside, on each broker: install, promote and take back by evidence, drop no request."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fleet import Fleet

from edgeflock_deploy.link import parse_broker

if TYPE_CHECKING:
    from tests.system.conftest import Site

BOARDS = ("board-1", "board-2", "board-3")
SHIPPED = Path(__file__).parents[2] / "deploy" / "mosquitto" / "edgeflock.conf"
TINY = Path(__file__).parents[1] / "data" / "tiny.tflite"
MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin")


class MosquittoFleet(Fleet):
    """The same fleet on mosquitto with the configuration that the product ships, at a free port."""

    port = 0

    @property
    def broker_url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start_broker(self) -> None:
        assert MOSQUITTO is not None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        text, changed = re.subn(r"(?m)^listener 1883 ", f"listener {self.port} ", SHIPPED.read_text())
        assert changed == 1
        settings = self.home / "mosquitto.conf"
        # Started by root it would change to a user who may not write here.
        settings.write_text(f"{text}\npersistence_location {self.home}/\n" + ("user root\n" * (os.getuid() == 0)))
        self.spawn("mosquitto", MOSQUITTO, "-c", str(settings))
        self.wait_for("mosquitto", self._accepts)

    def _accepts(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(parse_broker(self.broker_url), timeout=1):
            return True
        return False


needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(Fleet, id="embedded"),
        pytest.param(MosquittoFleet, id="mosquitto", marks=needs_mosquitto),
    ],
)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, open_site: Any) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("site"), *BOARDS, fleet=request.param) as opened:
        yield opened


def test_a_good_variant_is_promoted_a_wrong_one_is_taken_back_and_no_request_is_dropped(site: Site, model: str) -> None:
    (published,) = site.told("publish", str(TINY), "--data", str(site.data), "--model", model)
    printed = site.command("deploy", f"{model}@1", "--variant", "tiny", "--to", "all", "--policy", "install", "--wait")
    assert "SUCCEEDED" in printed
    good = site.publish(model, padding=os.urandom(300_000), variant="tiny_padded")
    wrong = site.publish(model, "tiny_other.tflite")
    policy = site.policy(stages=(1, 2), by_answers=True)
    brings = (f"{model}@3", "--variant", wrong.variant, "--to", "all", "--policy")
    rehearsed = site.told("rehearse", *brings, policy, "--regression", "accuracy -30pt", "--runs", "3")
    assert rehearsed["endings"]["rolled back"]["runs"] == 3

    with contextlib.ExitStack() as stack:
        applications = [stack.enter_context(site.application(board, model)) for board in BOARDS]
        to = ("--to", "all", "--policy", policy, "--wait")
        promoted = site.command("deploy", f"{model}@2", "--variant", good.variant, *to)
        taken_back = site.command("deploy", f"{model}@3", "--variant", wrong.variant, *to, code=1)
    for application in applications:
        assert application.failures == []
        assert application.story == [published["digest"], good.digest]

    order = [promoted.index(f"stage {number} of 3: PASSED") for number in (1, 2, 3)]
    assert order == sorted(order)
    assert "verdict: FAIL: " in taken_back
    _, promotion, failure = site.told("rollouts")[-3:]
    assert (promotion["phase"], promotion["devices_committed"]) == ("SUCCEEDED", 3)
    assert (failure["phase"], failure["stage"], failure["devices_reached"]) == ("ROLLED_BACK", 0, 1)
    assert [stage["phase"] for stage in failure["stages"]] == ["FAILED", "SKIPPED", "SKIPPED"]
    why = site.told("why", failure["id"])
    assert why["rollout"]["verdict"]["kind"] == "FAIL"
    assert why["windows"] > 0
    assert "FAIL: " in site.command("why", failure["id"])
    for device in site.told("devices"):
        assert device["models"][model]["digest"] == good.digest
    devices = site.rollout(failure["id"])["devices"]
    states = {name: device["status"] for name, device in devices.items()}
    assert sorted(states.values()) == ["REVERTED", "WAITING", "WAITING"]
    plan = site.told("plan", *brings, site.policy(stages=(1,)))
    assert [len(stage["devices"]) for stage in plan["stages"]] == [1, 2]
    assert [one["metric"] for one in plan["detects"]] == ["peak_rss_bytes"]
    assert len(plan["sources"]) == 2
