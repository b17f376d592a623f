"""Names that people give: what they mean in this store, and what to say of one that means nothing."""

from __future__ import annotations

from collections.abc import Iterable

from edgeflock_controller.store import Store
from edgeflock_controller.twins import Device
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.policy.rules import Policy
from edgeflock_deploy.rollout.selector import check_known, check_stages, parse_selector


def existing(what: str, names: Iterable[str], limit: int = 20) -> str:
    """What there is instead, for the end of an error."""
    names = list(names)
    if not names:
        return f"there are no {what} yet"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"the {what} are {', '.join(names[:limit])}{more}"


def selected(store: Store, text: str) -> dict[str, Device]:
    """The devices that a selector matches now, by id.

    Raises:
        BadInput: it cannot be read, names what does not exist, or no device matches.
    """
    selector = parse_selector(text)
    rows = store.twins.devices()
    tags = {name: row.tags for name, row in rows.items()}
    check_known(selector, {name: row.device_class for name, row in rows.items()}, tags)
    return {name: row for name, row in rows.items() if selector.matches(name, row.device_class, row.tags)}


def check_policy(store: Store, policy: Policy) -> None:
    """Refuse a policy whose stages are about classes that nobody has.

    Raises:
        BadInput: which class, and the known ones.
    """
    check_stages(policy, [row.device_class for row in store.twins.devices().values() if row.device_class])


def device_named(store: Store, device: str) -> Device:
    """A device by its id.

    Raises:
        BadInput: no such device.
    """
    row = store.twins.device(device)
    if row is None:
        raise BadInput(f"device {device!r}", "is unknown", existing("devices", store.twins.devices()))
    return row


def check_model(store: Store, model: str) -> None:
    """See that a model is published.

    Raises:
        BadInput: it is not.
    """
    models = {bundle.manifest.model: None for bundle in store.registry.bundles()}
    if model not in models:
        raise BadInput(f"model {model!r}", "is not published", existing("models", models))
