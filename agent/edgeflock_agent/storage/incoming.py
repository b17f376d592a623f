"""A container that is arriving: its bytes, and a mark for each chunk of which the bytes are on the disk.

    incoming/<container>/data     the chunks at their places
    incoming/<container>/bitmap   one byte per chunk, 1: it has been written and synced

A mark says where to look, and is not believed: a chunk counts when it is marked and its bytes have the hash that the
manifest promises. A power cut may keep a mark and lose the bytes (when the folder was being removed), and a disk rots.
"""

from __future__ import annotations

from pathlib import Path

from edgeflock_agent.storage.disk import Disk
from edgeflock_deploy.bundle import CHUNK_BYTES, Encoding
from edgeflock_deploy.canonical import sha256_hex

_ARRIVED = b"\x01"


class Incoming:
    """A container in its folder.

    Args:
        folder: made with the first chunk.
        encoding: which container, and the hash of each of its chunks.
        disk: where it lies.
    """

    def __init__(self, folder: Path, encoding: Encoding, disk: Disk) -> None:
        self._folder, self._disk = folder, disk
        self.encoding = encoding
        self.data = folder / "data"
        self._bitmap = folder / "bitmap"
        self._arrived = self._whole_chunks()

    @property
    def missing(self) -> list[int]:
        """Numbers of the chunks that are not on the disk, in order."""
        return [n for n in range(len(self.encoding.chunks)) if n not in self._arrived]

    def add(self, number: int, chunk: bytes) -> None:
        """Store a chunk whose hash has been checked.

        Raises:
            DiskFull: no room.
        """
        self._disk.make_folder(self._folder)
        first = not self.data.exists() or not self._bitmap.exists()
        self._disk.write_at(self.data, number * CHUNK_BYTES, chunk)
        self._disk.write_at(self._bitmap, number, _ARRIVED)
        if first:
            self._disk.sync_folder(self._folder)
        self._arrived.add(number)

    def _whole_chunks(self) -> set[int]:
        whole: set[int] = set()
        try:
            marks = self._bitmap.read_bytes()
            with self.data.open("rb") as file:
                for number, sha256 in enumerate(self.encoding.chunks):
                    if marks[number : number + 1] == _ARRIVED:
                        file.seek(number * CHUNK_BYTES)
                        if sha256_hex(file.read(CHUNK_BYTES)) == sha256:
                            whole.add(number)
        except OSError:  # nothing there yet, or it cannot be read: the rest is fetched again
            pass
        return whole
