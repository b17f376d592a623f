"""A board, as far as its meters matter: a recorded /sys, and what its commands print.

A recording has one `path = content` a line (below /sys), and is made on a board with
`for f in $(find PLACES -type f -readable); do echo "$f = $(cat $f)"; done`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

BOARDS = Path(__file__).parents[1] / "data" / "boards"


def unpack(name: str, root: Path) -> Path:
    """Write the recorded tree of a board; returns the root, which stands for its /sys."""
    for line in (BOARDS / f"{name}.txt").read_text().splitlines():
        if not line.startswith("#"):
            put(root, **dict([line.split(" = ", 1)]))
    return root


def put(root: Path, **files: str) -> None:
    """Write files below the root, as the kernel shows them: with an end of line."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


def no_commands(command: Sequence[str]) -> str:
    """A board on which no command is installed."""
    raise FileNotFoundError(2, "No such file or directory", command[0])


def printing(*texts: str) -> Callable[[Sequence[str]], str]:
    """A board whose commands print these texts in turn, and the last one ever after."""
    left = list(texts)
    return lambda _command: left.pop(0) if len(left) > 1 else left[0]
