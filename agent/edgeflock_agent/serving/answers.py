"""The answer to each request of the Open Inference Protocol v2, and which paths there are.

Decided here: how a switch of variants is hidden from an application. `serving` is asked which child serves a model *for
each request*; one that meets a child closed by a switch asks once more, so that a switch drops no request. Every
response names the digest of the variant that gave it, which is the model's version in the protocol's sense; everything
else in it, such as the outputs' names, is of the variant that serves. Of a trial only that one may have a say in who
answers (`Turn`).

Paths: GET /v2, /v2/health/live, /v2/health/ready, /v2/models/NAME, /v2/models/NAME/ready; POST /v2/models/NAME/infer;
each of the last three also as /v2/models/NAME/versions/DIGEST…, which holds while that variant serves.
Errors are `{"error": …}`: 400 for a request that cannot be run, 404 for a path or model that is not there, 405 for the
wrong method, 413 for a body that is too large, 503 while no variant can answer, 500 for an answer that is no number and
was asked for as JSON.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from edgeflock_agent.children.lending import Back, Lost
from edgeflock_agent.children.runner import Closed, HardStop, Inference, InferenceFailed, Tensor
from edgeflock_agent.children.tensors import is_plain
from edgeflock_agent.serving import inference, lending, tensor_json
from edgeflock_agent.serving.http_server import Lend, Request, Response, json_response, refusal
from edgeflock_agent.serving.turns import Answered, ExpectedNow, MayLend, Refused, Serving, ServingNow, Turns, Witness

_MODEL = re.compile(r"/v2/models/([A-Za-z0-9._-]{1,64})(?:/versions/([A-Za-z0-9._-]{1,64}))?(/ready|/infer)?")
_LENGTH_FIELD = inference.LENGTH_FIELD.lower()


class _Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class Answers:
    """The answer to each request; see `Endpoint.start` for the arguments."""

    def __init__(
        self,
        serving: ServingNow,
        expected: ExpectedNow,
        witness: Witness,
        refused: Refused,
        turns: Turns,
        may_lend: MayLend,
    ) -> None:
        self._serving, self._expected, self._witness, self._refused = serving, expected, witness, refused
        self._turns, self._may_lend = turns, may_lend

    def __call__(self, request: Request) -> Response:
        """The answer to one request; called from many threads."""
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
        try:
            plain = alone and is_plain(now.process.inputs, inputs, shapes)
            if plain or turn is None:
                answered = turn.answer(inputs, arrived_s, version) if turn is not None else None
            else:
                answered, now = None, turn.incumbent(arrived_s) or now
            by, done = answered or (now, now.process.infer(inputs, shapes, asked.sequence))
        except (InferenceFailed, ValueError) as error:
            if isinstance(error, InferenceFailed) and turn is None:  # a trial counts for itself
                self._refused(name, now)
            raise _Refused(400, str(error)) from None
        self._witness(Answered(name, inputs, by, done, shapes, plain))
        response = _response(name, by, _named_as(now.process.outputs, by.process.outputs), asked, done)
        if plain and by is now and self._lendable(name, now) and lending.has_form(asked, by.process):
            assert asked.text is not None, "what has a form has a text"
            return response._replace(alike=asked.text, lend=self._lend(name, now, asked, done))
        return response

    def _lendable(self, name: str, now: Serving) -> bool:
        """Whether connections of this model's applications may be lent to what serves it."""
        serving = self._serving(name)
        return (
            serving is not None
            and serving.process is now.process
            and self._turns(name) is None
            and self._may_lend(name, now)
        )

    def _lend(self, name: str, now: Serving, asked: inference.InferRequest, done: Inference) -> Lend:
        def lend(connection: socket.socket, said: bytes) -> Back:
            form = lending.form_of(said, _header(name, now, asked, done), asked, now.process, done)
            try:
                return now.process.lend(connection, form, lambda: self._lendable(name, now))
            except Lost as lost:
                raise Lost(f"model '{name}' has no variant that can answer: {now.process.failure or lost}") from None

        return lend

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


_PATHS: dict[str, Callable[[Answers], Response]] = {
    "/v2": Answers._metadata,
    "/v2/health/live": Answers._live,
    "/v2/health/ready": Answers._ready,
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
    header = _header(name, by, asked, done)
    wanted = inference.wanted_outputs(asked, outputs)
    try:
        text, binary = inference.response_parts(header, outputs, done.outputs, wanted, done.shapes)
    except ValueError:
        raise _Refused(500, "the variant's answer holds NaN or an infinity, which JSON cannot say") from None
    if not binary:
        return Response(200, (text,))
    field = (inference.LENGTH_FIELD, str(len(text)))
    return Response(200, (text, *binary), inference.BINARY, (field,))


def _header(name: str, by: Serving, asked: inference.InferRequest, done: Inference) -> dict[str, Any]:
    """What stands in an answer beside its outputs."""
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
    return header
