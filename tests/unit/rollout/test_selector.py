from __future__ import annotations

import pytest

from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.rollout.selector import check_known, parse_selector

FLEET = {"a": "pi4", "b": "pi4", "c": "pi5", "d": "zero"}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("all", "abcd"),
        ("id=a,c", "ac"),
        ("class=pi4", "ab"),
        ("class=pi4,zero", "abd"),
        ("id=a, c and class=pi4", "a"),
        ("  all  and  class = pi5 ", "c"),
    ],
)
def test_a_selector_means_these_devices(text: str, meant: str) -> None:
    selector = parse_selector(text)
    check_known(selector, FLEET)
    assert [device for device, name in FLEET.items() if selector.matches(device, name)] == list(meant)


@pytest.mark.parametrize(
    "text", ["", "pi4", "id=", "id=a,,b", "tag=x", "tag.=x", "tag.a", "all or id=a", "id=a and", "and", "all, id=a"]
)
def test_what_cannot_be_read_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(BadInput, match=r"write all, id=a,b, class=NAME"):
        parse_selector(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id=a,x", "device x: unknown; known: a, b, c, d"),
        ("class=pi9", "device class pi9: unknown; known: pi4, pi5, zero"),
        ("id=a and class=pi5", "no device matches"),
    ],
)
def test_a_name_that_does_not_exist_is_refused_with_those_that_do(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check_known(parse_selector(text), FLEET)


def test_an_empty_fleet_has_no_device_to_match() -> None:
    with pytest.raises(BadInput, match="no device matches"):
        check_known(parse_selector("all"), {})


TAGS = {"a": {"site": "roof", "owner": "ops"}, "b": {"site": "cellar"}, "c": {"site": "roof"}, "d": {}}


@pytest.mark.parametrize(
    ("text", "meant"),
    [("tag.site=roof", "ac"), ("tag.site=roof,cellar and class=pi4", "ab"), ("tag.site=roof and tag.owner=ops", "a")],
)
def test_a_tag_means_the_devices_that_carry_it(text: str, meant: str) -> None:
    selector = parse_selector(text)
    check_known(selector, FLEET, TAGS)
    assert [device for device, name in FLEET.items() if selector.matches(device, name, TAGS[device])] == list(meant)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tag.sight=roof", "tag sight: unknown; known: owner, site"),
        ("tag.site=attic", "value of tag site, attic: unknown; known: cellar, roof"),
        ("tag.site=roof,attic", "value of tag site, attic: unknown; known: cellar, roof"),
        ("tag.owner=ops and id=b", "no device matches"),
    ],
)
def test_a_tag_that_no_device_carries_is_refused(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check_known(parse_selector(text), FLEET, TAGS)
