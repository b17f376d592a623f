"""Blobs as they travel: encoded into a container, which is cut into chunks, and decoded again.

Decided here: which of the ways to encode is taken, and that the decoder is not trusted: every chunk and the decoded
bytes have their SHA-256 in the manifest, and it never produces more bytes than the manifest promises. Not known here:
what a blob is for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, Literal, NamedTuple

import zstandard
from pydantic import Field

from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.errors import Untrusted
from edgeflock_deploy.messages.values import Frozen
from edgeflock_deploy.reasons import Reason

CHUNK_BYTES = 128 * 1024
_READ_BYTES = 256 * 1024
DECODE_BUDGET_S = 10.0
"""Of one core of a Raspberry Pi 4, for a model: an update is rare, its bytes are paid by many."""
_TFLITE = slice(4, 8)  # where a .tflite says that it is one
_DELTA_SHARE = 0.9  # of the full container's bytes: above that a delta is not worth its place on the broker
_SHA256 = r"^[0-9a-f]{64}$"

Codec = Literal["raw", "zstd", "sections"]


class Encoding(Frozen):
    """One way in which a blob travels: the encoded bytes (the container) and the SHA-256 of each of its chunks.

    Codecs: `raw`, `zstd`, and `sections`, our own (`edgeflock_deploy.codec`), which takes a model apart. A delta needs
    the blob whose SHA-256 is `base`.
    """

    codec: Codec
    base: str | None = Field(None, pattern=_SHA256)
    sha256: str = Field(pattern=_SHA256)
    bytes: int = Field(ge=0)
    chunks: tuple[str, ...]


class Blob(Frozen):
    """Content, named by the SHA-256 of its decoded bytes: how it travels to anybody, and to those who have a base."""

    sha256: str = Field(pattern=_SHA256)
    bytes: int = Field(ge=0)
    encoding: Encoding
    deltas: tuple[Encoding, ...] = ()

    @property
    def encodings(self) -> tuple[Encoding, ...]:
        """Every way in which it travels."""
        return (self.encoding, *self.deltas)

    def cheapest(self, has: Callable[[str], bool]) -> Encoding:
        """The way that takes the fewest bytes for someone who has these blobs."""
        ways = [way for way in self.deltas if way.base is not None and has(way.base)]
        return min((self.encoding, *ways), key=lambda way: way.bytes)


class EncodedBlob(NamedTuple):
    """A blob's entry in the manifest, and the containers that are cut into chunks, in the order of its encodings."""

    blob: Blob
    containers: tuple[bytes, ...]

    @property
    def container(self) -> bytes:
        """The one that needs no base."""
        return self.containers[0]


def encode_blob(
    data: bytes,
    bases: Sequence[bytes] = (),
    hashes: Sequence[tuple[int, int]] = (),
    sections: bytes | None = None,
    decode_s: float = DECODE_BUDGET_S,
) -> EncodedBlob:
    """Encode a blob: by the smallest of raw, zstd (level 19) and our sections, and as a delta to each base.

    A delta is kept where it saves a tenth or more.

    Args:
        data: what is to travel.
        bases: blobs, decoded, that receivers may have.
        hashes: (seed, buckets) of weights that share values by a hash (`codec.weight_hash`): they travel as the values.
        sections: what our codec made of the data, where that is known: it takes seconds.
        decode_s: seconds that a board may take to decode, see `DECODE_BUDGET_S`.
    """
    from edgeflock_deploy.codec import encode  # with numpy, which who only reads manifests does without

    packed = zstandard.ZstdCompressor(level=19, write_checksum=False).compress(data)
    ways: dict[Codec, bytes] = {"raw": data, "zstd": packed}
    if data[_TFLITE] == b"TFL3":  # anything else is one section, which gains nothing over zstd
        ways["sections"] = sections or encode(data, None, decode_s, hashes)
    codec = min(ways, key=lambda way: len(ways[way]))
    full = _encoding(codec, ways[codec])
    containers, deltas = [ways[codec]], []
    for base in bases:
        container = encode(data, base, decode_s, hashes)
        if len(container) <= _DELTA_SHARE * full.bytes:
            deltas.append(_encoding("sections", container, sha256_hex(base)))
            containers.append(container)
    blob = Blob(sha256=sha256_hex(data), bytes=len(data), encoding=full, deltas=tuple(deltas))
    return EncodedBlob(blob, tuple(containers))


def _encoding(codec: Codec, container: bytes, base: str | None = None) -> Encoding:
    chunks = tuple(sha256_hex(piece) for piece in split(container))
    return Encoding(codec=codec, base=base, sha256=sha256_hex(container), bytes=len(container), chunks=chunks)


def split(container: bytes) -> Iterator[memoryview]:
    """Cut a container into its chunks, in order; an empty container is one empty chunk."""
    view = memoryview(container)
    yield from (view[start : start + CHUNK_BYTES] for start in range(0, max(len(view), 1), CHUNK_BYTES))


def decode(container: BinaryIO, blob: Blob, encoding: Encoding, base: bytes | None = None) -> Iterator[bytes]:
    """Decode a container piece by piece; the caller hashes the pieces and compares with `blob.sha256`.

    Args:
        container: the encoded bytes.
        blob: what they are of.
        encoding: which of its encodings they are.
        base: the blob that a delta needs.

    Raises:
        Untrusted: the container does not decode, or to another length than the manifest says.
    """
    produced = 0
    whole = encoding.codec == "sections"
    for piece in _sections(container, blob, base) if whole else _stream(container, blob, encoding):
        produced += len(piece)
        if produced > blob.bytes:
            raise Untrusted(Reason.BLOB_HASH_MISMATCH, f"container decodes to more than {blob.bytes} bytes")
        yield piece
    if produced != blob.bytes:
        raise Untrusted(Reason.BLOB_HASH_MISMATCH, f"container decodes to {produced} bytes instead of {blob.bytes}")


def _stream(container: BinaryIO, blob: Blob, encoding: Encoding) -> Iterator[bytes]:
    source: Any = container
    if encoding.codec == "zstd":
        source = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(container)
    left = blob.bytes
    while True:
        try:
            piece = source.read(min(_READ_BYTES, left + 1))
        except zstandard.ZstdError as error:
            raise Untrusted(Reason.BLOB_HASH_MISMATCH, f"container does not decode: {error}") from None
        if not piece:
            return
        left = max(0, left - len(piece))
        yield piece


def _sections(container: BinaryIO, blob: Blob, base: bytes | None) -> Iterator[bytes]:
    from edgeflock_deploy.codec import CodecError
    from edgeflock_deploy.codec import decode as decode_sections

    def find(sha256: str) -> bytes:
        if base is None or sha256_hex(base) != sha256:
            raise CodecError(f"its base {sha256[:12]} is not here")
        return base

    try:
        yield decode_sections(container.read(), find, limit_bytes=blob.bytes)
    except CodecError as error:
        raise Untrusted(Reason.BLOB_HASH_MISMATCH, f"container does not decode: {error}") from None
