"""Which runs of a board count when variants are held against each other: those that were made under like conditions.

Decided here:
- What an emulated board says of time and energy does not count, nor what was measured while it throttled. Runs while it
  was contended count only where it has no others.
- A board whose frequency governor was changed between two variants is another board to them: the runs count that were
  made under the governor under which it measured most of its variants. A run that does not name one is believed.
- A board's temperature parts no runs: a variant that works the board harder heats it more, and that is its own doing.
Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from edgeflock_deploy.messages.measurements import Measurement
from edgeflock_deploy.messages.reports import Measured


def usual_governors(measured: Iterable[Mapping[str, Measured]]) -> dict[str, str]:
    """The governor under which each board measured most of its variants, by board.

    Args:
        measured: of each variant what boards answered, by board.
    """
    seen: dict[str, Counter[str]] = {}
    for answers in measured:
        for board, answer in answers.items():
            seen.setdefault(board, Counter()).update({_governor(run) for run in answer.runs} - {""})
    return {board: min(counts, key=lambda name: (-counts[name], name)) for board, counts in seen.items() if counts}


def counted(runs: Sequence[Measurement], governor: str | None) -> list[Measurement]:
    """The runs of one variant on a board whose times count; `governor` is the board's usual one."""
    sound = [run for run in runs if run.conditions is None or not (run.conditions.emulated or run.conditions.throttled)]
    alike = [run for run in sound if governor is None or _governor(run) in ("", governor)]
    quiet = [run for run in alike if run.conditions is None or not run.conditions.contended]
    return quiet or alike


def unlike(answers: Mapping[str, Measured], usual: Mapping[str, str]) -> str | None:
    """Why no run of a variant counts on one of its boards: all were made under another governor; else None."""
    for board, answer in sorted(answers.items()):
        others = {_governor(run) for run in answer.runs} - {"", usual.get(board, "")}
        if others and not counted(answer.runs, usual.get(board)) and counted(answer.runs, None):
            return f"{board} measured it under the governor {min(others)}, and others under {usual[board]}"
    return None


def _governor(run: Measurement) -> str:
    return (run.conditions.governor if run.conditions is not None else None) or ""
