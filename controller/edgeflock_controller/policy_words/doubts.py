"""What to doubt of a policy: numbers that are allowed and that a person hardly meant, each with why in a sentence."""

from __future__ import annotations

from collections.abc import Iterator

from edgeflock_controller.policy_words.durations import duration
from edgeflock_controller.policy_words.least import Least
from edgeflock_controller.policy_words.sentences import window_s
from edgeflock_deploy.judge.verdict import count
from edgeflock_deploy.policy.rules import Metric, Policy, Stage

_USUAL_ALPHA = (0.001, 0.05)
_LIGHT = 0.01  # of the weight of all guardrails
_ANSWERS: frozenset[Metric] = frozenset({"accuracy", "agreement"})
_TIMES: frozenset[Metric] = frozenset({"latency_ms_p50", "latency_ms_p95", "service_ms_p50", "service_ms_p95"})
_SERVICE: frozenset[Metric] = frozenset({"service_ms_p50", "service_ms_p95"})


def doubts(policy: Policy, least: Least) -> list[str]:
    """The sentences, the graver ones first; none for a policy that is as such policies are."""
    if not policy.guardrail:
        return ["nothing is judged: any candidate that warms up well is committed everywhere", *_stages(policy, least)]
    found = [*_passing(policy, least), *_guardrails(policy), *_alpha(policy), *_stages(policy, least)]
    return [*found, *_dying(policy), *_hours(policy)]


def _passing(policy: Policy, least: Least) -> Iterator[str]:
    if least.to_pass is None:
        yield f"no device can ever pass: {'; '.join(least.lacking)}"
    unheard = [one.metric for one in policy.guardrail if one.metric in _SERVICE and policy.trial.mode != "serving"]
    if unheard:
        yield f"only a trial with mode = 'serving' gives data for {' and '.join(unheard)}"


def _guardrails(policy: Policy) -> Iterator[str]:
    metrics = {one.metric for one in policy.guardrail}
    if not metrics & _ANSWERS:
        yield "no guardrail looks at the answers (accuracy, agreement): a candidate that is fast and wrong passes"
    if "errors" not in metrics:
        yield "no guardrail looks at errors: a candidate that fails on some inputs passes"
    if not metrics & _TIMES:
        yield "no guardrail looks at latency: a candidate that is slower passes"
    energy = next((one for one in policy.guardrail if one.metric == "energy_mj"), None)
    if energy is not None and not energy.where_measured:
        yield "energy_mj without where_measured: a device without a meter can never pass"
    total = sum(one.weight for one in policy.guardrail)
    for one in policy.guardrail:
        if one.weight < _LIGHT * total:
            share = f"{100 * one.weight / total:.1g} % of the weight"
            yield f"{one.metric} has {share}: a FAIL by it needs that much more evidence"


def _alpha(policy: Policy) -> Iterator[str]:
    low, high = _USUAL_ALPHA
    if policy.alpha > high:
        share = f"1 harmless candidate in {1 / policy.alpha:.2g}"
        yield f"alpha {policy.alpha:g} takes back {share} by chance; {high:g} or less is usual"
    if policy.alpha < low:
        wanted = f"evidence {1 / policy.alpha:,.0f}"
        yield f"alpha {policy.alpha:g} asks for {wanted} of every device; {low:g} is strict already"


def _stages(policy: Policy, least: Least) -> Iterator[str]:
    first = policy.stage[0]
    everyone = len(policy.stage) == 1 or (first.percent == 100 and not first.classes)
    if everyone:
        yield "the first stage is the whole fleet: nobody goes ahead, so what is broken is broken everywhere"
    found: dict[str, list[str]] = {}
    for number, stage in enumerate(policy.stage, 1):
        for doubt in _windows_of(policy, stage, least):
            found.setdefault(doubt, []).append(str(number))
    for doubt, numbers in found.items():
        yield f"stage {', '.join(numbers)}: {doubt}"
    for number, (before, stage) in enumerate(zip(policy.stage, policy.stage[1:-1], strict=False), 2):
        if _shrinks(before, stage):
            yield f"stage {number} is no larger than the one before it; a stage counts all that have the candidate"
    last = policy.stage[-1]
    if last.percent != 100:
        yield f"the last stage means all devices, although it says {_says(last)}"


def _windows_of(policy: Policy, stage: Stage, least: Least) -> Iterator[str]:
    if stage.min_windows > stage.max_windows:
        yield f"min_windows {stage.min_windows} is above max_windows {stage.max_windows}: no device can pass"
    elif least.to_pass is not None and policy.guardrail and least.to_pass > stage.max_windows:
        wanted = count(least.to_pass, "window")
        yield f"max_windows {stage.max_windows} is too few: even a perfect copy needs {wanted}, so no device can pass"
    needs_s = max(least.to_pass or 0, stage.min_windows) * window_s(policy)
    if policy.guardrail and stage.deadline_s < needs_s:
        yield (
            f"deadline_s gives a device {duration(stage.deadline_s)}, and its windows may take {duration(needs_s)} "
            "where each lasts its longest"
        )
    if policy.guardrail and policy.trial.deadline_s < stage.deadline_s:
        yield (
            f"a device drops the candidate by itself after {duration(policy.trial.deadline_s)} (trial), before its "
            f"{duration(stage.deadline_s)} here are over"
        )


def _shrinks(before: Stage, stage: Stage) -> bool:
    if before.classes or stage.classes:
        return False
    if before.devices is not None and stage.devices is not None:
        return stage.devices <= before.devices
    return before.percent is not None and stage.percent is not None and stage.percent <= before.percent


def _says(stage: Stage) -> str:
    return count(stage.devices, "device") if stage.devices is not None else f"{stage.percent:g} %"


def _dying(policy: Policy) -> Iterator[str]:
    if not any(halt.when == "offline" for halt in policy.halt):
        yield (
            "no [[halt]] counts devices that are offline: where most of a fleet has the candidate, no peer shows what "
            "is usual, and one that kills boards goes on to the last of them"
        )


def _hours(policy: Policy) -> Iterator[str]:
    per_minute = policy.rate.devices_per_minute
    if per_minute is not None and 1000 / per_minute > 60 * 24 * 7:
        yield f"{per_minute:g} devices a minute: 1,000 devices take {duration(60 * 1000 / per_minute)}"
    shortest_s = min((window.lasts_s for window in policy.window), default=None)
    if shortest_s is not None and shortest_s < window_s(policy):
        yield f"a maintenance window of {duration(shortest_s)} is shorter than one window of a trial"
