from __future__ import annotations

from pathlib import Path

import pytest

from edgeflock_agent.measure.memory_room import CHILD_BYTES, Memory, need_bytes
from edgeflock_deploy.bundle import Manifest, Task, Tolerance, encode_blob

MB = 1 << 20
NEED = CHILD_BYTES + 10 * MB


def _manifest(ram_bytes: int | None) -> Manifest:
    return Manifest(
        model="digits",
        version=1,
        variant="v",
        blobs={"model": encode_blob(bytes(1000)).blob},
        inputs=(),
        outputs=(),
        tolerance=Tolerance(runtime="none"),
        task=Task(kind="classification", metric="accuracy"),
        ram_bytes=ram_bytes,
    )


def _write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def _board(root: Path, available_mb: int) -> Path:
    return _write(root, {"proc/meminfo": f"MemTotal:  999999 kB\nMemAvailable:   {available_mb * 1024} kB\n"})


def test_a_variant_needs_what_was_measured_or_three_times_its_file() -> None:
    assert need_bytes(_manifest(5 * MB)) == CHILD_BYTES + 5 * MB
    assert need_bytes(_manifest(None)) == CHILD_BYTES + 3000
    assert need_bytes(_manifest(5 * MB), 7 * MB) == CHILD_BYTES + 7 * MB  # what this board measured comes first


def test_a_board_holds_another_while_enough_stays_free(tmp_path: Path) -> None:
    assert Memory(_board(tmp_path, 200)).holds(NEED, [])
    assert not Memory(_board(tmp_path, 60)).holds(NEED, [])


def test_the_users_limit_counts_all_that_are_loaded(tmp_path: Path) -> None:
    root = _board(tmp_path, 10_000)
    memory = Memory(root, limit_bytes=110 * MB)
    assert memory.holds(NEED, [CHILD_BYTES + 10 * MB])
    assert not memory.holds(NEED, [CHILD_BYTES + 25 * MB])


def test_the_narrowest_control_group_above_the_process_decides(tmp_path: Path) -> None:
    root = _write(
        _board(tmp_path, 500),
        {
            "proc/self/cgroup": "0::/system.slice/agent.service\n",
            "sys/fs/cgroup/system.slice/agent.service/memory.max": "max\n",
            "sys/fs/cgroup/system.slice/agent.service/memory.current": str(90 * MB),
            "sys/fs/cgroup/system.slice/memory.max": str(200 * MB),
            "sys/fs/cgroup/system.slice/memory.current": str(150 * MB),
            "sys/fs/cgroup/system.slice/memory.stat": f"anon 1\ninactive_file {20 * MB}\n",
        },
    )
    assert Memory(root).available_bytes() == 70 * MB


@pytest.mark.parametrize(("limit", "left"), [(str(80 * MB), 50 * MB), ("9223372036854771712", 500 * MB)])
def test_version_1_of_the_control_groups_is_read_too(tmp_path: Path, limit: str, left: int) -> None:
    group = "sys/fs/cgroup/memory/agent"
    root = _write(
        _board(tmp_path, 500),
        {
            "proc/self/cgroup": "5:cpu:/x\n4:memory:/agent\n",
            f"{group}/memory.limit_in_bytes": limit,
            f"{group}/memory.usage_in_bytes": str(30 * MB),
        },
    )
    assert Memory(root).available_bytes() == left


def test_a_system_that_tells_nothing_is_trusted(tmp_path: Path) -> None:
    assert Memory(tmp_path).available_bytes() is None
    assert Memory(tmp_path).holds(NEED, [])
