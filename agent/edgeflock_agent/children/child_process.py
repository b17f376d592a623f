"""The life of an inference child: start it, ask it, find out how it ended, be sure that it is gone.

Decided here: what a silent or ended child means (HUNG, CRASHED). What is asked, and what an answer means, stands in
`runner`. One lock per child: requests of an application and of a trial interleave.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence, Set
from typing import IO, Any

from edgeflock_agent.children import frames, sandbox
from edgeflock_agent.children.failures import Closed, HardStop, InferenceFailed
from edgeflock_agent.children.lending import Lending
from edgeflock_deploy.reasons import Reason

# Python, numpy and the runtime have to come up first; on a small board under load that takes a while, and is not the
# variant's fault.
_INTERPRETER_START_S = 60.0
_CLOSE_S = 2.0
_STDERR_TAIL_BYTES = 2048


class ChildProcess:
    """A running `edgeflock_agent.children.child`; make it with `start`, and close it.

    After a HardStop with CRASHED or HUNG the child is gone: `alive` is False, and `failure` says why.
    """

    def __init__(
        self, popen: subprocess.Popen[bytes], channel: frames.Channel, stderr: IO[bytes], timeout_s: float
    ) -> None:
        self._popen, self._channel, self._stderr, self.timeout_s = popen, channel, stderr, timeout_s
        self._lock = threading.Lock()
        self._closed = False
        self._answered_at_s = time.monotonic()
        self.failure: HardStop | None = None
        self.lending = Lending(self.ask, lambda: self.timeout_s, self._hung)

    @classmethod
    def start(cls, timeout_s: float) -> ChildProcess:
        """Start a child, which is killed when the *thread* that calls this ends, and wait until it is ready.

        Args:
            timeout_s: how long each answer may take.

        Raises:
            HardStop: INTERNAL, if it does not come up.
        """
        ours, theirs = frames.connected()
        stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child; closed when it is gone
        try:
            popen = subprocess.Popen(
                [sys.executable, "-m", "edgeflock_agent.children.child", str(os.getpid()), str(theirs.files)],
                stdin=theirs.reader,
                stdout=theirs.writer,
                stderr=stderr,
                pass_fds=(theirs.files,),
                env=sandbox.environment(os.environ),
                start_new_session=True,  # Ctrl-C is for the agent, which then closes its children
            )
        finally:
            theirs.close()
        child = cls(popen, frames.Channel(ours), stderr, timeout_s)
        try:
            child._read(_INTERPRETER_START_S)
        except HardStop as stop:
            raise HardStop(Reason.INTERNAL, f"the inference child did not start: {stop.detail}") from None
        return child

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """Whether it is there to answer."""
        return not self._closed and self._popen.poll() is None

    def ask(
        self,
        header: dict[str, Any],
        payload: frames.Data | Sequence[frames.Data] = b"",
        *,
        files: Sequence[int] = (),
        extra_s: float = 0.0,
    ) -> frames.Frame:
        """Send a request and wait for its reply, for `extra_s` longer than usual.

        Args:
            header: the request.
            payload: its bytes, or pieces of which they are made.
            files: descriptors that go along.
            extra_s: see above.

        Raises:
            HardStop: the child says that the variant misbehaved, or CRASHED, HUNG.
            InferenceFailed: the child says that this request failed.
            Closed: there is no child any more.
        """
        with self._lock:
            if self._closed:
                raise self._gone()
            try:
                self._channel.send(header, payload, files, self.timeout_s)
            except (frames.Ended, frames.TimedOut) as error:
                raise self._fatal(error) from None
            reply = self._read(self.timeout_s + extra_s)
            self._answered_at_s = time.monotonic()
            if isinstance(reply.payload, memoryview):  # in shared memory, which the next request overwrites
                reply = reply._replace(payload=bytearray(reply.payload))
        if "stop" in reply.header:
            raise HardStop(Reason(reply.header["stop"]), reply.header["detail"])
        if "error" in reply.header:
            raise InferenceFailed(reply.header["error"])
        return reply

    def share(self, needed: int) -> None:
        """Make room for payloads of so many bytes, either way, before the first of them comes."""
        with self._lock:
            if not self._closed:
                self._channel.share(needed)

    def beat(self, idle_s: float) -> None:
        """See whether it is there: asked, unless it is busy or answered within `idle_s`; gone afterwards if silent.

        What comes of it stands in `alive` and `failure`.
        """
        if self._lock.locked() or time.monotonic() - self._answered_at_s < idle_s:
            return
        with contextlib.suppress(HardStop, InferenceFailed, Closed):
            self.ask({"op": "beat"})

    def pin(self, cpus: Set[int]) -> None:
        """Have the child's first thread, which runs a model of one thread, run on these CPUs only."""
        with contextlib.suppress(OSError, AttributeError):  # it ended just now, or the system has no such thing
            os.sched_setaffinity(self.pid, cpus)

    def close(self) -> None:
        """End it after the request that it is answering. Closing twice is harmless."""
        self.lending.end(self.timeout_s)
        with self._lock:
            if not self._hang_up():
                return
        self._wait_until_gone()  # not under the lock: who waits for an answer is told at once to ask elsewhere

    def _hung(self) -> None:
        """It is at an application's request for too long: make sure that it is gone."""
        if self._lock.acquire(blocking=False):  # else whoever waits for its answer finds that out
            try:
                if not self._closed:
                    self._fatal(frames.TimedOut())
            finally:
                self._lock.release()

    def _read(self, timeout_s: float) -> frames.Frame:
        try:
            return self._channel.receive(timeout_s)
        except (frames.Ended, frames.TimedOut, frames.BadFrame) as error:
            raise self._fatal(error) from None

    def _fatal(self, error: Exception) -> HardStop | Closed:
        """The child hangs or is gone: make sure that it is gone, and say why."""
        if isinstance(error, frames.TimedOut):  # said before `alive` turns False, upon which somebody asks why
            self.failure = HardStop(Reason.HUNG, f"no answer within {self.timeout_s:g} s")
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(_CLOSE_S)  # its pipe is closed: let it end by itself, for its own exit status
        last_words = self._last_words()
        if self._hang_up():
            self._popen.kill()
            self._wait_until_gone()
        if self.failure is None:
            self.failure = HardStop(Reason.CRASHED, f"ended {_ending(self._popen.returncode)}{last_words}")
        return self._gone()

    def _gone(self) -> HardStop | Closed:
        """Why nobody answers; made anew, for an exception that is raised again and again holds all who met it."""
        if self.failure is None:
            return Closed("the inference child is closed")
        return HardStop(self.failure.reason, self.failure.detail)

    def _hang_up(self) -> bool:
        """Take no more requests; False if that was so already."""
        if self._closed:
            return False
        self._closed = True
        self._channel.close()  # the end of its input is its sign to go
        return True

    def _wait_until_gone(self) -> None:
        try:
            self._popen.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self._stderr.close()

    def _last_words(self) -> str:
        end = os.fstat(self._stderr.fileno()).st_size
        tail = os.pread(self._stderr.fileno(), _STDERR_TAIL_BYTES, max(0, end - _STDERR_TAIL_BYTES))
        lines = [line for line in tail.decode(errors="replace").splitlines() if line and not line.startswith("INFO:")]
        return f": {lines[-1].strip()}" if lines else ""


def _ending(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        with contextlib.suppress(ValueError):
            return f"by {signal.Signals(-returncode).name}"
    return f"with code {returncode}"
