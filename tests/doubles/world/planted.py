"""Mistakes that somebody might make, planted into the product as small changes of its text: the world must see them.

A mistake is applied while its module is imported, so only in a process that has not imported the product yet. FOUND_BY
has the seeds; `benchmarks/results/simulation/planted.md` says what they showed.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple


class Change(NamedTuple):
    """In a module, one text for another."""

    module: str
    old: str
    new: str


class Mistake(NamedTuple):
    """A mistake: its name, its changes, and the fault without which it cannot show, if any."""

    name: str
    changes: tuple[Change, ...]
    needs: str | None = None

    @property
    def seed(self) -> int | None:
        """The seed of a world that shows it, if one is known."""
        return FOUND_BY.get(self.name)


def _one(name: str, module: str, old: str, new: str, needs: str | None = None) -> Mistake:
    return Mistake(name, (Change(module, old, new),), needs)


_MACHINE = "edgeflock_agent.machine"
_STORAGE = "edgeflock_agent.storage"
_ROLLOUT = "edgeflock_deploy.rollout"
_JUDGE = "edgeflock_deploy.judge"
_HQ = "edgeflock_controller"

MISTAKES: tuple[Mistake, ...] = (
    # the device
    _one(
        "a file is not synced before it gets its name",
        f"{_STORAGE}.disk",
        "                        self.put(handle, piece)\n                    self.sync(handle)\n",
        "                        self.put(handle, piece)\n",
        needs="power_cuts",
    ),
    _one(
        "a folder is not synced after a rename",
        f"{_STORAGE}.disk",
        "            self.move(old, new)\n            self.sync_folder(new.parent)\n",
        "            self.move(old, new)\n",
        needs="power_cuts",
    ),
    _one(
        "orders that are not newer are followed",
        f"{_MACHINE}.desired",
        "entry.generation <= state.desired.generation",
        "entry.generation < 0",
    ),
    _one(
        "hashes are not looked at again before a load",
        f"{_STORAGE}.store",
        "            if holds(own, sha256):\n",
        "            if True:\n",
        needs="rot",
    ),
    _one(
        "a candidate that warmed up serves without its trial",
        f"{_MACHINE}.candidate",
        "    if state.phase is Phase.COMMIT:\n        return commit(state)\n",
        "    if True:\n        return commit(state)\n",
    ),
    _one(
        "the clock of the day in place of the monotonic one",
        "edgeflock_agent.agent",
        "        return self._remembered.time.believed(self._clocks())\n",
        "        now = self._clocks()\n        return Now(now.wall_s, now.wall_s)\n",
        needs="clock_jumps",
    ),
    _one(
        "the record is written after the report",
        f"{_MACHINE}.moves",
        "    return after, (Persist(), Switch(slots.active), CollectGarbage(), Report())\n",
        "    return after, (Switch(slots.active), Report(), Persist(), CollectGarbage())\n",
        needs="power_cuts",
    ),
    _one(
        "the controller's signature is not checked",
        "edgeflock_deploy.keys",
        "    except (nacl.exceptions.CryptoError, ValueError, binascii.Error):\n        return False\n",
        "    except (nacl.exceptions.CryptoError, ValueError, binascii.Error):\n        return True\n",
        needs="corruption",
    ),
    _one(
        "a crashed process is not noticed",
        "edgeflock_agent.watch",
        "        if not process.alive and not may_be_gone:\n",
        "        if False:\n",
        needs="incumbent_crashes",
    ),
    # the judge
    _one(
        "a window counts twice",
        f"{_JUDGE}.evidence",
        "        return any(first <= number <= last for",
        "        return False and any(first <= number <= last for",
    ),
    _one(
        "a PASS of the fleet is a PASS of each device",
        f"{_ROLLOUT}.stages",
        "    if judge.passes(rollout.evidence, device, rollout.policy,",
        "    for one in rollout.devices:\n"
        "        device = device if judge.missing(rollout.evidence, one, rollout.policy) else one\n"
        "    if judge.passes(rollout.evidence, device, rollout.policy,",
    ),
    Mistake(
        "memory guards nothing",
        (
            Change(
                f"{_JUDGE}.judge",
                "    if book.exact is not None and (beyond := evidence.fleet.get(EXACT, _NONE).beyond):\n",
                "    if False and (beyond := evidence.fleet.get(EXACT, _NONE).beyond):\n",
            ),
            Change(
                f"{_JUDGE}.judge",
                "            if metric.worst > pass_at(guardrail):\n",
                "            if False:\n",
            ),
        ),
    ),
    _one(
        "missing data is a PASS",
        f"{_JUDGE}.judge",
        '                yield f"no data for {name}"\n',
        "                continue\n",
        needs="mute",
    ),
    # the rollout
    _one(
        "a device is told to commit before its evidence is in",
        f"{_ROLLOUT}.stages",
        "            said = _passes(draft, device)\n",
        '            said = _passes(draft, device) or "PASS"\n',
    ),
    _one(
        "INCONCLUSIVE commits",
        f"{_ROLLOUT}.stages",
        '            draft.hold(f"INCONCLUSIVE: {device} gave',
        '            draft.commit(device) or draft.hold(f"INCONCLUSIVE: {device} gave',
        needs="mute",
    ),
    _one(
        "a stage is one device too large",
        f"{_ROLLOUT}.stages",
        "    room = draft.stage.target - committed_in_stage(rollout)",
        "    room = 1 + draft.stage.target - committed_in_stage(rollout)",
    ),
    _one(
        "the bound of devices in trial is forgotten",
        f"{_ROLLOUT}.stages",
        "    if rollout.policy.max_in_trial is not None:\n",
        "    if False:\n",
    ),
    _one(
        "devices are sent back to the candidate",
        f"{_ROLLOUT}.draft",
        "        digest = progress.committed_before if phase is Phase.REVERT else",
        "        digest = progress.committed_before if phase is Phase.TRIAL else",
    ),
    _one(
        "a change of class keeps the evidence",
        f"{_ROLLOUT}.answers",
        "    if event.device_class != before.device_class:\n        draft.change_evidence(",
        "    if False:\n        draft.change_evidence(",
        needs="reclassed",
    ),
    _one(
        "a rollout that failed takes nobody back",
        f"{_ROLLOUT}.back",
        "        if progress.desired is not None:\n            done",
        "        if False:\n            done",
    ),
    _one(
        "what has rolled back goes on",
        f"{_ROLLOUT}.state",
        "        return self in (RolloutPhase.SUCCEEDED, RolloutPhase.ROLLED_BACK, ",
        "        return self in (RolloutPhase.SUCCEEDED, ",
    ),
    # headquarters
    _one(
        "a new word has the generation of the one before",
        f"{_HQ}.twins",
        "        return int(row[0] or 0) + 1\n",
        "        return int(row[0] or 0) or 1\n",
    ),
    _one(
        "words are sent before they are stored",
        f"{_HQ}.core",
        "            self.rollouts.project_changed()\n        for future",
        "            self.rollouts.project_changed()\n            self._publisher.desire(self.rollouts.take_moved())\n"
        "            self._publisher.publish_due(at)\n        for future",
        needs="crashes_over_words",
    ),
    _one(
        "words that were stored and not sent are forgotten in a crash",
        f"{_HQ}.publishing",
        "        self._due: set[str] = self._told()",
        "        self._due: set[str] = set()",
        needs="crashes_over_words",
    ),
    _one(
        "a broker that forgot is not filled again",
        f"{_HQ}.publishing",
        "        if self._in_doubt or self._heard is None or self._heard != self._sentinel:\n",
        "        if self._epoch is None:\n",
        needs="broker_forgets",
    ),
    _one(
        "the last orders are given once more after a crash",
        f"{_HQ}.rollouts",
        "                self._changed.append(name)\n        self.project_changed()\n",
        "                self._changed.append(name)\n"
        "                again = None\n"
        "                for entry in self._store.journal.read(name):\n"
        "                    again, effects = step(again, entry.event)\n"
        "                self._store_step(found.rollout, entry.event, effects)\n"
        "        self.project_changed()\n",
        needs="crashes_over_words",
    ),
    _one(
        "reports of an earlier boot are not told apart",
        f"{_HQ}.fleet",
        "known.boot_id == said.boot_id and said.seq < known.seq",
        "said.seq < known.seq",
        needs="kills",
    ),
    _one(
        "a service does not see that its store was taken over",
        f"{_HQ}.store",
        "        if self.get_meta(_TERM) != str(term):\n",
        "        if False:\n",
        needs="second_controllers",
    ),
    _one(
        "a device that has not heard is not told again",
        f"{_HQ}.fleet",
        "        return self._unheard.reported(",
        "        return False and self._unheard.reported(",
        needs="loss",
    ),
    # what operators permit
    _one(
        "maintenance windows are read in UTC",
        f"{_ROLLOUT}.calendar",
        "    offset_s = utc_offset_s or 0\n",
        "    offset_s = 0\n",
        needs="windows",
    ),
    _one(
        "a stage begins without its approval",
        f"{_ROLLOUT}.gates",
        "    return rollout.policy.stage[rollout.stage].approval and stage.approved_by is None\n",
        "    return rollout.stage == 0 and rollout.policy.stage[0].approval and stage.approved_by is None\n",
        needs="gates",
    ),
    _one(
        "who turns up late need not be meant",
        f"{_HQ}.entrants",
        "        if not _selector(rollout.selector).matches(row.device, row.device_class, row.tags):\n",
        "        if False:\n",
        needs="tags",
    ),
    _one(
        "a new tag brings a board into an older rollout",
        f"{_HQ}.entrants",
        "        if store.twins.newest_generation(row.device, rollout.model) or not _offered(store, row, rollout):\n",
        "        if not _offered(store, row, rollout):\n",
        needs="tags",
    ),
    _one(
        "a class gets what was chosen for another one",
        f"{_ROLLOUT}.choice",
        "        chosen = self.classes.get(device_class)\n        return chosen.digest",
        "        chosen = next(iter(self.classes.values()), None)\n        return chosen.digest",
        needs="campaigns",
    ),
    _one(
        "one board that a variant does not fit is outvoted",
        f"{_HQ}.choice.facts",
        "        if answer.outcome in _ENDED_BADLY and answer.reason",
        "        if len(one.answers) < 2 and answer.outcome in _ENDED_BADLY and answer.reason",
        needs="campaigns",
    ),
    # deltas, chains of forms, kept inputs
    _one(
        "a delta is chosen without a look at its base",
        f"{_STORAGE}.store",
        "        return blob.cheapest(lambda sha256: holds(self.blob_path(sha256), sha256))\n",
        "        return blob.cheapest(lambda sha256: True)\n",
        needs="lost_bases",
    ),
    _one(
        "what a delta decodes to is believed",
        f"{_STORAGE}.store",
        "            if hasher.hexdigest() != blob.sha256:\n",
        "            if False:\n",
        needs="rotten_bases",
    ),
    _one(
        "a base that is damaged while it is read is the bundle's fault",
        "edgeflock_agent.jobs",
        "            if way.base is None or self._store.way(blob) == way:\n",
        "            if True:\n",
        needs="rotten_bases",
    ),
    _one(
        "a chain begins anew when its manifest comes",
        f"{_MACHINE}.forms",
        "    facts = state.bundles.get(digest) or BundleFacts(version=version)\n",
        "    facts = BundleFacts(version=version)\n",
        needs="misfitting",
    ),
    _one(
        "what was declared of a form is held against nothing",
        "edgeflock_agent.limits",
        "    if memory is not None and measured.peak",
        "    if False and measured.peak",
        needs="misfitting",
    ),
    _one(
        "the first form that does not fit ends the chain",
        f"{_MACHINE}.forms",
        "    if facts is None or facts.form + 1 >= len(facts.variants):\n",
        "    if True:\n",
        needs="misfitting",
    ),
    _one(
        "kept inputs take what room they like",
        f"{_STORAGE}.ring",
        "        while held and (total + size > self.most_bytes or",
        "        while held and (False or",
        needs="captures",
    ),
    _one(
        "kept inputs take the last of the room",
        f"{_STORAGE}.ring",
        "        if self._free_bytes() < size + _RESERVE_BYTES:\n",
        "        if self._free_bytes() < size:\n",
        needs="tight_disks",
    ),
    _one(
        "the first piece of kept inputs is taken for all of them",
        f"{_HQ}.captures",
        '            one["done"] = self._have(piece.token) == piece.pieces\n',
        '            one["done"] = True\n',
        needs="captures",
    ),
)


FOUND_BY: dict[str, int] = {
    "a file is not synced before it gets its name": 43,
    "a folder is not synced after a rename": 43,
    "orders that are not newer are followed": 1,
    "hashes are not looked at again before a load": 6,
    "a candidate that warmed up serves without its trial": 1,
    "the clock of the day in place of the monotonic one": 131,
    "the record is written after the report": 147,
    "a crashed process is not noticed": 0,
    "a window counts twice": 1,
    "a PASS of the fleet is a PASS of each device": 4,
    "a device is told to commit before its evidence is in": 1,
    "a stage is one device too large": 9,
    "the bound of devices in trial is forgotten": 4,
    "a rollout that failed takes nobody back": 14,
    "what has rolled back goes on": 2,
    "a new word has the generation of the one before": 0,
    "a broker that forgot is not filled again": 7,
    "a delta is chosen without a look at its base": 8,
    "what a delta decodes to is believed": 25,
    "a base that is damaged while it is read is the bundle's fault": 24,
    "a chain begins anew when its manifest comes": 8,
    "what was declared of a form is held against nothing": 10,
    "the first form that does not fit ends the chain": 10,
    "kept inputs take what room they like": 7,
    "kept inputs take the last of the room": 7,
    "the first piece of kept inputs is taken for all of them": 7,
}
"""The seed of a world that shows a mistake, by the mistake's name."""


def plant(mistake: Mistake) -> None:
    """Have the mistake made by whatever is imported from here on."""
    for change in mistake.changes:
        if change.module in sys.modules:
            raise RuntimeError(f"{change.module} is imported already")
    sys.meta_path.insert(0, _Planting(mistake.changes))


def text_of(module: str) -> str:
    """The text of a module, which need not be imported."""
    found = None
    for root in sys.path:
        path = Path(root or ".", *module.split(".")).with_suffix(".py")
        found = path if path.is_file() and found is None else found
    if found is None:
        raise LookupError(module)
    return found.read_text()


class _Planting(importlib.abc.MetaPathFinder):
    def __init__(self, changes: Sequence[Change]) -> None:
        self._changes = changes

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> Any:
        changes = [change for change in self._changes if change.module == name]
        if not changes:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        assert spec is not None
        assert spec.origin is not None
        spec.loader = _Loader(name, spec.origin, changes)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, changes: Sequence[Change]) -> None:
        super().__init__(name, path)
        self._changes = changes

    def get_code(self, fullname: str) -> CodeType | None:
        text = Path(self.path).read_text()
        for change in self._changes:
            if text.count(change.old) != 1:
                raise RuntimeError(
                    f"{change.module} has the text of a mistake {text.count(change.old)} times, not once"
                )
            text = text.replace(change.old, change.new)
        return self.source_to_code(text.encode(), self.path)
