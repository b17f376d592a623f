"""The wire codec on arbitrary bytes: exact, deterministic, bounded, and one error for everything that is wrong."""

from __future__ import annotations

import contextlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.codec import CodecError, base_of, decode, encode, nodes
from edgeflock_deploy.codec.container import Cut, assemble
from edgeflock_deploy.codec.wire import Reader, signed, varint

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
LIMIT = 1 << 20


def text(seed: int, count: int) -> bytes:
    words = [b"sequential", b"/dense", b"/MatMul", b"\0\0\0\0", b"conv2d"]
    return b"".join(words[k] for k in np.random.default_rng(seed).integers(0, len(words), count))


def node_container(length: int, node: bytes) -> bytes:
    return assemble(length, [Cut(0, length)], bytes([nodes.RAW]), [node], None)


@given(st.binary(max_size=3000))
@SLOW
def test_any_bytes_come_back(data: bytes) -> None:
    container = encode(data)
    assert decode(container, limit_bytes=len(data)) == data
    assert len(container) <= len(data) + 16
    assert base_of(container) is None


@given(st.binary(max_size=2000), st.binary(max_size=2000))
@SLOW
def test_any_bytes_come_back_against_any_base(data: bytes, base: bytes) -> None:
    container = encode(data, base)
    assert decode(container, {sha256_hex(base): base}.__getitem__, limit_bytes=len(data)) == data
    assert base_of(container) in (None, sha256_hex(base))


def test_an_identical_base_costs_the_header_only() -> None:
    data = text(0, 5000)
    container = encode(data, data)
    assert len(container) < 48
    assert decode(container, {sha256_hex(data): data}.__getitem__, limit_bytes=len(data)) == data


def test_a_patch_against_a_similar_file_is_small() -> None:
    base = np.random.default_rng(1).bytes(50_000)
    data = base[:20_000] + b"something new" + base[20_000:]
    assert len(encode(data, base)) < 200
    assert len(encode(data)) > 50_000


def test_encoding_twice_gives_the_same_container() -> None:
    data = text(3, 3000)
    assert encode(data) == encode(data)


def test_a_missing_base_is_a_codec_error() -> None:
    data = text(0, 500)
    container = encode(data, data)
    with pytest.raises(CodecError, match="needs base"):
        decode(container, limit_bytes=LIMIT)
    with pytest.raises(CodecError, match="missing"):
        decode(container, dict[str, bytes]().__getitem__, limit_bytes=LIMIT)


def test_a_base_of_another_length_is_a_codec_error() -> None:
    data = text(0, 500)
    with pytest.raises(CodecError, match="past the end"):
        decode(encode(data, data), lambda _: data[:-1], limit_bytes=LIMIT)


def test_more_than_the_limit_is_refused_before_decoding() -> None:
    data = text(0, 500)
    with pytest.raises(CodecError, match="most"):
        decode(encode(data), limit_bytes=len(data) - 1)


def test_another_version_is_refused() -> None:
    container = bytearray(encode(b"abc"))
    container[3] += 1
    with pytest.raises(CodecError, match="version 2"):
        decode(bytes(container), limit_bytes=LIMIT)


def test_bytes_after_the_end_are_refused() -> None:
    with pytest.raises(CodecError, match="follow"):
        decode(encode(b"abc") + b"x", limit_bytes=LIMIT)


@given(st.binary(max_size=300), st.booleans())
@SLOW
def test_garbage_is_a_codec_error_or_bytes(garbage: bytes, with_start: bool) -> None:
    container = b"EFC\x01" + garbage if with_start else garbage
    with contextlib.suppress(CodecError):
        assert len(decode(container, lambda _: b"base" * 50, limit_bytes=2000)) <= 2000


@given(st.integers(0, 10), st.integers(0, 4096), st.binary(max_size=200))
@SLOW
def test_a_garbage_section_is_a_codec_error_or_of_the_right_length(kind: int, length: int, body: bytes) -> None:
    try:
        decoded = decode(node_container(length, bytes([kind]) + body), lambda _: b"", limit_bytes=length)
    except CodecError:
        return
    assert len(decoded) == length


@pytest.mark.parametrize("kind", range(nodes.HASHED + 1))
def test_a_section_that_lies_about_its_length_takes_no_memory(kind: int) -> None:
    container = node_container(1 << 40, bytes([kind]) + varint(1 << 40) * 8)
    tracemalloc.start()
    with pytest.raises(CodecError):
        decode(container, lambda _: b"", limit_bytes=1 << 41)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_frame_that_unpacks_to_more_than_it_says_is_a_codec_error() -> None:
    import zstandard

    settings = zstandard.ZstdCompressionParameters(
        format=zstandard.FORMAT_ZSTD1_MAGICLESS, window_log=10, write_content_size=False
    )
    bomb = zstandard.ZstdCompressor(compression_params=settings).compress(bytes(50_000_000))
    node = bytes([nodes.ZSTD, 0]) + varint(len(bomb)) + bomb
    tracemalloc.start()
    with pytest.raises(CodecError, match="more than 1000"):
        decode(node_container(1000, node), limit_bytes=1000)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_a_matrix_of_too_many_diagonals_is_refused() -> None:
    count = 1 << 20
    node = bytes([nodes.PALETTE, 8, 1]) + varint(1) + varint(1) + varint(1) + varint(0) + varint(0)
    with pytest.raises(CodecError, match="diagonals"):
        decode(node_container(count, node), limit_bytes=count)


def test_deep_nesting_is_refused() -> None:
    node = (bytes([nodes.PLANES, 2, 0])) * 6 + bytes([nodes.RAW])
    with pytest.raises(CodecError, match="deep"):
        decode(node_container(1 << 10, node), limit_bytes=1 << 10)


@given(st.integers(0, (1 << 63) - 1))
def test_a_number_comes_back(value: int) -> None:
    assert Reader(varint(value)).varint((1 << 63) - 1) == value


@given(st.integers(-(1 << 40), 1 << 40))
def test_a_number_of_either_sign_comes_back(value: int) -> None:
    assert Reader(signed(value)).signed(-(1 << 40), 1 << 40) == value


def test_a_number_of_more_than_nine_bytes_is_refused() -> None:
    with pytest.raises(CodecError, match="nine bytes"):
        Reader(b"\x80" * 10 + b"\x01").varint(1 << 62)
