"""Which devices an operator means: `all`, `id=a,b`, `class=NAME[,NAME]`, `tag.KEY=VALUE[,VALUE]`, joined by `and`.

Parsing and matching only; who exists is told by the caller. A selector is resolved once, when a rollout starts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.policy.rules import Policy

_FORMS = "write all, id=a,b, class=NAME[,NAME] or tag.KEY=VALUE[,VALUE], joined by and"
_TAG = "tag."
_UNTAGGED: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Term:
    """One condition: the device's `key` is one of `values`. The key `all` has no values and matches everything."""

    key: str
    values: tuple[str, ...] = ()

    @property
    def tag(self) -> str | None:
        """The tag's key that it speaks of; None if it speaks of no tag."""
        return self.key[len(_TAG) :] if self.key.startswith(_TAG) else None

    def matches(self, device: str, device_class: str, tags: Mapping[str, str] = _UNTAGGED) -> bool:
        """Whether a device meets this condition."""
        if self.tag is not None:
            return tags.get(self.tag) in self.values
        return self.key == "all" or (device if self.key == "id" else device_class) in self.values


@dataclass(frozen=True)
class Selector:
    """All terms must hold."""

    text: str
    terms: tuple[Term, ...]

    def matches(self, device: str, device_class: str, tags: Mapping[str, str] = _UNTAGGED) -> bool:
        """Whether a device is meant."""
        return all(term.matches(device, device_class, tags) for term in self.terms)

    def __str__(self) -> str:
        return self.text


def parse_selector(text: str) -> Selector:
    """Read a selector.

    Raises:
        BadInput: it is empty, or a term is none of the forms.
    """
    parts = re.split(r"\s+and\s+", text.strip())
    return Selector(" and ".join(part.strip() for part in parts), tuple(_term(text, part.strip()) for part in parts))


def check_known(
    selector: Selector, devices: Mapping[str, str], tags: Mapping[str, Mapping[str, str]] = MappingProxyType({})
) -> None:
    """Refuse a selector that names what does not exist, so that a typing error never means "nobody".

    Args:
        selector: the selector.
        devices: every known device id with its class.
        tags: the tags of those devices that have any, by device id.

    Raises:
        BadInput: an id, class, tag or tag's value is unknown (the message lists the known ones), or no device matches.
    """
    for term in selector.terms:
        if term.key == "id":
            _refuse_unknown("device", term.values, devices)
        if term.key == "class":
            _refuse_unknown("device class", term.values, devices.values())
        if term.tag is not None:
            _refuse_unknown("tag", [term.tag], [key for own in tags.values() for key in own])
            values = [own[term.tag] for own in tags.values() if term.tag in own]
            _refuse_unknown(f"value of tag {term.tag},", term.values, values)
    if not any(selector.matches(name, of_class, tags.get(name, {})) for name, of_class in devices.items()):
        raise BadInput(f"selector {selector}", "no device matches", "see `edgeflock devices`")


def check_stages(policy: Policy, classes: Iterable[str]) -> None:
    """Refuse a policy with a stage of a class that no known device has: its canaries would be passed over.

    Raises:
        BadInput: a class is unknown; the message lists the known ones.
    """
    for number, stage in enumerate(policy.stage, 1):
        _refuse_unknown(f"policy {policy.name}: stage {number}: device class", stage.classes, classes)


def _term(text: str, part: str) -> Term:
    if part == "all":
        return Term("all")
    key, equals, rest = (piece.strip() for piece in part.partition("="))
    if not equals or (key not in ("id", "class") and not (key.startswith(_TAG) and key != _TAG)):
        raise BadInput(f"selector {text!r}", f"cannot read {part!r}" if part else "it is empty", _FORMS)
    values = tuple(value.strip() for value in rest.split(","))
    if not all(re.fullmatch(r"\S+", value) for value in values):
        raise BadInput(f"selector {text!r}", f"a name in {part!r} is empty or has a blank", _FORMS)
    return Term(key, values)


def _refuse_unknown(noun: str, named: Iterable[str], existing: Iterable[str]) -> None:
    known = sorted(set(existing))
    for name in named:
        if name not in known:
            listed = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
            raise BadInput(f"{noun} {name}", "unknown", f"known: {listed or 'none yet'}")
