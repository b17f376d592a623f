"""What a container may ask of the decoder: refused by counting, before any of the work is done."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeflock_deploy.codec import CodecError, decode, encode, nodes, palette_model, smooth_model, turns
from edgeflock_deploy.codec.container import Cut, assemble
from edgeflock_deploy.codec.decode_time import LONGEST_S, palette_s, smooth_s
from edgeflock_deploy.codec.wire import MOST_TURNS, Reader, signed, varint

RAW = bytes([nodes.RAW])


def container(node: bytes, length: int, count: int, palettes: bytes = b"", based: bool = False) -> bytes:
    """A container of so many equal sections."""
    cuts = [Cut(k * length, length) for k in range(count)]
    return assemble(count * length, cuts, RAW + palettes, [node] * count, "00" * 32 if based else None)


def palette_node(bits: int, columns: int, negatives: int, positives: int) -> bytes:
    return bytes([nodes.PALETTE, bits, 1]) + b"".join(map(varint, (columns, negatives, positives, 0, 0)))


def smooth_node(columns: int) -> bytes:
    fixed = bytes([nodes.SMOOTH, 8, 0]) + varint(columns) + b"\0" + signed(-8) + signed(7) + varint(255) + varint(24)
    return fixed + signed(8) * 4 + varint(0) + varint(0)


def refused(data: bytes, matching: str, base: bytes = b"") -> None:
    with pytest.raises(CodecError, match=matching):
        decode(data, lambda _: base, limit_bytes=1 << 24)


@pytest.mark.parametrize("count", [300, 3000])
def test_many_narrow_matrices_are_refused(count: int) -> None:
    refused(container(palette_node(2, 1, 100, 100), 127, count, bytes(201 * count)), "turns")


def test_many_small_smooth_matrices_are_refused() -> None:
    refused(container(smooth_node(1), 1, 2000), "turns")


def test_a_matrix_of_too_many_elements_is_refused() -> None:
    refused(container(palette_node(2, 1 << 13, 1, 1), 1 << 24, 1, bytes(3)), "turns")


def test_sections_are_counted_though_they_decode_to_nothing() -> None:
    refused(container(RAW, 0, MOST_TURNS), "turns|most")
    nothing = bytes([nodes.PLANES, 8, 0]) + RAW * 8
    assert decode(container(nothing, 0, 1000), limit_bytes=0) == b""
    refused(container(nothing, 0, MOST_TURNS // 9 + 1), "turns")


def test_patches_take_the_base_twice_at_most_all_together() -> None:
    base = np.random.default_rng(0).bytes(1000)
    frame = encode(b"x" * 400)  # any bytes: the patches are refused before they are looked at
    patch = bytes([nodes.PATCH]) + varint(1) + varint(0) + varint(1000) + varint(len(frame)) + frame
    with pytest.raises(CodecError, match="does not decode"):
        decode(container(patch, 400, 2, based=True), lambda _: base, limit_bytes=1 << 20)
    refused(container(patch, 400, 3, based=True), "too often", base)


def test_a_palette_has_no_more_entries_than_elements() -> None:
    assert decode(container(palette_node(8, 3, 1, 1), 3, 1, b"abc"), limit_bytes=3)
    refused(container(palette_node(8, 3, 1, 2), 3, 1, b"abcd"), "too many")


def test_an_entry_too_wide_for_its_elements_touches_no_other_element() -> None:
    assert decode(container(palette_node(4, 4, 1, 1), 2, 1, b"\xf5\xf5\xf5"), limit_bytes=2) == b"\x55\x55"


def test_a_product_that_boards_would_round_apart_is_refused() -> None:
    floats = np.array([1.0, np.nan], dtype="<f4").tobytes()
    cuts = [Cut(0, 8), Cut(8, 8)]
    product = bytes([nodes.PRODUCT]) + varint(8) + np.float32(2).tobytes()
    refused(assemble(16, cuts, RAW, [product, RAW + floats], None), "finite")


@given(st.integers(1, 4096), st.integers(1, 4096), st.integers(0, 128), st.integers(0, 127), st.booleans(), st.data())
@settings(max_examples=500)
def test_what_the_encoder_may_spend_stays_within_the_turns(
    rows: int, columns: int, negatives: int, positives: int, zero: bool, data: st.DataObject
) -> None:
    count = rows * columns
    if count < 32 or rows + columns > 512 + count // 64 or not 1 <= negatives + positives + zero <= min(256, count):
        return
    form = palette_model.Form(rows, columns, negatives, positives, zero, 0)
    filled = data.draw(st.integers(negatives + positives, count)) if zero else count
    within = MOST_TURNS / LONGEST_S
    assert turns.SECTION + turns.of_palette(form) <= within * palette_s(form, filled)
    predicted = smooth_model.Form(rows, columns, -8, 7, 15, (), (), (8, 8, 8, 8), False, 4)
    for lanes in (False, True):
        assert turns.SECTION + turns.of_smooth(predicted) <= within * smooth_s(predicted, lanes)


def test_a_reader_adds_up_what_it_is_told() -> None:
    source = Reader(b"")
    source.spend(MOST_TURNS)
    with pytest.raises(CodecError, match="turns"):
        source.spend(1)
