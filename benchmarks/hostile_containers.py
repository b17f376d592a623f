"""What a hostile container can ask of the decoder: for each kind of section the worst that we know to build.

Each container is as long as the honest one of its rows; its time is a ratio to that one's, decoded in turn in processes
of their own. What decoding must not depend on alone is the container: work is linear in the bytes of container, file
and base, whose lengths a manifest signs, and in the turns, of which a container has so many at most (`codec.turns`).

`python -m benchmarks.hostile_containers CONTAINER LIMIT [BASE]` decodes one and prints seconds and peak bytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import table
from edgeflock_deploy.codec import CodecError, decode, nodes, options, palette_model, primed_zstd, smooth_model, turns
from edgeflock_deploy.codec.container import Cut, assemble
from edgeflock_deploy.codec.tflite_layout import Constant
from edgeflock_deploy.codec.wire import MOST_TURNS, signed, varint

FOLDER = Path("build/bench/hostile")
LENGTHS = (64 * 1024, 1024 * 1024)
DECODED = 8 * 1024 * 1024  # the most bytes that a manifest promises here, and those of the base
_RESERVE = 400  # bytes of a container for its head and skeleton
_SPARE_TURNS = 8
_DISTANCES = ((1, 0), (0, 1), (1, 1), (2, 0), (0, 2), (2, 1), (1, 2), (2, 2), (3, 0), (0, 3), (3, 1), (1, 3))


class Section(NamedTuple):
    """A section, the bytes that it and its palettes decode to, and the turns that it takes."""

    node: bytes
    length: int
    turns: int = turns.SECTION
    palette_bytes: int = 0


def zeros(length: int) -> bytes:
    """A section of zeros."""
    frame = primed_zstd.compress(bytes(length))
    return bytes([nodes.ZSTD, 0]) + varint(len(frame)) + frame


def many(one: Section, size: int, base: bool = False) -> bytes:
    """A container of `size` bytes with as many copies of a section as bytes, turns and the file allow."""
    each = len(varint(0)) + len(varint(one.length)) + len(one.node)
    count = min((size - _RESERVE) // each, (MOST_TURNS - _SPARE_TURNS) // one.turns, DECODED // max(1, one.length))
    cuts = [Cut(k * one.length, one.length) for k in range(count)]
    skeleton = zeros(count * one.palette_bytes)
    container = assemble(count * one.length, cuts, skeleton, [one.node] * count, "00" * 32 if base else None)
    return container if len(container) <= size else many(one._replace(turns=one.turns + 1), size, base)


def palette(bits: int, rows: int, columns: int, zero: int, values: int, payload: bytes = b"") -> Section:
    """A PALETTE section of so many values on either side of zero."""
    form = palette_model.Form(rows, columns, values, values - 1, bool(zero), columns // 2)
    node = bytes([nodes.PALETTE, bits, zero]) + b"".join(map(varint, (columns, values, values - 1, columns // 2)))
    entries = (2 * values - 1 + zero) * max(8, bits) // 8
    cost = turns.SECTION + turns.of_palette(form)
    return Section(node + varint(len(payload)) + payload, rows * columns * bits // 8, cost, entries)


def smooth(rows: int, columns: int, lanes: bool) -> Section:
    """A SMOOTH section with the longest tables and as many predictors as may be."""
    places = [(up, left) for up, left in _DISTANCES if up < rows and left < columns]
    form = smooth_model.Form(rows, columns, -8, 7, 255, tuple(places), (64,) * len(places), (9, 9, 9, 9), True, 12)
    node = bytes([nodes.SMOOTH, 4, lanes]) + varint(columns) + b"\0" + signed(-8) + signed(7) + varint(255) + varint(25)
    node += (
        signed(9) * 4 + varint(len(places)) + b"".join(varint(up) + varint(left) + signed(64) for up, left in places)
    )
    payload = np.random.default_rng(0).bytes(1024 + 4 * rows * columns if lanes else 32)
    cost = turns.SECTION + turns.of_smooth(form)
    return Section(node + varint(len(payload)) + payload, rows * columns // 2, cost)


def largest(make: Callable[[int], Section], size: int) -> bytes:
    """A container of one matrix, as large as bytes, turns and the file allow."""
    side = 16
    while True:
        one = make(side + max(16, side // 128 * 8))
        if one.turns > MOST_TURNS - _SPARE_TURNS or one.length > DECODED or len(one.node) > size - _RESERVE:
            break
        side += max(16, side // 128 * 8)
    return many(make(side), size)


def nested(kind: int, length: int) -> Section:
    """Sections three deep around zeros."""
    node = zeros(length)
    for _ in range(3):
        head = bytes([kind]) + (bytes(8) + varint(length // 4) if kind == nodes.HASHED else varint(0))
        node = head + node
    return Section(node, length, 4)


def patch(spans: int, length: int) -> Section:
    """A patch with nearly no bytes of its own that takes `length` bytes of base."""
    frame = primed_zstd.compress(b"\0")
    listed = (varint(0) + varint(length // spans)) * spans
    return Section(bytes([nodes.PATCH]) + varint(spans) + listed + varint(len(frame)) + frame, 1)


def planes() -> Section:
    """Planes of planes, of next to nothing."""
    inner = b"".join([bytes([nodes.PLANES, 8, 1]) + bytes([nodes.RAW]) * 8] * 8)
    return Section(bytes([nodes.PLANES, 8, 1]) + inner, 0, 73)


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "RAW: empty ones": lambda size: many(Section(bytes([nodes.RAW]), 0), size),
    "ZSTD: each of one byte after the primer": lambda size: many(
        Section(bytes([nodes.ZSTD, 1]) + varint(len(f := primed_zstd.compress(b"\0"))) + f, 1), size
    ),
    "ZSTD: one of zeros": lambda size: many(Section(zeros(DECODED), DECODED), size),
    "PALETTE: narrow matrices": lambda size: many(palette(2, 508, 1, 1, 128, b"\x55" * 8), size),
    "PALETTE: one of 2 bits with zero": lambda size: largest(lambda side: palette(2, side, side, 1, 128), size),
    "PALETTE: one of 2 bits without zero": lambda size: largest(lambda side: palette(2, side, side, 0, 1), size),
    "SMOOTH: single elements": lambda size: many(smooth(2, 1, False), size),
    "SMOOTH: narrow matrices": lambda size: many(smooth(100, 4, False), size),
    "SMOOTH: one": lambda size: largest(lambda side: smooth(side, side, False), size),
    "SMOOTH: one by lanes": lambda size: largest(lambda side: smooth(side, side, True), size),
    "PLANES: nested, of nothing": lambda size: many(planes(), size),
    "COPY: many of the whole base's share": lambda size: many(
        Section(bytes([nodes.COPY]) + varint(0), max(1, DECODED // (size // 8))), size, True
    ),
    "DIFFERENCE: three deep": lambda size: many(nested(nodes.DIFFERENCE, DECODED), size, True),
    "XOR: three deep": lambda size: many(nested(nodes.XOR, DECODED), size, True),
    "PATCH: the base twice": lambda size: many(patch(64, 2 * DECODED)._replace(turns=MOST_TURNS - 20), size, True),
    "PATCH: many of a share of the base": lambda size: many(patch(1, 2 * DECODED // (size // 8)), size, True),
    "PRODUCT: many": lambda size: many(
        Section(bytes([nodes.PRODUCT]) + varint(0) + bytes(4), 4 * (DECODED // (size // 11) // 4)), size
    ),
    "HASHED: three deep": lambda size: many(nested(nodes.HASHED, DECODED), size),
}


def honest(size: int) -> tuple[bytes, int]:
    """A container of int8 tensors, each coded as our encoder codes it; and the bytes that it decodes to."""
    tensor = np.clip(np.round(np.random.default_rng(0).normal(size=(192, 192)) * 30), -127, 127).astype(np.int8)
    ways = options.of_elements(tensor.tobytes(), Constant(0, tensor.size, 8, tensor.shape), 10.0)
    node = min(ways, key=lambda way: way.size).node
    count = (size - _RESERVE) // len(node)
    cuts = [Cut(k * tensor.size, tensor.size) for k in range(count)]
    return assemble(count * tensor.size, cuts, zeros(0), [node] * count, None), count * tensor.size


def decode_here(container: Path, limit: int, base: Path | None) -> None:
    """Decode, and say how long it took and what memory at its highest."""
    decode(assemble(1, [], zeros(1), [], None), limit_bytes=limit)  # what is set up once is not the container's
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    data, held = container.read_bytes(), base.read_bytes() if base else b""
    began = time.perf_counter()
    try:
        made = len(decode(data, lambda _: held, limit_bytes=limit))
    except CodecError as error:
        made, refused = 0, str(error)
    else:
        refused = ""
    seconds = time.perf_counter() - began
    found = {"s": seconds, "peak_bytes": _status("VmHWM") - before, "made": made, "refused": refused}
    sys.stdout.write(json.dumps(found))


def _status(name: str) -> int:
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith(name))
    return int(line.split()[1]) * 1024


def measured(name: str, container: bytes, base: Path | None) -> dict[str, float]:
    """One decoding in a process of its own."""
    path = FOLDER / f"{name}.efc"
    path.write_bytes(container)
    words = ["-m", "benchmarks.hostile_containers", str(path), str(DECODED), *([str(base)] if base else [])]
    done = subprocess.run([sys.executable, *words], check=True, capture_output=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure and write the table."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    base = FOLDER / "base"
    base.write_bytes(np.random.default_rng(0).bytes(DECODED))
    rows = []
    for size in LENGTHS:
        good, decoded = honest(size)
        for name, make in HOSTILE.items():
            container = make(size)
            usual, hostile = measured("honest", good, None), measured("hostile", container, base)
            ratio, peak = hostile["s"] / usual["s"], hostile["peak_bytes"]
            made = f"{hostile['made']:,.0f}" if not hostile["refused"] else f"refused: {hostile['refused']}"
            rows.append(
                (f"{size // 1024} KB", name, f"{len(container):,}", made, f"{ratio:.2f}", f"{peak / 2**20:.0f}")
            )
    header = ("length", "sections", "bytes", "decoded bytes", "time / honest", "peak, MB")
    note = (
        "One pair of decodings a row, each in a process of its own; the order of magnitude is what counts. The "
        f"manifest allows {DECODED:,} decoded bytes, the base has as many. The honest container: int8 tensors of "
        f"192 x 192 by SMOOTH, {decoded:,} bytes decoded at 1 MB. A container shorter than its length has as many "
        "sections as turns or decoded bytes allow. Peak is above the process before it read container and base."
    )
    table.write("hostile_containers", "make bench ARGS=hostile_containers", header, rows, note)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        decode_here(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
    else:
        main()
