"""The topic table: every MQTT topic that Edgeflock uses, made and taken apart in one place.

| topic under `edgeflock/v1/`  | who writes | kept     |
|------------------------------|------------|----------|
| `epoch`                      | controller | retained |
| `session`                    | controller | retained |
| `d/<id>/desired`             | controller | retained |
| `d/<id>/up/reported`         | agent      | retained |
| `d/<id>/up/presence`         | agent      | retained |
| `d/<id>/up/event`            | agent      | no       |
| `d/<id>/up/window`           | agent      | no       |
| `d/<id>/up/capture`          | agent      | no       |
| `m/<digest>`                 | controller | retained |
| `b/<sha256>/<n>`             | controller | retained |

`epoch` is the sentinel by which a controller notices that a broker lost its memory. `session` names a stretch of time
in which the controller hears everything: it changes after each gap (a restart, a lost connection, a wiped broker), and
an agent that sees it change sends the windows of its running trial again. They are keyed, so that repeats are harmless.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from edgeflock_deploy.errors import BadInput

ROOT = "edgeflock/v1"
EPOCH = f"{ROOT}/epoch"
SESSION = f"{ROOT}/session"
ALL_UP = f"{ROOT}/d/+/up/#"

_DEVICE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_UP = re.compile(rf"{ROOT}/d/([^/]+)/up/(reported|presence|event|window|capture)")


def check_device_id(device: str) -> str:
    """Return the id if it can stand in a topic.

    Raises:
        BadInput: anything but 1-64 letters, digits, dot, dash and underscore.
    """
    if not _DEVICE_ID.fullmatch(device):
        raise BadInput(
            f"device id {device!r}",
            "has characters that a topic cannot carry",
            "use 1-64 letters, digits, '.', '-' and '_', starting with a letter or digit",
        )
    return device


def desired(device: str) -> str:
    """Where a device reads what it is to run."""
    return f"{ROOT}/d/{check_device_id(device)}/desired"


def up(device: str, kind: str) -> str:
    """Where a device writes a message of this kind (`reported`, `presence`, `event`, `window`, `capture`)."""
    return f"{ROOT}/d/{check_device_id(device)}/up/{kind}"


def manifest(digest: str) -> str:
    """Where the signed manifest of a bundle lies."""
    return f"{ROOT}/m/{digest}"


def chunk(container: str, number: int) -> str:
    """Where chunk `number` (from 0) of an encoded blob lies; `container` is the SHA-256 of the encoded bytes."""
    return f"{ROOT}/b/{container}/{number}"


class Up(NamedTuple):
    """An upward topic taken apart."""

    device: str
    kind: str


def parse_up(topic: str) -> Up | None:
    """Take an upward topic apart; None for any other topic."""
    match = _UP.fullmatch(topic)
    return Up(match[1], match[2]) if match else None
