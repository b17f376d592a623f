"""The judge: is the candidate worse than the incumbent, as the devices themselves measured it?

Decided here: when a fleet FAILs, whom the judge suspects instead, when a device PASSes, when drift brakes. What a
window says of a metric stands in `observations`, the arithmetic in `betting`, the words in `sentences`.
Not known here: stages, who is in trial, time, networks, disks. Pure: the same windows in the same order give the same
verdict bit for bit, and a window heard twice counts once.

The unit of evidence is one window of one device: both variants on the same inputs, interleaved, so that a slow or hot
board disturbs both alike. On each metric of a window two bets are placed: `harm`, that the effect is above
`fail_margin`, and `harmless`, that it is below `pass_margin`.

FAIL needs two things. All devices together: half product, half mean over devices, weighted mean over guardrails,
against 1/alpha with alpha split evenly over the stages. And all but the strongest of them: the same evidence, with that
one device taken out, against the square root of it, unless the stage has only one device. The second condition can only
take FAILs away, so the first one's promise (a harmless candidate is taken back with probability alpha at most, however
often one looks) stands as it is. It is there because one board may lie or be broken: what such a board says cannot take
a fleet back, unless the others say it too. Such a board is the `suspect`, and the rollout sets it aside.

PASS: per device, every guardrail alone against 1/alpha (all must hold, so nothing is split). In a rollout of more than
`PER_DEVICE` devices the evidence of its class will do as well, if the device itself leans to harmlessness and nobody of
the class has strong evidence of harm. The class must show that fewer than `SUFFERING` of its devices are beyond the
margin: of its n devices heard so far, the product of the r = max(1, floor(.1 n)) smallest wealths on harmlessness must
reach 1/alpha. Were r of them beyond the margin, that product would be at most the product of all those that are (each
of the others has at least what the richest of the r has, and that is above 1 when the product is), which is one
non-negative supermartingale from the start, whoever joins when. So a wrong PASS of a class has probability alpha at
most, at any time (a partial conjunction, Benjamini and Heller 2008, of e-values).

Memory is compared and not bet on (`exact`). A metric without data stakes nothing: it cannot FAIL, and above all it
cannot PASS, unless the policy asks for it only `where_measured`.

A device with the candidate that falls silent says something too, though it gives no window: `silence`.

A window that is not paired compares other inputs, or another hour: of it, only what is read of the candidate alone
counts. The rest is kept beside the evidence and said in the sentence, for people: an alert, on which nothing is staked.

A device that says it is emulated is not judged by its latency or energy: software translates its processor, so its
times are its host's. They are shown, nothing is staked on them, and its other guardrails decide.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

from edgeflock_deploy.judge import betting, sentences, weighing
from edgeflock_deploy.judge.book import book_of
from edgeflock_deploy.judge.drift import drifted
from edgeflock_deploy.judge.evidence import Change, DeviceEvidence, Evidence
from edgeflock_deploy.judge.exact import beyond_margin
from edgeflock_deploy.judge.observations import EXACT, NEED_NO_PAIRS, Bet, observations, pass_at
from edgeflock_deploy.judge.pooled import ClassPooled, MetricEvidence, harmless_bin
from edgeflock_deploy.messages.windows import Window
from edgeflock_deploy.policy.rules import Policy

PER_DEVICE = 20
"""Up to so many devices in a rollout each one PASSes by its own evidence alone."""
SUFFERING = 0.10
"""The share of a class that its PASS rules out to suffer."""


class Finding(NamedTuple):
    """What the evidence of a fleet says: why it FAILs, or else which device alone shows a regression, and why.

    `oversized`: the one device whose memory is beyond the margin, and why it is set aside; besides a suspect, if any.
    """

    failure: str | None = None
    suspect: str | None = None
    suspicion: str | None = None
    oversized: tuple[str, str] | None = None


def fail_needs(policy: Policy) -> float:
    """The evidence at which a fleet FAILs: 1/alpha, alpha split evenly over the stages."""
    return len(policy.stage) / policy.alpha


def rest_needs(policy: Policy) -> float:
    """The evidence that a fleet without its strongest device must show for a FAIL."""
    return math.sqrt(fail_needs(policy))


def pass_needs(policy: Policy) -> float:
    """The evidence that each guardrail of a device, or of its class, needs for a PASS."""
    return 1 / policy.alpha


def observe(evidence: Evidence, window: Window, policy: Policy) -> Evidence:
    """Take in one window; the same object comes back if it was heard before.

    What an unpaired window says becomes an alert, but for what is read of the candidate alone. Metrics without a
    guardrail are kept too, to be shown; nothing is staked on them.
    """
    device = evidence.of(window.device)
    if device.has_seen(window.boot_id, window.number):
        return evidence
    book, paired = book_of(policy), window.paired
    bets = book.emulated_bets if device.emulated or window.conditions.emulated else book.bets
    found, leaning = observations(window), device.leaning
    if paired and "drift" in bets:
        z, leaning = drifted(leaning, window.old.outcomes, window.new.outcomes)
        if z is not None:
            found["drift"] = z
    metrics, shown, alerts, changes = {**device.metrics}, {**device.shown}, {**device.alerts}, list[Change]()
    for metric, z in found.items():
        if not (paired or metric in NEED_NO_PAIRS):
            alerts[metric] = _noted(alerts.get(metric), z)
        elif (bet := bets.get(metric)) is None:
            shown[metric] = _noted(shown.get(metric), z)
        else:
            before = metrics.get(metric)
            # Hardly any window has an error or a crash: what devices show of these is the same, window for window.
            metrics[metric] = after = _staked_before(before, z, bet) if z == 0 else staked(before, z, bet)
            changes.append((metric, before, after))
    own = device.counting(window, metrics, shown, alerts, leaning)
    return evidence.with_changes(window.device, device, own, changes)


def found(evidence: Evidence, policy: Policy, devices: int, in_stage: int) -> Finding:
    """Look at a fleet.

    Args:
        evidence: all that was heard.
        policy: the rules.
        devices: how many the rollout has, heard or not.
        in_stage: how many have been given the candidate, the ones that are still to come in this stage left out.
    """
    must_show, book = min(2, in_stage), book_of(policy)
    memory = beyond_margin(evidence, book.exact, must_show)
    if memory.failure is not None:
        return Finding(memory.failure)
    finding = _bet_on(evidence, policy, devices, must_show)
    return finding if memory.alone is None else finding._replace(oversized=memory.alone)


def _bet_on(evidence: Evidence, policy: Policy, devices: int, must_show: int) -> Finding:
    book, silence = book_of(policy), evidence.silence.log_wealth
    bets = book.fails
    if not bets or weighing.at_most(evidence.fleet, silence, book.fail_metrics, devices) < math.log(fail_needs(policy)):
        return _NOTHING
    total, worst = weighing.weighed(evidence.fleet, silence, bets, devices)
    if total < math.log(fail_needs(policy)):
        return Finding()
    numbers = f"evidence {betting.shown(total):,.0f} of {fail_needs(policy):,.0f} needed"
    if must_show > 1:
        strongest, rest = weighing.rest(evidence, bets, devices, math.log(rest_needs(policy)))
        said = f"{numbers}, {_few(betting.shown(rest), 2)} of {_few(rest_needs(policy), 2)} needed without {strongest}"
        if rest < math.log(rest_needs(policy)):
            if rest > 0:  # the others begin to say it too: wait for them
                return Finding()
            return Finding(None, strongest, sentences.suspected(evidence, worst, strongest, said))
        numbers = said
    if worst.metric == "silence":
        return Finding(sentences.fell_silent(evidence, numbers))
    blamed = sentences.beyond(evidence, worst) or list(evidence.devices)
    return Finding(sentences.failed(evidence, worst, blamed, numbers))


def failure(evidence: Evidence, policy: Policy, devices: int, in_stage: int | None = None) -> str | None:
    """Say why the fleet FAILs, with the numbers; None if it does not. `in_stage` None: all devices."""
    return found(evidence, policy, devices, devices if in_stage is None else in_stage).failure


def braked(evidence: Evidence, policy: Policy, devices: int) -> str | None:
    """Say why the rollout must be held for a person to look, once; None if it need not."""
    for guardrail in book_of(policy).brakes:
        if guardrail.metric in evidence.fleet and not evidence.braked:
            if weighing.at_most(evidence.fleet, 0.0, (guardrail.metric,), devices) < math.log(fail_needs(policy)):
                continue
            total, _ = weighing.weighed(evidence.fleet, 0.0, (guardrail,), devices)
            if total >= math.log(fail_needs(policy)):
                numbers = f"evidence {betting.shown(total):,.0f} of {fail_needs(policy):,.0f} needed"
                blamed = sentences.beyond(evidence, guardrail) or list(evidence.devices)
                return sentences.held(evidence, guardrail, blamed, numbers)
    return None


def fleet_evidence(evidence: Evidence, policy: Policy, devices: int, without: str | None = None) -> float:
    """Log of the evidence that a FAIL is decided by; `without` a device, or with all of them."""
    bets = book_of(policy).fails
    return (
        weighing.without(evidence, bets, devices, without)
        if without
        else weighing.weighed(evidence.fleet, evidence.silence.log_wealth, bets, devices)[0]
    )


def passes(evidence: Evidence, device: str, policy: Policy, min_windows: int, devices: int = 1) -> bool:
    """Whether every guardrail shows that the candidate is harmless on this device; `devices`: as for `found`."""
    own = evidence.of(device)
    return own.windows - own.unpaired >= min_windows and first_missing(evidence, device, policy, devices) is None


def missing(evidence: Evidence, device: str, policy: Policy, devices: int = 1) -> tuple[str, ...]:
    """What still stands between this device and its PASS, one phrase per guardrail."""
    return tuple(_missing(evidence, evidence.of(device), policy, devices))


def first_missing(evidence: Evidence, device: str, policy: Policy, devices: int = 1) -> str | None:
    """The first of what is `missing`; the others are not looked at."""
    return next(_missing(evidence, evidence.of(device), policy, devices), None)


def _missing(evidence: Evidence, own: DeviceEvidence, policy: Policy, devices: int) -> Iterator[str]:
    need, book = math.log(pass_needs(policy)), book_of(policy)
    of_class, heard = evidence.classes.get(own.device_class, {}), evidence.heard.get(own.device_class, 0)
    for guardrail in book.emulated_passes if own.emulated else book.passes:
        name = guardrail.metric
        metric = own.metrics.get(name)
        if metric is None:
            if not guardrail.where_measured:
                yield f"no data for {name}"
        elif name == EXACT:
            if metric.worst > pass_at(guardrail):
                yield sentences.effect_of(EXACT, metric)
        elif metric.harmless_log < need:
            together = _of_class(of_class.get(name), metric, heard, need) if devices > PER_DEVICE else None
            if together is None or together < need:
                said = f"{_few(betting.shown(metric.harmless_log), 3)} of {pass_needs(policy):,.0f} needed"
                also = f", its class {'none' if together is None else _few(betting.shown(together), 3)}"
                yield f"{name} has evidence {said}{also if devices > PER_DEVICE else ''}"


def _few(number: float, digits: int) -> str:
    """A number with so many digits, or whole."""
    return f"{number:,.0f}" if number >= 10**digits else f"{number:.{digits}g}"


def _of_class(pooled: ClassPooled | None, metric: MetricEvidence, heard: int, need: float) -> float | None:
    """Log of the class's evidence that few of it suffer; None: this device, or one of its class, speaks against it.

    Exact where it is below what a PASS needs.
    """
    if pooled is None or pooled.strong or metric.harmless_log <= metric.harm_log:
        return None
    return pooled.of_the_least(max(1, math.floor(heard * SUFFERING)), heard, need)


def _noted(before: MetricEvidence | None, z: float) -> MetricEvidence:
    """An observation on which nothing is staked."""
    if before is None:
        return MetricEvidence(1, z, z)
    worst = before.worst
    return MetricEvidence(before.windows + 1, before.total + z, z if z > worst else worst)


def staked(before: MetricEvidence | None, z: float, bet: Bet) -> MetricEvidence:
    """A device's evidence of a metric with one more observation z, and with what is staked on it."""
    windows, total, worst, harm, harmless, _, least, _, _, harmless_log = before or _FRESH
    if before is None or z > worst:
        worst = z
    if bet.metric == EXACT:
        return MetricEvidence(windows + 1, total + z, worst, beyond=worst > bet.fail_at)
    harm, harm_log = betting.staked(harm, bet.harm(z))
    if bet.asks_pass:
        harmless, harmless_log = betting.staked(harmless, bet.harmless(z))
        least = harmless_bin(harmless_log)
    purse = betting.purse(harm_log)
    return _new(
        MetricEvidence, (windows + 1, total + z, worst, harm, harmless, purse, least, False, harm_log, harmless_log)
    )


_staked_before = functools.lru_cache(maxsize=4096)(staked)
_FRESH, _NOTHING = MetricEvidence(), Finding()
_new = tuple.__new__
