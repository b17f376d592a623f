"""What a sealed child can still do, tried by a process that means ill; and what a real child shows of itself."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeflock_agent.children import sandbox
from edgeflock_agent.children.runner import ModelProcess
from edgeflock_deploy.sandbox import landlock, seccomp

DATA = Path(__file__).parents[2] / "data"
HOSTILE = Path(__file__).with_name("hostile_process.py")
OFFERED = sandbox.offered()
needs_landlock = pytest.mark.skipif(not OFFERED.landlock_abi, reason=str(OFFERED))
needs_seccomp = pytest.mark.skipif(not OFFERED.seccomp, reason=str(OFFERED))
Tried = Callable[[str], Any]


class World:
    """Things outside that a child could lay its hands on."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.named, self.other = folder, folder / "model.tflite", folder / "other"
        self.named.write_text("the model")
        self.other.write_text("somebody else's")
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.abstract = socket.socket(socket.AF_UNIX)
        self.abstract.bind(f"\0edgeflock-test-{os.getpid()}-{folder.name}")
        self.abstract.listen()
        self.bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    def close(self) -> None:
        self.tcp.close()
        self.abstract.close()
        self.bystander.communicate(b"\n")

    def tried(self, how: str) -> dict[str, Any]:
        """What came of each try: "done", or the name of the error; by a process that is sealed `how`."""
        with self.named.open("rb") as named:
            arguments = (
                how,
                str(os.getpid()),
                str(named.fileno()),
                str(self.other),
                str(self.tcp.getsockname()[1]),
                self.abstract.getsockname()[1:].decode(),
                str(self.bystander.pid),
            )
            done = subprocess.run(
                [sys.executable, str(HOSTILE), *arguments],
                pass_fds=[named.fileno()],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    one = World(tmp_path_factory.mktemp("world"))
    yield one
    one.close()


@pytest.fixture(scope="module")
def sealed(world: World) -> dict[str, Any]:
    return world.tried("sealed")


@pytest.fixture(scope="module")
def by_landlock(world: World) -> dict[str, Any]:
    return world.tried("landlock")


def test_before_it_is_sealed_a_process_can_do_all_of_it(world: World) -> None:
    tried = world.tried("open")  # else the other tests would show nothing
    asks_leave = {"trace", "memory of another"}  # which some systems refuse to all but root
    assert {name: result for name, result in tried.items() if result != "done" and name not in asks_leave} == {}


@needs_landlock
@pytest.mark.parametrize("what", ["read", "write", "write the model", "make a file", "make a folder", "list", "remove"])
def test_the_model_is_the_only_file_that_a_sealed_child_opens_and_it_only_reads_it(
    sealed: dict[str, Any], what: str
) -> None:
    assert sealed[what] in {"EACCES", "EPERM"}
    assert sealed["read the model"] == "done"


@needs_landlock
def test_landlock_alone_keeps_it_from_tcp_other_programs_and_the_memory_of_others(by_landlock: dict[str, Any]) -> None:
    assert by_landlock["execute"] == "EACCES"
    assert by_landlock["memory of another"] == "EACCES"
    if OFFERED.landlock_abi >= 4:
        assert (by_landlock["connect"], by_landlock["listen"]) == ("EACCES", "EACCES")
    if OFFERED.landlock_abi >= 6:
        assert (by_landlock["abstract socket"], by_landlock["signal another"]) == ("EPERM", "EPERM")


@needs_seccomp
@pytest.mark.parametrize(
    "what",
    [
        "fork", "execute", "connect", "listen", "udp", "abstract socket", "signal another", "limit another",
        "change the mode", "trace",
    ],
)  # fmt: skip
def test_a_sealed_child_starts_nothing_reaches_nobody_and_leaves_others_alone(
    sealed: dict[str, Any], what: str
) -> None:
    assert sealed[what] in {"EPERM", "EACCES"}


def test_a_sealed_child_may_still_start_threads_and_end_itself(sealed: dict[str, Any]) -> None:
    assert sealed["start a thread"] == "done"
    assert sealed["signal itself"] == "done"


def test_it_stands_in_the_root_with_no_core_few_files_and_little_to_write(sealed: dict[str, Any]) -> None:
    assert sealed["folder"] == "/"
    assert sealed["limits"] == {"core": 0, "files": 64, "written": 64 * 1024}
    assert sealed["write much"] == "EFBIG"


@pytest.fixture(scope="module")
def decoder(world: World) -> dict[str, Any]:
    return world.tried("decoder")


@pytest.mark.parametrize(
    "what", ["read", "read the model", "write", "make a file", "list", "connect", "listen", "udp", "abstract socket"]
)
def test_a_decoder_opens_and_reaches_nothing_whatever_the_kernel_offers(decoder: dict[str, Any], what: str) -> None:
    assert decoder[what] in {"EMFILE", "EACCES", "EPERM"}
    assert decoder["folder"] == "/"
    assert decoder["limits"] == {"core": 0, "files": 0, "written": 0}


@needs_landlock
def test_a_decoder_makes_and_removes_nothing(decoder: dict[str, Any]) -> None:
    assert (decoder["make a folder"], decoder["remove"]) == ("EACCES", "EACCES")


@needs_seccomp
@pytest.mark.parametrize("what", ["fork", "execute", "signal another", "limit another", "change the mode", "trace"])
def test_a_decoder_starts_nothing_and_leaves_others_alone(decoder: dict[str, Any], what: str) -> None:
    assert decoder[what] in {"EPERM", "EACCES"}


def test_a_thread_that_goes_on_spinning_is_ended_by_the_kernel() -> None:
    script = (
        "from edgeflock_agent.children import sandbox\nsandbox._CPU_SLACK_S = 0\nsandbox.allow_cpu(1)\nwhile True: pass"
    )
    done = subprocess.run([sys.executable, "-c", script], timeout=60, check=False)
    assert done.returncode == -signal.SIGXCPU


def test_a_real_child_shows_what_holds_it_and_has_nothing_of_the_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_PASSWORD", "secret")
    with (DATA / "tiny.tflite").open("rb") as secret, ModelProcess.start(DATA / "tiny.tflite", threads=2) as process:
        os.set_inheritable(secret.fileno(), True)
        proc = Path(f"/proc/{process.pid}")
        status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines())
        assert process.sealed == OFFERED
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == ("2" if OFFERED.seccomp else "0")
        assert [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [0] * 4
        assert b"secret" not in (proc / "environ").read_bytes()
        assert (proc / "cwd").readlink() == Path("/")
        opened = [str(fd.readlink()) for fd in (proc / "fd").iterdir()]
        files = [name for name in opened if name.startswith("/") and "deleted" not in name]
        assert set(files) == {"/dev/null", f"/proc/{process.pid}/status", str(DATA / "tiny.tflite")}
        assert os.getsid(process.pid) == process.pid


def test_no_thread_runs_before_a_child_is_sealed() -> None:
    script = (
        "import os\nfrom edgeflock_agent.children import child\n"
        "child.rehearse(); child.Child(); print(len(os.listdir('/proc/self/task')))"
    )
    environment = sandbox.environment(os.environ)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "1\n"


def test_a_kernel_without_landlock_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class OldKernel:
        """A C library whose kernel knows neither Landlock nor filters."""

        def syscall(self, *_: object) -> int:
            return -1

        def prctl(self, *_: object) -> int:
            return -1

    monkeypatch.setattr("ctypes.CDLL", lambda *_a, **_k: OldKernel())
    monkeypatch.setattr("ctypes.get_errno", lambda: errno.ENOSYS)
    assert sandbox.offered()[:2] == (0, False)
    assert str(sandbox.seal([])).startswith("resource limits only; Landlock: this kernel has none; seccomp: ")
    monkeypatch.setattr("ctypes.get_errno", lambda: errno.EOPNOTSUPP)
    with pytest.raises(landlock.NotOffered, match="switched off"):
        landlock.abi()


@pytest.mark.parametrize("name", sorted(seccomp.TABLES))
def test_the_filter_refuses_what_its_table_names_and_lets_the_rest_through(name: str) -> None:
    calls, pid = seccomp.TABLES[name], 4242
    code = seccomp.program(calls, pid)

    def answer(number: int, argument: int = 0, architecture: int = calls.architecture) -> str:
        at, held = 0, 0
        while True:
            operation, yes, no, operand = code[at]
            at += 1
            if operation == 0x20:
                held = {0: number, 4: architecture, 16: argument}[operand]
            elif operation == 0x06:
                return {0x7FFF0000: "allowed", 0x00050001: "EPERM", 0x00050026: "ENOSYS"}[operand]
            else:
                holds = {0x15: held == operand, 0x35: held >= operand, 0x45: bool(held & operand)}[operation]
                at += yes if holds else no

    assert {answer(number) for number in calls.refused} == {"EPERM"}
    assert (answer(calls.clone), answer(calls.clone, 0x10000), answer(435)) == ("EPERM", "allowed", "ENOSYS")
    assert {(answer(number, pid), answer(number, 1)) for number in calls.of_itself} == {("allowed", "EPERM")}
    assert [answer(calls.prlimit, of) for of in (0, pid, 1)] == ["allowed", "allowed", "EPERM"]
    assert answer(0) == answer(1) == "allowed"  # on x86_64: read and write
    assert answer(0, architecture=1) == "EPERM"
    assert len(set(calls.refused)) == len(calls.refused)


def test_giving_up_privileges_twice_is_harmless() -> None:
    script = (
        "from edgeflock_deploy.sandbox import privileges as p\n"
        "for _ in range(2): p.gain_none(); p.drop_capabilities()\n"
        "print(open('/proc/self/status').read())"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "CapEff:\t0000000000000000" in said
