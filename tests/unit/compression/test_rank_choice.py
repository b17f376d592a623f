from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflock_compression.weights.rank_choice import Option, Ranks, by_target, front, keeping, within
from edgeflock_deploy.errors import BadInput


def linear(method: str, energies: list[float], per_rank: int) -> Ranks:
    return Ranks(method, np.array(energies), per_rank * np.arange(1, len(energies) + 1))


def test_a_front_holds_only_what_needs_less_than_now_and_keeps_more_than_what_is_cheaper() -> None:
    cheap, dear = linear("cheap", [0.5, 0.7, 0.7, 1.0], 10), linear("dear", [0.6, 0.95], 15)
    assert front([cheap, dear], 40) == [
        Option("cheap", (1,), 10, 0.5),
        Option("dear", (1,), 15, 0.6),
        Option("cheap", (2,), 20, 0.7),
        Option("dear", (2,), 30, 0.95),
    ]


def test_a_front_of_two_ranks_names_both() -> None:
    energies, counts = np.array([[0.2, 0.4], [0.3, 1.0]]), np.array([[1, 5], [2, 9]])
    assert [option.ranks for option in front([Ranks("tucker2", energies, counts)], 9)] == [(1, 1), (2, 1), (1, 2)]


def test_by_energy_the_cheapest_method_that_keeps_it_wins() -> None:
    options = front([linear("a", [0.5, 0.91, 1.0], 10), linear("b", [0.9, 1.0], 18)], 100)
    chosen = keeping(options, 0.9)
    assert chosen is not None
    assert (chosen.method, chosen.ranks, chosen.multiply_adds) == ("b", (1,), 18)
    assert keeping(front([linear("a", [0.5, 0.91, 1.0], 10)], 20), 0.9) is None


def test_by_ratio_the_method_that_keeps_the_most_wins() -> None:
    options = front([linear("a", [0.5, 0.8, 1.0], 10), linear("b", [0.9, 1.0], 18)], 100)
    chosen = within(options, 25)
    assert chosen is not None
    assert chosen.method == "b"
    assert within(options, 5) is None


def test_by_target_what_costs_no_energy_goes_first_and_the_rest_stays() -> None:
    now = {"full_rank": 100, "low_rank": 100, "other": 50}
    fronts = {
        "full_rank": front([linear("svd", [n / 12 for n in range(1, 13)], 10)], 100),
        "low_rank": front([linear("svd", [0.6, 1.0], 20)], 100),
    }
    chosen = by_target(fronts, now, 0.8)
    assert chosen == {"low_rank": Option("svd", (2,), 40, 1.0)}


def test_by_target_the_last_step_goes_no_further_than_needed() -> None:
    now = {"one": 100}
    options = front([linear("svd", [n**2 / 100 for n in range(1, 11)], 10)], 100)  # its hull is a single step
    assert by_target({"one": options}, now, 0.75) == {"one": Option("svd", (7,), 70, 0.49)}


def test_a_target_out_of_reach_is_refused_with_what_can_be_reached() -> None:
    now = {"one": 100, "two": 100}
    with pytest.raises(BadInput, match=r"rank 1 everywhere leaves 0\.550"):
        by_target({"one": front([linear("svd", [0.5, 1.0], 10)], 100)}, now, 0.5)


@given(st.integers(0, 2**32 - 1), st.floats(0.35, 0.99))
def test_by_target_reaches_the_target_and_loses_little_more_than_the_best_choice_would(
    seed: int, target: float
) -> None:
    rng = np.random.default_rng(seed)
    now = {"a": 60, "b": 90, "c": 40}
    fronts = {}
    for name, count in now.items():
        spectrum = np.sort(rng.random(6) ** 3)[::-1]
        fronts[name] = front([linear("svd", list(np.cumsum(spectrum) / spectrum.sum()), count // 5)], count)
    chosen = by_target(fronts, now, target)

    def cost(picked: dict[str, Option]) -> tuple[float, float]:
        counts = sum(picked[n].multiply_adds if n in picked else now[n] for n in now)
        return counts, sum(1 - option.energy for option in picked.values())

    limit = target * sum(now.values())
    assert cost(chosen)[0] <= limit
    every = product(*([None, *fronts[name]] for name in now))
    best = min(
        lost
        for picked in every
        for count, lost in [cost({n: o for n, o in zip(now, picked, strict=True) if o is not None})]
        if count <= limit
    )
    largest_step = max(1 - options[0].energy for options in fronts.values())
    assert cost(chosen)[1] <= best + largest_step + 1e-9
