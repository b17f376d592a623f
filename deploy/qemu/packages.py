"""Debian packages without installing them: downloaded by an apt of our own, unpacked into a folder.

Decided here: which sources are asked (those of this machine that carry its own release, and that release's backports)
and how a package becomes files. No maintainer script runs, nothing on this machine is changed, and root is not needed.
What the packages are for stands in `userland` and `image`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

_SOURCES = Path("/etc/apt")
_MERGED = ("bin", "sbin", "lib")  # since Debian 12 these are links into usr


class Missing(Exception):
    """Something that this machine cannot give; the message is one line and says what."""


class Apt:
    """An apt with its own lists and cache.

    Args:
        folder: where it keeps them.
        architecture: of the packages, e.g. `arm64`.
        over_installed: leave out what this machine has installed already.
        backports: take newer versions from the release's backports.
    """

    def __init__(
        self, folder: Path, architecture: str, *, over_installed: bool = False, backports: bool = False
    ) -> None:
        self._folder, self._backports = folder.resolve(), backports
        self._release = _release()
        for part in ("lists/partial", "cache/archives/partial"):
            (self._folder / part).mkdir(parents=True, exist_ok=True)
        (self._folder / "sources.list").write_text("\n".join(self._sources()) + "\n")
        status = Path("/var/lib/dpkg/status")
        if not over_installed:
            status = self._folder / "status"
            status.touch()
        settings = {
            "Dir::State::Lists": self._folder / "lists",
            "Dir::State::status": status,
            "Dir::State::extended_states": self._folder / "extended_states",
            "Dir::Cache": self._folder / "cache",
            "Dir::Etc::sourcelist": self._folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "APT::Architecture": architecture,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Debug::NoLocking": "true",
        }
        lines = [f'{key} "{value}";' for key, value in settings.items()]
        lines += ["#clear APT::Architectures;", f'APT::Architectures {{ "{architecture}"; }};']
        (self._folder / "apt.conf").write_text("\n".join(lines) + "\n")

    def fetch(self, *names: str, alone: bool = False) -> list[Path]:
        """Download packages and what they depend on (`alone`: without).

        Returns:
            The `.deb` files, sorted.

        Raises:
            Missing: no apt here, no network, no such package.
        """
        kept = self._folder / ("alone" if alone else "cache/archives")
        kept.mkdir(exist_ok=True)
        if not self._has_lists():
            try:
                self._apt("update")
            except Missing:
                if not self._has_lists():  # a mirror in the middle of a sync lacks one of several: the rest may do
                    raise
        for old in kept.glob("*.deb"):
            old.unlink()
        target = ["-t", f"{self._release}-backports"] if self._backports else []
        if alone:
            self._apt("download", *target, *names, cwd=kept)
        else:
            self._apt("install", "--download-only", "-y", *target, *names)
        return sorted(kept.glob("*.deb"))

    def _has_lists(self) -> bool:
        return any((self._folder / "lists").glob("*_Packages*"))

    def _apt(self, *words: str, cwd: Path | None = None) -> None:
        command = [_found("apt-get"), "-qq", "-c", str(self._folder / "apt.conf"), *words]
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        )
        if done.returncode != 0:
            last = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()
            raise Missing(f"apt-get {words[0]}: {last[-1] if last else f'code {done.returncode}'}")

    def _sources(self) -> list[str]:
        """This machine's sources of its own release, as one-line entries, with backports added where wanted."""
        release = self._release
        found: list[str] = []
        for options, uri, suite in _entries(_SOURCES):
            if suite not in (release, f"{release}-updates", f"{release}-security"):
                continue
            found.append(f"deb {options}{uri} {suite} main")
            if suite == release and self._backports:
                found.append(f"deb {options}{uri} {release}-backports main")
        if not found:
            raise Missing(f"no apt source of {release or 'a Debian release'} on this machine")
        return list(dict.fromkeys(found))


def unpack(debs: Sequence[Path], root: Path, only: Sequence[str] = ()) -> None:
    """Unpack packages below `root`; with `only`, nothing but these paths (as `./usr/bin/qemu-arm`) of them.

    Raises:
        Missing: a package does not unpack.
    """
    root.mkdir(parents=True, exist_ok=True)
    if not only:
        for name in _MERGED:
            (root / "usr" / name).mkdir(parents=True, exist_ok=True)
            if not (root / name).is_symlink():
                (root / name).symlink_to(f"usr/{name}")
    for deb in debs:
        files = subprocess.Popen([_found("dpkg-deb"), "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE)
        words = [_found("tar"), "-x", "-f", "-", "-C", str(root), "--no-same-owner", "--keep-directory-symlink", *only]
        done = subprocess.run(words, stdin=files.stdout, capture_output=True, text=True)
        assert files.stdout is not None
        files.stdout.close()
        if files.wait() != 0 or done.returncode != 0:
            raise Missing(f"{deb.name} does not unpack: {done.stderr.strip()}")


def own_architecture() -> str:
    """This machine's, in Debian's words."""
    return _said("dpkg", "--print-architecture")


def field(deb: Path, name: str) -> str:
    """A field of a package's description."""
    return _said("dpkg-deb", "-f", str(deb), name)


def _said(program: str, *words: str) -> str:
    return subprocess.run([_found(program), *words], capture_output=True, text=True).stdout.strip()


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise Missing(f"no {program} on this machine: QEMU and the ARM packages come from Debian's")
    return path


def _release() -> str:
    for line in _read(Path("/etc/os-release")).splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip('"')
    return ""


def _entries(folder: Path) -> list[tuple[str, str, str]]:
    """(options, URI, suite) of every source below `folder`, in both of apt's spellings.

    Of the options only the key is kept: an architecture would be this machine's.
    """
    found = []
    for path in [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*.list"))]:
        for line in _read(path).splitlines():
            words = line.split("#")[0].split()
            if words[:1] != ["deb"]:
                continue
            options = ""
            if words[1].startswith("["):
                end = next(at for at, word in enumerate(words) if word.endswith("]"))
                keys = [word.strip("[]") for word in words[1 : end + 1] if word.strip("[]").startswith("signed-by=")]
                options, words = (f"[{keys[0]}] " if keys else ""), [words[0], *words[end + 1 :]]
            found.append((options, words[1], words[2]))
    for path in sorted((folder / "sources.list.d").glob("*.sources")):
        for stanza in _read(path).split("\n\n"):
            fields = dict(
                line.split(":", 1) for line in stanza.splitlines() if ":" in line and not line.startswith(("#", " "))
            )
            if "deb" not in fields.get("Types", "").split():
                continue
            key = fields.get("Signed-By", "").strip()
            options = f"[signed-by={key}] " if key.startswith("/") else ""
            found += [
                (options, uri, suite)
                for uri in fields.get("URIs", "").split()
                for suite in fields.get("Suites", "").split()
            ]
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
