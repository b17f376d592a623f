from __future__ import annotations

import base64
from pathlib import Path
from typing import NamedTuple

from edgeflock_agent.storage.disk import Disk
from edgeflock_agent.storage.ring import Ring
from edgeflock_agent.uploads import Uploads
from edgeflock_deploy.captured import About, Captured, KeptTensor, Why, unpack
from edgeflock_deploy.messages.reports import CAPTURE_PIECE_BYTES, CAPTURE_PIECES


class Sent(NamedTuple):
    model: str
    token: str
    number: int
    pieces: int
    data: str
    refused: str | None


class Board:
    """A ring with inputs of two models, and what was sent of it."""

    def __init__(self, folder: Path, refused: str | None = None, inputs: int = 4, size: int = 40_000) -> None:
        ring = Ring(folder, Disk(), 1 << 28, lambda: 1 << 40)
        for number in range(inputs):
            tensor = KeptTensor(name="x", dtype="uint8", shape=(1, size), bytes=size)
            about = About(
                model=("odd" if number % 2 else "even"), digest="d", at_s=number, why=Why.DISAGREEMENT, inputs=(tensor,)
            )
            ring.add(Captured(about, (bytes([number]) * size,)).as_bytes())
        self.sent: list[Sent] = []
        self.uploads = Uploads(folder, refused, lambda *words: self.sent.append(Sent(*words)))

    def parcel(self) -> bytes:
        return b"".join(base64.b64decode(one.data) for one in self.sent)


def test_a_models_inputs_go_out_in_pieces_newest_first_once_per_asking(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.uploads.wanted({"even": "t1"})
    assert [(one.model, one.token, one.number, one.pieces) for one in board.sent] == [
        ("even", "t1", 0, 2),
        ("even", "t1", 1, 2),
    ]
    assert len(base64.b64decode(board.sent[0].data)) == CAPTURE_PIECE_BYTES
    assert [one.about.at_s for one in unpack(board.parcel())] == [2, 0]
    board.uploads.wanted({"even": "t1"})
    assert len(board.sent) == 2
    board.uploads.wanted({"even": "t2"})
    assert len(board.sent) == 4


def test_a_new_session_of_the_controller_gets_what_it_still_wants_again(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.uploads.wanted({"even": "t1"})
    board.uploads.again()
    assert len(board.sent) == 4
    board.uploads.wanted({})
    board.uploads.again()
    assert len(board.sent) == 4


def test_an_owner_who_does_not_allow_it_is_asked_for_nothing_but_a_refusal(tmp_path: Path) -> None:
    board = Board(tmp_path, refused="no")
    board.uploads.wanted({"even": "t1"})
    assert board.sent == [Sent("even", "t1", 0, 1, "", "no")]


def test_a_model_of_which_nothing_is_kept_is_answered_with_nothing(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.uploads.wanted({"other": "t1"})
    assert board.sent == [Sent("other", "t1", 0, 1, "", None)]


def test_a_parcel_is_bounded_and_holds_the_newest(tmp_path: Path) -> None:
    board = Board(tmp_path, inputs=12, size=1_000_000)
    board.uploads.wanted({"even": "t1"})
    assert len(board.parcel()) <= CAPTURE_PIECES * CAPTURE_PIECE_BYTES
    assert [one.about.at_s for one in unpack(board.parcel())] == [10, 8, 6, 4]
