"""ARM userlands: a Debian root with Python and the agent's dependencies, and a command that runs its Python here.

`python -m qemu.userland aarch64 armhf` makes them below `build/arm`, or says in one line why it cannot. Decided here:
what a board of each kind has installed (aarch64: what `pip install edgeflock[agent]` brings; armhf: the runtime from
its wheel and numpy, psutil, nacl and zstandard from Debian, see docs/boards.md) and how it runs: QEMU's user mode
translates its instructions, the kernel is this machine's. `ROOT/usr/bin/board-python` is the interpreter, and believes
that this is its name, so that the processes which the agent starts with `sys.executable` are translated too.

Nothing is made twice: a stamp holds the hash of all that went in.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from qemu.packages import Apt, Missing, own_architecture, unpack

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = REPOSITORY / "build" / "arm"
QEMU_NEEDS = 10  # ai-edge-litert 2.3 crashes under 7.2

_PYTHON = ("python3-minimal", "libpython3-stdlib", "libstdc++6", "zlib1g")


@dataclass(frozen=True)
class Kind:
    """A kind of board: Debian's name of it, QEMU's command and the CPU that it plays."""

    debian: str
    qemu: str
    cpu: str
    debian_packages: tuple[str, ...]


KINDS = {
    "aarch64": Kind("arm64", "qemu-aarch64", "cortex-a72", _PYTHON),
    "armhf": Kind(
        "armhf",
        "qemu-arm",
        "cortex-a7",
        (*_PYTHON, "python3-numpy", "python3-psutil", "python3-nacl", "python3-zstandard"),
    ),
}
# What Debian does not have, or has too old: pure Python but for the two with an armv7l wheel.
_ARMHF_WHEELS = (
    "annotated-types",
    "click",
    "paho-mqtt",
    "pydantic",
    "pydantic-core",
    "tflite-runtime",
    "typing-extensions",
    "typing-inspection",
)
_ARMHF_PLATFORMS = ("manylinux_2_34_armv7l", "manylinux_2_31_armv7l", "manylinux_2_17_armv7l", "manylinux2014_armv7l")


def userland(name: str) -> Path:
    """The command that runs the Python of a userland, which is made first where it is missing.

    Args:
        name: of KINDS.

    Raises:
        Missing: this machine cannot; the message says why.
    """
    kind, root = KINDS[name], BUILD / name
    python = root / "usr/bin/board-python"
    stamp = root / ".made"
    made_of = _made_of(name)
    if stamp.is_file() and stamp.read_text() == made_of:
        return python
    emulator = qemu_user(kind.qemu)
    shutil.rmtree(root, ignore_errors=True)
    _say(f"{name}: Debian packages ({', '.join(kind.debian_packages)})")
    unpack(Apt(BUILD / f"apt-{kind.debian}", kind.debian).fetch(*kind.debian_packages), root)
    for library in [*root.glob("usr/lib/*/blas/lib*.so.3"), *root.glob("usr/lib/*/lapack/lib*.so.3")]:
        link = library.parents[1] / library.name  # update-alternatives does it where packages are installed
        link.symlink_to(library.relative_to(link.parent))
    version = _python_version(root)
    site = root / f"usr/local/lib/python{version}/dist-packages"
    _say(f"{name}: wheels of the agent for Python {version}")
    _wheels(name, version, site)
    python.write_text(
        f'#!/bin/sh\nexec "{emulator}" -cpu {kind.cpu} -0 "$0" -L "{root}" "{root}/usr/bin/python{version}" "$@"\n'
    )
    python.chmod(0o755)
    found = subprocess.run([python, "-c", "import platform; print(platform.machine())"], capture_output=True, text=True)
    if found.returncode != 0:
        raise Missing(f"Python does not start under {emulator}: {found.stderr.strip()[-200:]}")
    stamp.write_text(made_of)
    _say(f"{name}: ready, machine {found.stdout.strip()}")
    return python


def qemu_user(command: str) -> Path:
    """QEMU's user mode for one kind of board: this machine's if it is new enough, else one from the packages.

    Raises:
        Missing: there is none.
    """
    fetched = BUILD / "host/usr/bin" / command
    candidates = [shutil.which(command), shutil.which(f"{command}-static"), str(fetched)]
    found = {path: version for path in candidates if path and (version := _qemu_version(Path(path)))}
    for path, version in found.items():
        if version >= QEMU_NEEDS:
            return Path(path)
    _say(f"qemu-user {QEMU_NEEDS} or newer (63 MB)")
    debs = Apt(BUILD / "apt-host", own_architecture(), over_installed=True, backports=True).fetch(
        "qemu-user", alone=True
    )
    unpack(debs, BUILD / "host", [f"./usr/bin/{kind.qemu}" for kind in KINDS.values()])
    if _qemu_version(fetched) < QEMU_NEEDS:
        raise Missing(f"qemu-user {QEMU_NEEDS} or newer is needed, the packages of this machine have an older one")
    return fetched


def _qemu_version(path: Path) -> int:
    """The major version; 0 if it does not run."""
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
    except OSError:
        return 0
    version = re.search(r"version (\d+)", said)
    return int(version[1]) if version else 0


def _python_version(root: Path) -> str:
    names = [path.name for path in (root / "usr/bin").glob("python3.*") if re.fullmatch(r"python3\.\d+", path.name)]
    return names[0].removeprefix("python")


def _wheels(name: str, version: str, site: Path) -> None:
    if name == "aarch64":
        command = [
            sys.executable, "-m", "uv", "pip", "install", "--quiet", "--only-binary", ":all:", "--target", str(site),
            "--python-platform", "aarch64-manylinux_2_36", "--python-version", version,
            "-c", str(REPOSITORY / "requirements.lock"), "-r", str(REPOSITORY / "pyproject.toml"), "--extra", "agent",
        ]  # fmt: skip
    else:
        if version != "3.11":
            raise Missing(
                f"armhf: tflite-runtime has no wheel for Python {version}; the sources of Debian 12 have 3.11"
            )
        abis = [f"--abi={abi}" for abi in ("cp311", "abi3", "none")]
        command = [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--only-binary=:all:", "--target", str(site), "--python-version", version, "--implementation", "cp", *abis,
            *[f"--platform={platform}" for platform in _ARMHF_PLATFORMS], *_pinned(_ARMHF_WHEELS),
        ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise Missing(f"{name}: wheels: {done.stderr.strip().splitlines()[-1]}")


def _pinned(names: tuple[str, ...]) -> list[str]:
    """`name==version` of each, as the lock has them."""
    lock = (REPOSITORY / "requirements.lock").read_text()
    return [match[0] for name in names if (match := re.search(rf"^{re.escape(name)}==[^\s;]+", lock, re.MULTILINE))]


def _made_of(name: str) -> str:
    files = [Path(__file__), Path(__file__).with_name("packages.py"), *map(REPOSITORY.joinpath, ("requirements.lock",))]
    digest = hashlib.sha256(name.encode())
    for path in files:
        digest.update(path.read_bytes())
    return f"{digest.hexdigest()} {BUILD}"  # the paths stand in `board-python`


def _say(line: str) -> None:
    print(f"arm: {line}", flush=True)


def main() -> None:
    """Make the userlands that the arguments name, all without arguments."""
    try:
        for name in sys.argv[1:] or KINDS:
            userland(name)
    except Missing as error:
        sys.exit(f"arm: not possible here: {error}")


if __name__ == "__main__":
    main()
