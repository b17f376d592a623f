"""Errors split by whose fault they are.

`BadInput` is the user's: the command line prints its one line and exits with code 2. `Untrusted` is somebody's who
sent us bytes: the receiver refuses them with a reason code. Anything else is a fault of ours and keeps its traceback.
"""

from __future__ import annotations

from edgeflock_deploy.reasons import Reason


class EdgeflockError(Exception):
    """Any error that this product raises on purpose."""


class BadInput(EdgeflockError):
    """The user gave something that cannot be used.

    Args:
        thing: what is wrong, by its name (a file, an option, a key).
        wrong: what is wrong with it.
        mend: what to do; where a name was unknown, it lists what exists.
    """

    def __init__(self, thing: str, wrong: str, mend: str) -> None:
        super().__init__(f"{thing}: {wrong}; {mend}")
        self.thing, self.wrong, self.mend = thing, wrong, mend


class Untrusted(EdgeflockError):
    """Bytes from outside failed a check; nothing of them was used.

    Args:
        reason: the code that is reported.
        detail: one sentence with the names and numbers.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason, self.detail = reason, detail
