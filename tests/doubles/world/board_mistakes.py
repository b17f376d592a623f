"""Mistakes that somebody might make in what runs on a board, and in what comes from there."""

from __future__ import annotations

from world.planting import Mistake, one

_MACHINE = "edgeflock_agent.machine"
_STORAGE = "edgeflock_agent.storage"

BOARD_MISTAKES: tuple[Mistake, ...] = (
    # the device
    one(
        "a file is not synced before it gets its name",
        f"{_STORAGE}.disk",
        "                        self.put(handle, piece)\n                    self.sync(handle)\n",
        "                        self.put(handle, piece)\n",
        needs="power_cuts",
    ),
    one(
        "a folder is not synced after a rename",
        f"{_STORAGE}.disk",
        "            self.move(old, new)\n            self.sync_folder(new.parent)\n",
        "            self.move(old, new)\n",
        needs="power_cuts",
    ),
    one(
        "orders that are not newer are followed",
        f"{_MACHINE}.desired",
        "entry.generation <= state.desired.generation",
        "entry.generation < 0",
    ),
    one(
        "hashes are not looked at again before a load",
        f"{_STORAGE}.store",
        "            if holds(own, sha256):\n",
        "            if True:\n",
        needs="rot",
    ),
    one(
        "a candidate that warmed up serves without its trial",
        f"{_MACHINE}.candidate",
        "    if state.phase is Phase.COMMIT:\n        return commit(state)\n",
        "    if True:\n        return commit(state)\n",
    ),
    one(
        "the clock of the day in place of the monotonic one",
        "edgeflock_agent.agent",
        "        return self._remembered.time.believed(self._clocks())\n",
        "        now = self._clocks()\n        return Now(now.wall_s, now.wall_s)\n",
        needs="clock_jumps",
    ),
    one(
        "the record is written after the report",
        f"{_MACHINE}.moves",
        "    return after, (Persist(), Switch(slots.active), CollectGarbage(), Report())\n",
        "    return after, (Switch(slots.active), Report(), Persist(), CollectGarbage())\n",
        needs="power_cuts",
    ),
    one(
        "the controller's signature is not checked",
        "edgeflock_deploy.keys",
        "    except (nacl.exceptions.CryptoError, ValueError, binascii.Error):\n        return False\n",
        "    except (nacl.exceptions.CryptoError, ValueError, binascii.Error):\n        return True\n",
        needs="corruption",
    ),
    one(
        "a crashed process is not noticed",
        "edgeflock_agent.watch",
        "        if not process.alive and not may_be_gone:\n",
        "        if False:\n",
        needs="incumbent_crashes",
    ),
    # deltas, chains of forms, kept inputs
    one(
        "a delta is chosen without a look at its base",
        f"{_STORAGE}.store",
        "        return blob.cheapest(lambda sha256: holds(self.blob_path(sha256), sha256))\n",
        "        return blob.cheapest(lambda sha256: True)\n",
        needs="lost_bases",
    ),
    one(
        "what a delta decodes to is believed",
        f"{_STORAGE}.store",
        "            if hasher.hexdigest() != blob.sha256:\n",
        "            if False:\n",
        needs="rotten_bases",
    ),
    one(
        "a base that is damaged while it is read is the bundle's fault",
        "edgeflock_agent.jobs",
        "            if way.base is None or self._store.way(blob) == way:\n",
        "            if True:\n",
        needs="rotten_bases",
    ),
    one(
        "a chain begins anew when its manifest comes",
        f"{_MACHINE}.forms",
        "    facts = state.bundles.get(digest) or BundleFacts(version=version)\n",
        "    facts = BundleFacts(version=version)\n",
        needs="misfitting",
    ),
    one(
        "what was declared of a form is held against nothing",
        "edgeflock_agent.limits",
        "    if memory is not None and measured.peak",
        "    if False and measured.peak",
        needs="misfitting",
    ),
    one(
        "the first form that does not fit ends the chain",
        f"{_MACHINE}.forms",
        "    if facts is None or facts.form + 1 >= len(facts.variants):\n",
        "    if True:\n",
        needs="misfitting",
    ),
    one(
        "kept inputs take what room they like",
        f"{_STORAGE}.ring",
        "        while held and (total + size > self.most_bytes or",
        "        while held and (False or",
        needs="captures",
    ),
    one(
        "kept inputs take the last of the room",
        f"{_STORAGE}.ring",
        "        if self._free_bytes() < size + _RESERVE_BYTES:\n",
        "        if self._free_bytes() < size:\n",
        needs="tight_disks",
    ),
    one(
        "the first piece of kept inputs is taken for all of them",
        "edgeflock_controller.captures",
        '            one["done"] = self._have(piece.token) == piece.pieces\n',
        '            one["done"] = True\n',
        needs="captures",
    ),
)
