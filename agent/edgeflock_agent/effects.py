"""The table effect -> function: how each effect of the machine is done. None of these decides anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgeflock_agent.machine.effects import (
    AskTurn,
    CollectGarbage,
    FetchBlobs,
    FetchManifest,
    Load,
    Persist,
    Repair,
    Report,
    RunTrial,
    StopWork,
    Switch,
    Verify,
    Warm,
)
from edgeflock_agent.machine.events import DownloadFailed, Event, HardStopped, ServingStopped, Ticked
from edgeflock_agent.serving.endpoint import Serving, end_turn
from edgeflock_agent.work import Work
from edgeflock_deploy.reasons import Reason

if TYPE_CHECKING:
    from edgeflock_agent.agent import Agent


def _stop_work(agent: Agent, model: str, _effect: StopWork) -> None:
    work, loading = agent.work.pop(model, None), agent.loading.get(model)
    if loading is not None and loading.digest != agent.models[model].slots.active:
        agent.loading.pop(model)  # a going back that is called off; a restart of what serves goes on
    else:
        loading = None
    for stopped in (work, loading):
        if stopped is not None:
            stopped.cancelled.set()
            agent.close(stopped.take_child())


def _fetch_manifest(agent: Agent, model: str, effect: FetchManifest) -> None:
    while agent.repairs:  # the lane is needed
        agent.repairs.pop().cancelled.set()
    work = agent.work[model] = _work(agent, model, effect.digest)
    agent.begin(agent.delivery, work, agent.jobs.fetch_manifest, _download_failed(effect.digest))


def _fetch_blobs(agent: Agent, model: str, effect: FetchBlobs) -> None:
    agent.begin(agent.delivery, agent.work[model], agent.jobs.fetch_blobs, _download_failed(effect.digest))


def _verify(agent: Agent, model: str, effect: Verify) -> None:
    agent.begin(agent.delivery, agent.work[model], agent.jobs.verify, _download_failed(effect.digest))


def _ask_turn(agent: Agent, model: str, effect: AskTurn) -> None:
    agent.begin(agent.bench, agent.work[model], agent.jobs.turn, _hard_stopped(effect.digest))


def _warm(agent: Agent, model: str, effect: Warm) -> None:
    agent.begin(agent.bench, agent.work[model], agent.jobs.warm, _hard_stopped(effect.digest))


def _run_trial(agent: Agent, model: str, _effect: RunTrial) -> None:
    agent.next_window(model)


def _load(agent: Agent, model: str, effect: Load) -> None:
    before = agent.loading.get(model)
    if before is not None:
        before.cancelled.set()
        agent.close(before.take_child())
    work = agent.loading[model] = _work(agent, model, effect.digest)

    def failed(reason: Reason, detail: str) -> Event:
        return ServingStopped(effect.digest, reason, detail, agent.now())

    agent.begin(agent.serving_lane, work, agent.jobs.load, failed)


def _repair(agent: Agent, model: str, effect: Repair) -> None:
    if not agent.link.connected:
        return  # it is asked for again
    agent.repairs.append(_work(agent, model, effect.digest))
    agent.begin(agent.delivery, agent.repairs[-1], agent.jobs.repair, lambda *_: Ticked(agent.now()))


def _switch(agent: Agent, model: str, effect: Switch) -> None:
    """From here on the next request is answered by the new process; the old one ends after the one it is answering."""
    old = agent.serving.get(model)
    if effect.digest is None:
        agent.serving.pop(model, None)
        end_turn(agent.turns, model)
    elif old is None or old.digest != effect.digest or not old.process.alive:
        ready = (work for work in (agent.work.get(model), agent.loading.get(model)) if work is not None)
        child = next((work.take_child() for work in ready if work.digest == effect.digest and work.child), None)
        if child is None:  # it ended, or had to leave its place: until a new one is up the old one goes on
            _end_work(agent, model, effect.digest)
            _load(agent, model, Load(effect.digest))
            return
        facts = agent.models[model].bundles.get(effect.digest)
        agent.serving[model] = Serving(effect.digest, child, facts.variant if facts is not None else None)
        end_turn(agent.turns, model)
    else:
        old = None
    _end_work(agent, model, effect.digest)
    if old is not None:
        agent.close(old.process)


def _end_work(agent: Agent, model: str, digest: str | None) -> None:
    work = agent.work.get(model)
    if work is not None and work.digest == digest:  # another candidate's way goes on: this was a restart
        work.cancelled.set()
        del agent.work[model]


def _persist(agent: Agent, _model: str, _effect: Persist) -> None:
    agent.persist()


def _collect_garbage(agent: Agent, _model: str, _effect: CollectGarbage) -> None:
    agent.collect_garbage()


def _report(agent: Agent, _model: str, effect: Report) -> None:
    agent.report(effect.of)


def _work(agent: Agent, model: str, digest: str) -> Work:
    """New work for a bundle, in the form that is in hand now."""
    return Work(model, digest, agent.models[model].form_of(digest))


def _download_failed(digest: str) -> Callable[[Reason, str], Event]:
    return lambda reason, detail: DownloadFailed(digest, reason, detail)


def _hard_stopped(digest: str) -> Callable[[Reason, str], Event]:
    return lambda reason, detail: HardStopped(digest, reason, detail)


EFFECTS: dict[type, Callable[[Agent, str, Any], None]] = {
    StopWork: _stop_work,
    FetchManifest: _fetch_manifest,
    FetchBlobs: _fetch_blobs,
    Verify: _verify,
    AskTurn: _ask_turn,
    Warm: _warm,
    RunTrial: _run_trial,
    Load: _load,
    Repair: _repair,
    Switch: _switch,
    Persist: _persist,
    CollectGarbage: _collect_garbage,
    Report: _report,
}
