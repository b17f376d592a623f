"""The operator of a world: what is ordered of headquarters, which may refuse it, or die over it.

Whoever holds the operator to it is told of each permission (`permits`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeflock_controller.choosing import Wish
from edgeflock_deploy.policy.rules import Policy
from world.bundles import MODEL, VARIANTS
from world.policies import INSTALL

if TYPE_CHECKING:
    from world.world import World

OBJECTIVE = "min rss_bytes"
_DIED = "died"
_BY = "operator"


class Operator:
    """Orders things."""

    def __init__(self, world: World) -> None:
        self._world, self._hq = world, world.headquarters
        self._selector = "tag.site=roof" if world.options.tags else "all"

    def install(self) -> None:
        """Bring the first version to boards that come without."""
        self._deploy(1, INSTALL, "all")

    def deploy(self, version: int) -> None:
        """Deploy a version; the second one as a variant per class where the world has campaigns."""
        if version == 2 and self._world.options.campaigns:
            self._deploy_auto()
            return
        self._deploy(version, self._hq.policy, self._selector)

    def order(self, wish: str) -> None:
        """Order something that is about the newest rollout."""
        verb, _, rest = wish.partition(" ")
        if verb == "deploy":
            self.deploy(int(rest))
        elif verb == "rollback":
            self._hq.ask("roll back", lambda service: service.commands.rollback(MODEL, "all", _BY))
        elif verb == "approve":
            self.approve(int(rest) if rest else None)
        elif shown := self._shown():
            name, keep = shown[-1]["id"], wish.endswith("keep")
            self._hq.ask(f"{wish} {name}", lambda service: service.commands.steer(name, verb, _BY, keep))  # type: ignore[arg-type]

    def approve(self, stage: int | None = None) -> None:
        """Approve a stage of the newest rollout, from 1; None: the one that it waits for, if it waits."""
        shown = self._shown()
        if not shown:
            return
        newest = shown[-1]
        number: int = newest["stage"] + 1 if stage is None else stage
        if stage is None and newest["phase"] != "WAITING_FOR_APPROVAL":
            return
        new = self._world.checks.permits.approved(newest["id"], number)
        words = f"approve stage {number} of {newest['id']}"
        done = self._hq.ask(words, lambda service: service.commands.approve(newest["id"], number, _BY), _DIED)
        if done is None and new:
            self._world.checks.permits.refused_to_approve(newest["id"], number)

    def tag(self, board: str, site: str | None) -> None:
        """Say where a board is; None: take back what was said."""
        given, gone = ({"site": site}, []) if site is not None else ({}, ["site"])
        words = f"{board} is {f'tagged site={site}' if site is not None else 'tagged no more'}"
        permits = self._world.checks.permits
        permits.tagged(board, site)
        done = self._hq.ask(words, lambda service: service.upkeep.tag(f"id={board}", given, gone, _BY), _DIED)
        if done is None:
            permits.refused(board)
        elif done == _DIED:
            permits.unsure(board)

    def measure(self) -> None:
        """Have the second version's variants measured, and nothing more."""
        wish = Wish(MODEL, 2, "all", None, "", "", 1, 1, _BY)
        self._hq.ask(f"measure {MODEL}@2", lambda service: service.commands.choosing.deploy(wish))

    def _deploy(self, version: int, policy: Policy, selector: str) -> None:
        variant, to = VARIANTS[version - 1], "" if selector == "all" else f" to {selector}"
        self._hq.ask(
            f"deploy {MODEL}@{version} under {policy.name}{to}",
            lambda service: service.commands.deploy(MODEL, version, variant, selector, policy, _BY),
        )

    def _deploy_auto(self) -> None:
        policy = self._hq.policy
        wish = Wish(MODEL, 2, self._selector, policy, OBJECTIVE, "", 2, 2, _BY)
        words = f"deploy {MODEL}@2 auto, {OBJECTIVE}, under {policy.name} to {self._selector}"
        self._hq.ask(words, lambda service: service.commands.choosing.deploy(wish))

    def _shown(self) -> list[dict[str, Any]]:
        return self._hq.ask("look", lambda service: service.commands.rollouts()) or []
