"""A worker: a fresh process that makes the variants of one order, and says on its standard output what happens.

Its `main` reads one JSON object from standard input and writes JSON lines:
`{"tell": [what, share]}`, `{"variant": {...}}`, `{"failed": [recipe, why]}`, `{"bad_input": [thing, wrong, mend]}`.
How the process comes about and ends is the `nursery`'s.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeflock_compression.making import Order, make
from edgeflock_compression.recipe import recipe_of
from edgeflock_compression.variant import Variant
from edgeflock_deploy.errors import BadInput

Say = Callable[..., None]


def main() -> None:
    """Take the order from standard input and carry it out."""
    speaking(_make)


def _make(value: dict[str, Any], say: Say) -> None:
    def done(result: Variant | tuple[str, str]) -> None:
        if isinstance(result, Variant):
            say(variant=result.model_dump(mode="json"))
        else:
            say(failed=result)

    recipes = [recipe_of(f"recipe '{recipe['name']}'", recipe) for recipe in value["recipes"]]
    make(order_of(value["order"]), recipes, done, lambda what, share: say(tell=(what, share)))


def speaking(work: Callable[[dict[str, Any], Say], None]) -> None:
    """Be a worker: read the order, do `work(order, say)`, and tell bad input as a line.

    Args:
        work: is given what came on standard input, and the function that writes one line.
    """
    value = json.load(sys.stdin)
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever the libraries print is no line of ours

    def say(**line: Any) -> None:
        lines.write(json.dumps(line) + "\n")

    try:
        work(value, say)
    except BadInput as error:
        say(bad_input=(error.thing, error.wrong, error.mend))


def order_of(value: dict[str, Any]) -> Order:
    """An order from plain data."""
    paths = ("model", "data", "out", "passes", "made")
    return Order(**{**value, **{name: Path(value[name]) for name in paths if value.get(name) is not None}})


if __name__ == "__main__":
    main()
