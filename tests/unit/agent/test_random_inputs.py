"""Random inputs: their types, their spread, and that a seed decides them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from edgeflock_agent.children.random_inputs import RandomInputs


def test_floats_are_standard_normal() -> None:
    values = RandomInputs(1).tensor("float32", (100, 1000))
    assert values.dtype == np.float32
    assert abs(values.mean()) < 0.02
    assert abs(values.std() - 1) < 0.02
    assert abs(np.mean(np.abs(values) < 1.959964) - 0.95) < 0.005


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
def test_small_integers_use_their_whole_range_evenly(dtype: str) -> None:
    values = RandomInputs(2).tensor(dtype, (200_000,)).astype(float)
    limits = np.iinfo(dtype)
    spread = float(limits.max) - limits.min
    assert values.min() < limits.min + spread / 200
    assert values.max() > limits.max - spread / 200
    assert abs(values.mean() - (float(limits.max) + limits.min) / 2) < spread / 100


@pytest.mark.parametrize("dtype", ["bool", "int32", "int64"])
def test_what_may_be_an_index_is_zero_or_one(dtype: str) -> None:
    values = RandomInputs(3).tensor(dtype, (1000,))
    assert values.dtype == dtype
    assert set(values.tolist()) == {0, 1}


def test_pictures_fit_any_type() -> None:
    drawn = RandomInputs(4)
    assert 0 <= drawn.picture("float32", (50, 50)).min() < drawn.picture("float32", (50, 50)).max() <= 1
    assert set(np.unique(drawn.picture("int8", (100, 100)))) == set(range(100))


def test_a_seed_decides_and_no_two_tensors_are_alike() -> None:
    one, again, other = RandomInputs(5), RandomInputs(5), RandomInputs(6)
    first = one.tensor("float32", (64,))
    np.testing.assert_array_equal(first, again.tensor("float32", (64,)))
    assert not np.array_equal(first, one.tensor("float32", (64,)))
    assert not np.array_equal(first, other.tensor("float32", (64,)))


def test_numpys_own_generators_stay_out_of_the_child() -> None:
    code = "import sys; from edgeflock_agent.children.child import rehearse; rehearse(); "
    code += "sys.exit('numpy.random.mtrand' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
