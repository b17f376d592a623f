"""What ships: certified on the test items, written as `compress` writes variants, with the report of the search.

Decided here: that x_test is touched once, after everything else; that a folder which an earlier run wrote and this one
does not ship is removed; and that what goals pick is certified even when there is no time. Not known here: which
candidates those are (`standing`).
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeflock_compression.making import Order
from edgeflock_compression.pipeline import judged_together, work_of
from edgeflock_compression.recipe import recipe_of
from edgeflock_compression.search.evaluation import Watch
from edgeflock_compression.search.goal import Goal
from edgeflock_compression.search.report_html import write_html
from edgeflock_compression.search.reporting import Outcome, report_of
from edgeflock_compression.search.standing import Wanted
from edgeflock_compression.variant import Variant, write_bytes
from edgeflock_deploy.errors import BadInput

REPORT_FILE = "report.json"
PAGE_FILE = "report.html"


def ship(outcome: Outcome, wanted: Wanted, order: Order, watch: Watch) -> dict[str, Any]:
    """Certify what is wanted and write it; the report, which is on disk before that too, should it be cut off.

    Args:
        outcome: of the search, without variants.
        wanted: what to certify.
        order: for these: measured again from the candidates' folder, written to the search's.
        watch: the clock.

    Raises:
        BadInput: the model or the data cannot be used any more.
    """
    out = order.out
    write_report(outcome, out)
    failed = dict(outcome.failed)
    variants = _certified(wanted, order, watch, failed)
    latencies = {one.name: one.latency for one in outcome.candidates}
    for name in latencies.keys() - {variant.name for variant in variants}:  # written by an earlier run, beaten since
        shutil.rmtree(out / name, ignore_errors=True)
    shown = [(variant, latencies[variant.name]) for variant in variants]
    return write_report(replace(outcome, variants=shown, failed=failed, seconds=watch.seconds), out)


def order_to_ship(order: Order, out: Path, goals: Sequence[Goal], candidates_seen: int) -> Order:
    """An order for certifying candidates that another order made.

    The margin is the smallest drop that a goal allows.
    """
    drops = [goal.drop for goal in goals if goal.drop is not None]
    return replace(
        order,
        out=out,
        on="test",
        wire="exact",
        made=order.out,
        margin=min(drops) if drops else None,
        candidates_seen=candidates_seen,
    )


def write_report(outcome: Outcome, out: Path) -> dict[str, Any]:
    """Write `report.json` and `report.html`; the report."""
    report = report_of(outcome)
    write_bytes(out / REPORT_FILE, (json.dumps(report, indent=2) + "\n").encode())
    write_html(report, out / PAGE_FILE)
    return report


def _certified(wanted: Wanted, order: Order, watch: Watch, failed: dict[str, str]) -> list[Variant]:
    recipes = [recipe_of(f"recipe '{one.name}'", one.variant.recipe) for one in (*wanted.picks, *wanted.others)]
    found, told = list[Variant](), 0
    with contextlib.closing(work_of(order, recipes)) as lines:
        for kind, said in lines:
            if kind == "variant":
                found.append(Variant.model_validate(said))
            elif kind == "failed":
                failed[said[0]] = said[1]
            elif kind == "bad_input":
                raise BadInput(*said)
            told += kind in ("variant", "failed")
            watch.tell("certifying", told / len(recipes))
            if told >= len(wanted.picks) and watch.left_s + watch.reserve_s <= 0:
                break
    return judged_together(found, order.out)
