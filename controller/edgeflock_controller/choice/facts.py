"""What boards of one class measured, as one row per variant.

Decided here, so that only like is compared with like:
- Only boards that measured every variant that any board could measure count, where there are such; else each variant's
  own boards do, and the row says so.
- A board's number is the median over its runs (each a fresh process), its peak memory the largest; the class's number
  is that of its worst board. The range goes over all runs of all boards.
- Of a board's times and energy only runs under like conditions count (`alike`); a row says where they were contended.
- Energy counts only from a meter that may gate: not modelled, and on a scope that the model surely draws from.
- `accuracy_drop` is counted from the parent: the variant `float32` of the same version, on the same items, on each
  board from its accuracy there. Where the class has not measured it, because it does not fit there, its accuracy on
  boards of other classes counts; where nobody has, the most accurate variant of the class stands in, and the table says
  so. What devices run now is no reference: whether they get worse is judged in their trial.
- A variant that does not fit on one board of the class, or that finds no room there, is out for the class.
Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from edgeflock_controller.choice.alike import counted, unlike, usual_governors
from edgeflock_controller.choice.metric import METRICS
from edgeflock_deploy.bundle import Manifest
from edgeflock_deploy.messages.measurements import Measurement
from edgeflock_deploy.messages.reports import Measured
from edgeflock_deploy.messages.values import Outcome
from edgeflock_deploy.quantiles import median
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.rollout.choice import ChoiceRow, MetricValue

_ENDED_BADLY = (Outcome.FAILED, Outcome.REJECTED)

PARENT = "float32"
NEVER_MEASURED = "it was never measured"

_TIMED: dict[str, Callable[[Measurement], float | None]] = {
    "latency_ms_p50": lambda run: run.latency_ms_p50,
    "latency_ms_p90": lambda run: run.latency_ms_p90,
    "latency_ms_p95": lambda run: run.latency_ms_p95,
    "end_to_end_ms_p50": lambda run: run.end_to_end_ms_p50,
    "end_to_end_ms_p95": lambda run: run.end_to_end_ms_p95,
    "first_inference_ms": lambda run: run.first_inference_ms,
    "load_ms": lambda run: run.load_ms,
    "energy_mj": lambda run: run.energy.mj if run.energy.may_gate else None,
}


class Variant(NamedTuple):
    """A variant that a class may get: its bundle, what boards answered (by device), and why it cannot run there.

    `elsewhere` is what boards of other classes answered.
    """

    digest: str
    manifest: Manifest
    answers: Mapping[str, Measured] = {}
    barred: str | None = None
    elsewhere: Mapping[str, Measured] = {}


class _Reference(NamedTuple):
    """What `accuracy_drop` is counted from, as its own boards measured it, `here` or elsewhere."""

    variant: Variant
    answers: Mapping[str, Measured]
    here: bool = True

    def accuracy(self, board: str) -> float | None:
        """What a board of the class is held against; elsewhere it was the same items, and the middle board says it."""
        own = self.answers.get(board)
        return (own.accuracy if own is not None else None) if self.here else median(_accuracies(self.answers))

    def __str__(self) -> str:
        name, items = self.variant.manifest.variant, next(iter(self.answers.values())).items
        kind = "the parent" if name == PARENT else f"the most accurate one, as nobody measured a {PARENT}"
        there = "" if self.here else f", as measured on {', '.join(sorted(self.answers))}"
        return f"{name} ({kind}{there}), on the {items} items of evaluation slice {_slice(self.variant)[:12]}"


class Facts(NamedTuple):
    """The rows, and what `accuracy_drop` was counted from."""

    rows: list[ChoiceRow]
    reference: str | None


def facts(variants: Sequence[Variant]) -> Facts:
    """The table of a class."""
    known = {one.digest: succeeded(one.manifest.variant, one.answers) for one in variants if _misfit(one) is None}
    measured = {digest: answers for digest, answers in known.items() if answers}
    common = frozenset.intersection(*(frozenset(answers) for answers in measured.values())) if measured else frozenset()
    governors = usual_governors(measured.values())
    reference = _reference(variants, measured)
    rows = []
    for one in sorted(variants, key=lambda one: (one.manifest.variant, one.digest)):
        why = one.barred or _misfit(one)
        answers = measured.get(one.digest, {})
        if why is None and not answers:
            why = NEVER_MEASURED
        if why is not None:
            rows.append(ChoiceRow(variant=one.manifest.variant, digest=one.digest, why=why))
            continue
        of_class = {board: answer for board, answer in answers.items() if not common or board in common}
        rows.append(_row(one, of_class, reference, governors, same_boards=bool(common)))
    return Facts(rows, None if reference is None else str(reference))


def _row(
    one: Variant,
    answers: Mapping[str, Measured],
    reference: _Reference | None,
    governors: Mapping[str, str],
    *,
    same_boards: bool,
) -> ChoiceRow:
    runs = {board: counted(answer.runs, governors.get(board)) for board, answer in answers.items()}
    apart = unlike(answers, governors)
    values = {name: _timed(name, pick, answers, runs, apart) for name, pick in _TIMED.items()}
    peaks = {board: [run.peak_rss_bytes for run in answer.runs] for board, answer in answers.items()}
    values["rss_bytes"] = _over_boards(peaks, max, "it was not read")
    blob = one.manifest.blobs["model"]
    values["raw_bytes"], values["wire_bytes"] = _exact(blob.bytes), _exact(blob.encoding.bytes)
    accuracies = [answer.accuracy for answer in answers.values()]
    values["accuracy"] = _worst(accuracies, min, "its bundle has no evaluation slice")
    values["accuracy_drop"] = _drop(one, answers, reference)
    notes = [] if same_boards else ["measured on other boards than the others"]
    if any(run.conditions is not None and run.conditions.contended for chosen in runs.values() for run in chosen):
        notes.append("measured while something else wanted the processor")
    why = "; ".join(notes) or None
    variant, boards = one.manifest.variant, tuple(sorted(answers))
    return ChoiceRow(variant=variant, digest=one.digest, boards=boards, values=values, why=why)


def _timed(
    name: str,
    pick: Callable[[Measurement], float | None],
    answers: Mapping[str, Measured],
    runs: Mapping[str, Sequence[Measurement]],
    apart: str | None,
) -> MetricValue:
    everything = [run for answer in answers.values() for run in answer.runs]
    taken = {board: [pick(run) for run in chosen] for board, chosen in runs.items()}
    return _over_boards(taken, median, apart or _why_not(name, everything))


def _why_not(name: str, runs: Sequence[Measurement]) -> str:
    """Why a timed metric may be unknown, said of the runs that there were."""
    under = [run.conditions for run in runs if run.conditions is not None]
    if under and all(one.emulated for one in under):
        return "the boards are emulated, their times are their host's"
    if under and all(one.throttled for one in under):
        return "the boards throttled all the while"
    if name == "energy_mj":
        reasons = dict.fromkeys(run.energy.reason or f"it is {run.energy.method}, which may not decide" for run in runs)
        return f"no meter that may decide ({'; '.join(reasons)})"
    return f"too few inferences were sampled ({min((run.n for run in runs), default=0)})"


def _over_boards(
    taken: Mapping[str, Sequence[float | None]], of_board: Callable[[list[float]], float], why: str
) -> MetricValue:
    known = {board: [value for value in values if value is not None] for board, values in taken.items()}
    if not known or not all(known.values()):
        return MetricValue(why=why)
    every = [value for values in known.values() for value in values]
    return MetricValue(value=max(of_board(values) for values in known.values()), low=min(every), high=max(every))


def _worst(values: Sequence[float | None], worst: Callable[[list[float]], float], why: str) -> MetricValue:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return MetricValue(why=why)
    return MetricValue(value=worst(known), low=min(known), high=max(known))


def _drop(one: Variant, answers: Mapping[str, Measured], reference: _Reference | None) -> MetricValue:
    if reference is None:
        return MetricValue(why="no variant has an evaluation slice to be compared on")
    name = reference.variant.manifest.variant
    if _slice(one) != _slice(reference.variant):
        return MetricValue(why=f"its evaluation slice is another than {name}'s")
    drops: list[float | None] = []
    for board, answer in answers.items():
        before = reference.accuracy(board)
        known = before is not None and answer.accuracy is not None
        drops.append(round(100 * ((before or 0.0) - (answer.accuracy or 0.0)), 9) if known else None)
    return _worst(drops, max, f"{name} was not measured on the same boards")


def _reference(variants: Sequence[Variant], measured: Mapping[str, Mapping[str, Measured]]) -> _Reference | None:
    able = [one for one in variants if _accuracies(measured.get(one.digest, {}))]
    if not able:
        return None
    for parent in variants:
        there = {**parent.elsewhere, **succeeded(PARENT, parent.answers)}
        there = {board: one for board, one in there.items() if one.accuracy is not None}
        if parent.manifest.variant == PARENT and parent not in able and there:
            return _Reference(parent, there, here=False)
    worst = {one.digest: min(_accuracies(measured[one.digest])) for one in able}
    best = min(able, key=lambda v: (v.manifest.variant != PARENT, -worst[v.digest], v.manifest.variant))
    return _Reference(best, measured[best.digest])


def _accuracies(answers: Mapping[str, Measured]) -> list[float]:
    return [answer.accuracy for answer in answers.values() if answer.accuracy is not None]


def _slice(one: Variant) -> str:
    blob = one.manifest.blobs.get("evaluation")
    return blob.sha256 if blob is not None else ""


def succeeded(name: str, answers: Mapping[str, Measured]) -> dict[str, Measured]:
    """What boards measured of the variant itself: a board that keeps another form of the bundle measured that one."""
    return {
        board: answer
        for board, answer in answers.items()
        if answer.outcome is Outcome.SUCCEEDED and answer.runs and answer.variant in (None, name)
    }


def _misfit(one: Variant) -> str | None:
    for board, answer in sorted(one.answers.items()):
        if answer.outcome in _ENDED_BADLY and answer.reason is not None and speaks_of_variant(answer.reason):
            return f"it does not fit on {board}: {answer.reason.value}: {answer.detail}"
    return None


def speaks_of_variant(reason: Reason) -> bool:
    """Whether a measurement that failed so says something of the variant there, and not only of the board."""
    return reason.blames_variant or reason is Reason.NO_ROOM


def _exact(value: float) -> MetricValue:
    return MetricValue(value=value, low=value, high=value)


assert set(_TIMED) == {name for name, metric in METRICS.items() if metric.timed}, "each timed metric is read somewhere"
