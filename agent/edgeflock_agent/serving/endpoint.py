"""How applications on the board get inferences: the Open Inference Protocol v2, on loopback and on a Unix socket.

Decided here: which paths there are, and how a switch of variants is hidden from an application. The endpoint asks
`serving` which child serves a model *for each request*; one that meets a child closed by a switch asks once more, so
that a switch drops no request. It knows no slots and no rollouts, and of a trial only that one may have a say in who
answers (`Turn`). Every response names the digest of the variant that gave it, which is the model's version in the
protocol's sense; everything else in it, such as the outputs' names, is of the variant that serves.

Paths: GET /v2, /v2/health/live, /v2/health/ready, /v2/models/NAME, /v2/models/NAME/ready; POST /v2/models/NAME/infer;
each of the last three also as /v2/models/NAME/versions/DIGEST…, which holds while that variant serves.
Errors are `{"error": …}`: 400 for a request that cannot be run, 404 for a path or model that is not there, 405 for the
wrong method, 413 for a body that is too large, 503 while no variant can answer, 500 for an answer that is no number and
was asked for as JSON.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable, Collection, MutableMapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from edgeflock_agent.children.runner import Closed, HardStop, Inference, InferenceFailed, ModelProcess, Tensor
from edgeflock_agent.children.tensors import Shape, is_plain
from edgeflock_agent.serving import inference, listening, tensor_json
from edgeflock_agent.serving.http_server import HttpServer, Request, Response, json_response, refusal

_MODEL = re.compile(r"/v2/models/([A-Za-z0-9._-]{1,64})(?:/versions/([A-Za-z0-9._-]{1,64}))?(/ready|/infer)?")
_LENGTH_FIELD = inference.LENGTH_FIELD.lower()


class Serving(NamedTuple):
    """The variant that serves a model: its bundle's digest, its child, and which form of the bundle it is, if known."""

    digest: str
    process: ModelProcess
    variant: str | None = None


RawInputs = tuple[bytes | bytearray | memoryview, ...]


class Answered(NamedTuple):
    """An application's request that was answered: the model, the raw inputs in the model's order, and what came.

    `shapes` are the inputs', None where the model leaves none open. `plain`: one item that stands alone, whose bytes
    say all there is to say; a trial looks at no other.
    """

    model: str
    inputs: RawInputs
    by: Serving
    inference: Inference
    shapes: tuple[Shape, ...] | None = None
    plain: bool = True


class Turn(Protocol):
    """A trial's say in who answers the requests for one model."""

    exchanges: bool
    """Whether two variants take turns in one place: who serves may have no process for a moment, and requests wait."""

    def answer(self, inputs: RawInputs, arrived_s: float, only: str | None) -> tuple[Serving, Inference] | None:
        """Answer a request; None leaves it to whoever serves.

        Args:
            inputs: raw tensors that fit what serves, in its order.
            arrived_s: when the request came (monotonic).
            only: the one digest that may answer; None: any.

        Raises:
            InferenceFailed: the runtime refused it.
            HardStop, Closed: who should answer is gone.
        """

    def incumbent(self, arrived_s: float) -> Serving | None:
        """Who answers what no trial can compare (batches, sequences): the incumbent; None leaves it to whoever serves.

        Raises:
            Closed: it did not come in time.
        """

    def retire(self) -> None:
        """The trial has no say any more: requests that wait ask whoever serves."""


ServingNow = Callable[[str], Serving | None]
ExpectedNow = Callable[[], Collection[str]]
Witness = Callable[[Answered], None]
Turns = Callable[[str], Turn | None]


def end_turn(turns: MutableMapping[str, Turn], model: str) -> None:
    """Take a trial's say in a model's requests away; harmless where there is none."""
    turn = turns.pop(model, None)
    if turn is not None:
        turn.retire()


def _nobody(_answered: Answered) -> None:
    """Nobody looks at what applications ask."""


def _no_turn(_model: str) -> None:
    """No trial has a say."""


class _Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class Endpoint:
    """The server and its threads; make it with `start`, and stop it. `url` is its loopback address."""

    def __init__(self, server: HttpServer, url: str, socket_path: Path | None) -> None:
        self._server, self.url, self.socket_path = server, url, socket_path

    @classmethod
    def start(
        cls,
        serving: ServingNow,
        expected: ExpectedNow = tuple,
        *,
        witness: Witness = _nobody,
        turns: Turns = _no_turn,
        host: str = "127.0.0.1",
        port: int = 0,
        socket_path: Path | None = None,
    ) -> Endpoint:
        """Listen and serve.

        Args:
            serving: which variant serves a model now, or None; called from many threads.
            expected: the models that should be served; the endpoint is ready when all of them are.
            witness: is told of each answer before it is sent, on the request's own thread: it must be quick.
            turns: which trial has a say in a model's requests, or None; called from many threads.
            host: a loopback address.
            port: 0 takes a free one; the real one is in `url`.
            socket_path: where to listen on a Unix socket too.

        Raises:
            BadInput: the address is not a loopback address, or it or the socket cannot be listened on.
        """
        at_port, url = listening.tcp(host, port)
        sockets: list[socket.socket] = [at_port]
        if socket_path is not None:
            try:
                sockets.append(listening.unix(socket_path))
            except BaseException:
                at_port.close()
                raise
        return cls(HttpServer(sockets, _Answers(serving, expected, witness, turns)), url, socket_path)

    def stop(self) -> None:
        """Stop listening, and remove the Unix socket."""
        self._server.stop()
        if self.socket_path is not None:
            with contextlib.suppress(OSError):
                self.socket_path.unlink()


class _Answers:
    """The answer to each request."""

    def __init__(self, serving: ServingNow, expected: ExpectedNow, witness: Witness, turns: Turns) -> None:
        self._serving, self._expected, self._witness, self._turns = serving, expected, witness, turns

    def __call__(self, request: Request) -> Response:
        try:
            if request.path.startswith("/v2/models/"):
                return self._of_model(request)
            if request.method != "GET":
                raise _Refused(405 if request.path in _PATHS else 404, f"{request.path} takes no {request.method}")
            if request.path not in _PATHS:
                raise _Refused(404, f"there is no {request.path}")
            return _PATHS[request.path](self)
        except _Refused as refused:
            return refusal(refused.status, refused.text)
        except inference.WrongRequest as wrong:
            return refusal(400, str(wrong))

    def _metadata(self) -> Response:
        import importlib.metadata  # it brings the email package, and few ask

        try:
            version = importlib.metadata.version("edgeflock")
        except importlib.metadata.PackageNotFoundError:
            version = "unknown"
        return json_response(
            200, {"name": "edgeflock-agent", "version": version, "extensions": ["binary_tensor_data", "sequence"]}
        )

    def _live(self) -> Response:
        return json_response(200, {"live": True})

    def _ready(self) -> Response:
        loading = [name for name in self._expected() if self._serving(name) is None]
        if loading:  # clients of the protocol look at the status
            raise _Refused(503, f"not ready: {', '.join(loading)} is being loaded")
        return json_response(200, {"ready": True})

    def _of_model(self, request: Request) -> Response:
        match = _MODEL.fullmatch(request.path)
        if match is None:
            raise _Refused(404, f"there is no {request.path}")
        name, version, verb = match.groups()
        if request.method != ("POST" if verb == "/infer" else "GET"):
            raise _Refused(405, f"{request.path} takes no {request.method}")
        if verb == "/infer":
            return self._infer(name, version, request)
        now = self._now(name, version)
        if verb == "/ready":
            if not now.process.alive and not self._exchanging(name):
                raise _Refused(503, f"not ready: the variant of model '{name}' ended, and is being replaced")
            return json_response(200, {"name": name, "ready": True})
        return json_response(200, _described(name, now))

    def _infer(self, name: str, version: str | None, request: Request) -> Response:
        arrived_s = time.monotonic()
        asked = inference.read_request(request.body, request.fields.get(_LENGTH_FIELD))
        try:
            return self._answer(name, version, asked, arrived_s)
        except (Closed, HardStop):
            pass
        try:
            return self._answer(name, version, asked, arrived_s)
        except (Closed, HardStop) as error:
            raise _Refused(503, f"model '{name}' has no variant that can answer: {error}") from None

    def _answer(self, name: str, version: str | None, asked: inference.InferRequest, arrived_s: float) -> Response:
        now, turn = self._now(name, version), self._turns(name)
        inference.wanted_outputs(asked, now.process.outputs)  # before the model works for nothing
        if asked.sequence is not None and not now.process.takes_sequences:
            raise _Refused(400, f"model '{name}' keeps no state: it knows no sequences")
        inputs = tuple(inference.input_bytes(asked, now.process.inputs))
        shapes = inference.input_shapes(asked, now.process.inputs)
        alone = asked.sequence is None and not now.process.stateful
        plain = alone and is_plain(now.process.inputs, inputs, shapes)
        try:
            if plain or turn is None:
                answered = turn.answer(inputs, arrived_s, version) if turn is not None else None
            else:
                answered, now = None, turn.incumbent(arrived_s) or now
            by, done = answered or (now, now.process.infer(inputs, shapes, asked.sequence))
        except (InferenceFailed, ValueError) as error:
            raise _Refused(400, str(error)) from None
        self._witness(Answered(name, inputs, by, done, shapes, plain))
        return _response(name, by, _named_as(now.process.outputs, by.process.outputs), asked, done)

    def _exchanging(self, name: str) -> bool:
        turn = self._turns(name)
        return turn is not None and turn.exchanges

    def _now(self, name: str, version: str | None) -> Serving:
        now = self._serving(name)
        if now is None and name in self._expected():
            raise _Refused(503, f"the variant of model '{name}' is being loaded")
        if now is None:
            raise _Refused(404, f"no variant serves a model '{name}' here")
        if version is not None and version != now[0]:
            raise _Refused(404, f"version {version} of model '{name}' does not serve here; {now[0]} does")
        return Serving(*now)


_PATHS: dict[str, Callable[[_Answers], Response]] = {
    "/v2": _Answers._metadata,
    "/v2/health/live": _Answers._live,
    "/v2/health/ready": _Answers._ready,
}


def _described(name: str, now: Serving) -> dict[str, Any]:
    return {
        "name": name,
        "versions": [now.digest],
        "platform": "tflite",
        "inputs": [tensor_json.describe(tensor) for tensor in now.process.inputs],
        "outputs": [tensor_json.describe(tensor) for tensor in now.process.outputs],
    }


def _named_as(known: Sequence[Tensor], given: Sequence[Tensor]) -> Sequence[Tensor]:
    """The outputs of whoever answered, under the names that applications know from whoever serves."""
    if known is given or len(known) != len(given):
        return given
    return [tensor._replace(name=own.name) for own, tensor in zip(known, given, strict=True)]


def _response(
    name: str, by: Serving, outputs: Sequence[Tensor], asked: inference.InferRequest, done: Inference
) -> Response:
    header: dict[str, Any] = {"model_name": name, "model_version": by.digest}
    if asked.id is not None:
        header["id"] = asked.id
    header["parameters"] = {
        "digest": by.digest,
        "latency_ms": done.latency_ms,
        "end_to_end_ms": done.end_to_end_ms,
    }
    if by.variant is not None:
        header["parameters"]["variant"] = by.variant
    if done.restarted:
        header["parameters"]["sequence_restarted"] = True
    wanted = inference.wanted_outputs(asked, outputs)
    try:
        text, binary = inference.response_parts(header, outputs, done.outputs, wanted, done.shapes)
    except ValueError:
        raise _Refused(500, "the variant's answer holds NaN or an infinity, which JSON cannot say") from None
    if not binary:
        return Response(200, (text,))
    field = (inference.LENGTH_FIELD, str(len(text)))
    return Response(200, (text, *binary), "application/octet-stream", (field,))
