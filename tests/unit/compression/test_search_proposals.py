"""Mixed recipes from the sensitivity table."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeflock_compression.recipe import recipe_of
from edgeflock_compression.search.proposals import Item, Row, knapsack, proposals

_ITEMS = st.lists(
    st.builds(Item, st.sampled_from(["a", "b", "c"]), st.integers(0, 8).map(float), st.integers(0, 9).map(float)),
    max_size=3,
    unique_by=lambda item: item.option,
)


@settings(max_examples=60)
@given(st.lists(_ITEMS, max_size=4), st.sampled_from([0.0, 4.0, 10.0]))
def test_the_knapsack_finds_what_trying_everything_finds(options: list[list[Item]], budget: float) -> None:
    layers = {f"l{n}": items for n, items in enumerate(options)}
    best = max(
        sum(item.gain for item in chosen if item)
        for chosen in itertools.product(*[[None, *items] for items in options])
        if sum(item.loss for item in chosen if item) <= budget
    )
    found = knapsack(layers, budget)
    picked = [next(i for i in layers[layer] if i.option == option) for layer, option in found.items()]
    assert sum(item.loss for item in picked) <= budget
    assert sum(item.gain for item in picked) == best


def test_gains_by_chance_do_not_pay_for_other_layers() -> None:
    assert knapsack({"a": [Item("x", -5.0, 1.0)], "b": [Item("x", 2.0, 9.0)]}, 1.0) == {"a": "x"}


def _row(layer: str, option: str, lost: float | None, wire: int) -> Row:
    return Row(layer, option, lost, 0, wire, 0.0, 0, None)


_TABLE = [
    _row("conv", "int8", 0.1, 300),
    _row("conv", "int4", 9.0, 350),
    _row("dense", "int8", 0.0, 3000),
    _row("dense", "int4", 0.3, 3500),
    _row("dense", "prune80", 2.0, 2500),
    _row("dense", "cluster16", 1.0, 2900),
    _row("odd[1]", "int8", None, 0),
]


def test_proposals_are_recipes_that_give_each_layer_its_own_weights() -> None:
    found = proposals(_TABLE, [0.5, 1.0], trains=True)
    for one in found:
        recipe_of("it", one)
    quantized = found[0]["pass"][-1]["layer"]
    assert {entry["match"]: entry["weights"] for entry in quantized} == {
        "conv": "int8",
        "dense": "int4",
        "odd[[]1]": "float",
    }
    assert any(step["use"] == "prune_weights" for one in found for step in one["pass"])


def test_the_same_proposal_is_made_once_and_none_trains_a_model_without_layers() -> None:
    found = proposals(_TABLE, [0.5, 0.5, 0.6], trains=False)
    assert [one["name"] for one in found] == ["mixed0.5_dynamic"]
    assert proposals([], [1.0], trains=True) == []


def test_what_treats_all_layers_alike_is_no_mixed_recipe() -> None:
    alike = [_row("conv", "int8", 0.1, 300), _row("dense", "int8", 0.0, 3000)]
    assert proposals(alike, [0.5], trains=False) == []
    assert [one["name"] for one in proposals([*alike, _row("odd", "int4", 0.0, 5)], [0.5], trains=False)]
