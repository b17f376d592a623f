"""What a publisher declared, as an application on a board sees it: names, processing, labels, a state that goes on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeflock_agent.client import Client, Sequence

if TYPE_CHECKING:
    from tests.system.conftest import Site

BOARD = "board-1"
BOARDS = (BOARD,)
DATA = Path(__file__).parents[1] / "data"
PIXELS = """
labels = "labels.txt"

[[input]]
name = "photo"
of = "image"
dtype = "uint8"
shape = [-1, -1, 3]
limit = [64, 64, 3]
steps = [{do = "letterbox", height = 4, width = 4}, {do = "normalise", scale = 0.0039215686}]

[[output]]
name = "animal"
of = "scores"
steps = [{do = "argmax"}, {do = "labels"}]
"""


def data_of(folder: Path, shape: tuple[int, ...], dtype: str, targets: int = 0) -> str:
    """Items of one input, in three classes or with so many targets."""
    rng = np.random.default_rng(0)
    x = (rng.random((16, *shape)) * 200).astype(dtype)
    y = rng.random((16, targets)) if targets else np.arange(16) % 3
    np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return str(folder / "data.npz")


def install(site: Site, model: str, file: str, *options: str) -> None:
    """Publish a file and bring it to the board."""
    (done,) = site.told("publish", str(DATA / file), "--model", model, *options)
    words = ("deploy", f"{model}@{done['version']}", "--variant", done["variant"], "--to", f"id={BOARD}")
    started = site.told(*words, "--policy", "install")["id"]
    site.ends(started, "SUCCEEDED")


def test_an_application_sends_pictures_of_any_size_and_gets_names(site: Site, model: str, tmp_path: Path) -> None:
    (tmp_path / "pixels.toml").write_text(PIXELS)
    (tmp_path / "labels.txt").write_text("cat\ndog\ncow\n")
    data = data_of(tmp_path, (9, 7, 3), "uint8")
    install(site, model, "tiny_pixels.tflite", "--data", data, "--processing", str(tmp_path / "pixels.toml"))
    measured = site.wait_for_model(BOARD, model, lambda m: m["measurement"] is not None)["measurement"]
    assert measured["end_to_end_ms_p50"] > measured["latency_ms_p50"]
    assert "end to end" in site.command("devices", "show", BOARD)
    with Client(site.endpoint(BOARD)) as agent:
        assert agent.model(model).inputs[0].shape == (-1, -1, -1, 3)
        for batch, height, width in ((1, 9, 7), (3, 20, 64)):
            photo = np.random.default_rng(batch).integers(0, 255, (batch, height, width, 3)).astype("uint8")
            answer = agent.infer(model, {"photo": photo})
            assert answer.outputs["animal"].shape == (batch,)
            assert set(answer.outputs["animal"].tolist()) <= {"cat", "dog", "cow"}
            assert answer.end_to_end_ms > answer.latency_ms


def test_a_sequence_goes_on_until_the_board_is_killed(site: Site, model: str, tmp_path: Path) -> None:
    install(site, model, "tiny_fed.tflite", "--data", data_of(tmp_path, (4,), "float32", targets=1))
    ones = np.ones((1, 4), "float32")
    with Client(site.endpoint(BOARD)) as agent:
        begun = agent.infer(model, {"x": ones}, sequence=Sequence("me", start=True))
        goes_on = agent.infer(model, {"x": ones}, sequence=Sequence("me"))
    assert (begun.outputs["total"].item(), goes_on.outputs["total"].item()) == (4.0, 6.0)
    site.kill_board(BOARD)
    site.fleet.start_agent(BOARD, "class-a")
    site.wait("where to ask", lambda: (site.fleet.state(BOARD) / "endpoint.json").exists())
    with Client(site.endpoint(BOARD)) as agent:
        site.wait("the board to serve again", lambda: agent.ready(model))
        anew = agent.infer(model, {"x": ones}, sequence=Sequence("me"))
    assert (anew.outputs["total"].item(), anew.sequence_restarted) == (4.0, True)
