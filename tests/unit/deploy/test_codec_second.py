"""The page and the decoder: a second decoder, written from docs/wire_codec.md alone, gives the same bytes."""

from __future__ import annotations

import contextlib
import functools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import second_decoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from second_sections import section
from second_source import Source

from edgeflock_deploy.codec import CodecError, decode, encode, nodes, options
from edgeflock_deploy.codec.container import Cut, assemble
from edgeflock_deploy.codec.tflite_layout import Constant
from edgeflock_deploy.codec.weight_hash import bucket_and_sign
from edgeflock_deploy.codec.wire import signed, varint

FILES = sorted((Path(__file__).parents[2] / "data").glob("*.tflite"))
RESNET = Path(__file__).parents[3].parent / "shared" / "models" / "mlperf-tiny" / "pretrainedResnet_quant.tflite"
LIMIT = 40_000
BASE = np.random.default_rng(0).bytes(700) + b"sequential/dense/MatMul" * 30
MANY = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def both(container: bytes, base: bytes = BASE) -> bytes | None:
    """What both decoders make of a container: the same bytes, or None where both refuse it."""
    results: list[bytes | None] = []
    try:
        results.append(decode(container, lambda _: base, limit_bytes=LIMIT))
    except CodecError:
        results.append(None)
    try:
        results.append(second_decoder.decode(container, base, LIMIT))
    except second_decoder.Refused:
        results.append(None)
    assert results[0] == results[1]
    return results[0]


def around(length: int, node: bytes, palettes: bytes = b"", based: bool = True) -> bytes:
    """A container of one section."""
    return assemble(length, [Cut(0, length)], bytes([nodes.RAW]) + palettes, [node], "00" * 32 if based else None)


def pruned(share: float, levels: int, shape: tuple[int, int] = (60, 84)) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(levels)
    values = np.sort(rng.normal(size=levels)).astype(np.float32)
    heavy = rng.gamma(0.5, size=shape[0])[:, None]
    return np.where(rng.random(shape) < share * heavy, rng.choice(values, shape), np.float32(0)).astype(np.float32)


def smooth(shape: tuple[int, int], reach: int) -> npt.NDArray[np.int8]:
    rng = np.random.default_rng(1)
    walk = np.cumsum(rng.normal(size=shape), axis=1) + rng.normal(size=shape) * np.linspace(0, 3, shape[0])[:, None]
    return np.clip(np.round(walk * reach / 20), -reach, reach - 1).astype(np.int8)


def hashed() -> npt.NDArray[np.float32]:
    bucket, sign = bucket_and_sign(99, 40 * 32, 70)
    return (np.random.default_rng(0).normal(size=70).astype(np.float32)[bucket] * sign).astype(np.float32)


TENSORS: dict[str, tuple[npt.NDArray[Any], int]] = {
    "pruned": (pruned(0.08, 30), 32),
    "dense and clustered": (pruned(99, 16), 32),
    "many levels": (pruned(0.5, 200), 32),
    "ternary": (pruned(0.4, 2), 32),
    "binary": (np.random.default_rng(0).choice(np.array([-0.5, 0.5], np.float32), (40, 60)), 32),
    "all of one sign": (np.abs(pruned(0.3, 9)), 32),
    "float": (np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32), 32),
    "half": (np.random.default_rng(0).normal(size=(30, 40)).astype(np.float16), 16),
    "double": (np.random.default_rng(0).normal(size=(30, 40)), 64),
    "int32": (np.random.default_rng(0).integers(-900, 900, (40, 20)).astype(np.int32), 32),
    "int8": (smooth((48, 72), 100), 8),
    "int8 kernels": (smooth((16, 288), 50), 8),
    "int4": (smooth((40, 60), 128).astype(np.uint8), 4),
    "int2": (np.random.default_rng(0).choice(np.array([0, 1, 4, 16, 64], np.uint8), (40, 30)), 2),
    "hashed": (hashed(), 32),
}


@pytest.mark.parametrize("name", TENSORS)
def test_every_way_to_code_a_tensor_decodes_alike(name: str) -> None:
    tensor, bits = TENSORS[name]
    data, real = tensor.tobytes(), tensor.dtype.kind == "f"
    per_byte = max(1, 8 // bits)
    kind = Constant(0, len(data), bits, (*tensor.shape[:-1], tensor.shape[-1] * per_byte), real=real)
    ways = options.of_elements(data, kind, 1e-9) + options.hashed(data, kind, [(99, 70)])
    for way in ways:
        assert both(around(len(data), way.node, way.palettes, based=False)) == data
    kinds = {way.node[0] for way in ways}
    expected = {"int8": nodes.SMOOTH, "float": nodes.PLANES, "hashed": nodes.HASHED, "int2": nodes.PALETTE}
    assert expected.get(name, nodes.RAW) in kinds


def test_both_entropy_coders_of_smooth_tensors_are_among_the_ways() -> None:
    tensor, _ = TENSORS["int8"]
    ways = options.of_elements(tensor.tobytes(), Constant(0, tensor.size, 8, tensor.shape), 1e-9)
    assert {way.node[2] for way in ways if way.node[0] == nodes.SMOOTH} == {0, 1}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_models_decode_alike_alone_and_against_another(path: Path) -> None:
    data = path.read_bytes()
    assert both(encode(data)) == data
    for other in FILES:
        base = other.read_bytes()
        assert both(encode(data, base), base) == data


def test_a_real_int8_network_decodes_alike() -> None:
    if not RESNET.exists():
        pytest.skip(f"{RESNET} is not here")
    data = RESNET.read_bytes()
    assert second_decoder.decode(encode(data)) == data


def test_a_product_decodes_alike_and_must_be_finite() -> None:
    floats = np.linspace(1, 2, 20).astype("<f4")
    for factor, holds in ((0.37, True), (-1e-42, True), (3e38, False), (float("nan"), False)):
        node = bytes([nodes.PRODUCT]) + varint(80) + struct.pack("<f", factor)
        cuts = [Cut(0, 80), Cut(80, 80)]
        made = both(assemble(160, cuts, bytes([nodes.RAW]), [node, bytes([nodes.RAW]) + floats.tobytes()], None))
        assert (made is not None) == holds


def payloads(most: int = 400) -> st.SearchStrategy[bytes]:
    return st.binary(max_size=most).map(lambda data: varint(len(data)) + data)


def matrices(elements: int) -> st.SearchStrategy[int]:
    """Numbers of columns, most of which go into the elements."""
    fitting = [width for width in range(1, elements + 1) if elements % width == 0]
    return st.sampled_from([*fitting, elements + 1]) if fitting else st.integers(0, 3)


@st.composite
def palettes(draw: st.DrawFn, length: int) -> bytes:
    bits = draw(st.sampled_from([2, 4, 8, 16, 32]))
    columns = draw(matrices(8 * length // bits))
    negatives, positives = draw(st.sampled_from([0, 1, 2, 3, 8])), draw(st.sampled_from([0, 1, 2, 8, 128]))
    stride = draw(st.integers(0, max(0, columns - 1)))
    fields = varint(columns) + varint(negatives) + varint(positives) + varint(stride)
    return bytes([nodes.PALETTE, bits, draw(st.integers(0, 1))]) + fields + draw(payloads())


@st.composite
def smooths(draw: st.DrawFn, length: int) -> bytes:
    bits, lanes = draw(st.sampled_from([4, 8])), draw(st.booleans())
    columns = draw(matrices(8 * length // bits))
    low, high = sorted(draw(st.lists(st.integers(-(1 << bits - 1), (1 << bits - 1) - 1), min_size=2, max_size=2)))
    node = bytes([nodes.SMOOTH, bits, lanes]) + varint(columns) + bytes([draw(st.integers(0, 255))])
    node += signed(low) + signed(high) + varint(draw(st.integers(0, 255))) + varint(draw(st.integers(0, 25)))
    node += b"".join(signed(draw(st.integers(-20, 40))) for _ in range(3)) + signed(draw(st.integers(-256, 256)))
    places = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(-128, 127)), max_size=5))
    node += varint(len(places)) + b"".join(varint(up) + varint(left) + signed(c) for up, left, c in places)
    if not lanes:
        return node + draw(payloads())
    stream = np.random.default_rng(draw(st.integers(0, 99))).bytes(1024 + 4 * draw(st.integers(0, 300)))
    return node + varint(len(stream)) + stream


@st.composite
def sections(draw: st.DrawFn, length: int, depth: int = 0) -> bytes:
    """A section that is mostly as the page says, with whatever payload."""
    inside = [nodes.PLANES, nodes.DIFFERENCE, nodes.XOR, nodes.HASHED] if depth < 4 else []
    kind = draw(st.sampled_from([nodes.RAW, nodes.PALETTE, nodes.SMOOTH, nodes.COPY, nodes.PRODUCT, *inside]))
    offset = varint(draw(st.integers(0, len(BASE))))
    if kind == nodes.PALETTE:
        return draw(palettes(length))
    if kind == nodes.SMOOTH:
        return draw(smooths(length))
    if kind == nodes.COPY:
        return bytes([kind]) + offset
    if kind == nodes.PRODUCT:
        return bytes([kind]) + offset + draw(st.sampled_from([1.5, -0.1, 1e30]).map(lambda one: struct.pack("<f", one)))
    if kind in (nodes.DIFFERENCE, nodes.XOR):
        return bytes([kind]) + offset + draw(sections(length, depth + 1))
    if kind == nodes.PLANES:
        width = draw(st.sampled_from([2, 4]))
        planes = [draw(sections(length // width, depth + 1)) for _ in range(width)]
        return bytes([kind, width, draw(st.integers(0, 1))]) + b"".join(planes)
    if kind == nodes.HASHED:
        buckets = draw(st.integers(0, length // 4))
        return (
            bytes([kind]) + draw(st.binary(min_size=8, max_size=8)) + varint(buckets) + draw(sections(4 * buckets, 1))
        )
    return bytes([kind]) + np.random.default_rng(length).bytes(length)


@given(st.data(), st.integers(0, 200))
@MANY
def test_sections_with_any_payload_decode_alike(data: st.DataObject, words: int) -> None:
    node = data.draw(sections(4 * words))
    source = Source(node)
    with contextlib.suppress(second_decoder.Refused):
        section(source, 4 * words)
    own = np.random.default_rng(words).bytes(sum(size for _, size in source.palettes))
    both(around(4 * words, node, own))


@given(st.integers(0, 10), st.integers(0, 64), st.binary(max_size=120))
@MANY
def test_garbage_in_a_section_is_refused_by_both_or_by_none(kind: int, length: int, body: bytes) -> None:
    both(around(length, bytes([kind]) + body, b"12345678"))


@given(st.data())
@MANY
def test_altered_containers_are_refused_by_both_or_by_none(data: st.DataObject) -> None:
    container = bytearray(data.draw(st.sampled_from(honest())))
    for _ in range(data.draw(st.integers(1, 3))):
        container[data.draw(st.integers(0, len(container) - 1))] = data.draw(st.integers(0, 255))
    both(bytes(container[: data.draw(st.sampled_from([None, -1, -5]))]), TINY)


TINY = FILES[-1].read_bytes()


@functools.cache
def honest() -> list[bytes]:
    return [encode(path.read_bytes(), base) for path in FILES for base in (None, TINY)]
