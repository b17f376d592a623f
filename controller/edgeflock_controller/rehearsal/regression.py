"""A regression to rehearse: what a candidate does worse, by how much, and on which devices.

Written `METRIC +AMOUNT [on WHOM]`: `latency +25%`, `latency_ms_p95 +40% on 20%`, `accuracy -2pt on class=rpi4`,
`errors +1%`, `crashes +5%` (of its windows see its process started anew), `peak_rss_bytes +30%`, or `crash on id=pi-7`
(it stops hard). `latency` means every latency. Without a regression a candidate is harmless. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from edgeflock_controller.rehearsal.board import Board
from edgeflock_deploy.errors import BadInput

LATENCIES = ("latency_ms_p50", "latency_ms_p95", "service_ms_p50", "service_ms_p95")
SHARES = ("accuracy", "agreement", "errors", "crashes")
_LOGS = (*LATENCIES, "energy_mj")
_RELATIVE = (*_LOGS, "peak_rss_bytes")
REHEARSED = (*_RELATIVE, *SHARES)
"""The metrics that a candidate can be made worse in: silence and drift cannot be."""
_CRASH = "crash"
_FORM = re.compile(
    r"(?P<what>[a-z0-9_]+)(\s*(?P<sign>[+-])?\s*(?P<size>\d+(\.\d+)?)\s*(?P<unit>%|pt|points?))?(\s+on\s+(?P<whom>.+))?"
)
_MEND = "write it like 'latency_ms_p95 +25%', 'accuracy -2pt on 20%' or 'crash on class=NAME'"


class Regression(NamedTuple):
    """What is worse: by metric, relative (0.25 is a quarter more) or as a share (0.02 is two points of accuracy less).

    `crash`: the candidate's process dies in the trial. `whom`: `all`, a share such as `20%`, `class=…` or `id=…`.
    """

    text: str
    sizes: Mapping[str, float]
    crash: bool = False
    whom: str = "all"

    def on(self, boards: Sequence[Board], rng: np.random.Generator) -> frozenset[str]:
        """The devices that it strikes; a share is drawn, and is at least one.

        Raises:
            BadInput: it strikes none.
        """
        if self.whom == "all":
            return frozenset(board.device for board in boards)
        if self.whom.endswith("%"):
            n = max(1, round(float(self.whom[:-1]) / 100 * len(boards)))
            drawn = rng.choice(len(boards), n, replace=False)
            return frozenset(boards[int(i)].device for i in drawn)
        key, _, names = self.whom.partition("=")
        wanted = {name.strip() for name in names.split(",")}
        struck = frozenset(b.device for b in boards if (b.device if key == "id" else b.device_class) in wanted)
        if not struck:
            raise BadInput(f"--regression {self.text!r}", f"no device of this rollout is {self.whom}", "see --to")
        return struck

    def effect(self, metric: str) -> float:
        """What it adds to an observation z of a metric (see `judge`), 0 where it does nothing."""
        size = self.sizes.get(metric, 0.0)
        return math.log1p(size) if metric in _LOGS else size


HARMLESS = Regression("harmless", {})


def alone(metric: str, size: float) -> Regression:
    """One metric worse, on every device."""
    return Regression(metric, {metric: size})


def parse_regression(text: str) -> Regression:
    """Read a regression.

    Raises:
        BadInput: it is none, or of something that no guardrail could watch.
    """
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise BadInput(f"--regression {text!r}", "cannot be read", _MEND)
    what, whom = found["what"], _whom(text, found["whom"])
    if what == _CRASH and found["size"] is None:
        return Regression(text, {}, crash=True, whom=whom)
    known = ("latency", *REHEARSED)
    if what not in known:
        raise BadInput(f"--regression {text!r}", f"{what} cannot be rehearsed", f"one of {', '.join((*known, _CRASH))}")
    if found["size"] is None or float(found["size"]) == 0:
        raise BadInput(f"--regression {text!r}", "does not say by how much", _MEND)
    better = "-" if what in (*_RELATIVE, "latency", "errors", "crashes") else "+"
    if what != "agreement" and (found["sign"] or "+") == better:
        raise BadInput(f"--regression {text!r}", "would be an improvement", _MEND)
    size = float(found["size"]) / 100
    if what not in (*_RELATIVE, "latency") and size > 1:
        raise BadInput(f"--regression {text!r}", "is more than all of it", _MEND)
    return Regression(text, dict.fromkeys(LATENCIES if what == "latency" else (what,), size), whom=whom)


def _whom(text: str, words: str | None) -> str:
    whom = "all" if words is None else words.strip()
    share = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", whom)
    if share is not None and 0 < float(share[1]) <= 100:
        return f"{share[1]}%"
    if whom != "all" and not re.fullmatch(r"(id|class)=\S+", whom):
        raise BadInput(f"--regression {text!r}", f"cannot read {whom!r}", "write on 20%, on class=NAME or on id=a,b")
    return whom
