"""What is missing for a rollout, or makes it longer, said before it begins: a sentence each. Pure.

Nothing here forbids anything. What would be computed wrongly on a device is refused elsewhere (`offers`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from edgeflock_controller.rehearsal.board import Board
from edgeflock_controller.rehearsal.candidate import Candidate
from edgeflock_controller.rehearsal.layout import Layout
from edgeflock_controller.rehearsal.subject import Subject
from edgeflock_controller.rehearsal.unchosen import unchosen
from edgeflock_controller.rehearsal.windows import pairs_in_window
from edgeflock_deploy.judge.verdict import count
from edgeflock_deploy.policy.rules import Policy
from edgeflock_deploy.rollout.calendar import is_open, opens_at, shown

_P95_PAIRS = 130
_NAMED = 3


def gaps(subject: Subject, policy: Policy, layout: Layout) -> list[str]:
    """Everything that an operator should know is missing; empty: nothing is."""
    brought = subject.brought
    if not brought:
        return list(unchosen(subject))
    boards = [board for board in subject.boards if board.device in brought]
    candidates = list({one.digest: one for one in brought.values()}.values())
    return [
        *unchosen(subject),
        *_too_few_online(subject.boards, layout),
        *_no_canary(layout),
        *_nothing_judged(policy),
        *_no_evidence(candidates, boards, policy),
        *_no_meter(boards, policy),
        *_latency(boards, policy),
        *_differs(candidates, policy),
        *_unrecorded(boards),
        *_no_room(subject, brought),
        *_left_out(subject.boards, policy),
        *_overtakes(subject),
        *_waits(policy),
        *_windows(boards, policy, subject.at),
        *_rates(layout, policy, max(subject.manifests[one.digest].wire_bytes for one in candidates)),
    ]


def _too_few_online(boards: Sequence[Board], layout: Layout) -> Iterator[str]:
    online = sum(board.online for board in boards)
    for stage in layout.stages[:-1]:
        if stage.target > online:
            yield f"stage {stage.number} wants {count(stage.target, 'device')}, {online} of {len(boards)} are online"
            return
    if not online:
        yield f"none of {count(len(boards), 'device')} is online: it begins when one wakes"
    elif layout.asleep:
        yield f"{_some(layout.asleep)}: offline; each gets it when it wakes, and the rollout does not wait for it"


def _no_canary(layout: Layout) -> Iterator[str]:
    asks = [stage for stage in layout.stages if stage.devices]
    if not layout.current or layout.stages[0].devices:
        return
    if asks:
        first = f"stage {asks[0].number}, which asks {count(len(asks[0].devices), 'device')}"
        yield f"stage 1 is full of devices that have it already: nobody tries it before {first}"
    elif not layout.asleep:
        yield "whoever can get it has it already: nothing is sent to anybody"


def _nothing_judged(policy: Policy) -> Iterator[str]:
    if not policy.guardrail:
        yield f"policy {policy.name} has no guardrail: whatever warms up well is committed, and no regression is found"


def _no_evidence(candidates: Sequence[Candidate], boards: Sequence[Board], policy: Policy) -> Iterator[str]:
    if not policy.guardrail:
        return
    blind = [one.variant for one in candidates if not one.has_slice]
    if blind:
        yield f"{_some(blind)}: no evaluation slice, so boards have nothing to replay, and accuracy is not known"
    fresh = [board.device for board in boards if board.committed is None]
    if fresh:
        model = candidates[0].model
        yield (
            f"{_some(fresh)}: nothing of {model} is committed there, so there is nothing to compare with; "
            "bring a first version with --policy install"
        )


def _no_meter(boards: Sequence[Board], policy: Policy) -> Iterator[str]:
    rail = next((guardrail for guardrail in policy.guardrail if guardrail.metric == "energy_mj"), None)
    without = [board.device for board in boards if not board.measures_energy]
    if rail is not None and without:
        then = "energy_mj is not judged there" if rail.where_measured else "they cannot pass the guardrail on energy_mj"
        yield f"{_some(without)}: no meter that may judge, so {then}"


def _no_room(subject: Subject, brought: Mapping[str, Candidate]) -> Iterator[str]:
    """Devices whose disk has no room for what they lack of the first form, decoded."""
    tight = []
    for device, candidate in sorted(brought.items()):
        held, blobs = subject.holds.get(device, frozenset()), subject.manifests[candidate.digest].blobs.values()
        free_bytes = subject.free_bytes.get(device)
        if free_bytes is not None and sum(blob.bytes for blob in blobs if blob.sha256 not in held) > free_bytes:
            tight.append(device)
    if tight:
        yield f"{_some(tight)}: less disk free than the bundle takes"


def _latency(boards: Sequence[Board], policy: Policy) -> Iterator[str]:
    metrics = {guardrail.metric for guardrail in policy.guardrail}
    latencies = sorted(metric for metric in metrics if metric.startswith(("latency_ms", "service_ms")))
    if not latencies:
        return
    if policy.trial.mode != "serving" and (served := [m for m in latencies if m.startswith("service_ms")]):
        yield f"{', '.join(served)}: measured in a serving trial alone, and this is a {policy.trial.mode} one"
    emulated = [board.device for board in boards if board.emulated]
    if emulated:
        yield f"{_some(emulated)}: emulated, so {', '.join(latencies)} is not judged there"
    if "latency_ms_p95" in metrics:
        few = [b.device for b in boards if not b.emulated and pairs_in_window(b, policy.trial) < _P95_PAIRS]
        if few:
            yield (
                f"{_some(few)}: a window there has fewer than {_P95_PAIRS} pairs, so latency_ms_p95 has no data; "
                "raise window_max_s (or window_pairs) in the policy's [trial]"
            )


def _differs(candidates: Sequence[Candidate], policy: Policy) -> Iterator[str]:
    rails = [guardrail for guardrail in policy.guardrail if guardrail.metric == "agreement"]
    for candidate, guardrail in itertools.product(candidates, rails):
        if candidate.differs > guardrail.fail_margin:
            yield (
                f"{candidate.variant} answers {100 * candidate.differs:.1f} % of the items otherwise than its parent: "
                f"beyond the guardrail on agreement ({100 * guardrail.fail_margin:g} %)"
            )


def _unrecorded(boards: Sequence[Board]) -> Iterator[str]:
    assumed = [board.device for board in boards if board.windows_from == "assumed"]
    if assumed:
        yield f"{_some(assumed)}: no trial was recorded here or on a like board, so how it scatters is assumed"


def _left_out(boards: Sequence[Board], policy: Policy) -> Iterator[str]:
    frozen = [board.device for board in boards if board.frozen]
    if frozen:
        yield f"{_some(frozen)}: frozen, so nothing new is given there"
    meant = {board.device_class for board in boards}
    for number, stage in enumerate(policy.stage, 1):
        if stage.classes and not meant & set(stage.classes):
            yield f"stage {number} is about class {_some(stage.classes)}, of which no device is meant: it is skipped"


def _overtakes(subject: Subject) -> Iterator[str]:
    for one in subject.overtakes:
        back = f", and {count(one['going_back'], 'device')} not meant here would go back" if one["going_back"] else ""
        yield f"{one['rollout']} is under way ({one['phase']}): it would end{back}"


def _waits(policy: Policy) -> Iterator[str]:
    approved = [str(number) for number, stage in enumerate(policy.stage, 1) if stage.approval]
    if approved:
        yield f"stage {', '.join(approved)} waits for approval; the times here do not count how long a person takes"
    bakes_s = sum(stage.bake_s for stage in policy.stage)
    if bakes_s:
        yield f"stages bake for {bakes_s:g} s in all, which the times here count"


def _windows(boards: Sequence[Board], policy: Policy, at: float) -> Iterator[str]:
    if not policy.window:
        return
    shut = [board for board in boards if not is_open(policy.window, at, board.utc_offset_s)]
    if shut:
        opens = min(opens_at(policy.window, at, board.utc_offset_s) for board in shut)
        yield (
            f"{_some(board.device for board in shut)}: outside the policy's maintenance windows now; the next opens "
            f"at {shown(opens)}"
        )
    unknown = [board.device for board in boards if board.utc_offset_s is None]
    if unknown:
        yield f"{_some(unknown)}: did not say its local time, so maintenance windows there are taken as UTC"


def _rates(layout: Layout, policy: Policy, wire_bytes: int) -> Iterator[str]:
    rate, devices = policy.rate, sum(site["devices"] for site in layout.sites.values())
    if rate.devices_per_minute is not None:
        least_s = 60 * devices / rate.devices_per_minute
        yield f"at {rate.devices_per_minute:g} devices a minute, asking takes {least_s:.0f} s at least"
    if rate.site_bytes_per_s is not None and layout.sites:
        name, site = max(layout.sites.items(), key=lambda item: item[1]["devices"])
        least_s = site["devices"] * wire_bytes / rate.site_bytes_per_s
        yield f"at {rate.site_bytes_per_s:g} bytes/s for a site, site {name} takes {least_s:.0f} s at least"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
