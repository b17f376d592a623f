from __future__ import annotations

from pathlib import Path

from qemu import image, packages


def test_both_spellings_of_a_source_are_read(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "# deb http://old.invalid/debian bookworm main\n"
        "deb http://one.invalid/debian bookworm main contrib\n"
        "deb-src http://one.invalid/debian bookworm main\n"
        "deb [ arch=amd64 signed-by=/keys/k.gpg ] http://two.invalid/x stable main\n"
    )
    (tmp_path / "sources.list.d/debian.sources").write_text(
        "Types: deb\n# a remark: with a colon\nURIs: http://three.invalid/debian\n"
        "Suites: trixie trixie-updates\nComponents: main\nSigned-By: /keys/d.gpg\n"
        "\nTypes: deb-src\nURIs: http://four.invalid/debian\nSuites: trixie\nComponents: main\n"
    )
    assert packages._entries(tmp_path) == [
        ("", "http://one.invalid/debian", "bookworm"),
        ("[signed-by=/keys/k.gpg] ", "http://two.invalid/x", "stable"),
        ("[signed-by=/keys/d.gpg] ", "http://three.invalid/debian", "trixie"),
        ("[signed-by=/keys/d.gpg] ", "http://three.invalid/debian", "trixie-updates"),
    ]


def test_the_ramdisk_is_an_archive_that_the_kernel_reads() -> None:
    archive = image._cpio(("dev",), {"init": b"#!/bin/sh\n", "x.ko": b"12345"})
    assert len(archive) % 4 == 0
    names, at = [], 0
    while archive[at : at + 6] == b"070701":
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        size, name_size = fields[6], fields[11]
        names.append((archive[at + 110 : at + 109 + name_size].decode(), oct(fields[1]), size))
        at += -(-(110 + name_size) // 4) * 4 + -(-size // 4) * 4
    assert at == len(archive)
    assert names == [("dev", "0o40755", 0), ("init", "0o100755", 10), ("x.ko", "0o100755", 5), ("TRAILER!!!", "0o0", 0)]
