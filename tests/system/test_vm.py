"""Virtual boards: a whole ARM computer boots, joins, updates, and loses its power at named moments of an update.

`make test-arm` runs one cut, `make soak` one at every phase (EDGEFLOCK_SOAK=1). Killing QEMU is the power cut: the
guest's memory is gone, its page cache with it, and what its kernel had not written to the disk was never there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from application import infer

from edgeflock_controller.machines import Join, Machines
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.messages.values import DeviceState

if TYPE_CHECKING:
    from tests.system.conftest import Bundle, Site

SOAK = bool(os.environ.get("EDGEFLOCK_SOAK"))
pytestmark = pytest.mark.skipif(
    not SOAK and not os.environ.get("EDGEFLOCK_TEST_ARM"), reason="virtual boards: make test-arm or make soak runs them"
)

BOARD = "vm-1"
MODEL = "digits"
PATIENCE_S = 400.0  # a board boots in half a minute where nothing else runs; nothing is asserted about time
PHASES = ("DOWNLOADING", "VERIFYING", "WARMING", "TRIAL", "COMMITTED")


class Lab(NamedTuple):
    """A site with one virtual board on it, which runs `first`."""

    site: Site
    machines: Machines
    first: Bundle


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, open_site: Any) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("vm")
    machines = Machines(folder / "machines", dies_with_parent=True)
    with open_site(folder / "site") as site:
        site.patience_s = PATIENCE_S
        try:
            machines.up(1, Join(site.fleet.broker_url, Path(site.fleet.home / "keys/trust.json"), beat_s=2))
        except BadInput as error:
            pytest.skip(f"no virtual boards here: {error}")
        try:
            site.wait("the board online", lambda: [d["id"] for d in site.devices() if d["online"]] == [BOARD])
            yield Lab(site, machines, site.install(MODEL))
        finally:
            machines.down(delete=True)


def answer(lab: Lab) -> str:
    """The digest that answers, once the board does."""

    def ask() -> str | None:
        try:
            return infer(str(lab.machines.machine(BOARD).endpoint), MODEL)
        except (OSError, KeyError, ValueError):  # it boots
            return None

    found: str = lab.site.wait("an answer of the board", ask)
    return found


def test_it_joins_as_an_emulated_board_and_serves_its_first_bundle(lab: Lab) -> None:
    assert lab.site.device(BOARD)["device_class"] == "aarch64-cortex-a72-litert2.3-emulated"
    assert answer(lab) == lab.first.digest


@pytest.mark.parametrize("phase", PHASES if SOAK else ("TRIAL",))
def test_after_a_power_cut_it_serves_a_verified_variant_and_ends_in_the_desired_one(lab: Lab, phase: str) -> None:
    site = lab.site
    before = site.model(BOARD, MODEL)["slots"]["active"]
    bundle = site.publish(MODEL, padding=os.urandom(300_000), variant=f"cut_{phase.lower()}")
    # Until the cut the trial goes on, whatever it shows; then it may end.
    rollout = site.deploy(bundle, site.policy(pause_s=0.5, min_windows=8 if phase == "TRIAL" else 1))
    site.wait_state(BOARD, rollout, DeviceState(phase))
    lab.machines.cut_power(BOARD)
    assert not lab.machines.machine(BOARD).running
    lab.machines.boot(BOARD)
    allowed = {before, bundle.digest} if phase == "COMMITTED" else {before}
    assert answer(lab) in allowed
    site.ends(rollout, "SUCCEEDED")
    said = site.wait_for_model(BOARD, MODEL, lambda m: m["digest"] == bundle.digest)
    assert (said["slots"]["active"], said["slots"]["previous"]) == (bundle.digest, before)
    assert answer(lab) == bundle.digest
