"""Decoding a container of the codec `sections` in a process of its own.

The decoder computes with numpy, for seconds perhaps, on bytes that are signed but not believed: the agent's own process
stays free of both, goes on serving meanwhile, and kills what takes too long. What comes out counts for nothing until
its hash has been checked.

`python -m edgeflock_agent.storage.unpacking LIMIT CONTAINER [BASE]` reads its files, gives up all that it does not need
any more (`confine`), and only then looks at what they hold: it computes, and writes the decoded bytes to standard
output, a pipe. How the kernel is asked for that stands in `edgeflock_deploy.sandbox`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from edgeflock_deploy.errors import Untrusted
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.sandbox.surroundings import environment

_TIME_LIMIT_S = 600.0  # many times what the encoder allows itself, for small and busy boards
_READ_BYTES = 256 * 1024
_NICENESS = 10
_DOES_NOT_DECODE = 3
_LONGEST_FD = 1 << 16


def unpacked(container: Path, limit_bytes: int, base: Path | None) -> Iterator[bytes]:
    """The decoded bytes of a container, piece by piece.

    Args:
        container: the file.
        limit_bytes: more than this it may not decode to.
        base: the blob that a delta needs, as a file.

    Raises:
        Untrusted: it does not decode.
    """
    arguments = [str(limit_bytes), str(container), *([str(base)] if base else [])]
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeflock_agent.storage.unpacking", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(os.environ) | {"EDGEFLOCK_PARENT": str(os.getpid())},
        start_new_session=True,
    )
    assert process.stdout is not None
    clock = threading.Timer(_TIME_LIMIT_S, process.kill)
    clock.start()
    try:
        while piece := process.stdout.read(_READ_BYTES):
            yield piece
        code = process.wait()
    finally:
        clock.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
    if code == _DOES_NOT_DECODE:
        raise Untrusted(Reason.BLOB_HASH_MISMATCH, "container does not decode")
    if code != 0:
        raise Untrusted(Reason.BLOB_HASH_MISMATCH, f"decoding ended with code {code}")


def confine() -> None:
    """From here on this process computes and writes to its standard streams; it opens, reaches and starts nothing.

    No descriptor can be had any more (RLIMIT_NOFILE of 0), on a kernel without Landlock and seccomp too; those keep it
    from what needs none, such as removing a file. Whatever it uses must be imported by now.
    """
    import contextlib
    import resource

    from edgeflock_deploy.sandbox import landlock, privileges, seccomp

    os.closerange(3, _LONGEST_FD)
    os.chdir("/")
    privileges.gain_none()
    privileges.drop_capabilities()
    with contextlib.suppress(landlock.NotOffered):
        landlock.restrict([])
    cpu_s = int(_TIME_LIMIT_S)  # also while the agent, whose clock it is otherwise, is stopped
    for what, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_CPU, cpu_s),
    ):
        resource.setrlimit(what, (limit, limit))
    with contextlib.suppress(landlock.NotOffered):
        seccomp.restrict()


def main() -> None:
    """Decode what the arguments name."""
    from edgeflock_deploy.canonical import sha256_hex
    from edgeflock_deploy.codec import CodecError, decode
    from edgeflock_deploy.lifeline import die_with_parent

    die_with_parent(int(os.environ["EDGEFLOCK_PARENT"]))
    os.nice(_NICENESS)
    limit_bytes, *paths = sys.argv[1:]
    container, *bases = [Path(path).read_bytes() for path in paths]
    confine()
    held = {sha256_hex(data): data for data in bases}
    try:
        data = decode(container, held.__getitem__, limit_bytes=int(limit_bytes))
    except (CodecError, KeyError):
        sys.exit(_DOES_NOT_DECODE)
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
