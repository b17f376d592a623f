import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflock_deploy.codec.weight_hash import bucket_and_sign

M = 2**64 - 1


def slowly(seed: int, index: int) -> int:
    z = (seed + (index + 1) * 0x9E3779B97F4A7C15) & M
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M
    return z ^ (z >> 31)


def test_the_generator_gives_its_published_outputs() -> None:
    assert [slowly(1234567, i) for i in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(st.integers(0, M), st.integers(0, 40), st.integers(1, 2**31 - 1))
def test_it_follows_its_definition_to_the_bit(seed: int, count: int, buckets: int) -> None:
    bucket, sign = bucket_and_sign(seed, count, buckets)
    outputs = [slowly(seed, index) for index in range(count)]
    assert bucket.tolist() == [(z >> 32) * buckets >> 32 for z in outputs]
    assert sign.tolist() == [-1 if z % 2 else 1 for z in outputs]


def test_a_long_weight_is_hashed_as_a_short_one() -> None:
    count = (1 << 20) + 5
    bucket, _ = bucket_and_sign(7, count, 1000)
    assert bucket[-1] == (slowly(7, count - 1) >> 32) * 1000 >> 32


def test_elements_spread_evenly_over_buckets_and_signs() -> None:
    bucket, sign = bucket_and_sign(3, 100_000, 100)
    counts = np.bincount(bucket, minlength=100)
    assert counts.min() > 850
    assert counts.max() < 1150
    assert abs(sign.mean()) < 0.02
    assert abs(np.corrcoef(sign, bucket)[0, 1]) < 0.02


def test_no_buckets_are_refused() -> None:
    with pytest.raises(ValueError, match="0 buckets"):
        bucket_and_sign(0, 1, 0)
