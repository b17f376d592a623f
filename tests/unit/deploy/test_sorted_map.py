from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from edgeflock_deploy.sorted_map import CHUNK, SortedMap


class Holder(BaseModel):
    held: SortedMap[str, int]


CHANGES = st.lists(st.tuples(st.booleans(), st.integers(0, 300)), max_size=400)


@given(st.sets(st.integers(0, 300)), CHANGES)
def test_it_is_a_dict_in_the_order_of_its_keys_and_never_changes(
    begun: set[int], changes: list[tuple[bool, int]]
) -> None:
    plain = dict.fromkeys(begun, -1)
    kept = SortedMap(plain)
    for number, (sets, key) in enumerate(changes):
        before, copied = kept, list(kept.items())
        if sets:
            kept = kept.with_item(key, number)
            plain[key] = number
        elif key in plain:
            kept = kept.without(key)
            del plain[key]
        else:
            with pytest.raises(KeyError):
                kept.without(key)
        assert list(before.items()) == copied
        assert (kept.get(key), kept.get(key, "none"), key in kept) == (
            plain.get(key),
            plain.get(key, "none"),
            key in plain,
        )
    assert list(kept.items()) == sorted(plain.items())
    assert len(kept) == len(plain)
    assert kept == plain
    assert kept == SortedMap(plain)


def test_another_entry_makes_it_another_one_however_it_was_made() -> None:
    whole = SortedMap(dict.fromkeys(range(CHUNK * 3), 0))
    assert whole.with_item(1, 1) != whole
    assert whole.with_item(1, 1).with_item(1, 0) == whole
    assert whole.without(1) != whole
    assert SortedMap[int, int]() != whole


def test_a_change_shares_all_chunks_but_one() -> None:
    whole = SortedMap(dict.fromkeys(range(CHUNK * 20), 0))
    changed = whole.with_item(5, 1)
    shared = {id(chunk) for chunk in whole._chunks} & {id(chunk) for chunk in changed._chunks}
    assert len(shared) == len(whole._chunks) - 1


def test_as_a_field_it_is_an_object_with_sorted_keys_and_checks_what_it_reads() -> None:
    holder = Holder(held=SortedMap({"b": 2, "a": 1}))
    assert holder.model_dump_json() == '{"held":{"a":1,"b":2}}'
    assert Holder.model_validate_json(holder.model_dump_json()) == holder
    assert isinstance(Holder.model_validate({"held": {"a": "1"}}).held, SortedMap)
    with pytest.raises(ValidationError):
        Holder.model_validate_json('{"held": {"a": "x"}}')
