"""The wire codec on models: cut at their tensors, smaller than by general codecs, deltas against another model."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeflock_deploy import codec
from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.codec import CodecError, base_of, decode, encode, nodes
from edgeflock_deploy.codec.products import factors
from edgeflock_deploy.codec.tflite_layout import Constant, constants
from edgeflock_deploy.codec.weight_hash import bucket_and_sign

MODELS = Path(__file__).parents[3].parent / "shared" / "models" / "mlperf-tiny"
CODES = {"float32": 0, "float16": 1, "int32": 2, "int8": 9}


class Builder:
    """Writes the tables of a FlatBuffer, each after the one that refers to it."""

    def __init__(self) -> None:
        self.data = bytearray(8)
        self.data[4:8] = b"TFL3"

    def _align(self, bytes_each: int = 4) -> None:
        self.data += bytes(-len(self.data) % bytes_each)

    def point(self, at: int) -> None:
        self._align()
        struct.pack_into("<I", self.data, at, len(self.data) - at)

    def table(self, at: int, fields: dict[int, int | None]) -> dict[int, int]:
        """A table of 4-byte fields, referred to from `at`; gives the positions of its fields."""
        self._align()
        last = max(fields, default=-1)
        vtable = [4 + 4 * list(fields).index(k) if k in fields else 0 for k in range(last + 1)]
        start = len(self.data)
        self.data += struct.pack(f"<{2 + len(vtable)}H", 4 + 2 * len(vtable), 4 + 4 * len(fields), *vtable)
        self.point(at)
        table = len(self.data)
        self.data += struct.pack(f"<i{len(fields)}I", table - start, *(value or 0 for value in fields.values()))
        return {index: table + 4 + 4 * place for place, index in enumerate(fields)}

    def vector(self, at: int, count: int, data: bytes) -> int:
        self._align(16)
        self.data += bytes(12)  # the elements begin at a multiple of 16
        struct.pack_into("<I", self.data, at, len(self.data) - at)
        self.data += struct.pack("<I", count) + data
        return len(self.data) - len(data)


def tiny_model(tensors: list[npt.NDArray[Any]], scales: list[npt.NDArray[np.float32]] | None = None) -> bytes:
    """A `.tflite` with nothing but tensors, of which `scales` belong to the first."""
    out = Builder()
    model = out.table(0, {0: 3, 2: None, 4: None})
    buffers = out.vector(model[4], len(tensors), bytes(4 * len(tensors)))
    for k, tensor in enumerate(tensors):
        fields = out.table(buffers + 4 * k, {0: None})
        out.vector(fields[0], tensor.nbytes, tensor.tobytes())
    graphs = out.vector(model[2], 1, bytes(4))
    listed = out.table(graphs, {0: None})
    entries = out.vector(listed[0], len(tensors), bytes(4 * len(tensors)))
    for k, tensor in enumerate(tensors):
        quantized = scales is not None and k < len(scales)
        fields = out.table(
            entries + 4 * k, {0: None, 1: CODES[str(tensor.dtype)], 2: k, **({4: None} if quantized else {})}
        )
        out.vector(fields[0], tensor.ndim, struct.pack(f"<{tensor.ndim}i", *tensor.shape))
        if scales is not None and quantized:
            quantization = out.table(fields[4], {2: None})
            out.vector(quantization[2], len(scales[k]), scales[k].tobytes())
    return bytes(out.data)


def weights(seed: int = 0, shape: tuple[int, ...] = (64, 96)) -> npt.NDArray[np.int8]:
    return np.clip(np.round(np.random.default_rng(seed).normal(size=shape) * 30), -127, 127).astype(np.int8)


def clustered(seed: int, share: float, levels: int, shape: tuple[int, ...] = (80, 120)) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    values = np.sort(rng.normal(size=levels)).astype(np.float32)
    return np.where(rng.random(shape) < share, rng.choice(values, shape), np.float32(0)).astype(np.float32)


def round_trip(data: bytes, base: bytes | None = None, decode_budget_s: float = 2.0) -> bytes:
    container = encode(data, base, decode_budget_s)
    bases = {} if base is None else {sha256_hex(base): base}
    assert decode(container, bases.__getitem__, limit_bytes=len(data)) == data
    return container


def general(data: bytes) -> int:
    return len(zstandard.ZstdCompressor(level=19).compress(data))


def test_tensors_are_found_where_they_lie() -> None:
    tensors: list[npt.NDArray[Any]] = [weights(), clustered(0, 0.5, 8), np.arange(9, dtype=np.int32)]
    data = tiny_model(tensors, [np.arange(1, 65, dtype=np.float32)])
    found = constants(data)
    for tensor in tensors:
        matches = [one for one in found if data[one.offset : one.offset + one.length] == tensor.tobytes()]
        assert [one.shape for one in matches] == [tensor.shape]
    assert [one.length for one in found if one.scales] == [256]


@given(st.integers(8, 3000), st.binary(min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_a_damaged_model_is_cut_within_its_bounds(at: int, change: bytes) -> None:
    data = bytearray(tiny_model([weights(0, (16, 16)), clustered(0, 0.5, 8, (10, 10))]))
    at %= len(data)
    data[at : at + len(change)] = change
    end = 0
    for one in constants(bytes(data)):
        assert one.offset >= end
        end = one.offset + one.length
    assert end <= len(data)


@pytest.mark.parametrize("cut", [0, 4, 8, 20, 100, -1])
def test_a_cut_model_still_travels(cut: int) -> None:
    round_trip(tiny_model([weights()])[:cut])


@pytest.mark.parametrize(("share", "levels", "at_most"), [(0.05, 16, 1 / 60), (0.1, 2, 1 / 50), (1.0, 16, 1 / 6)])
def test_pruned_clustered_and_ternary_tensors_become_small(share: float, levels: int, at_most: float) -> None:
    tensor = clustered(1, share, levels, (200, 300))
    data = tiny_model([tensor])
    container = round_trip(data)
    assert len(container) < at_most * len(data)
    assert len(container) < 0.8 * general(data)


def test_binary_tensors_take_little_more_than_a_bit_a_weight() -> None:
    tensor = np.random.default_rng(0).choice(np.array([-0.25, 0.25], dtype=np.float32), (100, 160))
    assert len(round_trip(tiny_model([tensor]))) < 1.03 * tensor.size / 8 + 250


def test_float_tensors_come_back_with_their_negative_zeros_and_nans() -> None:
    tensor = clustered(2, 0.3, 5)
    tensor[0, :4] = [-0.0, np.nan, np.inf, -np.inf]
    round_trip(tiny_model([tensor]))


def test_dense_floats_and_half_floats_are_smaller_than_by_a_general_codec() -> None:
    for kind in (np.float32, np.float16):
        data = tiny_model([np.random.default_rng(0).normal(size=(100, 100)).astype(kind)])
        assert len(round_trip(data)) < 0.97 * general(data)


def test_scales_that_follow_from_others_do_not_travel() -> None:
    own = np.random.default_rng(0).uniform(0.001, 0.01, 64).astype(np.float32)
    data = tiny_model([weights(), np.arange(64, dtype=np.int32)], [own, own * np.float32(0.0372)])
    without = tiny_model([weights(), np.arange(64, dtype=np.int32)], [own])
    assert len(factors(data, constants(data))) == 1
    assert len(round_trip(data)) < len(round_trip(without)) + 80


def test_hashed_tensors_take_their_values_only() -> None:
    seed, buckets = 12345678901, 300
    bucket, sign = bucket_and_sign(seed, 150 * 128, buckets)
    values = np.random.default_rng(0).normal(size=buckets).astype(np.float32)
    data = tiny_model([(values[bucket] * sign).astype(np.float32).reshape(150, 128)])
    container = codec.encode(data, hashes=[(1, 99), (seed, buckets)])
    assert decode(container, limit_bytes=len(data)) == data
    assert len(container) < 4 * buckets + 250


def test_a_fine_tuned_model_is_a_small_delta() -> None:
    old = weights(0, (128, 128))
    step = np.random.default_rng(1).choice([-1, 0, 1], old.shape, p=[0.04, 0.92, 0.04])
    new = np.clip(old.astype(int) + step, -127, 127).astype(np.int8)
    base, data = tiny_model([old, weights(5)]), tiny_model([new, weights(5)])
    container = round_trip(data, base)
    assert base_of(container) == sha256_hex(base)
    assert len(container) < 0.1 * len(encode(data))


def test_a_delta_of_floats_is_smaller_than_the_full_model() -> None:
    old = np.random.default_rng(0).normal(size=(100, 100)).astype(np.float32)
    new = (old * (1 + 1e-4 * np.random.default_rng(1).normal(size=old.shape))).astype(np.float32)
    assert len(round_trip(tiny_model([new]), tiny_model([old]))) < 0.8 * len(encode(tiny_model([new])))


def test_a_changed_head_costs_little_more_than_the_head() -> None:
    body, head = weights(0, (200, 200)), weights(1, (10, 200))
    base, data = tiny_model([body, head]), tiny_model([body, weights(2, (10, 200))])
    assert len(round_trip(data, base)) < head.nbytes + 200


def test_tensors_are_matched_though_the_graph_grew() -> None:
    body = weights(0, (200, 200))
    base, data = tiny_model([body, weights(1)]), tiny_model([weights(3, (20, 20)), body, weights(1)])
    assert len(round_trip(data, base)) < 400 + 400


def test_an_unrelated_base_is_not_asked_for() -> None:
    data = tiny_model([weights(7)])
    container = round_trip(data, np.random.default_rng(0).bytes(3000))
    assert len(container) <= len(encode(data)) + 40


def test_a_tiny_budget_leaves_no_arithmetic_decoding() -> None:
    data = tiny_model([weights(), clustered(0, 0.1, 8)])
    slow, fast = round_trip(data), round_trip(data, decode_budget_s=1e-3)
    assert len(slow) < len(fast) < len(data)
    assert {node_kind(fast, data, one) for one in constants(data)} <= {nodes.RAW, nodes.ZSTD, nodes.PLANES}


def node_kind(container: bytes, data: bytes, one: Constant) -> int:
    """The kind of the section of a constant, read by walking the container."""
    source = codec.wire.Reader(container)
    source.take(5)
    source.varint(len(data))
    lengths = []
    for _ in range(source.varint(1000)):
        source.varint(len(data))
        lengths.append(source.varint(len(data)))
    for length in lengths:
        kind = container[len(container) - source.left]
        if length == one.length:
            return kind
        nodes.read(source, length)
    return nodes.RAW


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_mutated_container_is_a_codec_error_or_of_the_right_length(data: st.DataObject) -> None:
    container = bytearray(CONTAINER)
    for _ in range(data.draw(st.integers(1, 3))):
        container[data.draw(st.integers(4, len(container) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode(bytes(container), {sha256_hex(BASE): BASE}.__getitem__, limit_bytes=100_000)
    except CodecError:
        return
    assert len(decoded) <= 100_000


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_a_cut_container_is_a_codec_error(length: int) -> None:
    with pytest.raises(CodecError):
        decode(CONTAINER[: length % len(CONTAINER)], {sha256_hex(BASE): BASE}.__getitem__, limit_bytes=100_000)


BASE = tiny_model([weights(0, (40, 40)), clustered(1, 0.2, 8, (20, 30)), weights(4, (16, 9))])
CONTAINER = encode(
    tiny_model([weights(0, (40, 40)) // 2, clustered(2, 0.2, 8, (20, 30)), weights(4, (16, 9)), weights(5, (25, 30))]),
    BASE,
)


@pytest.mark.parametrize(("name", "reach"), [("pretrainedResnet_quant.tflite", 77_000), ("ad01_int8.tflite", 146_000)])
def test_real_models_become_smaller_than_by_any_general_codec(name: str, reach: int) -> None:
    path = MODELS / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    assert len(round_trip(path.read_bytes())) < reach
