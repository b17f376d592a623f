"""Inputs that boards kept, as they are asked for and come in: STORE/captures/TOKEN/NUMBER, one file per piece.

Decided here: what is still wanted of whom, and when an asking is answered. An asking is a token in the device's word
until every piece has come; pieces of no asking are dropped, so that a device stores nothing here on its own account.
The newest asking per device and model is remembered, in `meta` under the device's name.
"""

from __future__ import annotations

import base64
import binascii
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeflock_deploy.messages.reports import CAPTURE_PIECE_BYTES, CapturePiece
from edgeflock_deploy.messages.wire import Malformed

if TYPE_CHECKING:
    from edgeflock_controller.store import Store

Json = dict[str, Any]


class Captures:
    """The askings and their pieces; call in the core's transactions.

    Args:
        folder: where pieces lie.
        store: remembers the askings.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        self._folder, self._store = folder, store

    def want(self, device: str, model: str, token: str) -> None:
        """Ask for a model's inputs; an earlier asking and what came of it are forgotten."""
        askings = self._askings(device)
        before = askings.get(model)
        if before is not None:
            shutil.rmtree(self._folder / before["token"], ignore_errors=True)
        askings[model] = {"token": token, "pieces": None, "refused": None, "done": False}
        self._remember(device, askings)

    def wanted(self, device: str) -> dict[str, str]:
        """What the device is still to send: a token per model."""
        return {model: one["token"] for model, one in self._askings(device).items() if not one["done"]}

    def asking(self, device: str, model: str) -> Json | None:
        """The newest asking: its token, its pieces, how many of them have come, why it was refused, if it is done."""
        one = self._askings(device).get(model)
        return None if one is None else one | {"have": self._have(one["token"])}

    def take(self, piece: CapturePiece) -> bool:
        """Store a piece; True when its asking is answered by it.

        Raises:
            Malformed: it contradicts itself or the pieces before it.
        """
        askings = self._askings(piece.device)
        one = askings.get(piece.model)
        if one is None or one["token"] != piece.token or one["done"]:
            return False
        if piece.refused is not None:
            one |= {"refused": piece.refused[:200], "done": True}
        else:
            self._write(piece, one)
            one["done"] = self._have(piece.token) == piece.pieces
        self._remember(piece.device, askings)
        return bool(one["done"])

    def parcel(self, device: str, model: str) -> bytes:
        """What came of the newest asking, whole."""
        one = self._askings(device)[model]
        folder = self._folder / one["token"]
        return b"".join((folder / str(number)).read_bytes() for number in range(one["pieces"] or 0))

    def _write(self, piece: CapturePiece, one: Json) -> None:
        try:
            data = base64.b64decode(piece.data, validate=True)
        except binascii.Error:
            raise Malformed("a piece of kept inputs is no base64") from None
        last = piece.number == piece.pieces - 1
        if piece.number >= piece.pieces or one["pieces"] not in (None, piece.pieces):
            raise Malformed(f"piece {piece.number} of {piece.pieces}, where {one['pieces']} are expected")
        if len(data) > CAPTURE_PIECE_BYTES or (len(data) < CAPTURE_PIECE_BYTES and not last):
            raise Malformed(f"piece {piece.number} has {len(data)} bytes")
        one["pieces"] = piece.pieces
        folder = self._folder / piece.token
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = folder / f".{piece.number}"
        temporary.write_bytes(data)
        temporary.replace(folder / str(piece.number))

    def _have(self, token: str) -> int:
        folder = self._folder / token
        return sum(path.name.isdigit() for path in folder.iterdir()) if folder.is_dir() else 0

    def _askings(self, device: str) -> dict[str, Json]:
        text = self._store.get_meta(f"captures of {device}")
        return {} if text is None else dict(json.loads(text))

    def _remember(self, device: str, askings: dict[str, Json]) -> None:
        self._store.set_meta(f"captures of {device}", json.dumps(askings))
