"""All that makes one world unlike another, as one value that is drawn from a seed.

Every count and chance of a fault is an option of its own, and each fault draws from a generator of its own, so that one
can be turned off without moving the others: that is what `shrinking` does, and what `--set` is for.
"""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass, fields
from typing import Any

EFFECTS = ("harmless", "slow", "wrong", "hungry", "crashing", "hanging", "unloadable", "mismatching")
POLICIES = ("cautious", "standard", "bold")
MISFITS = ("memory", "operator", "golden", "deadline")


@dataclass(frozen=True)
class Options:
    """One world. Counts are how often a fault strikes in `duration_s`, chances are per message.

    `effect` is what the second version does on the boards that suffer (a share of them, at least one if not 0);
    `late_effect` what the third does. `blank` boards come without the first version, the windows of `mute` ones without
    labels. With a `misfit`, versions are chains of forms, of which the first do not fit a share of the boards,
    `misfitting`. With `captures`, boards keep inputs of applications, and that is how often an operator fetches some.
    With `tags` the rollouts are for the boards on the roof, and so many are moved. `windows` are the policy's
    maintenance windows, `gates` its stages that want an approval; `approvals` come in time, late, twice, or, if 0,
    never. With `campaigns` the second version comes as a variant per class, and so many more orders to measure.
    """

    seed: int
    boards: int = 3
    classes: int = 1
    blank: bool = False
    beat_s: float = 20.0
    policy: str = "standard"
    effect: str = "harmless"
    suffering: float = 1.0
    late_effect: str = "harmless"
    liars: int = 0
    duration_s: float = 700.0
    deltas: str = "none"
    misfit: str = "none"
    misfitting: float = 0.0
    # the network
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    corruption: float = 0.0
    partitions: int = 0
    flapping: int = 0
    broker_restarts: int = 0
    broker_forgets: int = 0
    broker_rewinds: int = 0
    # boards
    power_cuts: int = 0
    kills: int = 0
    full_disks: int = 0
    rot: int = 0
    clock_jumps: int = 0
    no_clock: int = 0
    bouts: int = 0
    governors: int = 0
    replaced: int = 0
    reclassed: int = 0
    asleep: int = 0
    long_sleeps: int = 0
    incumbent_crashes: int = 0
    rotten_bases: int = 0
    lost_bases: int = 0
    captures: int = 0
    tight_disks: int = 0
    # headquarters
    controller_crashes: int = 0
    crashes_over_words: int = 0
    second_controllers: int = 0
    commands: int = 0
    supersede: int = 0
    # the operator
    tags: int = 0
    windows: int = 0
    gates: int = 0
    approvals: int = 0
    campaigns: int = 0
    # evidence
    mute: int = 0

    def unlike(self, other: Options) -> list[str]:
        """The options, as `--set` takes them, in which this one is unlike another."""
        names = [one.name for one in fields(self) if getattr(self, one.name) != getattr(other, one.name)]
        return [f"{name}={getattr(self, name)}" for name in names if name != "seed"]

    def but(self, *settings: str) -> Options:
        """The same with options as `--set` takes them.

        Raises:
            ValueError: there is no such option, or it takes no such value.
        """
        changes: dict[str, Any] = {}
        kinds = {one.name: one.type for one in fields(self)}
        for setting in settings:
            name, _, text = setting.partition("=")
            if name not in kinds:
                raise ValueError(f"no option {name!r}; there are {', '.join(kinds)}")
            changes[name] = _value(str(kinds[name]), text)
        return dataclasses.replace(self, **changes)

    def in_words(self) -> str:
        """Everything that is not as it is by itself."""
        return " ".join([f"seed {self.seed}", *self.unlike(Options(self.seed))])


def draw(seed: int) -> Options:
    """The world of a seed: some faults at some strength, the others not at all."""
    rng = random.Random(f"options {seed}")

    def some(most: int, chance: float = 0.25) -> int:
        return rng.randint(1, most) if rng.random() < chance else 0

    def share(most: float, chance: float = 0.25) -> float:
        return round(rng.uniform(most / 10, most), 4) if rng.random() < chance else 0.0

    boards = rng.randint(1, 6)
    bad = rng.random() < 0.5
    return Options(
        seed=seed,
        boards=boards,
        classes=rng.choice((1, 1, 2)),
        blank=rng.random() < 0.2,
        beat_s=rng.choice((15.0, 20.0, 30.0)),
        policy=rng.choice(POLICIES),
        effect=rng.choice(EFFECTS[1:]) if bad else "harmless",
        suffering=rng.choice((1.0, 1.0, 0.3)),
        late_effect=rng.choice(EFFECTS) if rng.random() < 0.3 else "harmless",
        liars=some(1, 0.1),
        duration_s=rng.choice((400.0, 700.0)),
        loss=share(0.05),
        duplication=share(0.2),
        reordering=share(0.2),
        corruption=share(0.02, 0.1),
        partitions=some(3),
        flapping=some(2, 0.1),
        broker_restarts=some(2, 0.15),
        broker_forgets=some(2, 0.15),
        broker_rewinds=some(1, 0.1),
        power_cuts=some(4),
        kills=some(3, 0.15),
        full_disks=some(2, 0.15),
        rot=some(2, 0.15),
        clock_jumps=some(2, 0.15),
        no_clock=some(1, 0.15),
        bouts=some(3),
        governors=some(1, 0.15),
        replaced=some(1, 0.1),
        reclassed=some(1, 0.1),
        asleep=some(2),
        long_sleeps=some(1, 0.1),
        incumbent_crashes=some(3, 0.15),
        controller_crashes=some(3),
        second_controllers=some(1, 0.1),
        commands=some(3),
        supersede=some(1, 0.2),
        **_of_bundles(seed),
        **_of_kept_inputs(seed),
        **_of_operators(seed),
    )


def _of_bundles(seed: int) -> dict[str, Any]:
    """How versions come, and what hurts that, from streams of their own: the rest of the world stays as it was."""
    found: dict[str, Any] = {}
    rng = random.Random(f"deltas {seed}")
    if rng.random() < 0.2:
        found["deltas"] = rng.choice(("true", "true", "lying"))
        found["rotten_bases"], found["lost_bases"] = rng.choice((0, 1, 2)), rng.choice((0, 1, 2))
    rng = random.Random(f"misfits {seed}")
    if rng.random() < 0.2:
        found["misfit"], found["misfitting"] = rng.choice(MISFITS), rng.choice((0.3, 0.6, 1.0))
    return found


def _of_kept_inputs(seed: int) -> dict[str, Any]:
    rng = random.Random(f"captures {seed}")
    return {"captures": rng.randint(1, 3), "tight_disks": rng.choice((0, 1, 2))} if rng.random() < 0.15 else {}


def _of_operators(seed: int) -> dict[str, Any]:
    """What operators permit, and what strikes over that; each from a stream of its own."""

    def apart(name: str, most: int, chance: float) -> int:
        own = random.Random(f"options {name} {seed}")
        return own.randint(1, most) if own.random() < chance else 0

    found = {"tags": apart("tags", 3, 0.1), "windows": apart("windows", 2, 0.1), "gates": apart("gates", 2, 0.1)}
    found["approvals"] = apart("approvals", 5, 0.75) if found["gates"] else 0
    found["crashes_over_words"] = apart("crashes over words", 2, 0.1)
    return found | {"campaigns": apart("campaigns", 2, 0.08), "mute": apart("mute", 1, 0.08)}


def _value(kind: str, text: str) -> Any:
    if kind == "bool":
        if text not in ("True", "False"):
            raise ValueError(f"{text!r} is not True or False")
        return text == "True"
    makers: dict[str, type] = {"int": int, "float": float, "str": str}
    return makers[kind](text)
