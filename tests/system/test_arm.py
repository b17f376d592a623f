"""The real agent on emulated ARM userlands: QEMU translates its instructions, everything else is as on a board.

`make test-arm` runs these (EDGEFLOCK_TEST_ARM=1); the userlands are made by deploy/qemu/userland.py and kept below
build/arm. Nothing here asserts a time: an emulated board's say nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from edgeflock_agent.storage.unpacking import memory_limit
from edgeflock_deploy.codec import encode
from qemu.packages import Missing
from qemu.userland import REPOSITORY, userland

if TYPE_CHECKING:
    from tests.system.conftest import Site

pytestmark = pytest.mark.skipif(not os.environ.get("EDGEFLOCK_TEST_ARM"), reason="emulated ARM: make test-arm runs it")

DATA = REPOSITORY / "tests" / "data"
MLPERF_TINY = REPOSITORY.parent / "shared" / "models" / "mlperf-tiny"
INT8 = ("tiny_int8.tflite",)
MLPERF_INT8 = ("ad01_int8.tflite", "pretrainedResnet_quant.tflite")
SOURCES = os.pathsep.join(str(REPOSITORY / folder) for folder in ("agent", "deploy"))
PATIENCE_S = 300.0  # emulated boards are slow, and nothing is asserted about time
CLASSES = {
    "aarch64": "aarch64-cortex-a72-litert2.3-emulated",
    "armhf": "armv7l-cortex-a7-tflite-runtime2.14-emulated",
}


class Board(NamedTuple):
    """An emulated board that has joined a site."""

    kind: str
    name: str
    site: Site


def python_of(kind: str) -> Path:
    """The emulated Python; what stands in its way is why a test is skipped."""
    try:
        return userland(kind)
    except Missing as error:
        pytest.skip(f"no emulated {kind}: {error}")


def who_answers(endpoint: str, model: str) -> str:
    """Ask for an inference of zeros in whatever type the model takes; the digest that answered."""
    with urllib.request.urlopen(f"{endpoint}/v2/models/{model}", timeout=20) as reply:
        (takes,) = json.load(reply)["inputs"]
    asked = {"inputs": [takes | {"shape": [1, 8], "data": [0] * 8}]}
    url = f"{endpoint}/v2/models/{model}/infer"
    with urllib.request.urlopen(url, data=json.dumps(asked).encode(), timeout=20) as reply:
        return str(json.load(reply)["parameters"]["digest"])


@pytest.fixture(scope="module", params=["aarch64", "armhf"])
def board(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, open_site: Any) -> Iterator[Board]:
    """One emulated board on a broker and a controller of this machine."""
    kind = request.param
    python = python_of(kind)
    with open_site(tmp_path_factory.mktemp(kind)) as site:
        name, site.patience_s = f"board-{kind}", PATIENCE_S
        site.fleet.env["PYTHONPATH"] = SOURCES
        site.fleet.spawn(
            name, str(python), "-m", "edgeflock_agent.cli", "run", "--id", name, "--broker", site.fleet.broker_url,
            "--state", str(site.fleet.state(name)), "--trust", str(site.fleet.home / "keys/trust.json"), "--beat", "2",
        )  # fmt: skip
        site.wait("the board online", lambda: [d["id"] for d in site.devices() if d["online"]] == [name])
        yield Board(kind, name, site)


def test_it_enrols_as_what_it_is_and_says_that_it_is_emulated(board: Board) -> None:
    assert board.site.device(board.name)["device_class"] == CLASSES[board.kind]


def test_it_updates_is_measured_commits_and_takes_bad_variants_back(board: Board) -> None:
    site, name, model = board.site, board.name, "digits"
    first = site.publish(model, "tiny_int8.tflite")
    site.ends(site.deploy(first, "install"), "SUCCEEDED")
    assert who_answers(site.endpoint(name), model) == first.digest

    # Judged by latency too, of which an emulated board has none that counts.
    policy = Path(site.policy(by_answers=True))
    policy.write_text(
        policy.read_text() + '[[guardrail]]\nmetric = "latency_ms_p50"\nfail_margin = 0.0\npass_margin = 0.0001\n'
    )
    good = site.publish(model, "tiny_int8.tflite", padding=os.urandom(200_000), variant="tiny_padded")
    promoted = site.ends(site.deploy(good, str(policy)), "SUCCEEDED")
    assert "it is emulated, so latency is not judged" in promoted["verdict"]["sentence"]
    measured = site.model(name, model)["measurement"]
    assert measured["latency_ms_p50"] > 0
    assert measured["peak_rss_bytes"] > 0
    assert measured["energy"]["mj"] is None

    wrong = site.publish(model, "tiny_other.tflite")
    taken_back = site.ends(site.deploy(wrong, str(policy)), "ROLLED_BACK")
    assert "of the answers differ" in taken_back["verdict"]["sentence"]  # it shows sooner than the accuracy lost
    nan = site.publish(model, "tiny_late_nan.tflite", data=site.late_nan_data())
    stopped = site.ends(site.deploy(nan, str(policy)), "ROLLED_BACK")
    assert f"{name} stopped hard, NAN_OUTPUT" in stopped["reason"]
    assert who_answers(site.endpoint(name), model) == good.digest


def test_int8_models_answer_byte_for_byte_as_on_this_machine() -> None:
    python = python_of("aarch64")
    models = [str(DATA / name) for name in INT8]
    models += [str(MLPERF_TINY / name) for name in MLPERF_INT8 if MLPERF_TINY.is_dir()]
    script = str(Path(__file__).with_name("arm_answers.py"))
    env = os.environ | {"PYTHONPATH": SOURCES}
    here, there = (
        subprocess.run([command, script, *models], capture_output=True, text=True, check=True, env=env).stdout
        for command in (sys.executable, python)
    )
    assert there == here
    assert len(here.splitlines()) == len(models)


@pytest.mark.parametrize("kind", ["aarch64", "armhf"])
def test_a_container_is_unpacked_to_the_same_bytes(kind: str, tmp_path: Path) -> None:
    python = python_of(kind)
    model = MLPERF_TINY / "pretrainedResnet_quant.tflite"
    data = (model if model.is_file() else DATA / "tiny_int8.tflite").read_bytes()
    other = bytearray(data)
    other[len(data) // 2] ^= 1  # in the weights
    base, full, delta = (tmp_path / name for name in ("base", "full", "delta"))
    base.write_bytes(data)
    full.write_bytes(encode(data))
    delta.write_bytes(encode(bytes(other), data))
    env = os.environ | {"PYTHONPATH": SOURCES, "EDGEFLOCK_PARENT": str(os.getpid())}
    limits = [str(len(data)), str(memory_limit(len(data), 3 * len(data)))]
    unpack = [str(python), "-m", "edgeflock_agent.storage.unpacking", *limits]
    assert subprocess.run([*unpack, str(full)], env=env, capture_output=True, check=True).stdout == data
    assert subprocess.run([*unpack, str(delta), str(base)], env=env, capture_output=True, check=True).stdout == bytes(
        other
    )
