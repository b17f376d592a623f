"""The sockets on which applications ask: a loopback address and a Unix socket; no other address is listened on."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import stat
from pathlib import Path

from edgeflock_deploy.errors import BadInput

_WAITING = 512  # connections that the kernel holds until they are accepted; a Unix socket turns more away at once
_PORT_MAX = 65535
_PATH_MAX_BYTES = 107  # of a Unix socket's address, on Linux
_SOCKET_MODE = 0o660  # the agent's user and group may ask


def host_port(text: str) -> tuple[str, int]:
    """HOST:PORT as an operator writes it.

    Raises:
        BadInput: it is none.
    """
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > _PORT_MAX:
        raise BadInput(f"--http {text!r}", "is not HOST:PORT", "write for example 127.0.0.1:8080, or port 0")
    return host, int(port)


def check_loopback(host: str, port: int) -> None:
    """Refuse an address at which others than this board could ask.

    Raises:
        BadInput: it is one.
    """
    if not _is_loopback(host):
        mend = "use 127.0.0.1 or [::1]: the endpoint asks for no password"
        raise BadInput(f"HTTP address {host}:{port}", "is not a loopback address", mend)


def tcp(host: str, port: int) -> tuple[socket.socket, str]:
    """Listen on a loopback address; the socket and its URL. Port 0 takes a free one.

    Raises:
        BadInput: the address is not a loopback address, or cannot be listened on.
    """
    check_loopback(host, port)
    plain = host.strip("[]")
    listening = socket.socket(socket.AF_INET6 if ":" in plain else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((plain, port))
        listening.listen(_WAITING)
    except (OSError, OverflowError) as error:
        listening.close()
        wrong, mend = f"cannot be listened on ({error})", "choose another port, or 0 for a free one"
        raise BadInput(f"HTTP address {host}:{port}", wrong, mend) from None
    shown = f"[{plain}]" if ":" in plain else plain
    return listening, f"http://{shown}:{listening.getsockname()[1]}"


def unix(path: Path) -> socket.socket:
    """Listen on a Unix socket, which user and group of the agent may use; one that a dead agent left is replaced.

    Raises:
        BadInput: the path is too long, is in use, is no socket, or cannot be made.
    """
    thing = f"socket {path}"
    if len(str(path).encode()) > _PATH_MAX_BYTES:
        raise BadInput(thing, f"is longer than {_PATH_MAX_BYTES} bytes", "choose a shorter path")
    listening = socket.socket(socket.AF_UNIX)
    try:
        _clear(path, thing)
        listening.bind(str(path))
        path.chmod(_SOCKET_MODE)
        listening.listen(_WAITING)
    except OSError as error:
        listening.close()
        raise BadInput(thing, f"cannot be made ({error})", "name a path in a folder that the agent may write") from None
    except BadInput:
        listening.close()
        raise
    return listening


def _clear(path: Path, thing: str) -> None:
    """Remove a socket that nobody listens on."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise BadInput(thing, "is there already and is no socket", "choose another path, or remove it")
    with socket.socket(socket.AF_UNIX) as asking:
        try:
            asking.connect(str(path))
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            return
    raise BadInput(thing, "is in use by another process", "stop that one, or choose another path")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
