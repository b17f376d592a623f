"""Goals: what may be asked for, and which candidate is the answer."""

import math

import pytest

from edgeflock_compression.search.goal import Facts, choose, parse_goal, total_excess
from edgeflock_deploy.errors import BadInput


def _facts(name: str, wire: float = 1000, upper: float | None = 0.4, drop: float = 0.1, ratio: float = 0.5) -> Facts:
    return Facts(name, drop, upper, 0.97, 0.965, wire, 4000, 100_000, 2.0, ratio)


@pytest.mark.parametrize(
    ("text", "quantity", "limit"),
    [
        ("drop<=0.5", "drop", 0.5),
        ("drop <= 0.5pt", "drop", 0.5),
        ("wire<=60KB", "wire", 60_000),
        ("raw<2MiB", "raw", 2 * 1024**2),
        ("ram<=1.5MB", "ram", 1.5e6),
        ("latency<=250us", "latency", 0.25),
        ("latency<=0.5x", "latency_ratio", 0.5),
        ("accuracy>=0.97", "metric", 0.97),
    ],
)
def test_each_quantity_is_read_in_its_units(text: str, quantity: str, limit: float) -> None:
    (bound,) = parse_goal(text, "accuracy").bounds
    assert bound.quantity == quantity
    assert bound.limit == pytest.approx(limit)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "small",
        "wire<=60",
        "wire<=60ms",
        "wire>=60KB",
        "drop<=-1",
        "latency<=0x",
        "accuracy<=0.9",
        "f1>=0.9",
        "drop<=1, drop<=2",
        "latency<=1ms, latency<=0.5x",
        "drop<=1,,wire<=1KB",
        "drop==1",
        "drop<=1e9999x",
    ],
)
def test_nonsense_is_refused_with_one_line(text: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse_goal(text, "accuracy")
    assert "\n" not in str(refused.value)


def test_a_metric_that_should_be_small_is_bounded_from_above() -> None:
    assert not parse_goal("mse<=0.1", "mse", larger_is_better=False).bounds[0].at_least
    with pytest.raises(BadInput):
        parse_goal("mse>=0.1", "mse", larger_is_better=False)


def test_the_smallest_on_the_wire_ships_and_of_equals_the_fastest() -> None:
    goal = parse_goal("drop<=0.5, wire<=60KB", "accuracy")
    some = [_facts("a", wire=900, ratio=0.9), _facts("b", wire=900, ratio=0.3), _facts("c", wire=2000)]
    choice = choose(goal, some, certain=True)
    assert choice.shipped == "b"
    assert "of the 3" in choice.why


def test_shipping_judges_the_drop_by_its_bound_and_screening_by_the_estimate() -> None:
    goal = parse_goal("drop<=0.3", "accuracy")
    one = _facts("a", upper=0.4, drop=0.1)
    assert choose(goal, [one], certain=False).shipped == "a"
    choice = choose(goal, [one], certain=True)
    assert (choice.shipped, choice.nearest) == (None, "a")
    assert "drop<=0.3 is missed with at worst 0.4" in choice.why


def test_what_is_not_known_meets_no_bound() -> None:
    goal = parse_goal("drop<=1, latency<=1x", "accuracy")
    assert math.isinf(total_excess(goal, _facts("a", upper=None), certain=True))
    assert choose(goal, [_facts("a", upper=None)], certain=True).shipped is None
    assert choose(goal, [], certain=True).nearest is None


def test_a_candidate_that_a_guard_refuses_never_ships() -> None:
    goal = parse_goal("wire<=60KB", "accuracy")
    broken = Facts("a", 0.0, 0.0, 0.9, 0.9, 10, 10, broken="it answers NaN")
    assert choose(goal, [broken, _facts("b")], certain=True).shipped == "b"


def test_a_drop_of_zero_may_be_asked_for() -> None:
    goal = parse_goal("drop<=0", "accuracy")
    assert total_excess(goal, _facts("a", upper=-0.1), certain=True) == 0
    assert total_excess(goal, _facts("a", upper=0.5), certain=True) == pytest.approx(1)
