"""What fits a tensor with open sizes, and how a batch falls into items and comes together again: bytes only."""

from __future__ import annotations

from typing import Any

import pytest

from edgeflock_agent.children.tensors import Inference, Tensor, batch_of, joined, one_by_one

FIXED = Tensor("x", "uint8", (1, 2))
BATCH = Tensor("x", "uint8", (-1, 2), (3, 2))
SEQUENCE = Tensor("s", "int16", (-1, -1, 2), (3, 5, 2))


def test_a_fixed_tensor_takes_its_own_shape_only() -> None:
    assert batch_of([FIXED], [b"ab"], None) == (((1, 2),), 1)
    for shape, data in (((2, 2), b"abcd"), ((1, 2), b"abc"), ((2,), b"ab")):
        with pytest.raises(ValueError, match="'x'"):
            batch_of([FIXED], [data], [shape])


@pytest.mark.parametrize(("items", "data"), [(1, b"ab"), (3, b"abcdef")])
def test_a_batch_is_read_off_the_bytes_where_nothing_else_is_open(items: int, data: bytes) -> None:
    assert batch_of([BATCH], [data], None) == (((items, 2),), items)


@pytest.mark.parametrize("data", [b"", b"a", b"abc", b"abcdefgh"])
def test_no_item_half_an_item_and_more_than_the_limit_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="'x'"):
        batch_of([BATCH], [data], None)


def test_inputs_of_one_request_are_batches_of_one_size() -> None:
    shapes, items = batch_of([BATCH, SEQUENCE], [b"abcd", bytes(24)], [(2, 2), (2, 3, 2)])
    assert (shapes, items) == (((2, 2), (2, 3, 2)), 2)
    with pytest.raises(ValueError, match=r"different sizes: \[1, 2\]"):
        batch_of([BATCH, SEQUENCE], [b"abcd", bytes(12)], [(2, 2), (1, 3, 2)])


def test_a_batch_falls_into_its_items() -> None:
    given = [(list(map(bytes, data)), shapes) for data, shapes in one_by_one([b"abcd", b"01"], [(2, 2), (2, 1)], 2)]
    assert given == [([b"ab", b"0"], [(1, 2), (1, 1)]), ([b"cd", b"1"], [(1, 2), (1, 1)])]


def answer(data: bytes, *shapes: tuple[int, ...], **other: Any) -> Inference:
    return Inference((data,), 1.0, shapes=shapes, **other)


def test_answers_to_items_become_one_answer() -> None:
    first = answer(b"a", (1, 1), end_to_end_ms=2.0, confidence=0.9)
    second = answer(b"b", (1, 1), end_to_end_ms=4.0, confidence=0.4, nan=True)
    assert joined([first, second]) == Inference((b"ab",), 2.0, 0.4, True, ((2, 1),), 6.0)


def test_items_with_answers_of_different_shapes_are_no_batch() -> None:
    with pytest.raises(ValueError, match="one by one"):
        joined([answer(b"a", (1, 1)), answer(b"ab", (1, 2))])
