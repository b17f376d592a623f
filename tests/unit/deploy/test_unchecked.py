from __future__ import annotations

import pytest
from pydantic import ValidationError

from edgeflock_deploy.messages.reports import Slots
from edgeflock_deploy.unchecked import changed, made


def test_a_value_made_unchecked_is_the_value_that_validation_would_have_made() -> None:
    checked = Slots(active="a", previous=None, factory="f")
    assert made(Slots, active="a", previous=None, factory="f") == checked
    assert changed(Slots(active="x", factory="f"), active="a") == checked
    assert changed(Slots(active="x", factory="f"), active="a").model_dump_json() == checked.model_dump_json()


def test_it_stays_frozen_and_the_one_it_was_made_from_stays_as_it_was() -> None:
    before = Slots(active="x")
    after = changed(before, active="a")
    assert before == Slots(active="x")
    with pytest.raises(ValidationError):
        after.active = "b"  # type: ignore[misc]
