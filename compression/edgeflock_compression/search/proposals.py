"""Mixed recipes from the sensitivity table: for each layer the option that saves most within a budget of loss.

The multiple-choice knapsack (one option per layer) by dynamic programming over the loss, which is cut into steps and
rounded up; losses of layers are taken to add up (as in Dong et al. 2020, HAWQ-V2, arXiv:1911.03852). Pure.
"""

from __future__ import annotations

import glob
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_STEPS = 400
_QUANTIZED = ("int8", "int4")
_FLOOR = 0.01  # points: below that a loss is noise


class Row(NamedTuple):
    """One line of the sensitivity table: what one option does to one layer, everything else as it was.

    Points lost may be negative; bytes, microseconds saved too. `reason` says why a saving is 0 or why there is no
    loss (None: the option could not be tried).
    """

    layer: str
    option: str
    points_lost: float | None
    raw_bytes_saved: int
    wire_bytes_saved: int
    latency_us_saved: float
    ram_bytes_saved: int
    reason: str | None


class Item(NamedTuple):
    """An option of a layer: what it costs and what it brings."""

    option: str
    loss: float
    gain: float


def knapsack(layers: Mapping[str, Sequence[Item]], budget: float) -> dict[str, str]:
    """For each layer one of its options or none, with the largest gain whose losses add up to the budget at most.

    Args:
        layers: options by layer; losses below 0 count as 0.
        budget: of loss.
    """
    width = _STEPS if budget > 0 else 0
    best: list[tuple[float, tuple[tuple[str, str], ...]] | None] = [(0.0, ())] + [None] * width
    for layer, items in layers.items():
        new = list(best)  # the layer stays as it is
        for item in items:
            cost = math.ceil(round(max(item.loss, 0.0) / budget * _STEPS, 9)) if budget > 0 else 0
            if item.gain <= 0 or cost > width or (budget <= 0 and item.loss > 0):
                continue
            for at in range(width + 1 - cost):
                before = best[at]
                if before is None:
                    continue
                now, found = before[0] + item.gain, new[at + cost]
                if found is None or now > found[0]:
                    new[at + cost] = (now, (*before[1], (layer, item.option)))
        best = new
    return dict(max((one for one in best if one is not None), key=lambda one: one[0])[1])


def proposals(rows: Sequence[Row], budgets: Sequence[float], trains: bool) -> list[dict[str, Any]]:
    """Recipes as a recipe file holds them: `mixed` per layer, at several budgets.

    Args:
        rows: the table.
        budgets: of loss, in points; each gives its own recipes.
        trains: whether the model can be trained (it has layers).
    """
    found: dict[str, dict[str, Any]] = {}
    for budget in budgets:
        quantized = knapsack(_items(rows, _QUANTIZED), budget)
        name = f"mixed{_number(budget)}"
        recipes = [(f"{name}_dynamic", _recipe_steps({}, {}, quantized, rows))] if _is_mixed(quantized, rows) else []
        if trains:
            # fine-tuning wins back most of what zeros and shared values cost, so they get the budget several times
            pruned = knapsack(_items(rows, ("prune50", "prune80", "prune90")), 4 * budget)
            shared = knapsack(_items(rows, ("cluster16", "cluster32")), 4 * budget)
            all8 = {row.layer: "int8" for row in rows if row.option == "int8" and row.points_lost is not None}
            if pruned:
                recipes.append((f"{name}_p_dynamic", _recipe_steps(pruned, {}, all8, rows)))
            if pruned and shared:
                recipes.append((f"{name}_p_c_dynamic", _recipe_steps(pruned, shared, all8, rows)))
        for label, steps in recipes:
            found.setdefault(str(steps), {"name": label, "pass": steps})
    return list(found.values())


def _is_mixed(quantized: Mapping[str, str], rows: Sequence[Row]) -> bool:
    """Whether layers differ: a recipe that treats all alike needs no table, and is tried without it."""
    return len({quantized.get(row.layer, "float") for row in rows}) > 1


def _items(rows: Sequence[Row], options: Sequence[str]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for row in rows:
        if row.option in options and row.points_lost is not None:
            loss = row.points_lost if row.points_lost > _FLOOR else 0.0
            found.setdefault(row.layer, []).append(Item(row.option, loss, row.wire_bytes_saved))
    return found


def _recipe_steps(
    pruned: Mapping[str, str], shared: Mapping[str, str], quantized: Mapping[str, str], rows: Sequence[Row]
) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    if pruned:
        shares = {_within(layer): int(option.removeprefix("prune")) / 100 for layer, option in pruned.items()}
        steps.append({"use": "prune_weights", "sparsity": shares})
    if shared:
        counts = {_within(layer): int(option.removeprefix("cluster")) for layer, option in shared.items()}
        steps.append({"use": "cluster", "clusters": counts})
    layers = dict.fromkeys(row.layer for row in rows)
    chosen = [{"match": glob.escape(layer), "weights": quantized.get(layer, "float")} for layer in layers]
    plain = {entry["weights"] for entry in chosen} == {"int8"}
    return [*steps, {"use": "ptq", "mode": "dynamic", **({} if plain else {"layer": chosen})}]


def _within(layer: str) -> str:
    """The pattern of all weights of a layer."""
    return f"{glob.escape(layer)}/*"


def _number(value: float) -> str:
    return f"{value:g}".replace("-", "").replace("+", "")
