"""A mapping that never changes: a change gives a new one that shares all but about a hundred entries with the old one.

It is what thousands of devices are kept in by a machine of frozen values: every event makes a new state, and copying
ten thousand entries for each would cost a hundred times what the event itself does. The entries are kept in the order
of their keys, in chunks of at most `CHUNK`; a change copies one chunk and the list of the chunks, so that it costs
O(CHUNK + entries / CHUNK), a look-up O(log entries), and going through all needs no sorting.

It equals every mapping with the same entries, and pydantic reads and writes it as an object with sorted keys. It knows
nothing of what is kept in it; what is kept must not change either.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic_core import core_schema

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler

CHUNK = 96

K = TypeVar("K", bound=Any)  # any two keys can be compared
V = TypeVar("V")


class _Items(ItemsView[K, V]):
    """Goes through the chunks, which is ten times as fast as looking up key after key."""

    _mapping: SortedMap[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        for chunk in self._mapping._chunks:
            yield from chunk.items()


class _Values(ValuesView[V]):
    """The same for values."""

    _mapping: SortedMap[Any, V]

    def __iter__(self) -> Iterator[V]:
        for chunk in self._mapping._chunks:
            yield from chunk.values()


class SortedMap(Mapping[K, V]):
    """A frozen mapping in the order of its keys.

    Args:
        entries: what it begins with, in any order; of entries with the same key the last one counts.
    """

    __slots__ = ("_chunks", "_firsts", "_size")

    def __init__(self, entries: Mapping[K, V] | Iterable[tuple[K, V]] = ()) -> None:
        found = sorted(dict(entries).items(), key=lambda entry: entry[0])
        self._size = len(found)
        half = CHUNK // 2  # room to grow before a chunk has to be cut
        self._chunks: tuple[dict[K, V], ...] = tuple(
            dict(found[start : start + half]) for start in range(0, len(found), half)
        )
        self._firsts = tuple(next(iter(chunk)) for chunk in self._chunks)

    def __getitem__(self, key: K) -> V:
        if not self._firsts:
            raise KeyError(key)
        # A key before the first one is looked for in the last chunk, where it is not either.
        found: V = self._chunks[bisect_right(self._firsts, key) - 1][key]
        return found

    def __contains__(self, key: object) -> bool:
        return bool(self._firsts) and key in self._chunks[bisect_right(self._firsts, key) - 1]

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[K]:
        for chunk in self._chunks:
            yield from chunk

    def __eq__(self, other: object) -> bool:
        if isinstance(other, SortedMap) and self._firsts == other._firsts:
            return self._chunks == other._chunks  # chunks that both share are not looked into
        return dict(self.items()) == dict(other.items()) if isinstance(other, Mapping) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # like a dict: its values need not be hashable

    def __repr__(self) -> str:
        return f"SortedMap({dict(self)!r})"

    def items(self) -> ItemsView[K, V]:
        """The entries, in order."""
        return _Items(self)

    def values(self) -> ValuesView[V]:
        """The values, in the order of their keys."""
        return _Values(self)

    def get(self, key: K, default: Any = None) -> Any:
        """The entry, or the default."""
        return self._chunks[bisect_right(self._firsts, key) - 1].get(key, default) if self._firsts else default

    def with_item(self, key: K, value: V) -> SortedMap[K, V]:
        """The same mapping with one entry set."""
        if not self._firsts:
            return SortedMap({key: value})
        at = max(bisect_right(self._firsts, key) - 1, 0)
        chunk = self._chunks[at]
        if key in chunk:
            changed = chunk.copy()
            changed[key] = value
            return self._with_chunks(at, (changed,), self._size)
        grown = sorted((*chunk.items(), (key, value)), key=lambda entry: entry[0])
        cut = len(grown) if len(grown) <= CHUNK else len(grown) // 2
        parts = (dict(grown[:cut]), dict(grown[cut:])) if cut < len(grown) else (dict(grown),)
        return self._with_chunks(at, parts, self._size + 1)

    def without(self, key: K) -> SortedMap[K, V]:
        """The same mapping without this entry.

        Raises:
            KeyError: there is none.
        """
        at = bisect_right(self._firsts, key) - 1
        if at < 0:
            raise KeyError(key)
        left = self._chunks[at].copy()
        del left[key]
        return self._with_chunks(at, (left,) if left else (), self._size - 1)

    def _with_chunks(self, at: int, chunks: tuple[dict[K, V], ...], size: int) -> SortedMap[K, V]:
        made: SortedMap[K, V] = SortedMap.__new__(SortedMap)
        made._chunks = (*self._chunks[:at], *chunks, *self._chunks[at + 1 :])
        firsts = tuple(next(iter(chunk)) for chunk in chunks)
        same = firsts == self._firsts[at : at + 1]
        made._firsts = self._firsts if same else (*self._firsts[:at], *firsts, *self._firsts[at + 1 :])
        made._size = size
        return made

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """A field of this type reads an object, and is written as one."""
        entries = handler.generate_schema(dict[get_args(source) or (Any, Any)])  # type: ignore[misc]
        read = core_schema.no_info_after_validator_function(cls, entries)
        return core_schema.json_or_python_schema(
            json_schema=read,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), read], mode="left_to_right"),
            serialization=core_schema.plain_serializer_function_ser_schema(dict, return_schema=entries),
        )
