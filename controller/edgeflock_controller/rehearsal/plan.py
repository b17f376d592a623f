"""A plan: what a rollout would do, what its canary can see, what is risked, and what is missing. Pure.

Put together here from `layout` (who, bytes, how long), `power` (what is detected) and `gaps`. The same subject, policy
and seed give the same plan.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from edgeflock_controller.rehearsal.gaps import gaps
from edgeflock_controller.rehearsal.layout import Layout, lay_out
from edgeflock_controller.rehearsal.measuring import ClassMeasuring, measuring
from edgeflock_controller.rehearsal.plot import Plot, open_rollout
from edgeflock_controller.rehearsal.power import Detected, detects, seeds_for
from edgeflock_controller.rehearsal.regression import HARMLESS, REHEARSED, Regression
from edgeflock_controller.rehearsal.subject import Subject, sources_in_words
from edgeflock_deploy.policy.rules import Policy

Json = dict[str, Any]
SEED = 0


class Plan(NamedTuple):
    """All that is told. `detects` has one entry for each guardrail that can be rehearsed, in the policy's order.

    `measuring`: by class what boards would first measure, where each class is to get its own variant.
    """

    layout: Layout
    measuring: dict[str, ClassMeasuring]
    detects: tuple[Detected, ...]
    not_rehearsed: tuple[str, ...]
    missing: tuple[str, ...]
    sources: tuple[str, ...]


def make_plan(
    subject: Subject,
    policy: Policy,
    selector: str,
    start_at: float | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Make the plan of a deployment that is ordered now; `tell` hears what is being rehearsed."""
    plot = plot_of(subject, policy, selector, start_at)
    tell("who and how long")
    layout = lay_out(plot, subject.manifests, subject.holds, SEED)
    seen = [guardrail for guardrail in policy.guardrail if guardrail.metric in REHEARSED]
    found = []
    if layout.stages and layout.stages[0].devices:
        opening, seeds = open_rollout(plot), seeds_for(len(layout.stages[0].devices))
        for guardrail in seen:
            tell(f"{guardrail.metric} worse")
            found.append(detects(plot, guardrail, seeds, opening))
    return Plan(
        layout,
        measuring(subject.ahead, subject.manifests, subject.boards, subject.holds, subject.runs),
        tuple(found),
        tuple(guardrail.metric for guardrail in policy.guardrail if guardrail not in seen),
        tuple(gaps(subject, policy, layout)),
        tuple(sources_in_words(subject.boards)),
    )


def plot_of(
    subject: Subject, policy: Policy, selector: str, start_at: float | None = None, regression: Regression = HARMLESS
) -> Plot:
    """What to rehearse of a deployment that is ordered now and begins at `start_at`, in seconds since 1970."""
    wire_bytes = max((subject.manifests[one.digest].wire_bytes for one in subject.brought.values()), default=0)
    return Plot(
        subject.candidate, subject.boards, policy, selector, subject.at, regression, start_at, bundle_bytes=wire_bytes
    )


def plan_json(plan: Plan, subject: Subject, policy: Policy, selector: str) -> Json:
    """The plan as JSON, sizes in bytes, times in seconds, shares between 0 and 1."""
    layout = plan.layout
    return {
        "model": subject.candidate.model,
        "version": subject.candidate.version,
        "variant": subject.candidate.variant,
        "digest": subject.candidate.digest,
        "choice": None if subject.candidate.choice is None else subject.candidate.choice.model_dump(mode="json"),
        "measuring": {name: one._asdict() for name, one in plan.measuring.items()},
        "selector": selector,
        "policy": policy.name,
        "devices": len(subject.boards),
        "devices_online": sum(board.online for board in subject.boards),
        "devices_current": len(layout.current),
        "devices_asleep": len(layout.asleep),
        "devices_held": len(layout.held),
        "stages": [stage._asdict() for stage in layout.stages],
        "sites": layout.sites,
        "wire_bytes": sum(site["wire_bytes"] for site in layout.sites.values()),
        "duration_s": layout.duration_s,
        "endings": layout.endings,
        "detects": [found._asdict() for found in plan.detects],
        "not_rehearsed": plan.not_rehearsed,
        "missing": plan.missing,
        "sources": plan.sources,
    }
