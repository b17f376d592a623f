"""Which forms of a chain do not fit which boards, and what each variant then does on them."""

from __future__ import annotations

import random
from collections.abc import Mapping

from edgeflock_deploy.reasons import Reason
from world.bundles import CHAINS
from world.options import Options
from world.played import EFFECTS


def with_forms(effects: Mapping[str, str], options: Options, board: str) -> dict[str, str]:
    """What each form does on a board, where a version's first forms may not fit it; seldom none of them does.

    Args:
        effects: by variant, what each version does there.
        options: of the world.
        board: its name.
    """
    if options.misfit == "none":
        return dict(effects)
    rng = random.Random(f"misfits {board} {options.seed}")
    found = dict(effects)
    for version, chain in CHAINS.items():
        unfit = rng.choices((1, 2, 3), (6, 3, 1))[0] if rng.random() < options.misfitting else 0
        for number, form in enumerate(chain):
            found[form] = options.misfit if number < unfit else effects[version]
    return found


def unfit(effects: Mapping[str, str]) -> dict[str, Reason]:
    """The variants that do not fit a board by what they do on it, and why."""
    found = {variant: EFFECTS[effect].load or EFFECTS[effect].over for variant, effect in effects.items()}
    return {variant: why for variant, why in found.items() if why is not None}
