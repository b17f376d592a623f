"""Sending the inputs that a board keeps to headquarters: when its signed word asks for them and the owner allows it.

Decided here: what is answered to an asking, and that each is answered once in a session of the controller: what a
broker lost in between is asked for anew by a new session. Level-triggered: the word names a token per model, until
headquarters has everything. The newest inputs go first, up to what a parcel may hold.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from edgeflock_agent.storage import ring
from edgeflock_deploy.messages.reports import CAPTURE_PIECE_BYTES, CAPTURE_PIECES

Send = Callable[[str, str, int, int, str, str | None], None]


class Uploads:
    """Answers to what headquarters wants of the kept inputs; on the agent's main thread.

    Args:
        folder: of the ring.
        refused: why nothing is sent, in words for the operator; None: the owner allows it.
        send: sends a piece: model, token, number, pieces, base64 data, why it was refused.
    """

    def __init__(self, folder: Path, refused: str | None, send: Send) -> None:
        self._folder, self._refused, self._send = folder, refused, send
        self._wanted: Mapping[str, str] = {}
        self._answered: dict[str, str] = {}

    def wanted(self, tokens: Mapping[str, str]) -> None:
        """Headquarters' word: a token per model."""
        self._wanted = dict(tokens)
        for model, token in tokens.items():
            if self._answered.get(model) != token:
                self._answered[model] = token
                self._answer(model, token)

    def again(self) -> None:
        """The controller may have missed what was sent."""
        self._answered.clear()
        self.wanted(self._wanted)

    def _answer(self, model: str, token: str) -> None:
        if self._refused is not None:
            self._send(model, token, 0, 1, "", self._refused)
            return
        from edgeflock_deploy.captured import pack  # few boards are asked

        parcel = pack(self._items(model), CAPTURE_PIECES * CAPTURE_PIECE_BYTES)
        pieces = [parcel[at : at + CAPTURE_PIECE_BYTES] for at in range(0, len(parcel), CAPTURE_PIECE_BYTES)] or [b""]
        for number, piece in enumerate(pieces):
            self._send(model, token, number, len(pieces), base64.b64encode(piece).decode(), None)

    def _items(self, model: str) -> Iterator[bytes]:
        from edgeflock_deploy.captured import read_captured

        for _, item in ring.items(self._folder, newest_first=True):
            one = read_captured(item)
            if one is not None and one.about.model == model:
                yield item
