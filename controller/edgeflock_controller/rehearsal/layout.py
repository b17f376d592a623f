"""Who gets the candidate in which stage, how many bytes that is for each site, and how long each stage takes. Pure.

Nothing here chooses: the real machine is run with a candidate that nobody has to judge, on devices that neither come
nor go, and is watched. Durations come from rehearsals of a harmless candidate on the fleet as it behaves; of a large
fleet only the first commits are rehearsed, and the rest is taken to go on at the pace of the last ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edgeflock_controller.rehearsal.board import Board
from edgeflock_controller.rehearsal.outcomes import Json, quantiles
from edgeflock_controller.rehearsal.plot import HORIZON_S, Plot, open_rollout
from edgeflock_controller.rehearsal.run import Run, rehearse
from edgeflock_deploy.bundle import Manifest
from edgeflock_deploy.policy.limits import Rate
from edgeflock_deploy.rollout.state import Rollout

_COMMITS = 300  # after so many the pace is known
_AT_ONCE = {
    "min_windows": 0, "deadline_s": HORIZON_S, "stage_deadline_s": None, "approval": False, "bake_s": 0.0,
    "min_evaluable": None, "min_evaluable_percent": None,
}  # fmt: skip
_RUNS, _WORK = 20, 1000  # rehearsals for the durations, and commits in all of them together


class StagePlan(NamedTuple):
    """One stage. `target` counts the devices that have the candidate when it is done, `devices` who gets it in it."""

    number: int
    target: int
    devices: tuple[str, ...]
    classes: Mapping[str, int]
    wire_bytes: int
    duration_s: Json | None  # quantiles; None: no rehearsal came to its end


class Layout(NamedTuple):
    """`asleep` get the candidate when they wake, `current` have it, `held` get none. `sites`: who fetches, by site.

    Without any stage: no class gets anything, and nothing would begin.
    """

    stages: tuple[StagePlan, ...]
    asleep: tuple[str, ...]
    current: tuple[str, ...]
    sites: Mapping[str, Mapping[str, int]]
    duration_s: Json | None
    endings: Mapping[str, int]
    held: tuple[str, ...] = ()


def bytes_for(manifest: Manifest, held: frozenset[str]) -> int:
    """Chunk payload bytes that a device fetches: what it has not, each blob in the smallest way that it can decode."""
    missing = {blob.sha256: blob for blob in manifest.blobs.values() if blob.sha256 not in held}
    return sum(blob.cheapest(lambda base: base in held).bytes for blob in missing.values())


def lay_out(plot: Plot, manifests: Mapping[str, Manifest], holds: Mapping[str, frozenset[str]], seed: int) -> Layout:
    """Lay a rollout out.

    Args:
        plot: what is deployed; harmless.
        manifests: of the bundles that are brought, by digest.
        holds: by device, the blobs that it has.
        seed: of the first rehearsal.
    """
    given = {board.device: plot.candidate.on(board.device_class) for board in plot.boards}
    digests = {device: candidate.digest for device, candidate in given.items() if candidate is not None}
    held = tuple(device for device in given if device not in digests)
    if not digests:
        return Layout((), (), (), {}, None, {}, held)
    asked = asked_in(plot)
    wire = {name: bytes_for(manifests[one], holds.get(name, frozenset())) for name, one in digests.items()}
    current = {board.device for board in plot.given if board.committed == digests[board.device]}
    runs = _rehearsed(plot, seed)
    opened = open_rollout(plot).rollout
    ends = [_ends(run, [stage.target for stage in opened.stages]) for run in runs]
    stages = []
    for number, stage in enumerate(opened.stages):
        here = [board for board in plot.boards if asked.get(board.device) == number]
        took = [_between(run_ends, number) for run_ends in ends]
        stages.append(
            StagePlan(
                number + 1,
                stage.target,
                tuple(board.device for board in here),
                dict(sorted(Counter(board.device_class for board in here).items())),
                sum(wire[board.device] for board in here),
                quantiles(took),
            )
        )
    asleep = tuple(b.device for b in plot.given if b.device not in asked and b.device not in current)
    reached = [board for board in plot.given if board.device not in current]
    return Layout(
        tuple(stages),
        asleep,
        tuple(sorted(current)),
        _by_site(reached, wire),
        quantiles(run_ends[-1] for run_ends in ends),
        dict(Counter(run.ending for run in runs)),
        held,
    )


def asked_in(plot: Plot) -> dict[str, int]:
    """The stage in which each device would be asked, by the real rules, if nobody came or went and all were well."""
    policy = plot.policy
    easy = tuple(stage.model_copy(update=_AT_ONCE) for stage in policy.stage)
    rules = policy.model_copy(update={"guardrail": (), "stage": easy, "window": (), "rate": Rate(), "halt": ()})
    return dict(rehearse(plot._replace(policy=rules, stays=True, start_at=None), 0).asked_in)


def _rehearsed(plot: Plot, seed: int) -> list[Run]:
    commits = min(_COMMITS, len(plot.boards))
    runs = max(1, min(_RUNS, _WORK // max(1, commits)))
    opening = open_rollout(plot)

    def enough(rollout: Rollout) -> bool:
        return rollout.devices_committed >= _COMMITS

    until = enough if len(plot.boards) > _COMMITS else None
    return [rehearse(plot, seed + number, opening, until) for number in range(runs)]


def _ends(run: Run, targets: Sequence[int]) -> list[float | None]:
    """When each stage ended, seconds from the start; of one that was cut short, when it would at its last pace."""
    ends = list(run.stage_ends_s)
    if run.ending == "open" and run.committed >= _COMMITS:
        began_s = (ends[run.stage - 1] if run.stage else 0.0) or 0.0
        before = targets[run.stage - 1] if run.stage else 0
        pace_s = (run.duration_s - began_s) / max(1, run.committed - before)
        for number in range(run.stage, len(targets)):
            ends[number] = began_s + (targets[number] - before) * pace_s
    elif run.ending != "succeeded":
        ends = [end if number < run.stage else None for number, end in enumerate(ends)]
    return ends


def _between(ends: Sequence[float | None], number: int) -> float | None:
    end, began = ends[number], ends[number - 1] if number else 0.0
    return None if end is None or began is None else end - began


def _by_site(boards: Sequence[Board], wire: Mapping[str, int]) -> dict[str, dict[str, int]]:
    sites: dict[str, dict[str, int]] = {}
    for board in sorted(boards, key=lambda board: board.site):
        site = sites.setdefault(board.site, {"devices": 0, "wire_bytes": 0})
        site["devices"] += 1
        site["wire_bytes"] += wire[board.device]
    return sites
