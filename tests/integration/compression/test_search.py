"""A search by its command: killed, gone on with, interrupted; and what it then has to show."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeflock_compression.search.search import CANDIDATES_FOLDER, PAGE_FILE, REPORT_FILE
from edgeflock_compression.variant import read_record

_GOALS = ("--goal", "drop<=5, wire<=20KB", "--goal", "accuracy>=0.999, wire<=100B")


def _start(model: Path, data: Path, out: Path) -> "subprocess.Popen[str]":
    program = "from edgeflock_controller.cli import main; main()"
    command = [sys.executable, "-c", program, "search", str(model), "--data", str(data), "--out", str(out)]
    rest = [*_GOALS, "--time-budget", "10m", "--threads", "1", "--json"]
    return subprocess.Popen([*command, *rest], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _candidates(out: Path) -> list[dict[str, Any]]:
    lines = (out / "search.jsonl").read_text().splitlines() if (out / "search.jsonl").exists() else []
    return [json.loads(line)["candidate"] for line in lines if line.startswith('{"candidate"')]


def _wait(process: "subprocess.Popen[str]", what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_search_survives_kill_9_and_ctrl_c_and_shows_what_it_knows(
    classifier: Path, digits: Path, tmp_path: Path
) -> None:
    out = tmp_path / "found"
    killed = _start(classifier, digits, out)
    _wait(killed, lambda: len(_candidates(out)) >= 2)
    killed.kill()
    killed.communicate()
    before = _candidates(out)
    made = (out / CANDIDATES_FOLDER / "float32" / "model.tflite").stat().st_mtime_ns

    again = _start(classifier, digits, out)
    _wait(again, lambda: len(_candidates(out)) > len(before))
    again.send_signal(signal.SIGINT)
    printed, errors = again.communicate()
    assert again.returncode == 1, errors  # the second goal cannot be met

    assert _candidates(out)[: len(before)] == before
    assert (out / CANDIDATES_FOLDER / "float32" / "model.tflite").stat().st_mtime_ns == made
    report = json.loads((out / REPORT_FILE).read_text())
    assert json.loads(printed) == report
    assert report["ended"] == "it was interrupted"
    assert (out / PAGE_FILE).stat().st_size > 1000

    small, impossible = report["goals"]
    assert (out / small["shipped"] / "model.tflite").stat().st_size < 40_000
    assert impossible["shipped"] is None
    assert impossible["nearest"] in impossible["why"]
    assert report["candidates_seen"] == len(_candidates(out))
    assert set(report["front"]) <= {one["name"] for one in report["candidates"]}
    for one in _candidates(out):
        assert (one["measured_on"], one["n_items"]) == ("validation", 240)
    for one in report["variants"]:
        record = read_record(out / one["name"])
        assert (record.measured_on, record.n_items, record.wire_estimated) == ("test", 597, False)
        assert record.sha256 == hashlib.sha256((out / one["name"] / "model.tflite").read_bytes()).hexdigest()
        assert record.certificate is not None
        assert record.certificate.candidates_seen == report["candidates_seen"]
        assert record.certificate.shipped_together == len(report["variants"])
        assert one["latency_ratio"] > 0
