"""What a section is once it has been read: how many bytes it makes, and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from edgeflock_deploy.codec.wire import Reader


class Frame(NamedTuple):
    """What decoding a node may need: the base, palettes in the order of the nodes, what is decoded already."""

    base: bytes
    palettes: Callable[[int], bytes]  # the next so many bytes of palettes
    done: Callable[[int, int], bytes]  # bytes of the file, by offset and length, as far as it is decoded


class Node(NamedTuple):
    """A checked node: how many bytes it makes, how many palette bytes it needs, and the function that makes them."""

    length: int
    palette_bytes: int
    make: Callable[[Frame], bytes]
    late: bool = False


def payload(source: Reader) -> bytes:
    """Bytes with their length before them."""
    return source.take(source.varint(source.left))
