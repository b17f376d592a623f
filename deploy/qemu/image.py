"""What all virtual boards share: kernel, initial ramdisk and root image of a 64-bit ARM machine, below `build/arm/vm`.

`python -m qemu.image` makes them, or says in one line why it cannot. Decided here: the kernel is Debian's for clouds,
the root is the aarch64 userland (`userland`), read-only and the same for every board, and Python is init (`init.py`): a
whole init system would take minutes under emulation. What differs between boards, the agent's code among it, lies on a
small disk of their own, which `edgeflock vm` makes and which is mounted at /own.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from qemu.packages import Apt, Missing, field, own_architecture, unpack
from qemu.userland import BUILD, userland

VM = BUILD / "vm"
SYSTEM = "qemu-system-aarch64"
# In the order in which they need each other; the rest of what a board needs is built in.
_MODULES = ("virtio_ring", "virtio", "virtio_mmio", "virtio_blk", "failover", "net_failover", "virtio_net")
_RAMDISK_INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do /bin/busybox insmod /$module.ko; done
/bin/busybox ifconfig lo 127.0.0.1 up
/bin/busybox ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
/bin/busybox route add default gw 10.0.2.2
/bin/busybox mount -t sysfs sys /sys
for disk in vda vdb; do
    case $(/bin/busybox cat /sys/block/$disk/serial) in
        root) /bin/busybox mount -t ext4 -o ro /dev/$disk /root ;;
        own) own=/dev/$disk ;;
    esac
done
/bin/busybox mount -t ext4 $own /root/own
/bin/busybox mount -t proc proc /root/proc
/bin/busybox mount --move /sys /root/sys
/bin/busybox mount -t tmpfs tmp /root/tmp
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /usr/bin/python3 /own/init.py
"""


def image() -> Path:
    """The folder with `kernel`, `initrd` and `root.img`, which are made first where they are missing.

    Raises:
        Missing: this machine cannot make them.
    """
    userland("aarch64")
    made_of = hashlib.sha256(
        b"".join(path.read_bytes() for path in (Path(__file__), Path(__file__).with_name("packages.py")))
        + (BUILD / "aarch64/.made").read_bytes()
    ).hexdigest()
    stamp = VM / ".made"
    if stamp.is_file() and stamp.read_text() == made_of:
        return VM
    if shutil.which("mke2fs", path=_PATH) is None:
        raise Missing("no mke2fs on this machine; install e2fsprogs")
    shutil.rmtree(VM, ignore_errors=True)
    VM.mkdir(parents=True)
    _kernel_and_ramdisk()
    _root_image()
    stamp.write_text(made_of)
    _say("ready")
    return VM


_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


def system_qemu() -> tuple[Path, dict[str, str]]:
    """QEMU's full-system command, and the environment that it needs: this machine's, else one from the packages.

    Raises:
        Missing: there is none.
    """
    installed = shutil.which(SYSTEM)
    if installed:
        return Path(installed), {}
    host = BUILD / "host"
    command = host / "usr/bin" / SYSTEM
    if not command.exists():
        _say(f"{SYSTEM} and its libraries (15 MB)")
        apt = Apt(BUILD / "apt-host", own_architecture(), over_installed=True, backports=True)
        unpack(apt.fetch("qemu-system-arm"), host)
    libraries = ":".join(sorted({str(path.parent) for path in (host / "usr/lib").glob("*/lib*.so.*")}))
    environment = {"LD_LIBRARY_PATH": libraries}
    found = subprocess.run([command, "--version"], env=os.environ | environment, capture_output=True, text=True)
    if found.returncode != 0:
        raise Missing(f"{SYSTEM} does not start: {found.stderr.strip()}")
    return command, environment


def _kernel_and_ramdisk() -> None:
    _say("kernel and busybox (22 MB)")
    apt = Apt(BUILD / "apt-arm64", "arm64")
    (meta,) = apt.fetch("linux-image-cloud-arm64", alone=True)
    unpacked = VM / "kernel-package"
    unpack(apt.fetch(field(meta, "Depends").split()[0], "busybox-static", alone=True), unpacked)
    (kernel,) = (unpacked / "boot").glob("vmlinuz-*")
    shutil.copy(kernel, VM / "kernel")
    modules = {path.stem: path.read_bytes() for path in unpacked.rglob("*.ko") if path.stem in _MODULES}
    script = _RAMDISK_INIT.format(modules=" ".join(name for name in _MODULES if name in modules))
    files = {"init": script.encode(), "bin/busybox": (unpacked / "bin/busybox").read_bytes()}
    files |= {f"{name}.ko": data for name, data in modules.items()}
    (VM / "initrd").write_bytes(gzip.compress(_cpio(("bin", "dev", "sys", "root"), files), 6))
    shutil.rmtree(unpacked)


def _root_image() -> None:
    _say("root image")
    tree = VM / "tree"
    left_out = shutil.ignore_patterns("doc", "locale", "man", "lintian", "__pycache__", "board-python", ".made")
    shutil.copytree(BUILD / "aarch64", tree, symlinks=True, ignore=left_out)
    for mounted in ("dev", "proc", "sys", "tmp", "own"):
        (tree / mounted).mkdir(exist_ok=True)
    (python,) = (path for path in (tree / "usr/lib").glob("python3.*") if path.is_dir())
    if python.name == f"python{sys.version_info[0]}.{sys.version_info[1]}":
        # The root is read-only, so nothing that is compiled on the board is kept.
        places = [python, tree / "usr/local/lib" / python.name / "dist-packages"]
        words = [sys.executable, "-m", "compileall", "-q", "-j", "2", "-s", str(tree), "-p", "/", *map(str, places)]
        subprocess.run(words, capture_output=True)  # what does not compile is not imported either
    bytes_needed = sum(path.lstat().st_size for path in tree.rglob("*"))
    make_disk(VM / "root.img", int(bytes_needed * 1.25) + (16 << 20), tree)
    shutil.rmtree(tree)


def make_disk(path: Path, size_bytes: int, content: Path) -> None:
    """Write an ext4 image that holds what is in a folder.

    Raises:
        Missing: mke2fs is missing or refuses.
    """
    words = ["mke2fs", "-q", "-F", "-t", "ext4", "-E", "root_owner=0:0", "-d", str(content), str(path)]
    try:
        done = subprocess.run(
            [*words, f"{size_bytes >> 10}k"], capture_output=True, text=True, env=os.environ | {"PATH": _PATH}
        )
    except OSError:
        raise Missing("no mke2fs on this machine; install e2fsprogs") from None
    if done.returncode != 0:
        raise Missing(f"mke2fs: {done.stderr.strip()}")


def _cpio(folders: tuple[str, ...], files: dict[str, bytes]) -> bytes:
    """A `newc` archive (kernel: Documentation/driver-api/early-userspace/buffer-format.rst), every file executable."""
    entries = [(name, 0o040755, b"") for name in folders] + [(name, 0o100755, data) for name, data in files.items()]
    archive = bytearray()
    for number, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        archive += bytes(-len(archive) % 4)
        archive += data
        archive += bytes(-len(archive) % 4)
    return bytes(archive)


def _say(line: str) -> None:
    print(f"vm: {line}", flush=True)


def main() -> None:
    """Make what is missing."""
    try:
        system_qemu()
        image()
    except Missing as error:
        sys.exit(f"vm: not possible here: {error}")


if __name__ == "__main__":
    main()
