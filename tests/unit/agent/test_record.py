from __future__ import annotations

import errno
from pathlib import Path

import pytest
from power import DyingDisk, PowerCut

from edgeflock_agent.machine.state import BundleFacts, ModelState
from edgeflock_agent.storage.disk import Disk, DiskFull
from edgeflock_agent.storage.record import AgentRecord, RecordFile
from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.messages.orders import DesiredModel, Phase
from edgeflock_deploy.messages.reports import Slots, Tried
from edgeflock_deploy.messages.values import DeviceState
from edgeflock_deploy.reasons import Reason


def record(floor: int) -> AgentRecord:
    entry = DesiredModel(generation=floor, phase=Phase.COMMIT, digest="d", rollout="r", expires_at=9.0)
    state = ModelState(
        model="digits",
        state=DeviceState.COMMITTED,
        desired=entry,
        slots=Slots(active="d"),
        bundles={"d": BundleFacts(version=floor)},
        known_bad=("x",),
        floor_version=floor,
    )
    return AgentRecord(device="a", device_class="c", broker="mqtt://h:1", models={"digits": state})


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    RecordFile(tmp_path, Disk()).write(record(1))
    assert RecordFile(tmp_path, Disk()).read() == record(1)


def test_no_record_is_none(tmp_path: Path) -> None:
    assert RecordFile(tmp_path, Disk()).read() is None


def test_a_record_torn_at_any_byte_gives_the_one_before(tmp_path: Path) -> None:
    file = RecordFile(tmp_path, Disk())
    file.write(record(1))
    file.write(record(2))
    whole = file.path.read_bytes()
    for length in range(len(whole)):
        file.path.write_bytes(whole[:length])
        assert RecordFile(tmp_path, Disk()).read() == record(1), length


def test_a_record_with_any_byte_altered_gives_the_one_before(tmp_path: Path) -> None:
    file = RecordFile(tmp_path, Disk())
    file.write(record(1))
    file.write(record(2))
    whole = file.path.read_bytes()
    for place in range(len(whole)):
        altered = bytearray(whole)
        altered[place] ^= 0x01
        file.path.write_bytes(altered)
        assert RecordFile(tmp_path, Disk()).read() == record(1), place


@pytest.mark.parametrize("torn_before", [False, True])
def test_a_power_cut_at_any_step_leaves_the_old_record_or_the_new_one(tmp_path: Path, torn_before: bool) -> None:
    finished = False
    for operations in range(30):
        folder = tmp_path / str(operations)
        folder.mkdir()
        first = RecordFile(folder, Disk())
        first.write(record(1))
        first.write(record(2))
        old = {2, 3}
        if torn_before:
            first.path.write_bytes(first.path.read_bytes()[:-3])
            old = {1, 3}
        dying = RecordFile(folder, DyingDisk(operations))
        dying.read()
        try:
            dying.write(record(3))
            finished = True
        except PowerCut:
            pass
        found = RecordFile(folder, Disk()).read()
        assert found is not None
        assert found.models["digits"].floor_version in ({3} if finished else old)
        RecordFile(folder, Disk()).write(record(4))
        after = RecordFile(folder, Disk()).read()
        assert after == record(4)
        if finished:
            break
    assert finished
    assert operations > 3


def test_a_full_disk_leaves_the_old_record(tmp_path: Path) -> None:
    class Full(Disk):
        def put(self, handle: int, data: bytes) -> None:
            super().put(handle, data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")

    RecordFile(tmp_path, Disk()).write(record(1))
    with pytest.raises(DiskFull):
        RecordFile(tmp_path, Full()).write(record(2))
    assert RecordFile(tmp_path, Disk()).read() == record(1)
    assert not list(tmp_path.glob("*.tmp"))


def test_a_record_of_a_newer_release_is_refused_in_one_line(tmp_path: Path) -> None:
    line = b'{"v":2}'
    (tmp_path / "record").write_bytes(line + b"\n" + sha256_hex(line).encode() + b"\n")
    with pytest.raises(BadInput, match="is not a state record of version 1"):
        RecordFile(tmp_path, Disk()).read()


def test_version_1_is_read_for_ever() -> None:
    # A line as the first agents wrote it: fields may be added, none may lose its meaning.
    line = (
        b'{"v":1,"device":"a","device_class":"c","broker":"mqtt://h:1","models":{"digits":{"model":"digits",'
        b'"state":"COMMITTED","desired":{"generation":2,"phase":"commit","digest":"d","rollout":"r","trial":{"mode":'
        b'"shadow","window_pairs":130,"window_max_s":10.0,"pause_s":0.2,"deadline_s":1800.0},"expires_at":9.0},'
        b'"slots":{"active":"d","previous":null,"factory":null},"candidate":null,"outcome":null,"reason":null,'
        b'"detail":null,"attempts":0,"floor_version":2,"bundles":{"d":{"version":2,"measurement":null}},'
        b'"known_bad":["x"],"trial_since_s":null,"restarts_s":[],"retry_at_s":null}}}'
    )
    assert AgentRecord.model_validate_json(line) == record(2)
    facts = AgentRecord.model_validate_json(line).models["digits"].bundles["d"]
    assert (facts.form, facts.variants, facts.tried) == (0, (), ())
    assert AgentRecord.model_validate_json(line).models["digits"].trying is None  # it counts as proven


def test_which_form_a_bundle_runs_as_is_remembered_with_those_that_did_not_fit(tmp_path: Path) -> None:
    tried = Tried(variant="int8", reason=Reason.GOLDEN_MISMATCH, detail="case 0")
    facts = BundleFacts(version=1, form=1, variants=("int8", "float32"), tried=(tried,))
    state = ModelState(model="digits", slots=Slots(active="d"), bundles={"d": facts})
    written = record(1).model_copy(update={"models": {"digits": state}})
    RecordFile(tmp_path, Disk()).write(written)
    assert RecordFile(tmp_path, Disk()).read() == written
    assert (state.form_of("d"), state.form_of("unknown"), facts.variant) == (1, 0, "float32")
