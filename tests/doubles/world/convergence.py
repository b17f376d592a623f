"""What must be so in the end, once the faults have stopped: everything has come to rest, and everything adds up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeflock_deploy import topics
from edgeflock_deploy.rollout.events import WindowClosed
from edgeflock_deploy.rollout.machine import step
from edgeflock_deploy.rollout.state import Rollout, RolloutPhase
from world.board import WALL_S
from world.bundles import MODEL
from world.keeping import not_fetched

if TYPE_CHECKING:
    from world.world import World

_SOON_S = 600.0  # a window that opens so soon after the faults have stopped is waited for
_BROKER_AWAY_S = 40.0  # a broker that struck is back, filled and listened to after so long
_RESTING = ("COMMITTED", "ROLLED_BACK", "FAILED", "IDLE")


def not_converged(world: World) -> list[str]:
    """What has not come to rest yet: rollouts that go on, boards that do not answer what they were told last."""
    service = world.headquarters.service
    if service is None:
        return ["the service does not run"]
    live = service.core.rollouts.live()
    going_on = [
        f"rollout {name} is {rollout.phase.value}: {rollout.reason}"
        for name, rollout in live.items()
        if not _rests(world, rollout)
    ]
    if not live:  # else boards may be busy until somebody resumes, or approves
        going_on += [
            f"campaign {campaign.id} goes on: {campaign.waits}"
            for campaign in service.core.store.measurements.live_campaigns()
        ]
    return (
        going_on
        + _missing_on_the_broker(world)
        + not_fetched(world)
        + [what for board in world.boards if (what := _unlike(world, board.name)) is not None]
    )


def _rests(world: World, rollout: Rollout) -> bool:
    """Whether nothing is to be waited for in a rollout that has not ended: a person's word, or a far window."""
    if rollout.phase is RolloutPhase.WAITING_FOR_APPROVAL:
        return not world.options.approvals
    opens_at = rollout.resumes_at
    soon_s = WALL_S + world.peace_since_s + _SOON_S
    return rollout.phase is RolloutPhase.PAUSED and (opens_at is None or opens_at > soon_s)


def not_heard(world: World) -> list[str]:
    """What boards say and headquarters has not taken in."""
    found = []
    for board in world.boards:
        said, row = world.checks.reports.get(board.name), world.headquarters.store.twins.device(board.name)
        boot_id = f"{board.name}-{board.boots}"
        heard = row is not None and row.boot_id == boot_id and row.online
        if board.agent is None or said is None or said["boot_id"] != boot_id or not heard:
            found.append(f"headquarters does not know what {board.name} says since its last boot")
    return found


def not_told(world: World) -> list[str]:
    """Words that are stored and that a service, which can speak for a while, has not said."""
    service, checks, found = world.headquarters.service, world.checks, []
    if service is None or not service.core.link.connected:
        return []
    if world.agenda.now_s - checks.disturbed_at_s["broker"] < _BROKER_AWAY_S:
        return []
    for board in world.boards:
        newest = service.core.store.twins.newest_generation(board.name, MODEL)
        if newest > max(checks.words[board.name], default=0):
            found.append(f"generation {newest} of {board.name} is stored, and was never said")
    return found


def _missing_on_the_broker(world: World) -> list[str]:
    """Bundles that boards are told to run and that the broker does not carry: nobody could bring them in."""
    retained, found = world.broker.retained, []
    wanted = {world.headquarters.store.twins.desired(board.name).get(MODEL) for board in world.boards}
    for bundle in world.headquarters.published.bundles:
        if any(word is not None and word.digest == bundle.digest for word in wanted):
            ways = [way for blob in bundle.manifest.all_blobs for way in blob.encodings]
            lying = [topics.chunk(way.sha256, number) for way in ways for number in range(len(way.chunks))]
            if not all(topic in retained for topic in (topics.manifest(bundle.digest), *lying)):
                found.append(f"the broker does not carry {bundle.manifest.variant}, which boards are told to run")
    return found


def _unlike(world: World, name: str) -> str | None:
    wanted = world.headquarters.store.twins.desired(name).get(MODEL)
    said = world.checks.reports.get(name, {}).get("models", {}).get(MODEL)
    board = world.checks.boards[name]
    if board.agent is None:
        return f"{name} is off"
    if wanted is None:
        return None
    if said is None:
        return f"{name} says nothing of the model"
    if said["generation"] != wanted.generation:
        return f"{name} answers generation {said['generation']}, it was told {wanted.generation}"
    if said["state"] not in (*_RESTING, "TRIAL"):
        return f"{name} is {said['state']}"
    if said["digest"] != wanted.digest and said["state"] not in ("TRIAL", "FAILED"):
        return f"{name} serves {said['digest']}, it was told {wanted.digest}"
    return None


def count_problems(world: World) -> list[str]:
    """What does not add up: journals that do not give the state that lives, windows that count twice or never were."""
    service = world.headquarters.service
    if service is None:
        return []
    store, found = service.core.store, []
    live = service.core.rollouts.live()
    for shown in store.journal.summaries():
        name = shown["id"]
        rollout: Any = None
        for entry in store.journal.read(name):
            rollout, _ = step(rollout, entry.event)
        if name in live and live[name] != rollout:
            found.append(f"the journal of {name} gives another rollout than the one that lives")
        if shown["phase"] != rollout.phase.value:
            found.append(f"{name} is shown as {shown['phase']}, its journal says {rollout.phase.value}")
        heard = [entry.event.window for entry in store.journal.read(name) if isinstance(entry.event, WindowClosed)]
        keys = {(window.device, window.boot_id, window.number) for window in heard}
        counted = sum(own.windows for own in rollout.evidence.devices.values())
        if counted > len(keys):
            found.append(f"{name} counts {counted} windows of {len(keys)}")
        made = {
            (board, boot, number)
            for board, all_ in world.checks.windows.items()
            for r, boot, number in all_
            if r == name
        }
        if not keys <= made:
            found.append(f"{name} counts windows that no board has sent")
    return found + _forgotten(world)


def _forgotten(world: World) -> list[str]:
    """Words to boards that headquarters does not remember."""
    twins = world.headquarters.store.twins
    return [
        f"{board} was told to {word.phase} by {word.rollout} (generation {generation}), and nobody remembers it"
        for board, words in world.checks.words.items()
        for generation, word in words.items()
        if twins.phase_of(board, MODEL, generation, word.rollout) != word.phase
    ]
