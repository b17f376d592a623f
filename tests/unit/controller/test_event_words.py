from __future__ import annotations

import pytest

from edgeflock_controller.views import event_in_words
from edgeflock_deploy.rollout.events import (
    Approved,
    Joined,
    ModelFrozen,
    ModelUnfrozen,
    Paused,
    RolloutEvent,
    StartedDevice,
    Ticked,
)

NEW = StartedDevice(device="pi-9", device_class="pi", online=True, committed=None)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Approved(at=1.0, by="ann@hq", stage=1), "ann@hq approved stage 2"),
        (Joined(at=1.0, device=NEW), "pi-9 turned up"),
        (ModelFrozen(at=1.0, by="ann@hq"), "ann@hq froze the model"),
        (ModelUnfrozen(at=1.0, by="ann@hq"), "ann@hq unfroze the model"),
        (Paused(at=1.0, by="ann@hq"), "ann@hq paused it"),
        (Ticked(at=1.0), "time passed"),
    ],
)
def test_an_event_is_one_line_of_plain_words(event: RolloutEvent, words: str) -> None:
    assert event_in_words(event) == words
