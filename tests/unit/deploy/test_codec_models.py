"""The models of the wire codec: exact for every form, and small where there is something to find."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.codec import palette_model, smooth_fit, smooth_model
from edgeflock_deploy.codec.elements import join_planes, pack, split_planes, unpack
from edgeflock_deploy.codec.lanes import LaneDecoder, LaneEncoder
from edgeflock_deploy.codec.logistic import REACH, SQUASH, STRETCH, Ints
from edgeflock_deploy.codec.range_coder import Meter, RangeDecoder, RangeEncoder
from edgeflock_deploy.codec.wire import CodecError

QUICK = settings(max_examples=40, deadline=None)


def pruned(rows: int, columns: int, share: float, levels: int, seed: int = 0) -> Ints:
    """Signed ranks of a pruned and clustered matrix whose rows and columns differ in density."""
    rng = np.random.default_rng(seed)
    density = np.outer(rng.gamma(0.5, size=rows), rng.gamma(0.5, size=columns))
    chosen = rng.random((rows, columns)) < density * share / density.mean()
    size = np.clip(np.ceil(np.abs(rng.normal(size=chosen.shape)) * levels / 5), 1, levels // 2)
    return np.where(chosen, size * rng.choice([-1, 1], chosen.shape), 0).astype(np.int64)


def entropy_bytes(values: Ints) -> float:
    share = np.unique(values, return_counts=True)[1] / values.size
    return float(-(share * np.log2(share)).sum() * values.size / 8)


def coded(form: palette_model.Form, ranks: Ints) -> bytes:
    encoder = RangeEncoder()
    palette_model.code(encoder, form, ranks)
    return encoder.finish()


def test_the_tables_are_the_rounded_logistic_function() -> None:
    exact = [65536 / (1 + exp(-d / 256)) for d in range(-REACH, REACH + 1)]
    assert np.abs(SQUASH - np.clip(exact, 1, 65535)).max() <= 1
    assert (np.diff(SQUASH) >= 0).all()
    assert STRETCH.min() == -2047
    assert STRETCH.max() == 2047
    # The format's own tables: these bytes never change within a version.
    assert sha256_hex(SQUASH.astype("<u2").tobytes() + STRETCH.astype("<i2").tobytes()).startswith("a1e83e16e0a38f6a")


@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 9), st.integers(0, 9), st.booleans(), st.data())
@QUICK
def test_ranks_of_any_form_come_back(
    rows: int, columns: int, negatives: int, positives: int, zero: bool, data: st.DataObject
) -> None:
    allowed = [*range(-negatives, 0), *([0] if zero else []), *range(1, positives + 1)]
    if not allowed:
        return
    form = palette_model.Form(rows, columns, negatives, positives, zero, data.draw(st.integers(0, columns - 1)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    ranks = rng.choice(allowed, (rows, columns)).astype(np.int64)
    assert (palette_model.code(RangeDecoder(coded(form, ranks)), form, None) == ranks).all()


def test_structure_of_a_pruned_matrix_is_found() -> None:
    ranks = pruned(300, 400, 0.06, 16)
    form = palette_model.Form(300, 400, 8, 8, True, 0)
    assert len(coded(form, ranks)) < 0.87 * entropy_bytes(ranks)


def test_a_matrix_without_structure_costs_little_more_than_its_entropy() -> None:
    ranks = np.random.default_rng(0).choice([-1, 0, 1], (200, 300), p=[0.05, 0.9, 0.05]).astype(np.int64)
    form = palette_model.Form(200, 300, 1, 1, True, 0)
    assert len(coded(form, ranks)) < 1.02 * entropy_bytes(ranks)


def test_an_empty_matrix_costs_almost_nothing() -> None:
    ranks = np.zeros((300, 800), dtype=np.int64)
    assert len(coded(palette_model.Form(300, 800, 1, 1, True, 0), ranks)) < 40


def test_the_meter_agrees_with_the_coder() -> None:
    ranks = pruned(60, 80, 0.2, 16)
    form = palette_model.Form(60, 80, 8, 8, True, 0)
    meter = Meter()
    palette_model.code(meter, form, ranks)
    assert abs(meter.bit_count / 8 - len(coded(form, ranks))) < 3


@pytest.mark.parametrize("lanes", [False, True])
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 127), st.integers(0, 99), st.booleans())
@QUICK
def test_small_integers_of_any_form_come_back(
    lanes: bool, rows: int, columns: int, spread: int, seed: int, logistic: bool
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(-spread, spread + 1, (rows, columns))
    distances = ((0, 1), (1, 0), (3, 2))
    form = smooth_model.Form(
        rows, columns, -spread, spread, 255, distances, (40, -20, 127), (8, 20, 4, 32), logistic, seed % 13
    )
    encoder = LaneEncoder() if lanes else RangeEncoder()
    smooth_model.code(encoder, form, values)
    stream = encoder.finish()
    decoder = LaneDecoder(stream) if lanes else RangeDecoder(stream)
    assert (smooth_model.code(decoder, form, None) == values).all()


def test_smooth_kernels_cost_far_less_than_their_entropy() -> None:
    rng = np.random.default_rng(0)
    rough = rng.normal(size=(64, 3, 3, 32))
    smooth = rough + rough.mean(axis=(1, 2), keepdims=True) * 9
    values = np.clip(np.round(smooth * 12), -127, 127).astype(np.int64).reshape(64, 288)
    form, bits = smooth_fit.fit(values)
    assert form.distances
    assert bits * values.size / 8 < 0.9 * entropy_bytes(values)


def test_rows_of_different_spread_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    values = np.clip(np.round(rng.normal(size=(128, 128)) * rng.uniform(1, 40, (128, 1))), -127, 127).astype(np.int64)
    _, bits = smooth_fit.fit(values)
    assert bits * values.size / 8 < 0.97 * entropy_bytes(values)


def test_a_cut_stream_of_lanes_is_refused() -> None:
    with pytest.raises(CodecError, match="cut"):
        LaneDecoder(bytes(100))


@given(st.binary(max_size=200), st.integers(0, 2**20))
@QUICK
def test_garbage_decodes_in_bounded_time(stream: bytes, seed: int) -> None:
    form = smooth_model.Form(20, 30, -128, 127, seed % 256, ((0, 1),), (64,), (8, 24, 0, seed % 100), False, 10)
    assert smooth_model.code(RangeDecoder(stream), form, None).shape == (20, 30)
    palette = palette_model.Form(20, 30, 5, 200, True, 3)
    assert palette_model.code(RangeDecoder(stream), palette, None).shape == (20, 30)


@given(st.sampled_from([2, 4, 8, 16, 32]), st.integers(1, 50), st.integers(0, 99))
def test_elements_of_any_width_come_back(bits: int, words: int, seed: int) -> None:
    data = np.random.default_rng(seed).bytes(4 * words)
    assert pack(unpack(data, bits), bits) == data


@given(st.sampled_from([2, 4, 8]), st.integers(0, 50), st.booleans(), st.integers(0, 99))
def test_planes_come_back(width: int, count: int, turned: bool, seed: int) -> None:
    data = np.random.default_rng(seed).bytes(width * count)
    assert join_planes(split_planes(data, width, turned), turned) == data


def test_the_first_of_packed_elements_is_in_the_low_bits() -> None:
    assert unpack(b"\x21\x43", 4).tolist() == [1, 2, 3, 4]
    assert unpack(b"\xe4", 2).tolist() == [0, 1, 2, 3]
