"""Mistakes that somebody might make at headquarters, and in what it decides by."""

from __future__ import annotations

from world.planting import Change, Mistake, one

_ROLLOUT = "edgeflock_deploy.rollout"
_JUDGE = "edgeflock_deploy.judge"
_HQ = "edgeflock_controller"

HEADQUARTERS_MISTAKES: tuple[Mistake, ...] = (
    # the judge
    one(
        "a window counts twice",
        f"{_JUDGE}.evidence",
        "        return any(first <= number <= last for",
        "        return False and any(first <= number <= last for",
    ),
    one(
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
                f"{_JUDGE}.exact",
                "    if guardrail is None or not blamed:\n",
                "    if True:\n",
            ),
            Change(
                f"{_JUDGE}.judge",
                "            if metric.worst > pass_at(guardrail):\n",
                "            if False:\n",
            ),
        ),
    ),
    one(
        "missing data is a PASS",
        f"{_JUDGE}.judge",
        '                yield f"no data for {name}"\n',
        "                continue\n",
        needs="mute",
    ),
    # the rollout
    one(
        "a device is told to commit before its evidence is in",
        f"{_ROLLOUT}.stages",
        "            said = _passes(draft, device)\n",
        '            said = _passes(draft, device) or "PASS"\n',
    ),
    one(
        "INCONCLUSIVE commits",
        f"{_ROLLOUT}.stages",
        '            draft.hold(f"INCONCLUSIVE: {device} gave',
        '            draft.commit(device) or draft.hold(f"INCONCLUSIVE: {device} gave',
        needs="mute",
    ),
    one(
        "a stage is one device too large",
        f"{_ROLLOUT}.stages",
        "    room = draft.stage.target - committed_in_stage(rollout)",
        "    room = 1 + draft.stage.target - committed_in_stage(rollout)",
    ),
    one(
        "the bound of devices in trial is forgotten",
        f"{_ROLLOUT}.stages",
        "    if rollout.policy.max_in_trial is not None:\n",
        "    if False:\n",
    ),
    one(
        "devices are sent back to the candidate",
        f"{_ROLLOUT}.draft",
        "        digest = progress.committed_before if phase is Phase.REVERT else",
        "        digest = progress.committed_before if phase is Phase.TRIAL else",
    ),
    one(
        "a change of class keeps the evidence",
        f"{_ROLLOUT}.answers",
        "    if event.device_class != before.device_class:\n        draft.change_evidence(",
        "    if False:\n        draft.change_evidence(",
        needs="reclassed",
    ),
    one(
        "a rollout that failed takes nobody back",
        f"{_ROLLOUT}.back",
        "        if progress.desired is not None:\n            done",
        "        if False:\n            done",
    ),
    one(
        "what has rolled back goes on",
        f"{_ROLLOUT}.state",
        "        return self in (RolloutPhase.SUCCEEDED, RolloutPhase.ROLLED_BACK, ",
        "        return self in (RolloutPhase.SUCCEEDED, ",
    ),
    # headquarters
    one(
        "a new word has the generation of the one before",
        f"{_HQ}.twins",
        "        return int(row[0] or 0) + 1\n",
        "        return int(row[0] or 0) or 1\n",
    ),
    one(
        "words are sent before they are stored",
        f"{_HQ}.core",
        "            self.rollouts.project_changed()\n        for future",
        "            self.rollouts.project_changed()\n            self._publisher.desire(self.rollouts.take_moved())\n"
        "            self._publisher.publish_due(at)\n        for future",
        needs="crashes_over_words",
    ),
    one(
        "words that were stored and not sent are forgotten in a crash",
        f"{_HQ}.publishing",
        "        self._due: set[str] = self._told()",
        "        self._due: set[str] = set()",
        needs="crashes_over_words",
    ),
    one(
        "a broker that forgot is not filled again",
        f"{_HQ}.publishing",
        "        if self._in_doubt or self._heard is None or self._heard != self._sentinel:\n",
        "        if self._epoch is None:\n",
        needs="broker_forgets",
    ),
    one(
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
    one(
        "reports of an earlier boot are not told apart",
        f"{_HQ}.fleet",
        "known.boot_id == said.boot_id and said.seq < known.seq",
        "said.seq < known.seq",
        needs="kills",
    ),
    one(
        "a service does not see that its store was taken over",
        f"{_HQ}.store",
        "        if self.get_meta(_TERM) != str(term):\n",
        "        if False:\n",
        needs="second_controllers",
    ),
    one(
        "a device that has not heard is not told again",
        f"{_HQ}.fleet",
        "        return self._unheard.reported(",
        "        return False and self._unheard.reported(",
        needs="loss",
    ),
    # what operators permit
    one(
        "maintenance windows are read in UTC",
        f"{_ROLLOUT}.calendar",
        "    offset_s = utc_offset_s or 0\n",
        "    offset_s = 0\n",
        needs="windows",
    ),
    one(
        "a stage begins without its approval",
        f"{_ROLLOUT}.gates",
        "    unapproved = rollout.stage in stages_to_approve(rollout)\n",
        "    unapproved = rollout.stage == 0 and rollout.stage in stages_to_approve(rollout)\n",
        needs="gates",
    ),
    one(
        "who turns up late need not be meant",
        f"{_HQ}.entrants",
        "        if not _selector(rollout.selector).matches(row.device, row.device_class, row.tags):\n",
        "        if False:\n",
        needs="tags",
    ),
    one(
        "a new tag brings a board into an older rollout",
        f"{_HQ}.entrants",
        "        if store.twins.newest_generation(row.device, rollout.model) or not _offered(store, row, rollout):\n",
        "        if not _offered(store, row, rollout):\n",
        needs="tags",
    ),
    one(
        "a class gets what was chosen for another one",
        f"{_ROLLOUT}.choice",
        "        chosen = self.classes.get(device_class)\n        return chosen.digest",
        "        chosen = next(iter(self.classes.values()), None)\n        return chosen.digest",
        needs="campaigns",
    ),
    one(
        "one board that a variant does not fit is outvoted",
        f"{_HQ}.choice.facts",
        "        if answer.outcome in _ENDED_BADLY and answer.reason",
        "        if len(one.answers) < 2 and answer.outcome in _ENDED_BADLY and answer.reason",
        needs="campaigns",
    ),
)
