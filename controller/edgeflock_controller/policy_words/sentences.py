"""What a policy says, in sentences an operator can check against what was meant: one passage for each of its parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from edgeflock_controller.policy_words.durations import duration
from edgeflock_controller.policy_words.least import Least
from edgeflock_deploy.judge.judge import fail_needs, pass_needs, rest_needs
from edgeflock_deploy.judge.verdict import count
from edgeflock_deploy.policy.limits import DAYS, Halt, MaintenanceWindow
from edgeflock_deploy.policy.rules import BRAKES, Guardrail, Metric, Policy, Stage

_TROUBLE = {
    "offline": "are offline",
    "set_aside": "were set aside for trouble of their own",
    "failed": "ended in a failure or a refusal",
    "silent": "let a deadline pass without a word",
}


class Passage(NamedTuple):
    """What is said about one part of a policy."""

    about: str
    text: str


def passages(policy: Policy, least: Least) -> list[Passage]:
    """A policy in words, in the order in which its parts matter to a rollout."""
    said = [Passage("policy", _whole(policy)), Passage("evidence", " ".join(_evidence(policy, least)))]
    said += [Passage("trial", _trial(policy))]
    last = len(policy.stage)
    said += [Passage(f"stage {n} of {last}", " ".join(_stage(one, n == last))) for n, one in enumerate(policy.stage, 1)]
    said += [Passage(f"guardrail {one.metric}", _guardrail(one, least)) for one in policy.guardrail]
    said += limits(policy)
    said += [Passage("halt rule", _halt(one)) for one in policy.halt]
    joins = "takes part in the last stage" if policy.join else "is left out"
    return [*said, Passage("joining", f"A device that turns up meanwhile, and that the selector means, {joins}.")]


def limits(policy: Policy) -> list[Passage]:
    """When and how fast devices are asked; nothing if at any hour and as fast as the stages allow."""
    windows = [Passage("window", _window(one)) for one in policy.window]
    return [*windows, *(Passage("rate", text) for text in _rate(policy))]


def window_s(policy: Policy) -> float:
    """How long a window and the rest after it take at the most, in seconds."""
    return policy.trial.window_max_s + policy.trial.pause_s


def _whole(policy: Policy) -> str:
    judged = f"judged by {count(len(policy.guardrail), 'guardrail')}" if policy.guardrail else "judged by nothing"
    if policy.max_in_trial is None:
        most = "any number of devices may carry two models at the same time"
    else:
        most = f"at most {count(policy.max_in_trial, 'device')} carry two models at the same time"
    return f"{policy.name}: {count(len(policy.stage), 'stage')}, {judged}; {most}."


def _evidence(policy: Policy, least: Least) -> Iterator[str]:
    if not policy.guardrail:
        yield "No guardrail: a device on which it warms up well, with the right golden answers, is committed."
        return
    share = f"1 of {1 / policy.alpha:,.0f} rollouts"
    yield f"alpha {policy.alpha:g}: a candidate within every fail margin is taken back by chance in {share} at most,"
    yield "however often one looks."
    stages = "" if len(policy.stage) == 1 else f" ({len(policy.stage)} stages share alpha)"
    yield f"A FAIL needs evidence {fail_needs(policy):,.0f}{stages}, the PASS of a device {pass_needs(policy):,.0f}"
    yield "for each guardrail, or, beyond 20 devices, of its class."
    rest = f"without the strongest the evidence must still be {rest_needs(policy):.2g}"
    yield f"No device alone takes a fleet back: {rest}."
    if least.to_pass is None:
        yield "No device can pass."
        return
    fewest = count(least.to_pass, "window")
    yield f"A candidate exactly like the incumbent passes on a device after {fewest} at the least,"
    yield f"{duration(least.to_pass * window_s(policy))} if each lasts its longest; where boards scatter it takes more,"
    yield "and a stage may ask for more."


def _trial(policy: Policy) -> str:
    trial = policy.trial
    if trial.mode == "serving":
        how = f"Applications are answered by each variant in turn, in blocks of {trial.block_requests} requests or "
        how += f"{duration(trial.block_s)}."
    else:
        how = (
            f"The incumbent answers; {100 * trial.live_share:g} % of the requests are kept, and run once more by both."
        )
    closes = f"A window closes on {trial.window_pairs} pairs or after {duration(trial.window_max_s)}"
    drops = f"A device that hears no word for {duration(trial.deadline_s)} drops the candidate by itself."
    return f"{how} {closes}, then the board has {duration(trial.pause_s)} for itself. {drops}"


def _stage(stage: Stage, last: bool) -> Iterator[str]:
    begins = "begins when a person has approved it: " if stage.approval else ""
    yield f"{begins}{_size(stage, last)}.".capitalize() if begins else f"{_size(stage, last)}."
    if stage.min_windows > 1:
        yield f"No PASS of a device before {stage.min_windows} windows, however clear."
    yield f"No verdict after {stage.max_windows} windows: it is held for a person to look."
    yield f"A device has {duration(stage.deadline_s)} from its own answer to its verdict; then it is set aside,"
    yield "or, if it sleeps, comes last."
    if stage.stage_deadline_s is not None:
        yield f"The stage as a whole has {duration(stage.stage_deadline_s)}; then it is held for a person to look."
    if stage.bake_s:
        yield f"When all have committed they run it for {duration(stage.bake_s)} before the next stage."
    if stage.min_evaluable is not None:
        yield f"It passes only if {count(stage.min_evaluable, 'device')} gave evidence."
    if stage.min_evaluable_percent is not None:
        yield f"It passes only if {stage.min_evaluable_percent:g} % of its devices gave evidence."


def _size(stage: Stage, last: bool) -> str:
    if last:
        return "All devices that the selector means"
    of = f" of class {' or '.join(stage.classes)}" if stage.classes else ""
    if stage.devices is not None:
        return f"{count(stage.devices, 'device')}{of}"
    if stage.percent is not None and stage.percent < 100:
        return f"{stage.percent:g} % of the devices{of}, the stages before included"
    return f"All devices{of}"


def _guardrail(guardrail: Guardrail, least: Least) -> str:
    metric, good, fewest = guardrail.metric, guardrail.pass_margin, least.to_fail[guardrail.metric]
    said = f"{_beyond(metric, guardrail.fail_margin)}"
    if metric in BRAKES:
        held = "never" if fewest is None else f"after {count(fewest, 'window')} at the least"
        return f"{said} holds the rollout once, for a person to look ({held} on one device); it takes nothing back."
    if good is None:
        said += " is a regression; no PASS is asked of it."
    else:
        said += f" is a regression; shown to be below {_amount(metric, good)} is good enough."
    if metric == "silence":
        said += " Two devices must fall silent for a FAIL, whatever the windows say."
    elif fewest is None:
        said += " It never fails a rollout."
    else:
        said += f" On one device, even the worst there is fails after {count(fewest, 'window')} at the least."
    if guardrail.where_measured:
        said += " A device that cannot measure it needs no PASS of it."
    return said if guardrail.weight == 1 else f"{said} Its weight among the guardrails is {guardrail.weight:g}."


def _beyond(metric: Metric, margin: float) -> str:
    """What is beyond a fail margin, as the subject of a sentence."""
    much = _amount(metric, margin)
    words: dict[Metric, str] = {
        "accuracy": f"A drop of more than {much}",
        "agreement": f"More than {much} of the answers differing",
        "errors": f"More than {much} of the inferences failing, beyond the incumbent's",
        "crashes": f"A restart of its process in more than {much} of the windows",
        "silence": f"Falling silent more than {1 + margin:g} times as often as devices without the candidate",
        "drift": f"A mix of answers that is more than {much} away from the incumbent's",
        "peak_rss_bytes": f"More than {much} more memory",
        "energy_mj": f"More than {much} more energy",
    }
    return words.get(metric, f"More than {much} slower")


def _amount(metric: Metric, margin: float) -> str:
    hundredths = f"{100 * margin:g}"
    if metric != "accuracy":
        return f"{hundredths} %"
    return f"{hundredths} point" if hundredths == "1" else f"{hundredths} points"


def _window(window: MaintenanceWindow) -> str:
    days = "every day" if window.days == DAYS else ", ".join(window.days)
    ends = "" if window.ends > window.begins else " of the next day"
    hours = f"from {window.begins} to {window.ends}{ends}"
    return f"Devices are asked only {hours}, {days}, by their own local time."


def _rate(policy: Policy) -> Iterator[str]:
    per_minute, at_a_site = policy.rate.devices_per_minute, policy.rate.site_bytes_per_s
    if per_minute is not None:
        whole = duration(60 * 1000 / per_minute)
        yield f"{per_minute:g} devices a minute are asked at most: 1,000 devices take {whole} at the least."
    if at_a_site is not None:
        yield f"The devices of a site (tag site) are asked no faster than {at_a_site / 1e6:g} MB/s brings the bundle."


def _halt(halt: Halt) -> str:
    levels = [count(halt.devices, "device")] if halt.devices is not None else []
    levels += [f"{halt.percent:g} %"] if halt.percent is not None else []
    return f"Pauses when {' and '.join(levels)} of the devices that were asked {_TROUBLE[halt.when]}."
