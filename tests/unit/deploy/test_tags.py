from __future__ import annotations

import pytest

from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.tags import MOST, parse_tags, readable


def test_tags_are_read_as_they_are_written() -> None:
    read = parse_tags(["site=roof", "rack.unit=eu-1/4:b", "site=roof"])
    assert read == {"site": "roof", "rack.unit": "eu-1/4:b"}


@pytest.mark.parametrize(
    ("texts", "wrong"),
    [
        (["site"], "is not KEY=VALUE"),
        (["=roof"], "has a key that a selector cannot name"),
        (["4th=roof"], "has a key that a selector cannot name"),
        (["site="], "has a value that a selector cannot name"),
        (["site=a,b"], "has a value that a selector cannot name"),
        (["site=the roof"], "has a value that a selector cannot name"),
        (["site=" + "a" * 65], "has a value that a selector cannot name"),
        (["site=roof", "site=cellar"], "is given twice"),
        ([f"k{n}=v" for n in range(MOST + 1)], "carries 32 at most"),
    ],
)
def test_what_a_selector_could_not_name_is_refused(texts: list[str], wrong: str) -> None:
    with pytest.raises(BadInput, match=wrong):
        parse_tags(texts)


def test_of_what_a_board_declares_only_tags_are_taken_over() -> None:
    declared = {"site": "roof", "a b": "c", "owner": "", "x": "y,z"} | {f"k{n:02}": "v" for n in range(2 * MOST)}
    taken = readable(declared)
    assert len(taken) == MOST
    assert not {"a b", "owner", "x"} & taken.keys()
