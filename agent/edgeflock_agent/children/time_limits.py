"""Time limits of sockets, held by the kernel: what Python's `settimeout` does costs a poll(2) before each call.

An application waits for every system call on its way to a model, and six of some twenty were such polls. A socket
stays blocking here; a call that takes too long fails with EAGAIN, which Python raises as BlockingIOError.
"""

from __future__ import annotations

import socket
import struct

_NEW_RCVTIMEO = 66  # where C's time_t is wider than its long, the option has another number and a wider struct
_TIMEVAL = "qq" if getattr(socket, "SO_RCVTIMEO", 0) == _NEW_RCVTIMEO else "ll"


def set_limit(connected: socket.socket, seconds: float) -> None:
    """Let each receiving and each sending call on a socket take so long, and make it blocking; 0 or less is no time."""
    whole, part = divmod(max(1, round(seconds * 1e6)), 1_000_000)  # 0 would mean: without a limit
    packed = struct.pack(_TIMEVAL, whole, part)
    connected.setblocking(True)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, packed)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, packed)
