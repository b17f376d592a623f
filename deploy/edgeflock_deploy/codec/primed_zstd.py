"""The general codec: one Zstandard frame without magic number, checksum and content size, with known bytes before it.

What lies before the frame (its prefix) may be copied from as if it had been decoded just now. For what is left of a
model without its tensors the prefix is PRIMER: what common exporters write around tensors (names of operators and
layers, the tables of the FlatBuffer). PRIMER belongs to the format: its bytes never change within a version.
"""

from __future__ import annotations

from importlib.resources import files

import zstandard

from edgeflock_deploy.codec.wire import CodecError

PRIMER = files("edgeflock_deploy.codec").joinpath("primer.bin").read_bytes()
_LEVELS = (19, 22)


def _window_bits(length: int, prefix: bytes) -> int:
    return min(27, max(10, (length + len(prefix)).bit_length()))


def compress(data: bytes, prefix: bytes = b"") -> bytes:
    """The smaller frame of two levels."""
    return min((_frame(data, prefix, level) for level in _LEVELS), key=len)


def _frame(data: bytes, prefix: bytes, level: int) -> bytes:
    settings = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=len(data),
        dict_size=len(prefix),
        window_log=_window_bits(len(data), prefix),
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        write_content_size=False,
        write_checksum=False,
        write_dict_id=False,
    )
    return zstandard.ZstdCompressor(compression_params=settings, dict_data=_dictionary(prefix)).compress(data)


def decompress(frame: bytes, length: int, prefix: bytes = b"") -> bytes:
    """The `length` bytes in a frame; memory is bounded by the length and the prefix, whatever the frame says.

    Raises:
        CodecError: no such frame, or another length.
    """
    decompressor = zstandard.ZstdDecompressor(
        dict_data=_dictionary(prefix),
        max_window_size=1 << _window_bits(length, prefix),
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
    )
    out = bytearray()
    try:
        with decompressor.stream_reader(frame) as source:
            while piece := source.read(min(1 << 20, length + 1 - len(out))):
                out += piece
    except zstandard.ZstdError as error:
        raise CodecError(f"a Zstandard frame does not decode: {error}") from None
    if len(out) != length:
        raise CodecError(f"a Zstandard frame decodes to {'more' if len(out) > length else 'less'} than {length} bytes")
    return bytes(out)


def _dictionary(prefix: bytes) -> zstandard.ZstdCompressionDict | None:
    # A dictionary below 8 bytes is refused by the library.
    if len(prefix) < 8:
        return None
    return zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
