"""Campaigns: boards of each class measure a version's variants, then each class gets its own, and a rollout starts.

This file carries: who measures what stands in `choice.campaign`, which variant a class gets in `choice.front`. Decided
here: what an answer is (a result speaks of the bundle, a failure of the board), how long one is waited for, and that a
campaign whose time is up goes on with what it has. Everything is in the database, so that a restart loses nothing.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable

from edgeflock_controller.choice.campaign import Ahead, Board, ClassPlan, Task, look_ahead, plan_class, why_unmeasured
from edgeflock_controller.choice.facts import NEVER_MEASURED, speaks_of_variant
from edgeflock_controller.choice.front import choose
from edgeflock_controller.choice.wanted import parse_wanted
from edgeflock_controller.fronts import barred, class_facts, fresh
from edgeflock_controller.measurements import Asking, Campaign, Failure, Result
from edgeflock_controller.registry import Bundle
from edgeflock_controller.rollouts import Rollouts
from edgeflock_controller.store import Store
from edgeflock_controller.twins import Device
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.messages.orders import MeasureOrder
from edgeflock_deploy.messages.reports import Measured, Reported
from edgeflock_deploy.messages.values import Outcome
from edgeflock_deploy.rollout.choice import Choice, ClassChoice
from edgeflock_deploy.rollout.state import CANDIDATES, DeviceStatus

ANSWER_S = 900.0  # for one answer, the download included; then another board is asked
CAMPAIGN_S = 7200.0  # for all of it; then what was measured must do
_LOOK_S = 5.0  # between two looks at who may measure, while nothing is heard

_AT_WORK = (*CANDIDATES, DeviceStatus.REVERTING)

log = logging.getLogger(__name__)


class Campaigns:
    """The campaigns that have not ended; on the core's thread, in its transactions.

    Args:
        store: keeps them.
        rollouts: which devices are at work for one.
    """

    def __init__(self, store: Store, rollouts: Rollouts) -> None:
        self._store, self._rollouts = store, rollouts
        self._moved: set[str] = set()
        self._look_at = 0.0
        self.launch: Callable[[Campaign, Choice, float], str] | None = None  # starts the rollout, and gives its id

    def begin(self, campaign: Campaign) -> Campaign:
        """Begin a campaign; one whose variants are all known ends at once."""
        return self._go_on(campaign, campaign.started_at)

    def overtaken(self, model: str, rollout: str, by_campaign: str | None, at: float) -> None:
        """A rollout of the model was started: campaigns other than the one that it came of end without one."""
        for campaign in self._store.measurements.live_campaigns():
            if campaign.model == model and campaign.id != by_campaign and campaign.objective:
                for asking in self._askings(campaign):
                    self._withdraw(asking)
                why = f"{rollout} of the same model was started meanwhile"
                ended = campaign.model_copy(update={"ended_at": at, "failed": why, "waits": {}})
                self._store.measurements.put_campaign(ended)

    def heard(self, said: Reported, at: float) -> None:
        """Take in what a device says of what it was asked to measure."""
        if not said.measured:
            return
        for asking in self._store.measurements.askings(said.device):
            answer = said.measured.get(asking.model)
            if answer is not None and answer.token == asking.order.token and answer.outcome is not None:
                self._answered(asking, answer, said, at)
                self._look_at = 0.0

    def tick(self, at: float) -> None:
        """Let askings lapse, and have campaigns go on."""
        if at < self._look_at:
            return
        self._look_at = at + _LOOK_S
        for asking in self._store.measurements.askings():
            row = self._store.twins.device(asking.device)
            if at >= asking.order.expires_at or row is None or not row.online:
                why = (
                    f"{asking.device} did not answer in time" if row and row.online else f"{asking.device} went offline"
                )
                self._give_up(asking, why)
        for campaign in self._store.measurements.live_campaigns():
            self._go_on(campaign, at)

    def take_moved(self) -> set[str]:
        """Devices whose word changed since the last call."""
        moved, self._moved = self._moved, set()
        return moved

    def needed_digests(self) -> set[str]:
        """The bundles that a device is asked to measure."""
        return {asking.order.digest for asking in self._store.measurements.askings()}

    def ahead(self, campaign: Campaign, at: float) -> dict[str, Ahead]:
        """What each class would first have to measure, were the campaign begun now; nothing is begun by it."""
        found = {}
        for device_class, rows in self._classes(campaign).items():
            able, results = self._known(campaign, device_class, rows, at)
            boards = [self._board(row) for row in rows]
            found[device_class] = look_ahead(able, boards, results, campaign.boards) if able else Ahead()
        return found

    def choose_for(self, campaign: Campaign, device_class: str, at: float) -> ClassChoice:
        """What a class gets of a campaign's candidates, from what is known now."""
        devices = [row for row in self._store.twins.devices().values() if row.device_class == device_class]
        runtimes = {row.runtime for row in devices}
        found = class_facts(self._store, self._bundles(campaign), device_class, runtimes, at)
        choice = choose(found.rows, parse_wanted(campaign.objective, campaign.require), found.reference)
        if choice.digest is not None or any(row.values for row in choice.rows):
            return choice
        # Nothing was measured: beside why a variant cannot run there, say why the boards did not measure the others.
        boards = [self._board(row) for row in devices if row.device in campaign.devices]
        mine = {board.device for board in boards}
        unmeasured = why_unmeasured(boards, [one.why for one in campaign.failures if one.device in mine])
        whys = [unmeasured if row.why == NEVER_MEASURED else str(row.why) for row in choice.rows]
        return choice.model_copy(update={"why": "; ".join(dict.fromkeys(whys)) or choice.why})

    # --- one campaign -------------------------------------------------------------------------------------------------

    def _go_on(self, campaign: Campaign, at: float) -> Campaign:
        waits: dict[str, str] = {}
        if at < campaign.deadline_at:
            for device_class, rows in self._classes(campaign).items():
                plan = self._plan(campaign, device_class, rows, at)
                for task in plan.ask:
                    campaign = self._ask(campaign, task, at)
                if plan.waits is not None:
                    waits[device_class] = plan.waits
        campaign = campaign.model_copy(update={"waits": waits})
        if not waits:
            campaign = self._end(campaign, at)
        self._store.measurements.put_campaign(campaign)
        return campaign

    def _plan(self, campaign: Campaign, device_class: str, rows: list[Device], at: float) -> ClassPlan:
        able, results = self._known(campaign, device_class, rows, at)
        asked = [Task(one.device, one.order.digest) for one in self._askings(campaign)]
        failed = [Task(one.device, one.digest) for one in campaign.failures]
        boards = [self._board(row) for row in rows]
        if not able:
            return ClassPlan((), None)
        return plan_class(able, boards, results, asked, failed, campaign.boards)

    def _known(
        self, campaign: Campaign, device_class: str, rows: list[Device], at: float
    ) -> tuple[list[str], dict[str, frozenset[str]]]:
        """The candidates that a class's devices may measure, and which of them have a fresh result of each."""
        runtimes = {row.runtime for row in rows}
        able = [one.digest for one in self._bundles(campaign) if barred(one, device_class, runtimes) is None]
        results = {
            digest: frozenset(one.device for one in of_bundle)
            for digest, of_bundle in fresh(self._store, able, device_class, runtimes, at).items()
        }
        return able, results

    def _end(self, campaign: Campaign, at: float) -> Campaign:
        for asking in self._askings(campaign):
            self._withdraw(asking)
        if not campaign.objective:
            return campaign.model_copy(update={"ended_at": at})
        classes = {name: self.choose_for(campaign, name, at) for name in self._classes(campaign)}
        choice = Choice(objective=campaign.objective, require=campaign.require, campaign=campaign.id, classes=classes)
        ended = campaign.model_copy(update={"ended_at": at, "choice": choice})
        if not any(one.digest for one in classes.values()):
            whys: dict[str, list[str]] = defaultdict(list)
            for name, one in classes.items():
                whys[one.why].append(name)
            held = "; ".join(f"{', '.join(names)}: {why}" for why, names in whys.items())
            failed = f"no class gets a variant: {held}"
            log.warning("campaign %s: %s", campaign.id, failed)
            return ended.model_copy(update={"failed": failed})
        assert self.launch is not None, "whoever begins campaigns says how their rollouts are started"
        try:
            with self._store.transaction():
                return ended.model_copy(update={"rollout": self.launch(ended, choice, at)})
        except BadInput as error:  # a device, or the model, is not there any more, or was frozen meanwhile
            log.warning("campaign %s: %s", campaign.id, error)
            return ended.model_copy(update={"failed": str(error)})

    def _ask(self, campaign: Campaign, task: Task, at: float) -> Campaign:
        number = campaign.asked + 1
        order = MeasureOrder(
            token=f"{campaign.id}-{number}",
            digest=task.digest,
            runs=campaign.runs,
            sample_ms=campaign.sample_ms,
            expires_at=at + _time_s(campaign.runs, campaign.sample_ms),
        )
        self._store.measurements.ask(Asking(task.device, campaign.model, campaign.id, order))
        self._moved.add(task.device)
        return campaign.model_copy(update={"asked": number})

    def _answered(self, asking: Asking, answer: Measured, said: Reported, at: float) -> None:
        told = answer.reason is not None and speaks_of_variant(answer.reason)
        if answer.outcome is Outcome.SUCCEEDED or told:
            order = asking.order
            took_s = max(0.0, at - order.expires_at + _time_s(order.runs, order.sample_ms)) if not told else None
            result = Result(said.device, answer.digest, said.device_class, said.runtime, at, answer, took_s)
            self._store.measurements.put_result(result)
            self._withdraw(asking)
        else:
            reason = answer.reason.value if answer.reason is not None else str(answer.outcome)
            self._give_up(asking, f"{said.device}: {reason}: {answer.detail}")

    def _give_up(self, asking: Asking, why: str) -> None:
        self._withdraw(asking)
        campaign = self._store.measurements.campaign(asking.campaign)
        if campaign is not None and campaign.ended_at is None:
            failure = Failure(device=asking.device, digest=asking.order.digest, why=why)
            failed = campaign.model_copy(update={"failures": (*campaign.failures, failure)})
            self._store.measurements.put_campaign(failed)

    def _withdraw(self, asking: Asking) -> None:
        self._store.measurements.withdraw(asking)
        self._moved.add(asking.device)

    # --- what there is ------------------------------------------------------------------------------------------------

    def _classes(self, campaign: Campaign) -> dict[str, list[Device]]:
        rows, classes = self._store.twins.devices(), defaultdict(list)
        for device in campaign.devices:
            if device in rows:
                classes[rows[device].device_class].append(rows[device])
        return dict(sorted(classes.items()))

    def _board(self, row: Device) -> Board:
        at_work = any(
            rollout.devices[row.device].status in _AT_WORK for rollout in self._rollouts.concerned(row.device)
        )
        asked = bool(self._store.measurements.askings(row.device))
        frozen = self._store.freezes.of("device", row.device) is not None
        return Board(row.device, row.device_class, bool(row.online), not at_work and not asked, frozen)

    def _askings(self, campaign: Campaign) -> list[Asking]:
        return [one for one in self._store.measurements.askings() if one.campaign == campaign.id]

    def _bundles(self, campaign: Campaign) -> list[Bundle]:
        found = [self._store.registry.bundle(digest) for digest in campaign.candidates]
        return [bundle for bundle in found if bundle is not None]


def _time_s(runs: int, sample_ms: float) -> float:
    """How long an answer is waited for."""
    return ANSWER_S + runs * sample_ms / 1e3
