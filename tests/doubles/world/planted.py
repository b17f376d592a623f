"""The mistakes that are planted into the product, and the worlds that show them, without which a zero means nothing.

FOUND_BY has the seeds; `benchmarks/results/simulation/planted.md` says what they showed.
"""

from __future__ import annotations

from world.board_mistakes import BOARD_MISTAKES
from world.headquarters_mistakes import HEADQUARTERS_MISTAKES
from world.planting import Mistake

MISTAKES: tuple[Mistake, ...] = (*BOARD_MISTAKES, *HEADQUARTERS_MISTAKES)

FOUND_BY: dict[str, int] = {
    "a file is not synced before it gets its name": 0,
    "a folder is not synced after a rename": 18,
    "orders that are not newer are followed": 1,
    "hashes are not looked at again before a load": 6,
    "a candidate that warmed up serves without its trial": 0,
    "the clock of the day in place of the monotonic one": 0,
    "the record is written after the report": 147,
    "the controller's signature is not checked": 280,
    "a crashed process is not noticed": 0,
    "a delta is chosen without a look at its base": 0,
    "what a delta decodes to is believed": 25,
    "a base that is damaged while it is read is the bundle's fault": 24,
    "a chain begins anew when its manifest comes": 13,
    "what was declared of a form is held against nothing": 17,
    "the first form that does not fit ends the chain": 15,
    "kept inputs take what room they like": 7,
    "kept inputs take the last of the room": 8,
    "the first piece of kept inputs is taken for all of them": 8,
    "a window counts twice": 1,
    "a PASS of the fleet is a PASS of each device": 4,
    "memory guards nothing": 0,
    "missing data is a PASS": 79,
    "a device is told to commit before its evidence is in": 0,
    "INCONCLUSIVE commits": 79,
    "a stage is one device too large": 9,
    "the bound of devices in trial is forgotten": 4,
    "devices are sent back to the candidate": 0,
    "a change of class keeps the evidence": 169,
    "a rollout that failed takes nobody back": 0,
    "what has rolled back goes on": 0,
    "a new word has the generation of the one before": 0,
    "words are sent before they are stored": 90,
    "words that were stored and not sent are forgotten in a crash": 113,
    "a broker that forgot is not filled again": 18,
    "the last orders are given once more after a crash": 45,
    "reports of an earlier boot are not told apart": 4,
    "a service does not see that its store was taken over": 45,
    "a device that has not heard is not told again": 9,
    "maintenance windows are read in UTC": 2,
    "a stage begins without its approval": 221,
    "who turns up late need not be meant": 0,
    "a new tag brings a board into an older rollout": 129,
    "a class gets what was chosen for another one": 356,
    "one board that a variant does not fit is outvoted": 0,
}
"""The seed of a world that shows a mistake, by the mistake's name."""
