"""End when the process that started us ends, even by `kill -9`: Linux's parent-death signal, prctl(2).

`python -m edgeflock_deploy.lifeline COMMAND [ARG ...]` sets the signal and becomes COMMAND, which inherits it.
The signal is sent when the *thread* that started the process ends, so start it from one that lives long enough.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int | None = None) -> None:
    """Have this process killed when its parent ends.

    Args:
        parent_pid: who the parent was when this process was started; if it is gone already, this process ends now.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent_pid is not None and os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Become the command in the arguments, tied to the life of the parent."""
    if len(sys.argv) < 2:
        sys.exit("usage: python -m edgeflock_deploy.lifeline COMMAND [ARG ...]")
    die_with_parent(os.getppid())
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - becoming the given command is the purpose


if __name__ == "__main__":
    main()
