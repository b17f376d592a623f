"""What `edgeflock[agent]` takes on a board's disk, package by package and platform by platform.

The agent's requirements are resolved for each platform under the repository's lock, their wheels unpacked into an empty
folder (`pip install --target`, no byte code), and the files that each package lists in its RECORD summed. Nothing of
another platform is run. Needs the package index. 32-bit ARM takes its numpy and three others from Debian: its column
comes from the userland that `make test-arm` has made below `build/arm`, with the libraries that Debian's numpy and
nacl need.
"""

from __future__ import annotations

import compileall
import csv
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

from benchmarks import table

ROOT = Path(__file__).parents[2]
PYTHON = "3.11"  # what Debian 12 and Raspberry Pi OS bring
PLATFORMS = {
    "x86_64": ("x86_64-unknown-linux-gnu", ("manylinux2014_x86_64", "manylinux_2_27_x86_64", "manylinux_2_28_x86_64")),
    "aarch64": (
        "aarch64-unknown-linux-gnu",
        ("manylinux2014_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64"),
    ),
}

ARMHF = ROOT / "build" / "arm" / "armhf"
_ARMHF_PACKAGES = ("usr/lib/python3/dist-packages", "usr/local/lib/python3.11/dist-packages")
_NOT_NEEDED = ("pkg_resources",)  # Debian's psutil brings it along
_NAMED_OTHERWISE = {"nacl": "pynacl", "paho": "paho-mqtt", "_cffi_backend": "cffi"}
_DEBIAN_LIBRARIES = ("libblas", "liblapack", "libgfortran", "libsodium")


def requirements(target: str, folder: Path) -> Path:
    """The pinned set that a board of this platform installs."""
    path = folder / "requirements.txt"
    command = ["uv", "pip", "compile", "--quiet", "--extra", "agent", "--constraint", "requirements.lock"]
    command += ["--python-version", PYTHON, "--python-platform", target, "--no-header", "--no-annotate"]
    subprocess.run([*command, "pyproject.toml", "-o", str(path)], cwd=ROOT, check=True)
    return path


def unpack(wanted: list[str], tags: tuple[str, ...], into: Path) -> None:
    """Unpack wheels for another machine's Python."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--no-compile", "--target", str(into), "--python-version", PYTHON]
    command += ["--implementation", "cp", "--abi", f"cp{PYTHON.replace('.', '')}", "--abi", "abi3", "--abi", "none"]
    for tag in tags:
        command += ["--platform", tag]
    subprocess.run([*command, *wanted], check=True)


def sizes(folder: Path) -> dict[str, int]:
    """Bytes by package, of the files that its RECORD lists."""
    found = {}
    for record in folder.glob("*.dist-info/RECORD"):
        name = record.parent.name.split("-")[0].lower().replace("_", "-")
        with record.open(newline="") as file:
            paths = [folder / row[0] for row in csv.reader(file)]
        found[name] = sum(path.stat().st_size for path in paths if path.is_file())
    return found


def measure(target: str, tags: tuple[str, ...], wheel: Path) -> tuple[dict[str, int], int]:
    """Bytes by package on a platform, and of all of it with byte code."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pinned = requirements(target, folder)
        unpack(["-r", str(pinned), str(wheel)], tags, folder / "site")
        by_package = sizes(folder / "site")
        compileall.compile_dir(folder / "site", quiet=2)
        whole = sum(path.stat().st_size for path in (folder / "site").rglob("*") if path.is_file())
        return by_package, whole


def measure_armhf(wheel: Path) -> tuple[dict[str, int], int]:
    """The same of the 32-bit userland."""
    with tempfile.TemporaryDirectory() as name:
        site = Path(name)
        for folder in _ARMHF_PACKAGES:
            shutil.copytree(ARMHF / folder, site, ignore=shutil.ignore_patterns("*.pyc"), dirs_exist_ok=True)
        for extra in _NOT_NEEDED:
            shutil.rmtree(site / extra, ignore_errors=True)
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(site)
        by_package: Counter[str] = Counter()
        for path in site.rglob("*"):
            if path.is_file():
                by_package[_package(path.relative_to(site).parts[0])] += path.stat().st_size
        libraries = (ARMHF / "usr/lib/arm-linux-gnueabihf").rglob("lib*.so.*")
        whole = {path.resolve() for path in libraries if path.name.startswith(_DEBIAN_LIBRARIES)}
        by_package["Debian's BLAS, LAPACK, libsodium"] = sum(path.stat().st_size for path in whole)
        before = sum(by_package.values())
        compileall.compile_dir(site, quiet=2)
        return dict(by_package), before + sum(path.stat().st_size for path in site.rglob("*.pyc"))


def _package(entry: str) -> str:
    if entry.startswith("edgeflock"):
        return "edgeflock"
    first = entry.split(".")[0] if entry.endswith((".so", ".py")) else entry.split("-")[0]
    return _NAMED_OTHERWISE.get(first, first.lower().replace("_", "-"))


def main() -> None:
    """Measure and write the table."""
    with tempfile.TemporaryDirectory() as name:
        build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", name]
        subprocess.run([*build, str(ROOT)], check=True)
        (wheel,) = Path(name).glob("*.whl")
        found = {machine: measure(*how, wheel) for machine, how in PLATFORMS.items()}
        if ARMHF.is_dir():
            found["armhf"] = measure_armhf(wheel)
    packages = sorted(
        {p for each, _ in found.values() for p in each}, key=lambda p: -max(e.get(p, 0) for e, _ in found.values())
    )

    def mb(size: int | None) -> str:
        return f"{size / 1e6:.1f}" if size is not None else "-"

    rows = [(package, *(mb(each.get(package)) for each, _ in found.values())) for package in packages]
    rows.append(("together", *(mb(sum(each.values())) for each, _ in found.values())))
    rows.append(("with byte code", *(mb(whole) for _, whole in found.values())))
    note = (
        f"MB (10^6 bytes) of files for Python {PYTHON}, without the interpreter itself. `edgeflock` is the one "
        "distribution, headquarters' packages included. armhf: numpy, psutil, nacl and zstandard are Debian's, "
        "with the libraries that they need."
    )
    command = "python -m benchmarks.device.installed_size"
    table.write("device/installed_size", command, ("package", *found), rows, note)


if __name__ == "__main__":
    main()
