"""Decoding a container of the codec `sections` in a process of its own.

The decoder computes with numpy, for seconds perhaps, on bytes that are signed but not believed: the agent's own process
stays free of both, goes on serving meanwhile, and kills what takes too long. What comes out counts for nothing until
its hash has been checked.

`python -m edgeflock_agent.storage.unpacking LIMIT MEMORY CONTAINER [BASE]` reads its files, gives up all that it does
not need any more (`confine`), and only then looks at what they hold: it computes, and writes the decoded bytes to
standard output, a pipe. Its memory is limited too, by what the manifest says that comes out and by what goes in. How
the kernel is asked for that stands in `edgeflock_deploy.sandbox`.
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
_DOES_NOT_DECODE, _TAKES_TOO_MUCH_MEMORY = 3, 4
_SPARE_MEMORY_BYTES = 64 << 20  # tables, and what the allocator and numpy take ahead
_COPIES = 12  # of what goes in and comes out: sections three deep, each with what it reads and what it makes
_EXPANDED, _MOST_EXPANDED_BYTES = 64, 256 << 20  # elements of 2 bits become words; `codec.turns` limits their number
_LONGEST_FD = 1 << 16


def memory_limit(limit_bytes: int, input_bytes: int) -> int:
    """What decoding may take of memory, in bytes, beside the process itself.

    It is some times what honest containers take, and a little more than the worst that we know to build
    (`benchmarks.hostile_containers`): a bound for what nobody has thought of.

    Args:
        limit_bytes: what the container may decode to.
        input_bytes: of the container and its base.
    """
    expanded = min(_EXPANDED * limit_bytes, _MOST_EXPANDED_BYTES)
    return _SPARE_MEMORY_BYTES + _COPIES * (limit_bytes + input_bytes) + expanded


def unpacked(container: Path, limit_bytes: int, base: Path | None, memory_bytes: int | None = None) -> Iterator[bytes]:
    """The decoded bytes of a container, piece by piece.

    Args:
        container: the file.
        limit_bytes: more than this it may not decode to.
        base: the blob that a delta needs, as a file.
        memory_bytes: what decoding may take; None: `memory_limit`.

    Raises:
        Untrusted: it does not decode, or takes too much memory.
    """
    paths = [container, *([base] if base else [])]
    if memory_bytes is None:
        memory_bytes = memory_limit(limit_bytes, sum(path.stat().st_size for path in paths))
    arguments = [str(limit_bytes), str(memory_bytes), *map(str, paths)]
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
    if code == _TAKES_TOO_MUCH_MEMORY:
        detail = f"decoding to {limit_bytes} bytes took more than {memory_bytes} bytes of memory"
        raise Untrusted(Reason.MEMORY_OVER_BUDGET, detail)
    if code != 0:
        raise Untrusted(Reason.BLOB_HASH_MISMATCH, f"decoding ended with code {code}")


def confine(memory_bytes: int) -> None:
    """From here on this process computes and writes to its standard streams; it opens, reaches and starts nothing.

    No descriptor can be had any more (RLIMIT_NOFILE of 0), on a kernel without Landlock and seccomp too; those keep it
    from what needs none, such as removing a file. Whatever it uses must be imported by now.
    `memory_bytes` is what it may take beside what it holds now.
    """
    import contextlib
    import resource

    from edgeflock_deploy.sandbox import landlock, privileges, seccomp

    held_pages = int(Path("/proc/self/statm").read_text().split()[0])
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
        (resource.RLIMIT_AS, held_pages * resource.getpagesize() + memory_bytes),
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
    limit_bytes, memory_bytes, *paths = sys.argv[1:]
    container, *bases = [Path(path).read_bytes() for path in paths]
    confine(int(memory_bytes))
    held = {sha256_hex(data): data for data in bases}
    try:
        data = decode(container, held.__getitem__, limit_bytes=int(limit_bytes))
    except (CodecError, KeyError):
        sys.exit(_DOES_NOT_DECODE)
    except MemoryError:
        sys.exit(_TAKES_TOO_MUCH_MEMORY)
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
