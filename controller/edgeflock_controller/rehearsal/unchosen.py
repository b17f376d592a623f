"""The classes of which it is not known yet, or known, that they get no variant: a sentence each, said beforehand. Pure.

Decided here: what a rehearsal leaves out. It plays the classes of which all is measured, and that get a variant for it;
a class that would first be measured may get another one than what is known so far speaks for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from edgeflock_controller.choice.metric import METRICS
from edgeflock_controller.choice.wanted import parse_wanted
from edgeflock_controller.rehearsal.candidate import PerClass
from edgeflock_controller.rehearsal.subject import Subject, per_class
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.judge.verdict import count
from edgeflock_deploy.rollout.choice import ClassChoice

_NAMED = 3


class LeftOut(NamedTuple):
    """A class that is not rehearsed, its number of devices, and why."""

    device_class: str
    devices: int
    why: str

    def __str__(self) -> str:
        return f"class {self.device_class} ({count(self.devices, 'device')}): {self.why}"


def rehearsable(subject: Subject) -> tuple[Subject, list[LeftOut]]:
    """The subject with a variant for those classes alone that can be rehearsed, and the others.

    Raises:
        BadInput: no class can be.
    """
    whole = subject.candidate
    if not isinstance(whole, PerClass):
        return subject, []
    left_out = [
        LeftOut(name, devices, why)
        for name, devices in _classes(subject)
        if (why := _not_measured(subject, name) or _held(whole, name)) is not None
    ]
    known = {
        name: ClassChoice(why=str(why)) if (why := _not_measured(subject, name)) is not None else one
        for name, one in whole.choice.classes.items()
    }
    choice = whole.choice.model_copy(update={"classes": known})
    candidate = per_class(whole.model, whole.version, choice, subject.manifests)
    if not candidate.of:
        whys = "; ".join(map(str, left_out))
        raise BadInput("--variant auto", f"no class can be rehearsed: {whys}", _measure_first(whole, left_out))
    return subject._replace(candidate=candidate), left_out


def unchosen(subject: Subject) -> Iterator[str]:
    """What stands between classes and their variant; nothing, where all get the same."""
    whole = subject.candidate
    if not isinstance(whole, PerClass):
        return
    for name, devices in _classes(subject):
        here = f"class {name} ({count(devices, 'device')})"
        if (first := _not_measured(subject, name)) is not None:
            so_far = (
                "what it gets is chosen after that" if name in whole.of else "so it has no place in the stages here"
            )
            yield f"{here}: {first}; {so_far}"
        elif (why := _held(whole, name)) is not None:
            then = "an operator is asked at the end, and `edgeflock rollouts resume` goes on without it"
            yield f"{here}: {why}; {then}" if whole.of else f"{here}: {why}"
    yield from _will_not_be_known(subject, whole)


def _will_not_be_known(subject: Subject, whole: PerClass) -> Iterator[str]:
    """Metrics of the choice that measuring will not bring."""
    metrics = parse_wanted(whole.choice.objective, whole.choice.require).metrics
    boards = {board.device: board for board in subject.boards}
    measure = [boards[name] for name in dict.fromkeys(t.device for one in subject.ahead.values() for t in one.tasks)]
    without = [board.device for board in measure if not board.measures_energy]
    if "energy_mj" in metrics and without:
        yield f"{_some(without)}: no meter that may decide is known there, and without one energy_mj stays unknown"
    emulated = [board.device for board in measure if board.emulated]
    timed = [metric for metric in metrics if METRICS[metric].timed]
    if timed and emulated:
        yield f"{_some(emulated)}: emulated, so {', '.join(timed)} stays unknown"
    about = [metric for metric in metrics if metric.startswith("accuracy")]
    blind = [one.variant for one in subject.manifests.values() if "evaluation" not in one.blobs]
    if about and blind:
        yield f"{_some(blind)}: no evaluation slice, so {', '.join(about)} stays unknown"


def _classes(subject: Subject) -> list[tuple[str, int]]:
    return sorted(Counter(board.device_class for board in subject.boards).items())


def _not_measured(subject: Subject, name: str) -> str | None:
    one = subject.ahead.get(name)
    if one is None or one.is_nothing:
        return None
    if not one.tasks:
        return f"it would first be measured ({one.waits})"
    who = sorted({task.device for task in one.tasks})
    what = list(dict.fromkeys(subject.manifests[task.digest].variant for task in one.tasks))
    return f"{_some(who)} would first measure {_some(what)}"


def _held(whole: PerClass, name: str) -> str | None:
    chosen = whole.choice.classes.get(name)
    if chosen is not None and chosen.digest is not None:
        return None
    return f"it is held: {chosen.why if chosen is not None else 'it was never measured'}"


def _measure_first(whole: PerClass, left_out: Iterable[LeftOut]) -> str:
    names = ",".join(one.device_class for one in left_out)
    return f"`edgeflock front {whole.model}@{whole.version} --measure class={names}` measures, and deploys nothing"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
