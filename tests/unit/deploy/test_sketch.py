from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflock_deploy.messages.windows import LatencySketch
from edgeflock_deploy.sketch import count, merge, quantile_ms, sketch_of

LATENCIES = st.lists(st.floats(1e-3, 1e5), min_size=1, max_size=200)


def _exact(values: list[float], q: float) -> float:
    return sorted(values)[int(q * (len(values) - 1))]


@given(LATENCIES, st.floats(0, 1))
def test_every_quantile_is_within_the_relative_accuracy_of_the_exact_one(values: list[float], q: float) -> None:
    found = quantile_ms(sketch_of(values), q)
    assert found == pytest.approx(_exact(values, q), rel=0.01 + 1e-9)


@given(LATENCIES, LATENCIES)
def test_merging_equals_sketching_all_values_at_once_in_either_order(a: list[float], b: list[float]) -> None:
    assert merge(sketch_of(a), sketch_of(b)) == merge(sketch_of(b), sketch_of(a)) == sketch_of(a + b)
    assert len({merge(sketch_of(a), sketch_of(b)), merge(sketch_of(b), sketch_of(a)), sketch_of(a + b)}) == 1


@given(LATENCIES)
def test_it_counts_every_value_and_survives_the_wire(values: list[float]) -> None:
    sketch = sketch_of(values)
    assert count(sketch) == len(values)
    assert LatencySketch.model_validate_json(sketch.model_dump_json()) == sketch


def test_values_beyond_any_latency_are_counted_at_the_edges() -> None:
    assert count(sketch_of([0.0, -1.0, 1e300])) == 3
    assert len(sketch_of([0.0, -1.0]).bins) == 1


def test_sketches_of_unlike_accuracy_refuse_to_merge() -> None:
    with pytest.raises(ValueError, match="do not match"):
        merge(sketch_of([1.0]), sketch_of([1.0], relative_accuracy=0.02))


def test_an_empty_sketch_has_no_quantile() -> None:
    assert quantile_ms(LatencySketch(), 0.5) is None
