from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflock_compression.quantization.file_modes import modes_in

DATA = Path(__file__).parents[2] / "data"
INT4 = (DATA / "tiny_int4.tflite").read_bytes()


@pytest.mark.parametrize(
    ("file", "modes"),
    [
        ("tiny.tflite", ("float32",)),
        ("tiny_slow.tflite", ("float32",)),
        ("tiny_int8.tflite", ("static_wi8_ai8",)),
        ("tiny_int4.tflite", ("dynamic_wi4",)),
    ],
)
def test_a_file_made_anywhere_says_its_modes(file: str, modes: tuple[str, ...]) -> None:
    assert modes_in((DATA / file).read_bytes()) == modes


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04TFL", bytes(4) + b"TFL3", INT4[: len(INT4) // 2]])
def test_what_is_no_model_has_no_modes(data: bytes) -> None:
    assert modes_in(data) == ()


@given(st.lists(st.tuples(st.integers(8, len(INT4) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_an_altered_file_gives_modes_or_none_and_never_an_error(changes: list[tuple[int, int]]) -> None:
    altered = bytearray(INT4)
    for at, byte in changes:
        altered[at] = byte
    assert isinstance(modes_in(bytes(altered)), tuple)
