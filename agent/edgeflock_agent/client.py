"""A client for applications on the board: numpy arrays in, numpy arrays out, over the agent's local endpoint.

    with Client("unix:/run/edgeflock/agent.sock") as agent:
        answer = agent.infer("digits", {"x": image})
        answer.outputs["scores"], answer.digest

It speaks the Open Inference Protocol v2 with binary tensors on one connection that stays open, and needs nothing beside
numpy and the standard library. Any client of the protocol does as well; this one is small and knows Unix sockets.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from numpy.typing import ArrayLike, NDArray

from edgeflock_agent import client_arrays
from edgeflock_agent.children.datatypes import NUMPY_NAMES
from edgeflock_agent.children.time_limits import set_limit
from edgeflock_agent.client_arrays import Layout
from edgeflock_agent.serving.http_wire import Broken, Ended, Head, Wire

_JSON_BYTES = "Inference-Header-Content-Length"
_JSON_FIELD = _JSON_BYTES.lower()
_KNOWN = 64
_OK = 200


class AgentError(Exception):
    """The agent refused a request: `status` is HTTP's, the text is the agent's reason.

    404: no such model; 400: the inputs do not fit; 413: they are too large; 503: no variant can answer now, ask again.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{text} ({status})")
        self.status, self.text = status, text


class Unreachable(ConnectionError):
    """Nobody answers at the address, or what answers is no agent."""


class TensorInfo(NamedTuple):
    """An input or output: its name, numpy type (`text`: labels) and shape; -1 is any size, first of all of a batch."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class ModelInfo(NamedTuple):
    """What serves a model now: the digest of the variant, and its tensors."""

    digest: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


class Answer(NamedTuple):
    """An inference's answer: arrays by output name, the digest of the variant that gave it, the interpreter's time.

    Labels come as arrays of `str` objects. `end_to_end_ms` is the time with the processing that the bundle declares;
    `sequence_restarted` says that a sequence went on that the variant did not know, so that its state began anew.
    """

    outputs: dict[str, NDArray[Any]]
    digest: str
    latency_ms: float
    id: str | None
    end_to_end_ms: float = 0.0
    sequence_restarted: bool = False


class Sequence(NamedTuple):
    """Which sequence of a stateful model a request belongs to, and whether it is its first or last.

    Without an id it is the model's one default sequence.
    """

    id: int | str = 0
    start: bool = False
    end: bool = False


class Client:
    """A connection to an agent, made at the first request and again when it broke. Threads may share it, in turns.

    Args:
        address: `http://HOST:PORT` or `unix:PATH`, as `edgeflock-agent status` shows them.
        timeout_s: how long each answer may take.

    Raises:
        ValueError: the address is neither.
    """

    def __init__(self, address: str, *, timeout_s: float = 30.0) -> None:
        self._to = _parsed(address)
        self._address, self._timeout_s = address, timeout_s
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._wire: Wire | None = None
        self._known: dict[Any, bytes] = {}  # what requests begin with, all but their tensors
        self._layout: Layout | None = None  # of the last answer

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request makes another."""
        if self._socket is not None:
            self._socket.close()
        self._socket = self._wire = None

    def ready(self, model: str | None = None) -> bool:
        """Whether a model, or all that this board should serve, can answer now; False too while nobody listens."""
        try:
            self._get(f"/v2/models/{model}/ready" if model else "/v2/health/ready")
        except Unreachable:
            return False
        except AgentError as error:
            if error.status in {404, 503}:
                return False
            raise
        return True

    def model(self, name: str) -> ModelInfo:
        """What serves a model now.

        Raises:
            AgentError: the agent refused.
            Unreachable: nobody answers.
        """
        said = self._get(f"/v2/models/{name}")
        return ModelInfo(said["versions"][0], *(tuple(map(_info, said[kind])) for kind in ("inputs", "outputs")))

    def infer(
        self,
        model: str,
        inputs: Mapping[str, ArrayLike],
        *,
        outputs: Iterable[str] | None = None,
        id: str | None = None,  # noqa: A002 - the protocol's word
        sequence: Sequence | None = None,
    ) -> Answer:
        """Run a model once.

        Args:
            model: its name.
            inputs: an array per input, of exactly the model's type and shape, where -1 is any size; the name of an only
                input may be any.
            outputs: which outputs are wanted; all if left out.
            id: comes back with the answer.
            sequence: of a stateful model; its default sequence goes on where it is left out.

        Raises:
            ValueError: an array of a type that the protocol does not have.
            AgentError: the agent refused.
            Unreachable: nobody answers.
        """
        arrays = [client_arrays.little_endian(given) for given in inputs.values()]
        wanted = tuple(outputs) if outputs is not None else None
        like = (model, *inputs, wanted, id, sequence, *[(array.dtype, array.shape) for array in arrays])
        before = self._known.get(like)  # of a request like one before only the tensors are new
        if before is None:
            named, about = dict(zip(inputs, arrays, strict=True)), sequence._asdict() if sequence is not None else {}
            request = json.dumps(client_arrays.request(named, wanted, id, about)).encode()
            before = _head("POST", f"/v2/models/{model}/infer", request, sum(array.nbytes for array in arrays))
            before += request
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[like] = before
        return self._answer(*self._ask(before, *map(client_arrays.sent, arrays)))

    def _answer(self, status: int, text: bytearray, binary: memoryview) -> Answer:
        layout = self._layout
        times_ms = layout.times_ms(text) if layout is not None and status == _OK else None
        if layout is not None and times_ms is not None:  # it is like the one before
            said, places = layout.said, layout.outputs
        else:
            said = self._read(status, text)
            self._layout, places = Layout.of(text, said), client_arrays.places(said["outputs"])
            times_ms = said["parameters"]["latency_ms"], said["parameters"].get("end_to_end_ms", 0.0)
        parameters = said["parameters"]
        return Answer(
            client_arrays.arrays(places, binary),
            parameters["digest"],
            times_ms[0],
            said.get("id"),
            times_ms[1],
            parameters.get("sequence_restarted", False),
        )

    def _get(self, path: str) -> dict[str, Any]:
        status, text, _ = self._ask(_head("GET", path))
        return self._read(status, text)

    def _ask(self, *request: bytes | memoryview) -> tuple[int, bytearray, memoryview]:
        """Send a request; status and JSON of its answer, and the binary tensors behind it."""
        with self._lock:
            try:
                answer, body = self._exchange(request)
            except (OSError, Ended, Broken) as error:
                self.close()
                late = isinstance(error, BlockingIOError)
                reason = f"none within {self._timeout_s:g} s" if late else str(error) or type(error).__name__
                raise Unreachable(f"no answer from {self._address}: {reason}") from None
        try:
            length, status = int(answer.fields.get(_JSON_FIELD, len(body))), int(answer.start[1])
        except ValueError:
            raise self._no_agent() from None
        return status, body[:length], memoryview(body)[length:]

    def _read(self, status: int, text: bytearray) -> dict[str, Any]:
        """What an answer's JSON says."""
        try:
            content = json.loads(text)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise self._no_agent()
        if status != _OK:
            raise AgentError(status, content.get("error", "no reason given"))
        return content

    def _no_agent(self) -> Unreachable:
        return Unreachable(f"what answers at {self._address} is no agent")

    def _exchange(self, parts: tuple[bytes | memoryview, ...]) -> tuple[Head, bytearray]:
        """Send and receive; once more on a new connection if the agent had closed the old one while it was idle."""
        old = self._wire is not None
        try:
            wire = self._connected()
            wire.send(*parts)
            head = wire.head()
        except (BrokenPipeError, ConnectionResetError):
            if not old:
                raise
            head = None
        if head is None:
            self.close()
            if not old:
                raise Ended("it closed the connection")
            return self._exchange(parts)
        body = wire.body(head.body_bytes or 0)
        if not head.stays_open:
            self.close()
        return head, body

    def _connected(self) -> Wire:
        if self._wire is None:
            self._socket = socket.socket(self._to[0])
            self._socket.settimeout(self._timeout_s)
            self._socket.connect(self._to[1])
            if self._to[0] != socket.AF_UNIX:
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            set_limit(self._socket, self._timeout_s)
            self._wire = Wire(self._socket)
        return self._wire


def _parsed(address: str) -> tuple[socket.AddressFamily, Any]:
    if address.startswith("unix:") and len(address) > 5:
        return socket.AF_UNIX, address[5:]
    parts = urlsplit(address)
    if parts.scheme != "http" or not parts.hostname or parts.path not in {"", "/"}:
        raise ValueError(f"{address!r} is neither http://HOST:PORT nor unix:PATH")
    return socket.AF_INET6 if ":" in parts.hostname else socket.AF_INET, (parts.hostname, parts.port or 80)


def _info(described: dict[str, Any]) -> TensorInfo:
    return TensorInfo(described["name"], NUMPY_NAMES[described["datatype"]], tuple(described["shape"]))


def _head(method: str, path: str, text: bytes = b"", tensor_bytes: int = 0) -> bytes:
    json_bytes = f"{_JSON_BYTES}: {len(text)}\r\n" if tensor_bytes else ""
    length = len(text) + tensor_bytes
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{json_bytes}\r\n".encode()
