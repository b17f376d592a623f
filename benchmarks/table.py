"""One table of results: printed, and written to `results/NAME.md` with the command that made it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def write(name: str, command: str, header: Sequence[str], rows: Sequence[Sequence[object]], notes: str = "") -> None:
    """Print a Markdown table and write it to `results/NAME.md`.

    Args:
        name: the file's stem, with a folder below `results` where it has one.
        command: what makes this table again.
        header: column titles.
        rows: one sequence of cells per row.
        notes: what a reader must know to trust the numbers.
    """
    lines = [" | ".join(map(str, row)) for row in (header, ["---"] * len(header), *rows)]
    table = "\n".join(f"| {line} |" for line in lines)
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    text = f"`{command}` ({machine})\n\n{table}\n" + (f"\n{notes}\n" if notes else "")
    path = RESULTS / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    sys.stdout.write(f"\n{text}")
