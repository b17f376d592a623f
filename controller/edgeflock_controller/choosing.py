"""What an operator can ask of the variant per class: deploy one, look at a front. On the core's thread.

What is measured next, and when a campaign ends, stands in `campaigns`; what a class gets, in `choice`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from edgeflock_controller.audit import Act, Kind
from edgeflock_controller.campaigns import CAMPAIGN_S
from edgeflock_controller.choice.campaign import Ahead, sample_ms
from edgeflock_controller.choice.front import shown_metrics, with_front
from edgeflock_controller.choice.wanted import parse_wanted
from edgeflock_controller.core import Core
from edgeflock_controller.fronts import class_facts
from edgeflock_controller.measurements import Campaign
from edgeflock_controller.naming import check_model, check_policy, existing, selected
from edgeflock_controller.registry import Bundle
from edgeflock_controller.twins import Device
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.policy.rules import Policy
from edgeflock_deploy.rollout.choice import Choice, ClassChoice
from edgeflock_deploy.rollout.events import Started, StartedDevice
from edgeflock_deploy.rollout.state import Rollout

Json = dict[str, Any]

AUTO = "auto"  # in place of a variant's name


class Wish(NamedTuple):
    """A deployment of the variant per class, as the operator asked for it; `version` None: the newest.

    Without an objective, and a policy, boards only measure.
    """

    model: str
    version: int | None
    selector: str
    policy: Policy | None
    objective: str
    require: str
    boards: int  # of each class, to measure each variant
    runs: int  # fresh processes on each
    by: str
    start_at: float | None = None


class Foreseen(NamedTuple):
    """What a deployment of the variant per class would do; its campaign was not begun.

    By class: what would be chosen from what is known, and what would be measured first.
    """

    campaign: Campaign
    choice: Choice
    ahead: dict[str, Ahead]


class Choosing:
    """Deployments of the variant per class, and the fronts that they choose from.

    Args:
        core: the service's core, on whose thread this runs.
        start: starts a rollout, given what is noted of it; gives it as it is shown.
        new_rollout: makes a rollout's id.
        new_suffix: four letters that keep an id apart from those of a store that was lost.
        entered: a device as it enters a rollout, with what it has committed.
    """

    def __init__(
        self,
        core: Core,
        start: Callable[[Started, str, str], Json],
        new_rollout: Callable[[], str],
        new_suffix: Callable[[], str],
        entered: Callable[[Device, str | None], StartedDevice],
    ) -> None:
        self._store, self._campaigns, self._clock = core.store, core.campaigns, core.clock
        self._start, self._new_rollout, self._new_suffix, self._entered = start, new_rollout, new_suffix, entered
        core.campaigns.launch = self._launch

    def deploy(self, wish: Wish) -> Json:
        """Have each class's variant measured where it is not known, and then start the rollout.

        Raises:
            BadInput: unknown model, version, device, class or tag, a frozen model, a wish that cannot be read, or the
                model is being measured already.
        """
        campaign = self._drawn_up(wish)
        what = f"{campaign.model}@{campaign.version} on {wish.selector}"
        if wish.policy is not None:
            wishes = f"{wish.objective}, {wish.require or 'no requirement'}"
            what += f", for {AUTO} ({wishes}), policy {wish.policy.name}"
        about: dict[Kind, Iterable[str]] = {"model": [wish.model], "device": campaign.devices}
        self._store.audit.append(Act(wish.by, "measure", what, about), campaign.started_at, campaign.id)
        return self._view(self._campaigns.begin(campaign))

    def foreseen(self, wish: Wish) -> Foreseen:
        """What `deploy` would do with this wish now; nothing is begun, and no device is asked.

        Raises:
            BadInput: whatever `deploy` would refuse.
        """
        campaign = self._drawn_up(wish)
        ahead = self._campaigns.ahead(campaign, campaign.started_at)
        classes = {name: self._campaigns.choose_for(campaign, name, campaign.started_at) for name in ahead}
        for name, one in classes.items():
            if not ahead[name].is_nothing and not any(row.values for row in one.rows):
                classes[name] = one.model_copy(update={"why": "it would first be measured"})
        choice = Choice(objective=wish.objective, require=wish.require, classes=classes)
        return Foreseen(campaign, choice, ahead)

    def campaign(self, name: str) -> Json:
        """How far a campaign is.

        Raises:
            BadInput: there is none of this id.
        """
        found = self._store.measurements.campaign(name)
        if found is None:
            raise BadInput(f"campaign {name!r}", "is unknown", "see `edgeflock front MODEL` for a model's newest")
        return self._view(found)

    def front(self, model: str, version: int | None, device_class: str | None) -> Json:
        """What is known of a version's variants, by class: the rows, which are on the front, which was chosen.

        Raises:
            BadInput: unknown model, version or class.
        """
        bundles = self._candidates(model, version)
        rows = self._store.twins.devices().values()
        classes = sorted({row.device_class for row in rows})
        if device_class is not None and device_class not in classes:
            raise BadInput(f"device class {device_class}", "is unknown", existing("device classes", classes))
        at, campaigns = self._clock(), self._store.measurements.last_campaigns(model)
        number = bundles[0].manifest.version
        made = next((one.choice for one in campaigns if one.choice is not None and one.version == number), None)
        shown = {}
        for name in classes if device_class is None else [device_class]:
            known = class_facts(self._store, bundles, name, {r.runtime for r in rows if r.device_class == name}, at)
            chosen = made.classes.get(name) if made is not None else None
            shown[name] = _class_view(known.rows, known.reference, made, chosen)
        now = self._view(campaigns[0]) if campaigns else None
        return {"model": model, "version": number, "classes": shown, "campaign": now}

    def chosen_since(self, rollout: Rollout) -> dict[str, ClassChoice]:
        """What the classes that a rollout holds would get from what is known now."""
        name = rollout.choice.campaign if rollout.choice is not None else None
        campaign = self._store.measurements.campaign(name) if name is not None else None
        if rollout.choice is None or campaign is None:
            return {}
        classes = {progress.device_class for progress in rollout.devices.values()}
        held = sorted(one for one in classes if rollout.choice.digest_for(one) is None)
        return {one: self._campaigns.choose_for(campaign, one, self._clock()) for one in held}

    def _drawn_up(self, wish: Wish) -> Campaign:
        """The campaign that a wish asks for; it is not begun."""
        if wish.objective:
            self._check_not_frozen(wish.model)
        bundles = self._candidates(wish.model, wish.version)
        if wish.policy is not None:
            check_policy(self._store, wish.policy)
        for other in self._store.measurements.live_campaigns():
            if other.model == wish.model:
                mend = f"wait for it (`edgeflock front {wish.model}`), or deploy a variant by its name"
                raise BadInput(f"model {wish.model}", f"is being measured for {other.id}", mend)
        at = self._clock()
        return Campaign(
            id=f"m{self._store.measurements.count_campaigns() + 1}-{self._new_suffix()}",
            model=wish.model,
            version=bundles[0].manifest.version,
            candidates=tuple(bundle.digest for bundle in bundles),
            devices=tuple(selected(self._store, wish.selector)),
            selector=wish.selector,
            policy=wish.policy,
            by=wish.by,
            objective=wish.objective,
            require=wish.require,
            boards=wish.boards,
            start_at=wish.start_at,
            runs=wish.runs,
            sample_ms=sample_ms(parse_wanted(wish.objective, wish.require) if wish.objective else None),
            started_at=at,
            deadline_at=at + CAMPAIGN_S,
        )

    def _check_not_frozen(self, model: str) -> None:
        freeze = self._store.freezes.of("model", model)
        if freeze is not None:
            raise BadInput(f"model {model}", str(freeze), f"`edgeflock unfreeze model {model}` when that is over")

    def _launch(self, campaign: Campaign, choice: Choice, at: float) -> str:
        assert campaign.policy is not None, "a campaign without one is not launched"
        self._check_not_frozen(campaign.model)
        devices = selected(self._store, campaign.selector).values()
        committed = self._store.twins.committed
        started = Started(
            at=at,
            rollout=self._new_rollout(),
            model=campaign.model,
            version=campaign.version,
            variant=AUTO,
            digest=None,
            selector=campaign.selector,
            policy=campaign.policy,
            devices=tuple(self._entered(row, committed(row.device, campaign.model)) for row in devices),
            by=campaign.by,
            choice=choice,
            start_at=campaign.start_at,
            bundle_bytes=self._largest(choice),
        )
        got = ", ".join(f"{name}: {one.variant or 'held'}" for name, one in choice.classes.items())
        what = f"{campaign.model}@{campaign.version} {AUTO} ({got}) to {campaign.selector}"
        return str(self._start(started, "deploy", f"{what}, policy {campaign.policy.name}")["id"])

    def _largest(self, choice: Choice) -> int:
        bundles = (self._store.registry.bundle(one.digest) for one in choice.classes.values() if one.digest)
        return max((bundle.manifest.wire_bytes for bundle in bundles if bundle is not None), default=0)

    def _candidates(self, model: str, version: int | None) -> list[Bundle]:
        check_model(self._store, model)
        bundles = self._store.registry.bundles(model)
        versions = {bundle.manifest.version: None for bundle in bundles}
        if version is not None and version not in versions:
            raise BadInput(f"{model}@{version}", "is not published", existing("versions", map(str, versions)))
        number = max(versions) if version is None else version
        return [bundle for bundle in bundles if bundle.manifest.version == number]

    def _view(self, campaign: Campaign) -> Json:
        shown = campaign.model_dump(mode="json", exclude={"policy", "devices", "choice"})
        asked = [one for one in self._store.measurements.askings() if one.campaign == campaign.id]
        names = {digest: self._store.registry.bundle(digest) for digest in campaign.candidates}
        measuring = [
            {"device": one.device, "variant": bundle.manifest.variant}
            for one in asked
            if (bundle := names.get(one.order.digest)) is not None
        ]
        choice = None if campaign.choice is None else campaign.choice.model_dump(mode="json")
        return shown | {"measuring": measuring, "choice": choice, "devices_total": len(campaign.devices)}


def _class_view(rows: list[Any], reference: str | None, made: Choice | None, chosen: ClassChoice | None) -> Json:
    metrics = shown_metrics(rows) if made is None else parse_wanted(made.objective, made.require).metrics
    fronted = with_front(rows, metrics)
    if chosen is not None and any(row.values for row in rows) and not any(row.values for row in chosen.rows):
        chosen = None  # it was measured since
    return {
        "metrics": list(metrics),
        "reference": reference,
        "rows": [row.model_dump(mode="json") for row in fronted],
        "chosen": chosen.variant if chosen is not None else None,
        "why": chosen.why if chosen is not None else None,
    }
