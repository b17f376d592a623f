"""Inputs that a board kept, fetched from headquarters: only where the board's owner allows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

ON = ("--capture-mb", "1", "--capture-below", "1", "--capture-every", "0")


def test_kept_inputs_come_to_headquarters_when_the_boards_owner_allows_it_and_never_otherwise(
    tmp_path: Path, open_site: Any
) -> None:
    with open_site(tmp_path / "site") as site:
        for board, options in (("open", (*ON, "--capture-send")), ("closed", ON), ("off", ())):
            site.fleet.start_agent(board, "class-a", *options)
        site.wait("three boards", lambda: sum(d["online"] for d in site.devices()) == 3)
        installed = site.install("digits")
        for board in ("open", "closed", "off"):
            site.first_answer(board, "digits")
        site.wait("an input is kept", lambda: list((site.fleet.state("open") / "captures").glob("*.item")))

        file = tmp_path / "kept.npz"
        assert "in " + str(file) in site.command("captures", "open", "digits", "--out", str(file))
        with np.load(file) as kept:
            np.testing.assert_array_equal(kept["x"][0], np.full(8, 0.1, "float32"))
            assert set(kept["digest"].tolist()) == {installed.digest}
        for number in range(2):  # an asking is a new one each time
            site.command("captures", "open", "digits", "--out", str(tmp_path / f"again-{number}.npz"))

        assert "--capture-send would allow it" in site.command("captures", "closed", "digits", "--out", "x", code=2)
        assert "keeps no inputs" in site.command("captures", "off", "digits", "--out", "x", code=2)
        assert "is unknown" in site.command("captures", "nobody", "digits", "--out", "x", code=2)
        assert "does not run on open" in site.command("captures", "open", "words", "--out", "x", code=2)

        site.fleet.kill("open")
        away = site.command("captures", "open", "digits", "--out", str(file), "--wait", "0.5", code=1)
        assert "it will when it is back" in away
        site.fleet.start_agent("open", "class-a", *ON, "--capture-send")
        site.wait("the asking is answered", lambda: _done(site))


def _done(site: Any) -> bool:
    from edgeflock_controller.client import Client

    with Client(site.store) as client:
        return bool(client.captures("open", "digits")["done"])
